"""Rules about the feedback weights: ones that learn, and ones that are an entrywise function of the forward weights.

The former are compositions of Kunin's primitives, one line each; a rule of your own is written the same way.
"""

from __future__ import annotations

import sympy as sp

from . import primitives
from .admissible import TAKEN, check
from .derivation import Derivation, Step
from .errors import BadInput
from .evolving import EvolvingFeedback
from .gaussian import expectation
from .primitives import Regulariser, amp, decay, self_feedback, sparse, tied_gradient
from .rules import Feedback, Rule, _exact
from .symbols import alpha, beta, dphi, h, kappa, lam, recognised, u, v, z


def symmetric_alignment(rate: object = lam, rho: object = 0) -> EvolvingFeedback:
    """B ← B + λ (Wᵀ − B): the feedback weights decay towards the transposed forward weights.

    Args:
        rate: λ per step.
        rho: correlation of B with W(0)ᵀ at the start.

    Source: Kunin et al. 2020; THEORY section 7.
    """
    return _named("symmetric alignment", decay / 2 + self_feedback, rate, rho)


def activation_alignment(rate: object = lam, rho: object = 0) -> EvolvingFeedback:
    """B ← B + λ ⟨φ (W φ − Bᵀ φ)ᵀ⟩/√N over the examples: backward projections of the activities learn to be the forward ones.

    Source: Kunin et al. 2020.
    """
    return _named("activation alignment", sparse / 2 + amp, rate, rho)


def kolen_pollack(decay: object = lam, rho: object = 0) -> EvolvingFeedback:
    """B ← (1 − λ) B + ΔWᵀ: the feedback weights get the forward weights' update, and forget. Source: Kolen & Pollack 1994."""
    return _named("Kolen–Pollack", primitives.decay * (_exact(decay) / 2) + tied_gradient, 1, rho)


def weight_mirror(rate: object = alpha, decay: object = beta, rho: object = 0) -> EvolvingFeedback:
    """B ← (1 − β) B + α ⟨φ(h^ℓ) h^{ℓ+1ᵀ}⟩/√N over the examples: Hebbian feedback weights. Source: Akrout et al. 2019."""
    return _named("weight mirror", primitives.decay * (_exact(decay) / 2) + amp * _exact(rate), 1, rho)


def information_alignment(rate: object = alpha, null: object = kappa, decay: object = beta, rho: object = 0) -> EvolvingFeedback:
    """B ← (1 − β) B + ⟨(α φ − κ ψ) h^{ℓ+1ᵀ}⟩/√N, ψ = B h^{ℓ+1}/√N: a weight mirror that reconstructs its own input, and so saturates.

    Args:
        rate: α, of amp.
        null: κ, of null.
        decay: β.
        rho: correlation of B with W(0)ᵀ at the start.

    Source: Kunin et al. 2020.
    """
    composed = primitives.decay * (_exact(decay) / 2) + amp * _exact(rate) + primitives.null * (_exact(null) / 2)
    return _named("information alignment", composed, 1, rho)


def feedback_alignment(rho: object = 0) -> EvolvingFeedback:
    """The empty composition: feedback weights that stay what they are, as those of `FA`."""
    return _named("feedback alignment", Regulariser(), 1, rho)


def backpropagation() -> EvolvingFeedback:
    """Tied gradients alone, from B(0) = W(0)ᵀ: B = Wᵀ at all times, which is gradient descent."""
    return _named("backpropagation", tied_gradient, 1, 1)


def _named(name: str, regulariser: Regulariser, rate: object, rho: object) -> EvolvingFeedback:
    return EvolvingFeedback(regulariser, rate, rho, name=name)


def entrywise_feedback(function: sp.Expr) -> tuple[Feedback, Derivation]:
    """Frozen feedback weights W̃_ij = f(W_ij(0), V_ij), reduced to the correlation that matters at infinite width.

    A matrix with independent entries enters wide-network sums only through the second moments of its entries together with those of
    W(0): by the central limit theorem W̃ acts as s (ρ W(0) + √(1−ρ²) V′) with s² = E[f²] and ρ = E[f W]/s. At the readout there is no sum,
    w̃_i = f(w_i, v_i) multiplies what belongs to unit i: it stays what it is, and the moments are all that matters in the lazy limit only.

    Args:
        function: f as an expression in u (an entry of W(0)) and v (an entry of V), both standard normal.

    Returns:
        The feedback path, and how its coefficients were derived.

    Raises:
        BadInput: other symbols in f, E[f] ≠ 0 (an entry's mean adds up to a rank-one matrix of norm N), or f = 0.
        NoClosedForm: a moment that the Gaussian engine cannot bring to closed form.
    """
    function = recognised(function, (*TAKEN, u, v))
    check("entrywise_feedback", "function", function, (u, v))
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
        Step("At the readout there is no sum over entries: w̃ stays the function itself.", sp.Eq(sp.Symbol("f"), function, evaluate=False)),
    )
    initial, independent = sp.simplify(size * correlation), sp.simplify(size * sp.sqrt(1 - correlation**2))
    gaussian = sp.simplify(function - initial * u - independent * v) == 0
    path = Feedback(initial=initial, independent=independent, readout=None if gaussian else function)
    return path, Derivation(f"Entrywise feedback {function}", steps)


def sign_concordant() -> Rule:
    """Feedback with the signs of the forward weights and sizes of its own, W̃ = |V| sign W(0): FA at the derived ρ = 2/π, but for the readout.

    Source: Liao et al. 2016 (sign-concordant feedback).
    """
    path, _ = entrywise_feedback(sp.Abs(v) * sp.sign(u))
    return Rule("sign-concordant feedback", dphi(h) * z, path)
