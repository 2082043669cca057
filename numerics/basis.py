"""Orthonormal bases of single-site fields under ⟨ab⟩ = (1/S) Σ_i a_i b_i, extended as new vectors come.

Arrays are static: a basis has capacity for r rows, and rows beyond `size` are zero. Fields lie along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .rows import Rows, bracket, combine, pad, wide


def batches(block: int) -> tuple[int, int]:
    """Into how many batches the new directions of a block of vectors are cut, and how many are in one.

    Mostly few are new. The last batch is multiplied with the basis together with the next block: XLA's CPU product likes 8 or 16 rows.
    """
    each = min(block, max(2, min(16, 2 ** block.bit_length() - block)))
    return -(-block // each), each


def room_for(block: int) -> int:
    """Rows that must be free before a block is taken in."""
    count, each = batches(block)
    return count * each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Extension:
    """Rows that come to a basis, zero where `keep` is false, from row `at` on."""

    rows: Float[Array, "b S"]
    keep: Bool[Array, "b"]
    at: Int[Array, ""]

    def rows_of(self, array: Float[Array, "r n"]) -> Float[Array, "b n"]:
        """The rows of an array that belong to these."""
        return jax.lax.dynamic_slice_in_dim(array, self.at, len(self.keep))

    def columns_of(self, array: Float[Array, "n r"]) -> Float[Array, "n b"]:
        """The columns of an array that belong to these."""
        return jax.lax.dynamic_slice_in_dim(array, self.at, len(self.keep), axis=1)

    def write_rows(self, array: Float[Array, "r n"], rows: Float[Array, "b n"]) -> Float[Array, "r n"]:
        """Put rows in their place."""
        return jax.lax.dynamic_update_slice_in_dim(array, rows, self.at, axis=0)

    def write_columns(self, array: Float[Array, "n r"], columns: Float[Array, "n b"]) -> Float[Array, "n r"]:
        """Put columns in their place."""
        return jax.lax.dynamic_update_slice_in_dim(array, columns, self.at, axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Basis:
    """Vectors Q = (1 + E) R with ⟨Q Qᵀ⟩ = 1.

    The rows R are orthonormal but for what a single projection leaves, which is round-off over the root of the tolerance. E, lower triangular,
    takes that away. It needs the averages of new rows with all others, which come for free with the next block of vectors; until then the
    newest rows stand for themselves. Without E, in single precision and even in double, a new direction would inherit the old ones' deviation
    from orthogonality, enlarged by 1/√tol each time.

    Attributes:
        rows: R, zero beyond `size`.
        size: how many there are, n ≤ r.
        E: small, so that single precision is enough whatever the fields have.
        newest: the rows that came last.
        dropped: the largest share of a vector's energy that was below the tolerance, over all extensions.
    """

    rows: Rows
    size: Int[Array, ""]
    E: Float[Array, "r r"]
    newest: Extension
    dropped: Float[Array, ""]

    @staticmethod
    def empty(capacity: int, samples: int, dtype: jnp.dtype, block: int, each: int | None = None) -> Basis:
        """No vectors yet, room for `capacity`, in segments of `each`; blocks of at most `block` vectors will be taken in."""
        number, batch = lambda: jnp.zeros((), jnp.int32), batches(block)[1]
        newest = Extension(jnp.zeros((batch, samples), dtype), jnp.zeros(batch, bool), number())
        return Basis(Rows.zeros(capacity, samples, dtype, each), number(), jnp.zeros((capacity, capacity), jnp.float32), newest, jnp.zeros((), wide()))

    def padded(self, capacity: int) -> Basis:
        """The same with room for more."""
        return replace(self, rows=self.rows.padded(capacity), E=pad(self.E, capacity, capacity))

    def coefficients(self, v: Float[Array, "n S"]) -> Float[Array, "n r"]:
        """⟨v Qᵀ⟩."""
        return self._on_vectors(self.rows.bracket(v, self.size))

    def combine(self, c: Float[Array, "n r"]) -> Float[Array, "n S"]:
        """c Q."""
        return self.rows.combine(self._on_rows(c), self.size)

    def _on_vectors(self, averages: Float[Array, "n r"]) -> Float[Array, "n r"]:
        """⟨v Qᵀ⟩ from ⟨v Rᵀ⟩."""
        # the small factor is transposed, not E
        return averages + (self.E @ averages.T.astype(self.E.dtype)).T

    def _on_rows(self, c: Float[Array, "n r"]) -> Float[Array, "n r"]:
        """The coefficients of R in c Q."""
        return c + c.astype(self.E.dtype) @ self.E

    def used(self) -> Bool[Array, "r"]:
        """Which rows hold a vector."""
        return jnp.arange(len(self.rows)) < self.size

    def deviation(self) -> float:
        """max |⟨Q Qᵀ⟩ − 1| over the vectors before the newest."""
        n = int(self.newest.at)
        E, gram = np.asarray(self.E)[:n, :n], self.rows.gram(n)
        more = E @ gram.astype(E.dtype)
        return float(np.max(np.abs(gram - np.eye(n) + more + more.T + more @ E.T), initial=0.0))

    def extend(
        self, v: Float[Array, "B S"], tol: Float[Array, ""], notes: Any = None, met: Callable[[Any, Extension], Any] | None = None
    ) -> tuple[Basis, Float[Array, "B r"], Any]:
        """Coefficients of v, after taking in what is new in it.

        Block Gram–Schmidt. The eigenvectors of the residuals' Gram matrix tell which directions are new: those whose energy is at most `tol`
        times that of the largest row of v are dropped. `room_for(B)` free rows are the caller's duty.

        Args:
            v: block of vectors.
            tol: relative energy.
            notes, met: what is known about the rows, and what to make of it when more come, a batch at a time.

        Returns:
            The extended basis, coefficients c with v ≈ c Q, and the notes.

        Source: THEORY section 5.
        """
        each = len(self.newest.keep)
        count = -(-len(v) // each)
        averages = self.rows.bracket(jnp.concatenate([v, self.newest.rows]), self.size)
        start = self._settled(averages[len(v) :])
        known, gram = start._on_vectors(averages[: len(v)]), bracket(v, v)
        # of a Gram matrix the largest entry is on the diagonal
        scale = jnp.maximum(jnp.max(gram), jnp.finfo(v.dtype).tiny)
        # ⟨r rᵀ⟩ = ⟨v vᵀ⟩ − c cᵀ tells without touching the residuals whether there is anything new: no direction has more than the trace
        rest = (jnp.sum(_diagonal(gram)) - jnp.sum(known * known)) / scale
        nothing = lambda: (jnp.zeros_like(v), jnp.zeros_like(gram), jnp.zeros(len(v), bool), jnp.maximum(rest, 0.0))
        residuals, axes, keep, lost = jax.lax.cond(rest > tol, lambda: _directions(v - start.combine(known), tol, scale), nothing)
        axes, keep = jnp.pad(axes, ((0, count * each - len(v)), (0, 0))), jnp.pad(keep, (0, count * each - len(v)))

        there = jnp.sum(keep, dtype=jnp.int32)

        def take(carry):
            done, basis, c, notes = carry
            batch, kept = (jax.lax.dynamic_slice_in_dim(x, done, each) for x in (axes, keep))
            basis, new = basis._with(combine(batch, residuals), kept)
            c = new.write_columns(c, bracket(v, new.rows))
            # only the last batch waits for the next block
            more = done + each < there
            averages = basis.rows.bracket(new.rows, jnp.where(more, basis.size, 0), maybe=True)
            basis = replace(basis, E=jnp.where(more, basis._settled(averages).E, basis.E))
            return done + each, basis, c, notes if met is None else met(notes, new)

        start = replace(start, dropped=jnp.maximum(self.dropped, lost))
        _, basis, c, notes = jax.lax.while_loop(lambda carry: carry[0] < there, take, (jnp.int32(0), start, known, notes))
        return basis, c, notes

    def _settled(self, averages: Float[Array, "b r"]) -> Basis:
        """The same when ⟨newest Rᵀ⟩ is known: 1 + E = (1 − ⟨…⟩)^{-1/2} (1 − projection on the others) on the newest."""
        new = self.newest
        along = self._on_vectors(averages) * (jnp.arange(len(self.E)) < new.at)
        root = _inverse_root(new.columns_of(averages) - along @ along.T, new.keep)
        own = new.write_columns(jnp.zeros_like(along), root - jnp.eye(len(root), dtype=root.dtype))
        E = (own - root @ self._on_rows(along)).astype(self.E.dtype)
        return replace(self, E=new.write_rows(self.E, jnp.where(new.keep[:, None], E, new.rows_of(self.E))))

    def _with(self, residuals: Float[Array, "b S"], keep: Bool[Array, "b"]) -> tuple[Basis, Extension]:
        """The basis with residuals of unit energy, up to round-off, as new rows."""
        energy = jnp.sum(_diagonal(bracket(residuals, residuals)), axis=1)
        keep = keep & (energy > 0.5)  # others were round-off
        size = jnp.where(keep, 1.0 / jnp.sqrt(jnp.where(keep, energy, 1.0)), 0.0).astype(residuals.dtype)
        new = Extension(residuals * size[:, None], keep, self.size)
        size = self.size + jnp.max(jnp.where(keep, jnp.arange(1, len(keep) + 1, dtype=jnp.int32), 0))
        return replace(self, rows=self.rows.put(new.rows, self.size), size=size, newest=new), new


def _directions(residuals: Float[Array, "B S"], tol, scale):
    """The residuals, combinations of them that are unit vectors, largest energy first, which of these count, and the largest share of energy
    of those that do not."""
    energy, axes = jnp.linalg.eigh(bracket(residuals, residuals))
    energy, axes = energy[::-1], _fix_signs(axes[:, ::-1])
    keep = energy > tol * scale
    lost = jnp.max(jnp.where(keep, 0.0, jnp.maximum(energy, 0.0))) / scale
    return residuals, axes.T / jnp.sqrt(jnp.where(keep, energy, 1.0))[:, None] * keep[:, None], keep, lost


def _inverse_root(gram: Float[Array, "b b"], keep: Bool[Array, "b"]) -> Float[Array, "b b"]:
    """gram^{-1/2} of the rows that count, which are nearly orthonormal; one on the others."""
    values, axes = jnp.linalg.eigh(jnp.where(keep[:, None] & keep, gram, jnp.eye(len(gram), dtype=gram.dtype)))
    # what depends on other rows, as only round-off can, stays short
    # a sum is compiled, and called, in half the time of a product
    return jnp.sum((axes / jnp.sqrt(jnp.maximum(values, 0.25)))[:, None] * axes, axis=2)


def _fix_signs(axes: Float[Array, "B B"]) -> Float[Array, "B B"]:
    """Columns with their largest entry positive, so that neither the order of examples nor the linear algebra library decides signs."""
    return axes * jnp.where(jnp.max(axes, axis=0) < -jnp.min(axes, axis=0), -1.0, 1.0).astype(axes.dtype)


def _diagonal(square: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """With zeros off the diagonal: one operation for the compiler, where taking the entries out is five."""
    return jnp.where(jnp.eye(len(square), dtype=bool), square, 0.0)
