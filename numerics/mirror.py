"""A feedback matrix of its own that is used in both directions, as rules need that learn from Bᵀφ.

V comes down as V p for the backward directions p, and goes up as Vᵀ q for the forward directions q. Each image is conditioned on those of
the other direction, exactly as for the forward weights (see `random_matrix.py`):

    Vᵀ q = ξ + P (⟨Y q⟩ − ⟨P ξ⟩),   Y = V P.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .basis import Basis, Extension
from .rows import Rows, pad


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Conditioned:
    """What conditioning makes of V and of what it met.

    Attributes:
        A, B: what it adds to Vᵀ q along P, and to V p along Q.
        N, M: ⟨Q Yᵀ⟩ and ⟨Ξ Pᵀ⟩ of the innovations Y of V p and Ξ of Vᵀ q, for all that were supplied.
    """

    A: Float[Array, "r q"]
    B: Float[Array, "r q"]
    N: Float[Array, "r q"]
    M: Float[Array, "r q"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mirror:
    """What V is beyond its backward innovations.

    Attributes:
        Xi: innovations of Vᵀ q, one for each row of Q.
        small: matrices in the two bases.
    """

    Xi: Rows
    small: Conditioned

    @staticmethod
    def empty(Xi: Rows, r: int, q: int, dtype: Any) -> Mirror:
        """Before anything was met."""
        return Mirror(Xi, Conditioned(*(jnp.zeros((r, q), dtype) for _ in range(4))))

    def padded(self, r: int, q: int) -> Mirror:
        """Room for r forward and q backward directions."""
        return Mirror(self.Xi.padded(r), jax.tree.map(lambda matrix: pad(matrix, r, q), self.small))

    def met_forward(self, small: Conditioned, new: Extension, known: Float[Array, "b q"], P: Bool[Array, "q"]) -> Conditioned:
        """Condition Vᵀ q for new rows q of Q, whose averages with the innovations of V are known."""
        response = (known - new.rows_of(small.M)) * P * new.keep[:, None]
        return replace(small, A=new.write_rows(small.A, response), N=new.write_rows(small.N, known))

    def met_backward(self, small: Conditioned, new: Extension, there: Int[Array, ""], Q: Bool[Array, "r"]) -> Conditioned:
        """Condition V p for new rows p of P."""
        drawn = self.Xi.bracket(new.rows, there)
        response = (drawn - new.columns_of(small.N).T) * Q * new.keep[:, None]
        return replace(small, B=new.write_columns(small.B, response.T), M=new.write_columns(small.M, drawn.T))

    def up(self, c: Float[Array, "P r"], Q: Basis, P: Basis) -> Float[Array, "P S"]:
        """Vᵀ (c Q)."""
        return self.Xi.combine(c, Q.size) + P.combine(c @ self.small.A)
