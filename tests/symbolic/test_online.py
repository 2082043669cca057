"""The online equations as expressions: their terms, the first instants from zero weights, and linear units in closed form."""

import numpy as np
import pytest
import sympy as sp

from derive import DFA, GD, Feedback, Rule, early_time, erf, linear_online, sqrt, teacher_student, x, z
from derive.errors import BadInput
from derive.online_limits import A2, F2, a, a_end, beta, t
from derive.symbols import eta
from derive.teacher_student import A, F, Q, R, T, i, k, lam, m, n, rho, sigma, v
from numerics import solve_online

SAAD = erf(x / sqrt(2))


@pytest.fixture(scope="module")
def early():
    return early_time(teacher_student(DFA(), SAAD))


def test_rates_of_linear_units_by_hand():
    """K = M = 1: averages of products of Gaussians."""
    q, r, w, f, c, o, s = Q[1, 1], R[1, 1], v[1], F[1], A[1], T[1, 1], sigma
    by_hand = {
        "R[1,1]": eta * f * (c * o - w * r),
        "Q[1,1]": 2 * eta * f * (c * r - w * q) + eta**2 * f**2 * (c**2 * o - 2 * c * w * r + w**2 * q + s**2),
        "v[1]": eta * (c * r - w * q),
        "eg": (c**2 * o - 2 * c * w * r + w**2 * q) / 2,
    }
    found = teacher_student(DFA(), "linear").at(1, 1)
    kappa = sp.Symbol("kappa", real=True)
    for name, expr in by_hand.items():
        assert sp.expand(found[name].subs(kappa, 0) - expr) == 0, name
    assert found["Q[1,1]"].coeff(kappa) == -2 * q


def test_rules_differ_in_the_feedback_only():
    """GD's equations are DFA's with v in place of F."""
    gd, dfa = (teacher_student(rule, SAAD).equations for rule in (GD(), DFA()))
    mixed = teacher_student(Rule("mixed", z, Feedback(transported=1, direct=1)), "linear")
    for name in ("Q", "R", "v"):
        assert sp.expand(dfa[name].rhs.xreplace({F[i]: v[i], F[k]: v[k]}) - gd[name].rhs) == 0
    assert {F[i], v[i]} <= mixed.terms["R"][0].coefficient.atoms(sp.Indexed)


def test_the_teacher_drives_alignment(early):
    assert sqrt(2) / sp.pi * eta * F[i] * A[m] * t == early.R
    assert sp.expand(early.v - eta**2 * A2 * F[i] * t**2 / sp.pi**2) == 0
    slowest = sp.expand(early.Q).coeff(t, 1).subs(sigma, 0)
    assert sp.expand(slowest - 2 * eta**2 * A2 * F[i] * F[k] / (3 * sp.pi)) == 0
    assert sp.expand(early.drop - 2 * eta**3 * A2**2 * F2 * t**3 / sp.pi**4) == 0
    assert early.start == A2 / 6 and early.aligned


def test_backpropagation_does_not_move_from_zero():
    still = early_time(teacher_student(GD(), SAAD))
    assert (still.R, still.Q, still.v, still.drop) == (0, 0, 0, 0) and not still.aligned


def test_prefactors_are_those_of_the_integrated_equations(early):
    """Ratios → 1 as t → 0; a prefactor that is wrong by a percent is seen."""
    times = np.array([1e-3, 1e-2])
    teacher, feedback, rate = np.array([1.0, 0.6]), np.array([1.0, -0.7]), 0.2
    zero = np.zeros((2, 2))
    out = solve_online(
        teacher_student(DFA(), SAAD), Q=zero, R=zero, T=np.eye(2), A=teacher, v=np.zeros(2), F=feedback, eta=rate, t=times, atol=1e-18, rtol=1e-11
    )
    put = {A2: teacher @ teacher, F2: feedback @ feedback, eta: rate, sigma: 0, F[i]: feedback[1], F[k]: feedback[0], A[m]: teacher[1]}
    for place, at in enumerate(times):
        value = lambda expr, at=at: float(expr.subs({**put, t: at}))
        ratios = [
            out.R[place, 1, 1] / value(early.R), out.v[place, 1] / value(early.v), out.Q[place, 1, 0] / value(early.Q),
            (value(early.start) - out.eg[place]) / value(early.drop) if place else 1.0,
        ]  # fmt: skip
        # the next powers of t are of relative size t; at the first time the drop, 1e-13, is rounding
        assert np.allclose(ratios, 1, atol=0.3 * at), ratios
    assert abs(1.01 * out.v[0, 1] / float(early.v.subs({**put, t: times[0]})) - 1) > 5e-3


def test_kinks_have_no_expansion_at_zero_weights():
    with pytest.raises(BadInput, match="no expansion"):
        early_time(teacher_student(DFA(), "relu"))


@pytest.mark.parametrize("act", ["cos", 1 + x, x**2 + x, x**2 + x - 1], ids=str)
def test_first_instants_of_what_is_not_odd_are_refused(act):
    """E[g] ≠ 0 brings Σ A, whether g(0) is zero or not; E[g] = 0 with even terms brings Σ A³."""
    with pytest.raises(BadInput, match=r"depend on more than \|A\|² and \|F\|².*not odd.*solve_online"):
        early_time(teacher_student(DFA(), act))


def test_linear_units_solved():
    """The closed form against the integrated equations at a small learning rate, where it is exact to O(η)."""
    solution = linear_online(teacher_student(DFA(), "linear"))
    numbers = {beta: 1.3, F2: 1.49}
    end = float((2 * 1.3 / 1.49) ** (1 / 3))
    progress = np.linspace(0.1, 0.9, 5) * end
    rate = 1e-6
    times = np.array([float(solution.time.subs({**numbers, a_end: end, eta: rate, a: p})) for p in progress])
    teacher = np.array([1.3, 0.0])
    zero, feedback = np.zeros((2, 2)), np.array([1.0, -0.7])
    out = solve_online(
        teacher_student(DFA(), "linear"), Q=zero, R=zero, T=np.eye(2), A=teacher, v=np.zeros(2), F=feedback, eta=rate, t=times, rtol=1e-11, atol=1e-14
    )
    assert np.allclose(out.v[:, 0], progress**2 / 2, rtol=3 * rate)
    assert np.allclose(out.eg, [float(solution.eg.subs({**numbers, a: p})) for p in progress], rtol=2e-5)
    assert np.allclose(out.cos_v_F, 1, atol=1e-12)
    assert sp.simplify(sp.diff(solution.time, a) * solution.speed - 1).subs({**numbers, a_end: end, a: 0.4, eta: 1}) == pytest.approx(0, abs=1e-12)
    with pytest.raises(BadInput, match="linear units"):
        linear_online(teacher_student(GD(), "linear"))


def test_integrals_are_named_by_their_fields():
    from derive.online_integrals import I3

    names = {term.integral for term in teacher_student(DFA(), SAAD).terms["R"]}
    assert I3(lam[i], rho[m], rho[n]) in names


def test_derivation_and_documents_have_every_step():
    ts = teacher_student(DFA(), "relu")
    text = str(ts.derivation())
    assert "Price's theorem" in text and "fluctuations" in text
    assert r"\frac{d {Q}_{i,k}}{dt}" in ts.latex() and r"\begin{document}" in ts.document()
    assert "K^{x}" not in ts.latex()
