"""Feedback weights that learn: the solved recursions against their own iteration, and what the equations make of them."""

import pytest
import sympy as sp

from derive import MLP, BadInput, Feedback, Rule, alpha, beta, dmft_equations, dphi, g_tilde, h, lam, lazy_kernel, rho, sqrt, z
from derive import fields as F
from derive.evolution import Evolution
from derive.fields import ell, s, t

SYMMETRIC = Evolution(decay=lam, pull=lam)
RANDOM_START = {"initial": rho, "independent": sqrt(1 - rho**2)}


def rule(evolution, **start):
    return Rule("learning feedback", dphi(h) * z, Feedback(**(start or RANDOM_START), evolution=evolution))


@pytest.mark.parametrize(
    "evolution",
    [
        SYMMETRIC,
        Evolution(decay=lam, copy=1),
        Evolution(decay=beta, pull=alpha),
        Evolution(pull=lam),
        Evolution(decay=beta, pull=alpha, copy=rho),
    ],
)
def test_solved_recursions_are_their_iteration(evolution):
    """Carry B as a vector of coefficients on W(0), V and the updates ΔW(0), ΔW(1), …, and compare after every step."""
    start = sp.Rational(3, 10)
    on_initial, on_own, memory = start, sp.Integer(1), {}
    for step in range(5):
        assert sp.simplify(evolution.on_initial(sp.Integer(step), start) - on_initial) == 0
        assert sp.simplify(evolution.on_independent(sp.Integer(step), sp.Integer(1)) - on_own) == 0
        for made, weight in memory.items():
            assert sp.simplify(evolution.memory(sp.Integer(step), sp.Integer(made)) - weight) == 0
        # B <- q B + pull W(t) + copy ΔW(t), with W(t) = W(0) + Σ_{s<t} ΔW(s)
        on_initial = evolution.kept * on_initial + evolution.pull
        on_own = evolution.kept * on_own
        memory = {made: evolution.kept * weight + evolution.pull for made, weight in memory.items()} | {step: evolution.copy}


def test_symmetric_alignment_forgets_its_start_and_remembers_with_one_minus_q():
    assert sp.simplify(SYMMETRIC.memory(t, s) - (1 - (1 - lam) ** (t - 1 - s))) == 0
    equation = dmft_equations(rule(SYMMETRIC), MLP(3, "tanh")).equations["feedback field"].rhs
    assert equation.coeff(F.field_q(ell, F.mu, t)) == (1 - lam) ** t * sqrt(1 - rho**2)


def test_without_evolution_the_equations_are_those_of_fa():
    still, plain = (dmft_equations(rule(e), MLP(3, "tanh")).equations for e in (Evolution(), None))
    assert still["feedback field"].rhs == plain["feedback field"].rhs
    moving = dmft_equations(rule(SYMMETRIC), MLP(3, "tanh")).equations
    assert moving["feedback field"].rhs != plain["feedback field"].rhs


def test_weight_mirror_needs_the_overlap_of_preactivation_and_pseudo_gradient():
    mirror = rule(Evolution(decay=beta, outer=alpha * h), independent=1)
    equations = dmft_equations(mirror, MLP(2, "tanh"))
    assert equations.equations["R"].lhs.func is F.R
    assert all(found.vanishes for found in equations.responses if isinstance(found.kernel, F.A | F.B_tilde))


def test_lazy_kernel_follows_the_feedback_weights():
    """γ0 → 0: the kernel of FA with ρ(t) = 1 − (1−λ)^t (1−ρ), read at t = 0 and for t → ∞."""
    kernel = lazy_kernel(rule(SYMMETRIC), MLP(2, "linear"))
    correlation = 1 - (1 - lam) ** t * (1 - rho)
    expected = sum(correlation**k for k in range(3)) * sp.Symbol("K_munu", real=True)
    assert sp.simplify(kernel.expr - expected) == 0
    assert t in kernel.parameters and lam in kernel.parameters


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Evolution(decay=1.5), r"decay=1\.5"),
        (lambda: Evolution(pull=h), "contains a field"),
        (lambda: Evolution(outer=z * h), r"its term h\*z contains z, the feedback field; allowed here: Delta, g_tilde, h, omega"),
        (lambda: Feedback(initial=1, evolution="fast"), "evolution='fast'"),
    ],
)
def test_bad_updates_are_named(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_outer_products_may_use_the_pseudo_gradient_above():
    assert Evolution(outer=alpha * g_tilde).free_symbols == {alpha}
