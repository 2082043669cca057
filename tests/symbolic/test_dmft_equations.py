"""Mean-field equations: responses by dependency, and limits taken on the equations themselves."""

import pytest
import sympy as sp

from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    Delta,
    Feedback,
    Hebb,
    Rule,
    activation_alignment,
    alpha,
    dmft_equations,
    dphi,
    h,
    information_alignment,
    lazy_kernel,
    phi,
    rho,
    sqrt,
    weight_mirror,
    z,
)
from derive import fields as F
from derive.fields import ell, mu, nu, s, t

NO_SLOPE = Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2)))
MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))
RULES = [GD(), FA(rho), FA([rho, sp.Rational(1, 2)]), FA(0), DFA(), Hebb(), GLN(), NO_SLOPE, MIXTURE]


def vanishing(rule, depth=2):
    return {type(r.kernel).__name__: r.vanishes for r in dmft_equations(rule, MLP(depth, "relu")).responses}


def test_which_responses_there_are():
    assert vanishing(GD()) == {"A": False, "B": False}
    assert vanishing(FA(rho)) == {"A": False, "B_tilde": False, "A_r": True, "B": False}
    for rule in (FA(0), DFA(), Hebb()):
        assert vanishing(rule) == {"A": True, "B_tilde": True, "A_r": True, "B": False}, rule.name
    assert vanishing(NO_SLOPE) == {"A": False, "B_tilde": True, "A_r": True, "B": False}
    assert vanishing(MIXTURE)["B_tilde"] is False


def test_feedback_that_is_used_forward_meets_its_matrix_from_both_sides():
    """AA: h reacts to what comes down through V, the field below sees ω through overlaps only; IA from B(0) ⊥ W(0) needs no response."""
    assert vanishing(activation_alignment()) == {"A": True, "B_tilde": True, "A_r": True, "B": False, "A_V": False, "B_V": True}
    assert vanishing(information_alignment()) == vanishing(weight_mirror())
    correlated = vanishing(information_alignment(rho=rho))
    assert not any(correlated[name] for name in ("A", "B_tilde", "D", "E"))
    text = str(dmft_equations(activation_alignment(), MLP(3, "relu")).derivation())
    assert "q → z̃ → g̃ → h → F(h)" in text and "p enters ω alone" in text


def test_reconstruction_and_mirrored_features_are_equations():
    ia, aa = (dmft_equations(rule, MLP(2, "tanh", sigma_b=0.5)).equations for rule in (information_alignment(), activation_alignment()))
    assert {"reconstruction", "readout reconstruction", "S", "C", "covariance chi q"} <= set(ia) - set(aa)
    assert {"mirrored features", "mirrored readout", "response A_V", "covariance p", "covariance u b"} <= set(aa) - set(ia)
    for equations in (ia, aa):
        known = {equation.lhs.func for equation in equations.values()} | {
            each.func for e in equations.values() if isinstance(e.lhs, F.covariance_of) for each in e.lhs.args
        }
        used = {node.func for e in equations.values() for node in e.rhs.atoms(F.Field, F.Kernel, F.Signal)}
        assert used <= known, used - known  # closed: nothing is used that is not given


def test_one_hidden_layer_has_no_responses():
    equations = dmft_equations(FA(rho), MLP(1, "relu"))
    assert equations.responses == ()
    assert not any(isinstance(node, F.A | F.B | F.B_tilde) for eq in equations.equations.values() for node in eq.atoms(F.Kernel))


def test_reasons_are_in_the_derivation():
    text = str(dmft_equations(DFA(), MLP(3, "relu")).derivation())
    assert "A vanishes: the feedback path never applies W(0)ᵀ" in text
    text = str(dmft_equations(FA(rho), MLP(3, "relu")).derivation())
    assert "ζ → z̃ → g̃ → h → F(h)" in text and "the true gradient is only observed" in text
    assert "layer by layer, nothing in z̃ depends on u" in str(dmft_equations(NO_SLOPE, MLP(3, "relu")).derivation())


def test_gd_equations_are_those_of_the_literature():
    equations = dmft_equations(GD(), MLP(3, "relu")).equations
    total = lambda e, last: sp.Sum(e, (nu, 1, F.P), (s, 0, last))
    preactivation = (
        F.field_u(ell, mu, t)
        + total(F.A(ell - 1, mu, nu, t, s) * F.field_g(ell, nu, s), t - 1)
        + F.c0 * total(F.error(nu, s) * F.Phi(ell - 1, mu, nu, t, s) * F.field_g(ell, nu, s), t - 1)
    )
    gradient = (
        F.field_r(ell, mu, t)
        + total(F.B(ell, mu, nu, t, s) * phi(F.field_h(ell, nu, s)), t)
        + F.c0 * total(F.error(nu, s) * F.G(ell + 1, mu, nu, t, s) * phi(F.field_h(ell, nu, s)), t - 1)
    )
    assert equations["preactivation"].rhs == preactivation
    assert equations["gradient field"].rhs == gradient


def test_fa_tends_to_its_value_at_rho_zero():
    general, at_zero = (dmft_equations(rule, MLP(3, "tanh")).equations for rule in (FA(rho), FA(0)))
    assert general["feedback field"].rhs.subs(rho, 0) == at_zero["feedback field"].rhs
    assert "response A" in general and "response A" not in at_zero


@pytest.mark.parametrize("activation", ["relu", "erf", "linear"])
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_lazy_limit_of_the_equations_is_the_lazy_kernel(rule, activation):
    net = MLP(2, activation, sigma_b=sp.Rational(1, 3), sigma_w=sp.Rational(5, 4))
    limit, kernel = dmft_equations(rule, net).lazy_limit(), lazy_kernel(rule, net).contributions
    assert all(sp.expand(left - right) == 0 for left, right in zip(limit, kernel, strict=True))


def test_lazy_limit_tells_rules_apart():
    net = MLP(2, "relu")
    assert dmft_equations(FA(rho), net).lazy_limit()[0] != lazy_kernel(GD(), net).contributions[0]


def test_hebb_uses_the_error_in_its_pseudo_gradient():
    equation = dmft_equations(Hebb(), MLP(2, "relu")).equations["pseudo-gradient"]
    assert equation.rhs == F.error(mu, t) * phi(F.field_h(ell, mu, t))
    assert Delta in Hebb().pseudo_gradient.free_symbols
