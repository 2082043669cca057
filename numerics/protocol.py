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
        evolved: B(t) g̃, with feedback weights that learn.

    Fields that the rule does not use may be None.
    """

    true: Float[Array, "P N"]
    transported: Float[Array, "P N"] | None
    initial: Float[Array, "P N"] | None
    independent: Float[Array, "P N"] | None
    evolved: Float[Array, "P N"] | None = None


def per_example(rates: Float[Array, "PC"], fields: Float[Array, "PC n"], P: int) -> Float[Array, "P n"]:
    """Σ_c rates_μc fields_μc: an update sums over the outputs of an example."""
    return (rates[:, None] * fields).reshape(P, -1, fields.shape[1]).sum(axis=1)


class Plasticity(NamedTuple):
    """Rates of feedback weights that learn: B ← (1 − decay) B + pull W(t)ᵀ + copy ΔWᵀ − null ψ hᵀ + outer products.

    `null` is None for rules without reconstructions ψ = B h.
    """

    decay: Float[Array, ""]
    pull: Float[Array, ""]
    copy: Float[Array, ""]
    null: Any = None

    def update(self, B: Any, W: Any, W_next: Any) -> Any:
        """The part of the update that is linear in the matrices, for any representation of them."""
        return (1.0 - self.decay) * B + self.pull * W + self.copy * (W_next - W)


class WeightMatrix(Protocol):
    """A matrix between two layers. Methods return the matrix as it is afterwards: nothing is changed in place.

    `LazyInput`, `LazyMatrix`, `LazyReadout` have infinite width, `DenseInput`, `DenseMatrix`, `DenseReadout` a finite one.
    """

    def forward(self, v: Any) -> tuple[Self, Float[Array, "P N"]]:
        """W(t) v, rows of v being examples."""
        ...

    def mirror(self, v: Any) -> tuple[Self, Float[Array, "P N"]]:
        """B(t)ᵀ v: the feedback weights used forward, on the v of the last `forward`."""
        ...

    def transpose(self, g: Any, g_tilde: Any, outer: Any = None, above: Any = None) -> tuple[Self, Any]:
        """The fields that g and g̃ become below; `outer` and the preactivations `above` are what the feedback weights will learn from."""
        ...

    def with_feedback(self, initial: Float[Array, ""], independent: Float[Array, ""]) -> Self:
        """The matrix with feedback weights that will learn, at B(0) = initial W(0)ᵀ + independent V."""
        ...

    def evolve(self, before: Self, rates: Plasticity, outer: Any, v: Any, above: Any = None) -> Self:
        """Let the feedback weights learn: self is the matrix after its own update, `before` the one before it.

        Args:
            before: the matrix at time t.
            rates: of the linear part.
            outer: fields of the layer above, whose outer products with v (over the number of examples) are added; None for none.
            v: features of the layer below.
            above: preactivations of the layer above, where reconstructions are unlearned.
        """
        ...

    @property
    def trained(self) -> Any:
        """The arrays that `learn` adds to and decay shrinks; W(t) is linear in them."""
        ...

    def with_trained(self, values: Any) -> Self:
        """The same with these in place of `trained`."""
        ...

    def decaying(self) -> Self:
        """The matrix with room for what weight decay leaves of its random part."""
        ...

    def learn(self, rates: Float[Array, "P"], g_tilde: Any, v: Any) -> Self:
        """W += Σ_ν rates_ν g̃_ν v_νᵀ (over the width), with the g̃ and v of the last `transpose` and `forward`."""
        ...
