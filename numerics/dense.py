"""Weight matrices of a network of finite width, with the methods of `protocol.WeightMatrix`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .protocol import Carried


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseInput:
    """The first weights: W⁰x/√D."""

    W: Float[Array, "N D"]
    inputs: Float[Array, "P D"]

    def forward(self, v: None = None) -> tuple[DenseInput, Float[Array, "P N"]]:
        """W x/√D."""
        return self, self.probe(self.inputs)

    def transpose(self, g: Float[Array, "P N"], g_tilde: Float[Array, "P N"]) -> tuple[DenseInput, None]:
        """Nothing lies below the inputs."""
        return self, None

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P N"], v: None = None) -> DenseInput:
        """W += Σ_ν rates_ν g̃_ν x_νᵀ/√D."""
        return replace(self, W=self.W + _product(g_tilde.T * rates, self.inputs) / jnp.sqrt(self.inputs.shape[1]))

    def probe(self, inputs: Float[Array, "K D"]) -> Float[Array, "K N"]:
        """W x/√D of any inputs."""
        return _product(inputs, self.W.T) / jnp.sqrt(inputs.shape[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseMatrix:
    """A hidden matrix, all entries kept; W(0) and V only where the rule's feedback uses them."""

    W: Float[Array, "N N"]
    W0: Float[Array, "N N"] | None
    V: Float[Array, "N N"] | None

    def forward(self, v: Float[Array, "P N"]) -> tuple[DenseMatrix, Float[Array, "P N"]]:
        """W v/√N."""
        return self, self.probe(v)

    def transpose(self, g: Float[Array, "P N"], g_tilde: Float[Array, "P N"]) -> tuple[DenseMatrix, Carried]:
        """Wᵀ g/√N and the feedback fields of g̃."""
        down = lambda matrix, field: _product(field, matrix) / jnp.sqrt(matrix.shape[0])
        true = down(self.W, g)
        transported = true if g is g_tilde else down(self.W, g_tilde)
        initial = None if self.W0 is None else down(self.W0, g_tilde)
        return self, Carried(true, transported, initial, None if self.V is None else down(self.V, g_tilde))

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P N"], v: Float[Array, "P N"]) -> DenseMatrix:
        """W += Σ_ν rates_ν g̃_ν v_νᵀ/√N."""
        return replace(self, W=self.W + _product(g_tilde.T * rates, v) / jnp.sqrt(v.shape[1]))

    def probe(self, v: Float[Array, "K N"]) -> Float[Array, "K N"]:
        """W v/√N."""
        return _product(v, self.W.T) / jnp.sqrt(v.shape[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseReadout:
    """The readout vector."""

    w: Float[Array, "1 N"]
    w0: Float[Array, "1 N"]
    v: Float[Array, "1 N"] | None

    def forward(self, v: Float[Array, "P N"]) -> tuple[DenseReadout, Float[Array, "P"]]:
        """w·v/N."""
        return self, self.probe(v)

    def transpose(self, g: None, g_tilde: None) -> tuple[DenseReadout, Carried]:
        """g^{L+1} = 1: the fields are the vectors themselves."""
        return self, Carried(self.w, self.w, self.w0, self.v)

    def learn(self, rates: Float[Array, "P"], g_tilde: None, v: Float[Array, "P N"]) -> DenseReadout:
        """w += Σ_ν rates_ν v_ν."""
        return replace(self, w=self.w + _product(rates[None], v))

    def probe(self, v: Float[Array, "K N"]) -> Float[Array, "K"]:
        """w·v/N."""
        return _product(v, self.w.T)[:, 0] / v.shape[1]


def _product(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    return jnp.matmul(a, b, precision="highest")
