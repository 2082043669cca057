"""The exact solver of linear units against wide networks written in numpy, and against the sampling solver."""

from dataclasses import replace

import numpy as np
import pytest

from derive import DFA, FA, GD, GLN, MLP, Evolution, Feedback, Hebb, Rational, Rule, Symbol, alpha, dphi, h, rho, sqrt, z
from numerics import Problem, dmft, solve_dmft
from numerics.linear import solve_linear

RHO = 0.6
X = np.array([[1.2, -0.4, 0.8], [0.5, 0.9, -0.7]])
PROBLEM = Problem(X, np.array([1.0, -0.5]), gamma0=1.5, eta=0.3, steps=10, X_test=np.array([[0.3, 1.0, 0.4]]))
MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))


def network(seed, N, feedback):
    """f(t) of one linear network with two hidden layers, trained by GD ("gd") or by FA with correlation RHO ("fa")."""
    p, rng = PROBLEM, np.random.default_rng(seed)
    W0, W1, w = rng.standard_normal((N, p.D)), rng.standard_normal((N, N)), rng.standard_normal(N)
    V, v = rng.standard_normal((N, N)), rng.standard_normal(N)
    rest = np.sqrt(1 - RHO**2)
    B, b = RHO * W1 + rest * V, RHO * w + rest * v
    rate, record = p.eta * p.gamma0 / p.P, []
    for _ in range(p.steps):
        h1 = p.X @ W0.T / np.sqrt(p.D)
        h2 = h1 @ W1.T / np.sqrt(N)
        record.append(h2 @ w / (p.gamma0 * N))
        error = p.y - (record[-1] - record[0])
        g2 = np.tile(w if feedback == "gd" else b, (p.P, 1))
        g1 = g2 @ (W1 if feedback == "gd" else B) / np.sqrt(N)
        W0 = W0 + rate / np.sqrt(p.D) * (error[:, None] * g1).T @ p.X
        W1 = W1 + rate / np.sqrt(N) * (error[:, None] * g2).T @ h1
        w = w + rate * error @ h2
    return np.array(record) - record[0]


@pytest.mark.parametrize(("feedback", "rule"), [("gd", GD()), ("fa", FA(RHO))])
def test_wide_networks_average_to_the_exact_solution(feedback, rule):
    """z-scores within ±4 at the times t > 0; without the responses they are not."""
    runs = np.stack([network(seed, 800, feedback) for seed in range(40)])
    error = runs.std(axis=0, ddof=1)[1:] / np.sqrt(len(runs))
    score = lambda solution: np.max(np.abs(runs.mean(axis=0)[1:] - solution.f[1:]) / error)
    net = MLP(2, "linear")
    assert score(solve_linear(PROBLEM, rule, net)) < 4
    assert score(solve_linear(PROBLEM, rule, net, responses=False)) > 8


@pytest.mark.parametrize("rule", [pytest.param(FA([0.3, 0.9]), marks=pytest.mark.slow), Hebb(), MIXTURE], ids=lambda r: r.name)
def test_the_sampling_solver_agrees_within_its_errors(rule):
    net, values = MLP(2, "linear", sigma_w=0.9, sigma_b=0.5), {"alpha": 0.6} if rule is MIXTURE else {}
    exact = solve_linear(PROBLEM, rule, net, parameters=values)
    sampled = solve_dmft(PROBLEM, rule, net, samples=512, replicas=8, parameters=values, method="sampling")
    for name in ("f", "f_test", "entk"):
        # eight replicas know their own error to a factor of two, and a finite sample is biased by a percent
        error = 5 * getattr(sampled, name + "_se") + 0.01 * np.max(np.abs(getattr(exact, name)))
        assert np.all(np.abs(getattr(exact, name) - getattr(sampled, name)) < error), name


def test_standard_errors_are_zero_and_causality_holds():
    net = MLP(3, "linear")
    solution = solve_linear(PROBLEM, FA(rho), net, parameters={"rho": 0.4})
    shorter = solve_linear(Problem(X, PROBLEM.y, gamma0=1.5, eta=0.3, steps=4), FA(rho), net, parameters={"rho": 0.4})
    assert np.all(solution.f_se == 0) and np.all(solution.entk_se == 0)
    assert np.allclose(solution.f[:4], shorter.f, atol=1e-13)
    assert np.allclose(solution.G_tilde[2].block(3, 1), shorter.G_tilde[2].block(3, 1), atol=1e-13)


def test_a_test_point_equal_to_a_training_point_is_predicted_as_it():
    p = Problem(X, PROBLEM.y, gamma0=1.5, eta=0.3, steps=8, X_test=X)
    for rule in (GD(), FA(0.5), Hebb()):
        solution = solve_linear(p, rule, MLP(3, "linear", sigma_b=0.4))
        assert np.allclose(solution.f, solution.f_test, atol=1e-12)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="rho is symbolic"):
        solve_linear(PROBLEM, FA(rho), MLP(2, "linear"))
    with pytest.raises(ValueError, match="not linear in h"):
        solve_linear(PROBLEM, GD(), MLP(2, "relu"))


@pytest.mark.parametrize("rule", [GD(), DFA(), MIXTURE], ids=lambda r: r.name)
def test_linear_units_are_solved_exactly_unless_sampling_is_asked_for(rule):
    net, values = MLP(2, "linear"), {"alpha": 0.6} if rule is MIXTURE else {}
    exact = solve_dmft(PROBLEM, rule, net, parameters=values)
    assert exact.settings["method"] == "exact" and exact.stats["status"] == "converged"
    np.testing.assert_array_equal(exact.f, solve_linear(PROBLEM, rule, net, parameters=values).f)
    sampled = solve_dmft(PROBLEM, rule, net, 512, parameters=values, method="sampling")
    assert sampled.settings["method"] == "sampling"
    assert np.all(np.abs(exact.f - sampled.f) < 5 * sampled.f_se + 0.01 * np.max(np.abs(exact.f)))


def test_where_covariances_do_not_close_it_samples(monkeypatch):
    method = lambda p, rule, net: solve_dmft(p, rule, net, 64, 2).settings["method"]
    short = replace(PROBLEM, steps=2)
    learning = Rule("learning", z, Feedback(independent=1, evolution=Evolution(decay=Rational(1, 10), copy=1)))
    assert method(short, learning, MLP(1, "linear")) == method(short, GLN(), MLP(1, "tanh")) == "sampling"
    for rule, net in ((GD(), MLP(1, "tanh")), (Rule("cubic", z**3, Feedback(direct=1)), MLP(1, "linear")), (learning, MLP(2, "linear"))):
        with pytest.raises(ValueError):
            solve_dmft(short, rule, net, method="exact")
    for name in ("c0", "G", "Phi"):  # which code for linear units calls something else
        named = lambda name: Rule("named", Symbol(name) * dphi(h) * z, Feedback(transported=1))
        found, other = (solve_dmft(short, named(n), MLP(1, "linear"), 64, 2, parameters={n: 0.5}, method=m) for n, m in ((name, "auto"), ("a", "sampling")))
        assert found.settings["method"] == "sampling" and np.array_equal(found.f, other.f)
        with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
            solve_dmft(short, named(name), MLP(1, "linear"), parameters={name: 0.5}, method="exact")
    monkeypatch.setattr(dmft, "EXACT_LIMIT", 3)
    assert method(short, DFA(), MLP(1, "linear")) == "sampling"
