"""Orthonormal bases of single-site fields under ⟨ab⟩ = (1/S) Σ_i a_i b_i, extended as new vectors come.

Arrays are static: a basis has capacity for r rows, rows beyond `size` are zero and products run over all of them. Fields lie along the
last axis, so that a basis is an (r, S) array with contiguous rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Samples whose products are summed in single precision before sums go on in double. On a CPU the product itself sums in blocks (error 2e-7 of
# the largest at 2^18 samples), and cutting costs two to four times the product.
PARTS = {"cpu": 2**18}
PART = 2**14


def part() -> int:
    """The largest number of samples of one part."""
    return PARTS.get(jax.default_backend(), PART)


def wide() -> jnp.dtype:
    """The floating-point type of small matrices: double precision where JAX has it, whatever the fields have."""
    return jnp.result_type(float)


def bracket(a: Float[Array, "n S"], b: Float[Array, "k S"]) -> Float[Array, "n k"]:
    """⟨a bᵀ⟩ = (1/S) Σ_i a_i b_i for all pairs of rows, in the `wide` type."""
    # The larger factor first: XLA's CPU product is several times slower the other way round.
    if a.shape[0] < b.shape[0]:
        return bracket(b, a).T
    S, parts = a.shape[-1], 1 if a.dtype == wide() else _parts(a.shape[-1])
    if parts == 1:
        return jnp.matmul(a, b.T, precision="highest").astype(wide()) / S
    cut = lambda x: x.reshape(len(x), parts, S // parts)
    return jnp.sum(jnp.einsum("npi,kpi->pnk", cut(a), cut(b), precision="highest"), axis=0, dtype=wide()) / S


def _parts(samples: int) -> int:
    """Number of equal parts with at most `part()` samples each; a multiple of eight where possible, so that devices keep their samples."""
    if samples <= part():
        return 1
    least = -(-samples // part())
    candidates = (*range(-(-least // 8) * 8, 8 * least + 8, 8), *range(least, 8 * least))
    return next((count for count in candidates if samples % count == 0), 1)


def average(a: Float[Array, "n S"], b: Float[Array, "#n S"]) -> Float[Array, "n"]:
    """⟨a b⟩ row by row, summed in the `wide` type."""
    return (jnp.sum(a * b, axis=1, dtype=wide()) / a.shape[-1]).astype(a.dtype)


def combine(c: Float[Array, "n r"], rows: Float[Array, "r S"]) -> Float[Array, "n S"]:
    """Σ_k c_k rows_k, in the type of the rows."""
    # A transposition folded into the product would take XLA's CPU product off its fast path.
    return jnp.matmul(jax.lax.optimization_barrier(c.astype(rows.dtype)), rows, precision="highest")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Basis:
    """Rows Q with ⟨Q Qᵀ⟩ = 1, rows beyond `size` zero.

    Attributes:
        rows: the vectors.
        size: how many there are, n ≤ r.
        dropped: the largest share of a vector's energy that was below the tolerance, over all extensions.
    """

    rows: Float[Array, "r S"]
    size: Int[Array, ""]
    dropped: Float[Array, ""]

    @staticmethod
    def empty(capacity: int, samples: int, dtype: jnp.dtype) -> Basis:
        """No vectors yet, room for `capacity`."""
        return Basis(jnp.zeros((capacity, samples), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), wide()))

    def padded(self, capacity: int) -> Basis:
        """The same with room for more."""
        return Basis(pad(self.rows, capacity), self.size, self.dropped)

    def extend(self, v: Float[Array, "B S"], tol: Float[Array, ""]) -> tuple[Basis, Float[Array, "B r"], Extension]:
        """Coefficients of v, after taking in what is new in it.

        Block Gram–Schmidt, twice, with a rank-revealing eigendecomposition of the residual Gram matrix in between: directions whose
        energy is at most `tol` times that of the largest row of v are dropped. Room for B more rows is the caller's duty.

        Args:
            v: block of vectors.
            tol: relative energy.

        Returns:
            The extended basis, coefficients c with v ≈ c Q, and the new rows.

        Source: THEORY section 5.
        """
        c = bracket(v, self.rows)
        gram = bracket(v, v)
        scale = jnp.maximum(jnp.max(jnp.diagonal(gram)), jnp.finfo(v.dtype).tiny)
        # ⟨r rᵀ⟩ = ⟨v vᵀ⟩ − c cᵀ tells without touching the residual whether there is anything new: no direction has more than the trace
        rest = jnp.trace(gram - c @ c.T) / scale
        nothing = lambda: (jnp.zeros_like(v), jnp.zeros(v.shape[0], bool), jnp.maximum(rest, 0.0))
        rows, keep, lost = jax.lax.cond(rest > tol, lambda: self._orthonormal(v - combine(c, self.rows), tol, scale), nothing)
        at = self.size
        zero = jnp.zeros((), at.dtype)
        basis = Basis(
            jax.lax.dynamic_update_slice(self.rows, rows, (at, zero)),
            at + jnp.sum(keep, dtype=at.dtype),
            jnp.maximum(self.dropped, lost),
        )
        return basis, jax.lax.dynamic_update_slice(c, bracket(v, rows), (zero, at)), Extension(rows, keep, at)

    def used(self) -> Bool[Array, "r"]:
        """Which rows hold a vector."""
        return jnp.arange(self.rows.shape[0]) < self.size

    def _orthonormal(self, residual, tol, scale):
        """Rows along the residual's principal axes, which of them count, and the largest share of energy that does not."""
        energy, axes = jnp.linalg.eigh(bracket(residual, residual))
        energy, axes = energy[::-1], _fix_signs(axes[:, ::-1])
        keep = energy > tol * scale
        lost = jnp.max(jnp.where(keep, 0.0, jnp.maximum(energy, 0.0))) / scale
        rows = combine(axes.T / jnp.sqrt(jnp.where(keep, energy, 1.0))[:, None], residual) * keep[:, None]
        # Small residuals are what is left of a cancellation: project again, then (⟨rows rowsᵀ⟩)^{-1/2}. Not even in double precision can
        # this be left out: a new direction would inherit the old ones' deviation from orthogonality, enlarged by 1/√tol each time.
        rows = rows - combine(bracket(rows, self.rows), self.rows)
        return combine(_inverse_root(bracket(rows, rows) + jnp.diag(jnp.where(keep, 0.0, 1.0))), rows) * keep[:, None], keep, lost


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Extension:
    """What `Basis.extend` added: rows (zero where `keep` is false), to be written from row `at` on."""

    rows: Float[Array, "B S"]
    keep: Bool[Array, "B"]
    at: Int[Array, ""]

    def pending(self, images: Float[Array, "r S"]) -> Float[Array, "B S"]:
        """The rows of a same-shaped array (images of the basis) that belong to this extension."""
        return jax.lax.dynamic_slice_in_dim(images, self.at, self.keep.shape[0], axis=0)

    def write_rows(self, array: Float[Array, "r n"], rows: Float[Array, "B n"]) -> Float[Array, "r n"]:
        """Put rows in their place."""
        return jax.lax.dynamic_update_slice_in_dim(array, rows, self.at, axis=0)

    def write_columns(self, array: Float[Array, "n r"], columns: Float[Array, "n B"]) -> Float[Array, "n r"]:
        """Put columns in their place."""
        return jax.lax.dynamic_update_slice_in_dim(array, columns, self.at, axis=1)


def _inverse_root(gram: Float[Array, "B B"]) -> Float[Array, "B B"]:
    """gram^{-1/2} of a matrix near unity, by Newton's method: the error e is squared each time, 6e-3 (single precision) at first."""
    found = one = jnp.eye(len(gram), dtype=gram.dtype)
    for _ in range(3):
        found = found @ (1.5 * one - 0.5 * (found @ gram @ found))
    return found


def _fix_signs(axes: Float[Array, "B B"]) -> Float[Array, "B B"]:
    """Columns with their largest entry positive, so that neither the order of examples nor the linear algebra library decides signs."""
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=0)[None], axis=0)
    return axes * jnp.where(largest < 0, -1.0, 1.0).astype(axes.dtype)


def pad(array: Float[Array, "n m"], rows: int | None = None, columns: int | None = None) -> Float[Array, "n2 m2"]:
    """Zeros up to so many rows and columns; None leaves a dimension as it is."""
    n, m = array.shape
    return jnp.pad(array, ((0, (rows or n) - n), (0, (columns or m) - m)))
