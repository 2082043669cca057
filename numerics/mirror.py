"""A feedback matrix of its own that is used in both directions, as rules need that learn from Bᵀφ.

V comes down as V p for the backward directions p, and goes up as Vᵀ q for the forward directions q. Each image is conditioned on those of
the other direction, exactly as for the forward weights (see `random_matrix.py`):

    Vᵀ q = ξ + P (⟨Y q⟩ − ⟨P ξ⟩),   Y = V P.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import Basis, Extension, bracket, combine, pad


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mirror:
    """What V is beyond its backward innovations.

    Attributes:
        Xi: innovations of Vᵀ q, one for each row of Q.
        A, B: what conditioning adds to Vᵀ q along P, and to V p along Q.
    """

    Xi: Float[Array, "r S"]
    A: Float[Array, "r q"]
    B: Float[Array, "r q"]

    @staticmethod
    def empty(like: Float[Array, "r S"], small: Float[Array, "r q"]) -> Mirror:
        """Before anything was met."""
        return Mirror(jnp.zeros_like(like), jnp.zeros_like(small), jnp.zeros_like(small))

    def padded(self, r: int, q: int) -> Mirror:
        """Room for r forward and q backward directions."""
        return Mirror(pad(self.Xi, r), pad(self.A, r, q), pad(self.B, r, q))

    def met_forward(self, new: Extension, V: Float[Array, "q S"], P: Basis) -> Mirror:
        """Condition Vᵀ q for new rows q of Q."""

        def response():
            known = bracket(new.rows, V) - bracket(new.pending(self.Xi), P.rows)
            return known * P.used() * new.keep[:, None]

        nothing = lambda: jnp.zeros((new.rows.shape[0], V.shape[0]), self.A.dtype)
        return replace(self, A=new.write_rows(self.A, jax.lax.cond(jnp.any(new.keep), response, nothing)))

    def met_backward(self, new: Extension, V: Float[Array, "q S"], Q: Basis) -> Mirror:
        """Condition V p for new rows p of P."""

        def response():
            known = bracket(self.Xi, new.rows) - bracket(Q.rows, new.pending(V))
            return known * Q.used()[:, None] * new.keep

        nothing = lambda: jnp.zeros((Q.rows.shape[0], new.rows.shape[0]), self.B.dtype)
        return replace(self, B=new.write_columns(self.B, jax.lax.cond(jnp.any(new.keep), response, nothing)))

    def up(self, c: Float[Array, "P r"], P: Basis) -> Float[Array, "P S"]:
        """Vᵀ (c Q)."""
        return combine(c, self.Xi) + combine(c @ self.A, P.rows)
