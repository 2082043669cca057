"""What a training step asks of a weight matrix, whatever its width."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

from jaxtyping import Array, Float


class Carried(NamedTuple):
    """Fields that came down through one matrix, before scale and coefficients.

    Attributes:
        true: W(t)ᵀ g.
        transported: W(t)ᵀ g̃.
        initial: W(0)ᵀ g̃.
        independent: Vᵀ g̃.

    Fields that the rule does not use may be None.
    """

    true: Float[Array, "P N"]
    transported: Float[Array, "P N"] | None
    initial: Float[Array, "P N"] | None
    independent: Float[Array, "P N"] | None


class WeightMatrix(Protocol):
    """A matrix between two layers. Methods return the matrix as it is afterwards: nothing is changed in place.

    `LazyInput`, `LazyMatrix`, `LazyReadout` have infinite width, `DenseInput`, `DenseMatrix`, `DenseReadout` a finite one.
    """

    def forward(self, v: Any) -> tuple[Self, Float[Array, "P N"]]:
        """W(t) v, rows of v being examples."""
        ...

    def transpose(self, g: Any, g_tilde: Any) -> tuple[Self, Any]:
        """The fields that g and g̃ become below."""
        ...

    def learn(self, rates: Float[Array, "P"], g_tilde: Any, v: Any) -> Self:
        """W += Σ_ν rates_ν g̃_ν v_νᵀ (over the width), with the g̃ and v of the last `transpose` and `forward`."""
        ...
