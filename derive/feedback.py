"""Rules about the feedback weights: ones that learn, and ones that are an entrywise function of the forward weights.

Each is a few lines over `Rule`, `Feedback` and `Evolution`; a rule of your own is written the same way.
"""

from __future__ import annotations

import sympy as sp

from .derivation import Derivation, Step
from .errors import BadInput
from .evolution import Evolution
from .gaussian import expectation
from .rules import Feedback, Rule
from .symbols import alpha, beta, dphi, h, lam, u, v, z


def symmetric_alignment(rate: object = lam, rho: object = 0) -> Rule:
    """B ← B + λ (Wᵀ − B): the feedback weights decay towards the transposed forward weights.

    Args:
        rate: λ per step.
        rho: correlation of B with W(0)ᵀ at the start.

    Source: Kunin et al. 2020; THEORY section 7.
    """
    return _learning("symmetric alignment", rho, Evolution(decay=rate, pull=rate))


def kolen_pollack(decay: object = lam, rho: object = 0) -> Rule:
    """B ← (1 − λ) B + ΔWᵀ: the feedback weights get the forward weights' update, and forget. Source: Kolen & Pollack 1994."""
    return _learning("Kolen–Pollack", rho, Evolution(decay=decay, copy=1))


def weight_mirror(rate: object = alpha, decay: object = beta, rho: object = 0) -> Rule:
    """B ← (1 − β) B + α ⟨φ(h^ℓ) h^{ℓ+1ᵀ}⟩/√N over the examples: Hebbian feedback weights. Source: Akrout et al. 2019."""
    return _learning("weight mirror", rho, Evolution(decay=decay, outer=sp.sympify(rate) * h))


def _learning(name: str, rho: object, evolution: Evolution) -> Rule:
    start = sp.nsimplify(sp.sympify(rho), rational=True)
    return Rule(name, dphi(h) * z, Feedback(initial=start, independent=sp.sqrt(1 - start**2), evolution=evolution))


def entrywise_feedback(function: sp.Expr) -> tuple[Feedback, Derivation]:
    """Frozen feedback weights W̃_ij = f(W_ij(0), V_ij), reduced to the correlation that matters at infinite width.

    A matrix with independent entries enters wide-network sums only through the second moments of its entries together with those of
    W(0): by the central limit theorem W̃ acts as s (ρ W(0) + √(1−ρ²) V′) with s² = E[f²] and ρ = E[f W]/s.

    Args:
        function: f as an expression in u (an entry of W(0)) and v (an entry of V), both standard normal.

    Returns:
        The feedback path, and how its coefficients were derived.

    Raises:
        BadInput: other symbols in f, E[f] ≠ 0 (an entry's mean adds up to a rank-one matrix of norm N), or f = 0.
        NoClosedForm: a moment that the Gaussian engine cannot bring to closed form.
    """
    strangers = function.free_symbols - {u, v}
    if strangers:
        names = ", ".join(sorted(map(str, strangers)))
        raise BadInput(f"the entrywise feedback {function} contains {names}: write it in u (an entry of W(0)) and v (an entry of V)")
    moment = lambda integrand: expectation(integrand, sp.eye(2), variables=(u, v))
    mean, power, overlap = moment(function), moment(function**2), moment(function * u)
    if sp.simplify(mean.expr) != 0:
        raise BadInput(f"the entrywise feedback {function} has mean {mean.expr}: subtract it, entries must have zero mean")
    if power.expr == 0:
        raise BadInput(f"the entrywise feedback {function} is zero: give a function of u and v")
    size = sp.sqrt(power.expr)
    correlation = sp.simplify(overlap.expr / size)
    steps = (
        Step("Entries of W̃ have zero mean.", sp.Eq(sp.Symbol("E[f]"), mean.expr, evaluate=False), mean.steps),
        Step("Their variance is s².", sp.Eq(sp.Symbol("E[f^2]"), power.expr, evaluate=False), power.steps),
        Step("Their overlap with W(0) gives the correlation.", sp.Eq(sp.Symbol("rho"), correlation, evaluate=False), overlap.steps),
        Step("Sums over many entries see nothing else: W̃ acts as s (ρ W(0) + √(1−ρ²) V)."),
    )
    path = Feedback(initial=sp.simplify(size * correlation), independent=sp.simplify(size * sp.sqrt(1 - correlation**2)))
    return path, Derivation(f"Entrywise feedback {function}", steps)


def sign_concordant() -> Rule:
    """Feedback with the signs of the forward weights and sizes of its own, W̃ = |V| sign W(0): FA at the derived ρ = 2/π.

    Source: Liao et al. 2016 (sign-concordant feedback).
    """
    path, _ = entrywise_feedback(sp.Abs(v) * sp.sign(u))
    return Rule("sign-concordant feedback", dphi(h) * z, path)
