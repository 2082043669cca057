"""The network: a multilayer perceptron in mean-field scaling."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from .activations import Activation, activation
from .errors import BadInput


@dataclass(frozen=True)
class MLP:
    """A fully connected network with `depth` hidden layers.

    h¹ = σ_w W⁰x/√D + σ_b b⁰,  h^{ℓ+1} = σ_w W^ℓ φ(h^ℓ)/√N + σ_b b^ℓ,  f = (σ_w/(γ0 N)) w·φ(h^L) (+ bias); all weights and biases
    start i.i.d. standard normal and are trained.

    Args:
        depth: L ≥ 1, the number of hidden layers.
        activation: φ: a name ("relu", "tanh", "erf", …), an `Activation`, or any SymPy expression in `x`.
        sigma_w, sigma_b: standard deviations of weights and biases, numbers or SymPy symbols.

    Raises:
        BadInput: depth < 1 or not an integer, an activation with undeclared symbols, sigma_w <= 0 or sigma_b < 0.

    Source: Bordelon & Pehlevan 2023, section 2; THEORY section 1.
    """

    depth: int
    activation: Activation
    sigma_w: sp.Expr = sp.S.One
    sigma_b: sp.Expr = sp.S.Zero

    def __init__(self, depth: int = 1, activation: object = "relu", sigma_w: object = 1, sigma_b: object = 0) -> None:
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise BadInput(f"depth={depth!r} is not a number of hidden layers: MLP needs an integer depth >= 1")
        width, bias = sp.nsimplify(sigma_w, rational=True), sp.nsimplify(sigma_b, rational=True)
        if width.is_positive is False or (width.is_number and not width.is_positive):
            raise BadInput(f"sigma_w={sigma_w} cannot be a standard deviation of weights: give sigma_w > 0")
        if bias.is_negative or (bias.is_number and not bias.is_nonnegative):
            raise BadInput(f"sigma_b={sigma_b} cannot be a standard deviation of biases: give sigma_b >= 0")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "activation", _activation(activation))
        object.__setattr__(self, "sigma_w", width)
        object.__setattr__(self, "sigma_b", bias)

    @property
    def size(self) -> str:
        """"1 hidden layer", "2 hidden layers"."""
        return f"{self.depth} hidden layer{'' if self.depth == 1 else 's'}"

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Symbols a numerical evaluation must be given: of the activation, σ_w and σ_b, sorted by name."""
        free = set(self.activation.parameters) | self.sigma_w.free_symbols | self.sigma_b.free_symbols
        return tuple(sorted(free, key=str))


def _activation(value: object) -> Activation:
    return value if isinstance(value, Activation) else activation(value)
