"""Orthonormal bases of single-site fields under ⟨ab⟩ = (1/S) Σ_i a_i b_i, extended as new vectors come.

Arrays are static: a basis has capacity for r rows, rows beyond `size` are zero and products run over all of them. Fields lie along the
last axis, so that a basis is an (r, S) array with contiguous rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def bracket(a: Float[Array, "n S"], b: Float[Array, "k S"]) -> Float[Array, "n k"]:
    """⟨a bᵀ⟩ = (1/S) Σ_i a_i b_i for all pairs of rows."""
    return jnp.matmul(a, b.T, precision="highest") / a.shape[-1]


def combine(c: Float[Array, "n r"], rows: Float[Array, "r S"]) -> Float[Array, "n S"]:
    """Σ_k c_k rows_k."""
    return jnp.matmul(c, rows, precision="highest")


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
        return Basis(jnp.zeros((capacity, samples), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), dtype))

    def padded(self, capacity: int) -> Basis:
        """The same with room for more."""
        return Basis(pad_rows(self.rows, capacity), self.size, self.dropped)

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
        residual = v - combine(c, self.rows)
        energy, axes = jnp.linalg.eigh(bracket(residual, residual))
        energy, axes = energy[::-1], _fix_signs(axes[:, ::-1])
        scale = jnp.maximum(jnp.max(jnp.mean(v * v, axis=1)), jnp.finfo(v.dtype).tiny)
        keep = energy > tol * scale
        rows = jax.lax.cond(jnp.any(keep), lambda: self._orthonormal(residual, energy, axes, keep), lambda: jnp.zeros_like(v))
        at = self.size
        zero = jnp.zeros((), at.dtype)
        lost = jnp.max(jnp.where(keep, 0.0, jnp.maximum(energy, 0.0))) / scale
        basis = Basis(
            jax.lax.dynamic_update_slice(self.rows, rows, (at, zero)),
            at + jnp.sum(keep, dtype=at.dtype),
            jnp.maximum(self.dropped, lost.astype(self.dropped.dtype)),
        )
        return basis, jax.lax.dynamic_update_slice(c, bracket(v, rows), (zero, at)), Extension(rows, keep, at)

    def _orthonormal(self, residual, energy, axes, keep):
        rows = combine(axes.T / jnp.sqrt(jnp.where(keep, energy, 1.0))[:, None], residual) * keep[:, None]
        # Small residuals are what is left of a cancellation: project again, then (⟨rows rowsᵀ⟩)^{-1/2}.
        rows = rows - combine(bracket(rows, self.rows), self.rows)
        values, vectors = jnp.linalg.eigh(bracket(rows, rows) + jnp.diag(jnp.where(keep, 0.0, 1.0).astype(rows.dtype)))
        return combine((vectors / jnp.sqrt(values)) @ vectors.T, rows) * keep[:, None]


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

    def write(self, images: Float[Array, "r S"], rows: Float[Array, "B S"]) -> Float[Array, "r S"]:
        """Put rows in their place."""
        return jax.lax.dynamic_update_slice_in_dim(images, rows, self.at, axis=0)


def _fix_signs(axes: Float[Array, "B B"]) -> Float[Array, "B B"]:
    """Columns with their largest entry positive, so that neither the order of examples nor the linear algebra library decides signs."""
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=0)[None], axis=0)
    return axes * jnp.where(largest < 0, -1.0, 1.0).astype(axes.dtype)


def pad_rows(array: Float[Array, "r S"], capacity: int) -> Float[Array, "r2 S"]:
    """Zero rows up to `capacity`."""
    return jnp.pad(array, ((0, capacity - array.shape[0]), (0, 0)))


def pad_columns(array: Float[Array, "P r"], capacity: int) -> Float[Array, "P r2"]:
    """Zero columns up to `capacity`."""
    return jnp.pad(array, ((0, 0), (0, capacity - array.shape[1])))
