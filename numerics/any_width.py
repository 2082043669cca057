"""What weights have in common at all widths; `dense.py` and `ends.py` add how they multiply fields of all neurons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from .protocol import Carried, Plasticity
from .rows import combine


class InputWeights:
    """What the first weights have in common at all widths: no feedback comes down to the inputs."""

    def with_feedback(self, initial: Float[Array, ""], independent: Float[Array, ""]) -> Self:
        """Nothing to add."""
        return self

    def evolve(self, before: Self, rates: Plasticity, outer: None, v: None, above: None = None) -> Self:
        """Nothing to learn."""
        return self


class KeptWhole:
    """A matrix of which all entries W are kept: all of them are trained, and decay as they are."""

    W: Any

    @property
    def trained(self) -> Any:
        """The weights."""
        return self.W

    def with_trained(self, values: Any) -> Self:
        """Other values of these."""
        return replace(self, W=values)  # type: ignore[type-var]

    def decaying(self) -> Self:
        """Nothing else to keep."""
        return self


class ReadoutVector:
    """What the readout has in common at all widths: it is one vector w for each output, known from the start, and so is its feedback b.

    How it is multiplied with fields of all neurons is up to the width: `probe`, `mirror`, and `forward`, which may note what it has met.
    """

    w: Any
    w0: Any
    v: Any
    b: Any

    def transpose(self, g: None, g_tilde: None, outer: None = None, above: None = None) -> tuple[Self, Carried]:
        """g^{L+1} = 1: the fields are the vectors themselves."""
        return self, Carried(self.w, self.w, self.w0, self.v, self.b)

    def with_feedback(self, initial: Float[Array, ""], independent: Float[Array, ""]) -> Self:
        """b(0) = initial w + independent v."""
        return replace(self, b=initial * self.w + (0.0 if self.v is None else independent * self.v))  # type: ignore[type-var]

    def evolve(
        self, before: Self, rates: Plasticity, outer: Float[Array, "P"] | None, v: Float[Array, "P N"],
        above: Float[Array, "P"] | None = None,
    ) -> Self:  # fmt: skip
        """b ← (1 − decay) b + pull w + copy Δw + (1/P) Σ_ν (outer_ν v_ν − null h_ν² b)."""
        assert self.b is not None
        b = rates.update(self.b, before.w, self.w)
        b = b if above is None else b - rates.null * jnp.mean(above**2) * self.b
        return replace(self, b=b if outer is None else b + combine(outer[None], v) / v.shape[0])  # type: ignore[type-var]

    @property
    def trained(self) -> Any:
        """The weights."""
        return self.w

    def with_trained(self, values: Any) -> Self:
        """Other values of these."""
        return replace(self, w=values)  # type: ignore[type-var]

    def decaying(self) -> Self:
        """The whole vector is known: nothing else to keep."""
        return self

    def learn(self, rates: Float[Array, "P"], g_tilde: None, v: Float[Array, "P N"]) -> Self:
        """w += Σ_ν rates_ν v_ν."""
        return replace(self, w=self.w + combine(rates.reshape(len(v), -1).T, v))  # type: ignore[type-var]
