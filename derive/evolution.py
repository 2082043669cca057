"""Feedback weights that learn: their update as data, and what it makes of B(t), solved in closed form.

Every update below keeps the feedback matrix of the form "random matrices at initialisation plus outer products of fields",

    B(t) = b₁(t) W(0)ᵀ + b₀(t) V + Σ_{s<t} κ(t, s) ΔW(s)ᵀ + Σ_{s<t} q^{t−1−s} (1/(P√N)) Σ_μ φ(h_μ(s)) v_μ(s)ᵀ,

and that is why it has an infinite-width limit. The coefficients are the solutions of the recursions that the update implies, found by
SymPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

from .admissible import TAKEN, check
from .errors import BadInput
from .symbols import Delta, g_tilde, h, omega, recognised

FIELDS = {h, g_tilde, Delta, omega}

_n = sp.Symbol("n", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Evolution:
    """One step of the feedback weights, taken together with the forward weights' step:

        B ← (1 − decay) B + pull W(t)ᵀ + copy ΔW(t)ᵀ + (1/(P√N)) Σ_μ [φ(h^ℓ_μ) v_μᵀ − null ψ_μ h^{ℓ+1ᵀ}_μ],

    ΔW(t) = W(t+1) − W(t) with what momentum carries over and what weight decay takes away,
    v = outer(h^{ℓ+1}, g̃^{ℓ+1}, Δ, ω^{ℓ+1}),   ω^{ℓ+1} = σ_w Bᵀφ(h^ℓ)/√N + σ_b b^ℓ,   ψ^ℓ = B h^{ℓ+1}/√N.

    At the readout B is the vector w̃, W(t)ᵀ is w(t), h^{L+1} = w(t)·φ(h^L)/N, ω^{L+1} = w̃·φ(h^L)/N, ψ^L = w̃ h^{L+1} and g̃^{L+1} = 1.

    Args:
        decay: rate of forgetting per step, between 0 and 1.
        pull: rate at which B takes in the transposed forward weights.
        copy: share of the forward weights' own update that B receives (1: Kolen–Pollack).
        outer: v as an expression in h, g_tilde, Delta and omega of layer ℓ+1, e.g. alpha*h; 0 for none.
        null: rate at which B unlearns the reconstructions ψ of its own layer from the preactivations above.

    Raises:
        BadInput: `outer` contains other fields, or decay is a number outside [0, 1].

    Source: Akrout et al. 2019; Kunin et al. 2020; THEORY section 7.
    """

    decay: sp.Expr = sp.S.Zero
    pull: sp.Expr = sp.S.Zero
    copy: sp.Expr = sp.S.Zero
    outer: sp.Expr = sp.S.Zero
    null: sp.Expr = sp.S.Zero

    def __post_init__(self) -> None:
        for name in ("decay", "pull", "copy", "outer", "null"):
            object.__setattr__(self, name, sp.nsimplify(recognised(getattr(self, name), TAKEN), rational=True))
        if self.decay.is_number and not 0 <= self.decay <= 1:
            raise BadInput(f"decay={sp.N(self.decay, 6)} is not a rate of forgetting per step: Evolution needs 0 <= decay <= 1")
        for name in ("decay", "pull", "copy", "null"):
            if getattr(self, name).free_symbols & FIELDS:
                raise BadInput(f"{name}={getattr(self, name)} contains a field: rates are numbers or parameters; fields belong into outer=")

        check("Evolution", "outer product", self.outer, FIELDS)

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        """The update's parameters."""
        values = (self.decay, self.pull, self.copy, self.outer, self.null)
        return set().union(*(value.free_symbols for value in values)) - FIELDS

    @property
    def mirrors(self) -> bool:
        """Whether the update uses B in the forward direction, as ω."""
        return omega in self.outer.free_symbols

    @property
    def kept(self) -> sp.Expr:
        """q = 1 − decay, the share of B that survives a step."""
        return 1 - self.decay

    def on_initial(self, t: sp.Expr, start: sp.Expr) -> sp.Expr:
        """b₁(t), the coefficient of W(0)ᵀ: b₁ ← q b₁ + pull."""
        return _recursion(self.kept, self.pull, start, t)

    def on_independent(self, t: sp.Expr, start: sp.Expr) -> sp.Expr:
        """b₀(t), the coefficient of V: b₀ ← q b₀."""
        return _recursion(self.kept, sp.S.Zero, start, t)

    def memory(self, t: sp.Expr, s: sp.Expr) -> sp.Expr:
        """κ(t, s), the weight of the forward update made at s < t: it starts at `copy` and then κ ← q κ + pull."""
        return _recursion(self.kept, self.pull, self.copy, t - 1 - s)

    def forgetting(self, t: sp.Expr, s: sp.Expr) -> sp.Expr:
        """q^{t−1−s}, the weight of an outer product added at s < t."""
        return _recursion(self.kept, sp.S.Zero, sp.S.One, t - 1 - s)


@cache
def _solution(factor: sp.Expr, constant: sp.Expr, start: sp.Expr) -> sp.Expr:
    """f(n) with f(n+1) = factor f(n) + constant, f(0) = start."""
    f = sp.Function("f")
    if factor == 0:
        return sp.Piecewise((start, sp.Eq(_n, 0)), (constant, True)) if start != constant else constant
    return sp.rsolve(f(_n + 1) - factor * f(_n) - constant, f(_n), {f(0): start})


def _recursion(factor: sp.Expr, constant: sp.Expr, start: sp.Expr, steps: sp.Expr) -> sp.Expr:
    return _solution(factor, constant, start).subs(_n, steps)
