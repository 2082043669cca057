"""Two-layer linear networks on one example: closed forms against the discrete equations and against wide networks."""

import mpmath
import numpy as np
import pytest
import sympy as sp

from derive import DFA, FA, GD, GLN, MLP, BadInput, Feedback, Hebb, Rule, alpha, dphi, gamma0, h, rho, sqrt, z
from derive.scalar import f, scalar_reduction, tau, theta, theta_end, y
from numerics import Problem
from numerics.linear import solve_linear

GAMMA, TARGET = 1.5, 0.8
VALUES = {gamma0: GAMMA, y: TARGET}
MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))


def test_gd_in_closed_form():
    gd = scalar_reduction(GD())
    m, S = sp.Symbol("m", real=True), sp.Symbol("S", positive=True)
    assert gd.overlap == sp.sinh(2 * theta) and gd.Phi == sp.cosh(2 * theta)
    assert gd.kernel_law == sp.Eq(S**2 - 4 * m**2, 4)
    assert sp.simplify(gd.output_ode - 2 * (y - f) * sp.sqrt(1 + gamma0**2 * f**2)) == 0
    assert [str(law) for law in gd.neuron_laws] == ["h**2 - w**2"]


def test_gd_explicit_solution_obeys_its_equation():
    """To 40 digits at several times and strengths: f(0) = 0, f′ = 2 (y − f) √(1 + γ0² f²), f(∞) = y."""
    gd = scalar_reduction(GD())
    rate = sp.diff(gd.output, tau) - gd.output_ode.subs(f, gd.output)
    for strength in (sp.Rational(1, 10), 1, 3):
        for time in (sp.Rational(1, 100), sp.Rational(1, 2), 2):
            assert abs(rate.subs({gamma0: strength, y: sp.Rational(4, 5), tau: time}).evalf(40)) < 1e-35
        assert abs(gd.output.subs({gamma0: strength, y: sp.Rational(4, 5), tau: 0}).evalf(40)) < 1e-35
        assert abs(gd.output.subs({gamma0: strength, y: sp.Rational(4, 5), tau: 40}).evalf(40) - sp.Rational(4, 5)) < 1e-30


def test_fa_in_closed_form():
    fa = scalar_reduction(FA(rho))
    assert sp.expand(fa.overlap - ((1 + rho) * theta + theta**3 / 2)) == 0 and fa.Phi == 1 + theta**2
    assert [str(law) for law in fa.neuron_laws] == ["h**2 - 2*w*z_tilde", "z_tilde**2"]
    assert scalar_reduction(DFA()).overlap == fa.overlap.subs(rho, 0)


@pytest.mark.parametrize("rule", [GD(), FA(rho), DFA()], ids=lambda r: r.name)
def test_time_differentiates_back(rule):
    """dτ/dθ = 1/(γ0 y − m(θ)), τ(0) = 0; at 30 digits on a grid of θ and ρ."""
    found = scalar_reduction(rule)
    for correlation in (0, sp.Rational(1, 3), 1):
        end = sp.nsolve((found.end.lhs - found.end.rhs).subs(VALUES | {rho: correlation}), theta_end, 0.5, prec=40)
        put = lambda e, at, r=correlation, end=end: e.subs({theta: at, theta_end: end, rho: r}).subs({gamma0: sp.Rational(3, 2), y: sp.Rational(4, 5)})
        assert abs(put(found.time, 0).evalf(30)) < 1e-25
        for at in (sp.Rational(1, 10), sp.Rational(3, 10)):
            slope = put(sp.diff(found.time, theta), at) * put(gamma0 * y - found.overlap, at)
            assert abs(slope.evalf(30) - 1) < 1e-14  # the target in θ_∞ is known to the digits of 1.5 and 0.8 as floats


def test_weaker_alignment_moves_features_further():
    """dθ_∞/dρ < 0 and d(Φ(∞) − Φ(0))/dρ < 0 for all ρ ≥ 0: SymPy decides the sign, no number is put in."""
    end, moved = scalar_reduction(FA(rho)).sensitivity(rho)
    correlation = sp.Symbol("rho", nonnegative=True)
    assert end.subs(rho, correlation).is_negative is True
    assert moved.subs(rho, correlation).is_negative is True


def extrapolated(rule, times, values=None):
    """f and Φ of the discrete mean-field equations at η → 0, by Richardson extrapolation in the step size."""

    def at(steps):
        p = Problem(np.ones((1, 1)), np.array([TARGET]), gamma0=GAMMA, eta=times[-1] / steps, steps=steps + 1)
        solution = solve_linear(p, rule, MLP(1, "linear"), parameters=values)
        kept = np.rint(np.array(times) / p.eta).astype(int)
        return np.array([solution.f[kept, 0], solution.Phi[1].equal_time()[kept, 0, 0]])

    coarse, middle, fine = at(60), at(120), at(240)
    return (8 * fine - 6 * middle + coarse) / 3  # removes the orders η and η²


@pytest.mark.parametrize(("rule", "values"), [(GD(), {}), (FA(rho), {"rho": 0.3}), (DFA(), {}), (MIXTURE, {"alpha": 0.5})], ids=str)
def test_flow_is_the_small_step_limit_of_the_discrete_equations(rule, values):
    found = scalar_reduction(rule)
    numbers = VALUES | {symbol: values[symbol.name] for symbol in found.overlap.free_symbols if symbol.name in values}
    times = [0.1, 0.3, 0.6]
    overlap, Phi = (sp.lambdify(theta, e.subs(numbers), "mpmath") for e in (found.overlap, found.Phi))
    clock = mpmath.odefun(lambda t, x: GAMMA * TARGET - mpmath.re(overlap(x)), 0, mpmath.mpf(0))
    expected = np.array([[float(mpmath.re(overlap(clock(t)))) / GAMMA for t in times], [float(mpmath.re(Phi(clock(t)))) for t in times]])
    assert np.max(np.abs(extrapolated(rule, times, values) - expected)) < 5e-6  # order η³ at η = 1/400
    wrong = extrapolated(FA(0.6) if rule.name.startswith("FA") else FA(0.1), times)
    assert np.max(np.abs(wrong - expected)) > 1e-2


def test_whitened_examples_reduce_to_one():
    """K^x = 1 for three examples: the projection on y moves as one example with |y| and η/P."""
    targets = np.array([0.5, -0.7, 0.3])
    many = Problem(np.sqrt(3) * np.eye(3), targets, gamma0=1.2, eta=0.3, steps=15)
    one = Problem(np.ones((1, 1)), np.array([np.linalg.norm(targets)]), gamma0=1.2, eta=0.1, steps=15)
    for rule in (GD(), FA(0.4)):
        whole, single = (solve_linear(p, rule, MLP(1, "linear")).f for p in (many, one))
        assert np.allclose(whole, single * targets / np.linalg.norm(targets), atol=1e-13)


def test_wide_network_follows_the_closed_form():
    """FA with ρ = 0.3 in numpy, 20 networks of width 20000; the curve with ρ = 0.5 is rejected."""
    width, eta, steps, end = 20000, 0.002, 250, []
    for seed in range(20):
        u, r, q = np.random.default_rng(seed).standard_normal((3, width))
        h_, w, back = u.copy(), r.copy(), 0.3 * r + np.sqrt(1 - 0.09) * q
        start = w @ h_ / width / GAMMA
        for _ in range(steps):
            error = TARGET - (w @ h_ / width / GAMMA - start)
            h_, w = h_ + eta * GAMMA * error * back, w + eta * GAMMA * error * h_
        end.append(w @ h_ / width / GAMMA - start)
    error = np.std(end, ddof=1) / np.sqrt(20)
    for correlation, agrees in ((0.3, True), (0.5, False)):
        found = scalar_reduction(FA(rho))
        m = sp.lambdify(theta, found.overlap.subs(rho, correlation))
        clock = mpmath.odefun(lambda t, x, m=m: GAMMA * TARGET - m(x), 0, mpmath.mpf(0))
        expected = float(m(clock(eta * steps))) / GAMMA
        # the finite step shifts f by O(η) = 1e-3, less than the statistical error
        assert (abs(np.mean(end) - expected) < 4 * error + 1e-3) == agrees


def test_rules_without_a_clock_keep_their_equations():
    hebb = scalar_reduction(Hebb())
    assert len(hebb.odes) == 5 and "no single clock" in str(hebb.derivation())
    with pytest.raises(BadInput, match="contains Δ"):
        _ = hebb.fields
    with pytest.raises(BadInput, match="has gates"):
        scalar_reduction(GLN())
    with pytest.raises(BadInput, match="has no parameter alpha"):
        scalar_reduction(FA(rho)).sensitivity(alpha)


def test_text_and_latex():
    text = str(scalar_reduction(FA(rho)).derivation())
    assert "telescope" in text and "How the end depends on rho" in text
    assert r"\theta_{end}" in scalar_reduction(FA(rho)).latex()
    assert "left as a quadrature" in str(scalar_reduction(MIXTURE).derivation())
