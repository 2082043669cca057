"""Weight matrices of a network of finite width, with the methods of `protocol.WeightMatrix`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .any_width import InputWeights, KeptWhole, ReadoutVector
from .protocol import Carried, Plasticity, per_example


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseInput(InputWeights, KeptWhole):
    """The first weights: W⁰x/√D."""

    W: Float[Array, "N D"]
    inputs: Float[Array, "P D"]

    def forward(self, v: None = None) -> tuple[DenseInput, Float[Array, "P N"]]:
        """W x/√D."""
        return self, self.probe(self.inputs)

    def transpose(self, g: Float[Array, "P N"], g_tilde: Float[Array, "P N"], outer: Any = None, above: Any = None) -> tuple[DenseInput, None]:
        """Nothing lies below the inputs."""
        return self, None

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P N"], v: None = None) -> DenseInput:
        """W += Σ_ν rates_ν g̃_ν x_νᵀ/√D."""
        return replace(self, W=self.W + _product(_weighted(rates, g_tilde, self.inputs), self.inputs) / jnp.sqrt(self.inputs.shape[1]))

    def probe(self, inputs: Float[Array, "K D"]) -> Float[Array, "K N"]:
        """W x/√D of any inputs."""
        return _product(inputs, self.W.T) / jnp.sqrt(inputs.shape[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseMatrix(KeptWhole):
    """A hidden matrix, all entries kept; W(0), V and learning feedback weights B (in the shape of W) only where the rule uses them."""

    W: Float[Array, "N N"]
    W0: Float[Array, "N N"] | None
    V: Float[Array, "N N"] | None
    B: Float[Array, "N N"] | None = None

    def forward(self, v: Float[Array, "P N"]) -> tuple[DenseMatrix, Float[Array, "P N"]]:
        """W v/√N."""
        return self, self.probe(v)

    def mirror(self, v: Float[Array, "P N"]) -> tuple[DenseMatrix, Float[Array, "P N"]]:
        """Bᵀ v/√N."""
        assert self.B is not None
        return self, _product(v, self.B.T) / jnp.sqrt(v.shape[1])

    def transpose(
        self, g: Float[Array, "P N"], g_tilde: Float[Array, "P N"], outer: Any = None, above: Any = None
    ) -> tuple[DenseMatrix, Carried]:
        """Wᵀ g/√N and the feedback fields of g̃."""
        down = lambda matrix, field: _product(field, matrix) / jnp.sqrt(matrix.shape[0])
        true = down(self.W, g)
        transported = true if g is g_tilde else down(self.W, g_tilde)
        feedback = (None if matrix is None else down(matrix, g_tilde) for matrix in (self.W0, self.V, self.B))
        return self, Carried(true, transported, *feedback)

    def with_feedback(self, initial: Float[Array, ""], independent: Float[Array, ""]) -> DenseMatrix:
        """B(0), in place of W(0) and V."""
        return replace(self, W0=None, V=None, B=initial * self.W + (0.0 if self.V is None else independent * self.V))

    def evolve(
        self, before: DenseMatrix, rates: Plasticity, outer: Float[Array, "P N"] | None, v: Float[Array, "P N"],
        above: Float[Array, "P N"] | None = None,
    ) -> DenseMatrix:  # fmt: skip
        """B ← (1 − decay) B + pull W + copy ΔW + Σ_ν (outer_ν v_νᵀ − null h_ν ψ_νᵀ)/(P√N), ψ = Bᵀ h/√N."""
        assert self.B is not None
        B, scale = rates.update(self.B, before.W, self.W), v.shape[0] * jnp.sqrt(v.shape[1])
        if outer is not None:
            B = B + _product(outer.T, v) / scale
        if above is not None:
            B = B - rates.null * _product(above.T, _product(above, self.B) / jnp.sqrt(v.shape[1])) / scale
        return replace(self, B=B)

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P N"], v: Float[Array, "P N"]) -> DenseMatrix:
        """W += Σ_ν rates_ν g̃_ν v_νᵀ/√N."""
        return replace(self, W=self.W + _product(_weighted(rates, g_tilde, v), v) / jnp.sqrt(v.shape[1]))

    def probe(self, v: Float[Array, "K N"]) -> Float[Array, "K N"]:
        """W v/√N."""
        return _product(v, self.W.T) / jnp.sqrt(v.shape[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseReadout(ReadoutVector):
    """The readout vector."""

    w: Float[Array, "1 N"]
    w0: Float[Array, "1 N"]
    v: Float[Array, "1 N"] | None
    b: Float[Array, "1 N"] | None = None

    def forward(self, v: Float[Array, "P N"]) -> tuple[DenseReadout, Float[Array, "P"]]:
        """w·v/N."""
        return self, self.probe(v)

    def mirror(self, v: Float[Array, "P N"]) -> tuple[DenseReadout, Float[Array, "P"]]:
        """b·v/N."""
        assert self.b is not None
        return self, _product(v, self.b.T)[:, 0] / v.shape[1]

    def probe(self, v: Float[Array, "K N"]) -> Float[Array, "K"]:
        """w·v/N."""
        found = _product(v, self.w.T) / v.shape[1]
        return found[:, 0] if len(self.w) == 1 else found


def _weighted(rates: Float[Array, "PC"], fields: Float[Array, "PC N"], v: Float[Array, "P n"]) -> Float[Array, "N P"]:
    """Fields times rates, summed over the outputs of an example."""
    return fields.T * rates if len(fields) == len(v) else per_example(rates, fields, len(v)).T


def _product(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    return jnp.matmul(a, b, precision="highest")
