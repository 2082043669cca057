"""What lies at the ends of a network of infinite width: the input weights, the readout, and the spans of gradient fields.

Neither end is a random matrix that must be conditioned: the inputs' span is known from the start, and the readout is one vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .any_width import InputWeights, ReadoutVector
from .basis import Basis, Extension
from .protocol import per_example
from .rows import bracket, combine, pad


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BackwardSpan:
    """The gradient fields g and g̃ that one layer has seen, in one basis.

    Attributes:
        basis: rows P.
        g, g_tilde: coefficients of the current fields; one array where g̃ = g.
        outer: coefficients of what the feedback weights learn from; None without such.
        above: coefficients of the preactivations whose reconstructions they unlearn; None without such.
        tol: relative energy below which directions are dropped.
        same: whether g̃ = g.
    """

    basis: Basis
    g: Float[Array, "P r"]
    g_tilde: Float[Array, "P r"]
    tol: Float[Array, ""]
    same: bool = field(metadata={"static": True})
    outer: Float[Array, "P r"] | None = None
    above: Float[Array, "P r"] | None = None

    def take(
        self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"], outer: Float[Array, "P S"] | None = None,
        above: Float[Array, "P S"] | None = None, notes: Any = None, met: Callable[[Any, Extension], Any] | None = None,
    ) -> tuple[BackwardSpan, Any]:  # fmt: skip
        """Extend the basis by the current fields and keep their coefficients; `notes` and `met` as in `Basis.extend`."""
        fields = {"g_tilde": None if self.same else g_tilde, "outer": outer, "above": above, "g": g}
        present = {name: field for name, field in fields.items() if field is not None}
        basis, d, notes = self.basis.extend(jnp.concatenate(list(present.values())), self.tol, notes, met)
        found = dict(zip(present, jnp.split(d, len(present)), strict=True))
        g_tilde_now = found.get("g_tilde", found["g"])
        span = replace(self, basis=basis, g=found["g"], g_tilde=g_tilde_now, outer=found.get("outer"), above=found.get("above"))
        return span, notes

    def padded(self, capacity: int) -> BackwardSpan:
        """The same with room for more."""
        return replace(
            self,
            basis=self.basis.padded(capacity),
            g=pad(self.g, columns=capacity),
            g_tilde=pad(self.g_tilde, columns=capacity),
            outer=None if self.outer is None else pad(self.outer, columns=capacity),
            above=None if self.above is None else pad(self.above, columns=capacity),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyInput(InputWeights):
    """The first weights on the span of the inputs: h¹ = C·(images), C Cᵀ = K^x, images learned in place.

    Attributes:
        inputs: Cᵀ, what learning from each example adds to the images; K^x where these are the examples' own, h¹ itself.
        coordinates: C; None where the images are h¹.
        images: W⁰ on the span, what was learned included.
        span: gradient fields of layer 1, kept for their kernels only; None where these come from elsewhere.
        scale: what weight decay has left of W⁰; None without decay.
    """

    inputs: Float[Array, "r0 P"]
    coordinates: Float[Array, "P r0"] | None
    images: Float[Array, "r0 S"]
    span: BackwardSpan | None
    scale: Float[Array, ""] | None = None

    def forward(self, v: None = None) -> tuple[LazyInput, Float[Array, "P S"]]:
        """h¹ before scale and bias."""
        return self, self.images if self.coordinates is None else combine(self.coordinates, self.images)

    def transpose(
        self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"], outer: Any = None, above: Any = None
    ) -> tuple[LazyInput, None]:
        """Nothing lies below the inputs: the fields are only recorded."""
        return (self if self.span is None else replace(self, span=self.span.take(g, g_tilde)[0])), None

    @property
    def trained(self) -> Any:
        """Images on the span, and the scale beyond."""
        return self.images, self.scale

    def with_trained(self, values: Any) -> LazyInput:
        """Other values of these."""
        return replace(self, images=values[0], scale=values[1])

    def decaying(self) -> LazyInput:
        """W⁰ beyond the span of the inputs decays too."""
        return replace(self, scale=jnp.ones((), self.images.dtype))

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P S"], v: None = None) -> LazyInput:
        """W += Σ_ν rates_ν g̃_ν x_νᵀ in the coordinates of the span."""
        P = self.inputs.shape[1]
        if len(g_tilde) == P:
            return replace(self, images=self.images + combine(self.inputs * rates, g_tilde))
        return replace(self, images=self.images + combine(self.inputs, per_example(rates, g_tilde, P)))

    def probe(self, coordinates: Float[Array, "K r0"], beyond: Float[Array, "K"], xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """Images of further inputs: coordinates on the span, and the norm of what lies beyond it along fresh normals."""
        return combine(coordinates, self.images) + scaled(self.scale, beyond)[:, None] * xi


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyReadout(ReadoutVector):
    """The readout: w is one vector, known from the start; the basis of the last features is kept for their kernel only, or not at all."""

    w: Float[Array, "1 S"]
    w0: Float[Array, "1 S"]
    v: Float[Array, "1 S"] | None
    basis: Basis | None
    a: Float[Array, "P r"] | None
    tol: Float[Array, ""]
    b: Float[Array, "1 S"] | None = None

    def forward(self, v: Float[Array, "P S"]) -> tuple[LazyReadout, Float[Array, "P"]]:
        """⟨w φ⟩."""
        if self.basis is None:
            return self, self.probe(v)
        basis, c, _ = self.basis.extend(v, self.tol)
        return replace(self, basis=basis, a=c), self.probe(v)

    def mirror(self, v: Float[Array, "P S"]) -> tuple[LazyReadout, Float[Array, "P"]]:
        """⟨b φ⟩."""
        assert self.b is not None
        return self, _averages(v, self.b)

    def probe(self, v: Float[Array, "K S"]) -> Float[Array, "K"]:
        """⟨w v⟩ for vectors that leave no trace."""
        return _averages(v, self.w)

    def probe_untrained(self, start: Float[Array, "K S"]) -> Float[Array, "K *C"]:
        """⟨w(0) start⟩."""
        return _averages(start, self.w0)

    def probe_twice(self, v: Float[Array, "K S"], start: Float[Array, "K S"]) -> tuple[Float[Array, "K"], Float[Array, "K"]]:
        """⟨w v⟩, and ⟨w(0) start⟩."""
        return self.probe(v), self.probe_untrained(start)


def _averages(v: Float[Array, "K S"], w: Float[Array, "C S"]) -> Float[Array, "K *C"]:
    """⟨v w⟩ for every pair of rows, as a product, which is far cheaper than a sum of v w; without C where it is one."""
    found = bracket(v, w).astype(v.dtype)
    return found[:, 0] if len(w) == 1 else found


def scaled(scale: Float[Array, ""] | None, array: Array) -> Array:
    """k times an array; the array itself where nothing decays."""
    return array if scale is None else scale * array
