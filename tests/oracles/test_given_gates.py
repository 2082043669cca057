"""Gated linear networks with their Gaussian part integrated, against the closed matrix equations and against sampling."""

from dataclasses import replace

import numpy as np
import pytest
from compare import LIMIT, worst

from derive import GLN, MLP, Feedback, Rule, dphi, h, m, z
from numerics import Problem, solve_dmft, solve_lazy, train_finite
from numerics.orthants import even_products, sign_patterns, walsh

RANDOM = np.random.default_rng(5)
X, X_TEST = RANDOM.normal(size=(3, 6)), RANDOM.normal(size=(2, 6))
PROBLEM = Problem(X, np.array([1.0, -1.0, 0.5]), gamma0=1.5, eta=0.4, steps=8, X_test=X_TEST)
RELU, TANH = MLP(2, "relu"), MLP(2, "tanh")


def matrix_equations(p, depth, weights):
    """Φ, G and f of a ReLU-gated network from the closed equations over (t, μ), iterated until they no longer change.

    Given the gates Γ: R = (1 − CΓEΓ)⁻¹, h = R (u + CΓ r), z = r + EΓ h, C = c0 [Φ]_< D + A below, E = c0 [G]_< D + B above;
    A = ⟨ΓRCΓ⟩, B below = ⟨ΓEΓR⟩. They are triangular in time, so that sweeps reach the solution exactly after finitely many.
    """
    P, T = p.P, p.steps
    n, c0 = P * T, p.eta * p.gamma0 / P
    past = np.kron(np.tri(T, k=-1), np.ones((P, P)))
    gates = [np.diag(np.tile(pattern > 0, T).astype(float)) for pattern in sign_patterns(P)]
    tiled, one = np.tile(p.Kx, (T, T)), np.ones((n, n))
    Phi, G = [tiled] * (depth + 1), [one] * (depth + 2)
    A, B = [np.zeros((n, n))] * (depth + 1), [np.zeros((n, n))] * (depth + 1)
    f = np.zeros(n)
    for _ in range(4 * T * depth):
        before = f
        D = np.diag(np.tile(p.y, T) - f)
        new = [*Phi], [*G], [*A], [*B]
        for l in range(1, depth + 1):
            C = c0 * (Phi[l - 1] * past) @ D + A[l - 1]
            E = c0 * (G[l + 1] * past) @ D + B[l]
            sums = np.zeros((5, n, n))
            for weight, g in zip(weights, gates, strict=True):
                R = np.linalg.inv(np.eye(n) - C @ g @ E @ g)
                on_r = np.eye(n) + E @ g @ R @ C @ g  # z = on_r r + E Γ R u
                a_u, a_r, g_u = g @ R, g @ R @ C @ g, g @ E @ g @ R
                sums += weight * np.array([
                    a_u @ Phi[l - 1] @ a_u.T + a_r @ G[l + 1] @ a_r.T, g @ on_r @ G[l + 1] @ on_r.T @ g + g_u @ Phi[l - 1] @ g_u.T,
                    a_r, g_u, on_r @ G[l + 1] @ a_r.T + E @ g @ R @ Phi[l - 1] @ a_u.T,
                ])  # fmt: skip
            new[0][l], new[1][l], new[2][l], new[3][l - 1] = sums[:4]
            if l == depth:
                f = np.diag(sums[4]) / p.gamma0
        Phi, G, A, B = new
        A[0] = B[depth] = np.zeros((n, n))
        if np.max(np.abs(f - before)) < 1e-15:
            break
    return f.reshape(T, P), Phi, G


def pattern_weights(p):
    return walsh(even_products(p.Kx)[0]) / 2**p.P


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_pass_solves_the_closed_matrix_equations(depth):
    p = replace(PROBLEM, X_test=None, steps=6)
    f, Phi, G = matrix_equations(p, depth, pattern_weights(p))
    solution = solve_dmft(p, GLN(), MLP(depth, "relu"))
    assert solution.settings["method"] == "exact" and solution.settings["patterns"] == 8
    # directions with less than 1e-14 of a field's energy are dropped: fields are known to 1e-7, what is quadratic in them much better
    np.testing.assert_allclose(solution.f, f, atol=1e-10)
    for l in range(1, depth + 1):
        np.testing.assert_allclose(solution.Phi[l].dense().reshape(18, 18), Phi[l], atol=1e-9)
        np.testing.assert_allclose(solution.G[l].dense().reshape(18, 18), G[l], atol=1e-9)
    # gates that are independent of each other are another network
    independent = matrix_equations(p, depth, np.full(8, 1 / 8))[0]
    assert np.max(np.abs(independent - f)) > 0.01
    if depth > 1:
        assert np.max(np.abs(solve_dmft(p, GLN(), MLP(depth, "relu"), responses=False).f - f)) > 0.01


def test_wide_networks_average_to_the_exact_solution_and_to_no_other(monkeypatch):
    """Also what gates of test inputs do; errors are those of the networks alone."""
    p = replace(PROBLEM, steps=10)
    networks = train_finite(p, GLN(), RELU, width=1024, seeds=14, seed=2)
    scores = worst(solve_dmft(p, GLN(), RELU), networks)
    assert max(scores.values()) < LIMIT, scores
    scores = worst(solve_dmft(p, GLN(), RELU, responses=False), networks)
    assert scores["f"] > LIMIT and scores["Phi2"] > LIMIT
    independent = lambda C, within, with_last=False: (np.eye(2 ** (len(C) - with_last))[0] * (not with_last), 0.0)
    monkeypatch.setattr("numerics.gates.even_products", independent)
    scores = worst(solve_dmft(p, GLN(), RELU), networks)
    assert scores["f"] > LIMIT and scores["Phi1"] > LIMIT


def test_what_training_can_be_agrees_with_sampling():
    """Momentum, batches, weight decay, biases, weight scales, slopes on both sides and two outputs at once."""
    targets = np.array([[1.0, 0.0], [-1.0, 0.5], [0.5, -1.0]])
    p = replace(PROBLEM, y=targets, momentum=0.5, batches=[[0, 1], [2]], weight_decay=0.3)
    net, values = MLP(2, "leaky_relu", sigma_w=1.1, sigma_b=0.6), {"alpha": 0.2}
    sampled = solve_dmft(p, GLN(), net, 2048, 8, parameters=values, method="sampling")
    scores = worst(solve_dmft(p, GLN(), net, parameters=values), sampled)
    assert max(scores.values()) < LIMIT, scores
    for wrong in ({"weight_decay": 0.0}, {"momentum": 0.3}, {"batches": None}):
        assert worst(solve_dmft(replace(p, **wrong), GLN(), net, parameters=values), sampled)["f"] > LIMIT


def test_neither_the_order_of_examples_nor_what_comes_later_matters():
    order = [2, 0, 1]
    whole = solve_dmft(PROBLEM, GLN(), RELU)
    permuted = solve_dmft(replace(PROBLEM, X=X[order], y=PROBLEM.y[order]), GLN(), RELU)
    np.testing.assert_allclose(permuted.f, whole.f[:, order], atol=1e-9)
    np.testing.assert_allclose(permuted.f_test, whole.f_test, atol=1e-9)
    np.testing.assert_allclose(permuted.G[1].block(6, 2), whole.G[1].block(6, 2)[np.ix_(order, order)], atol=1e-9)
    np.testing.assert_allclose(solve_dmft(replace(PROBLEM, steps=5), GLN(), RELU).f, whole.f[:5], atol=1e-12)


def test_the_kernels_at_equal_times_do_without_those_between_different_times():
    whole, equal = (solve_dmft(PROBLEM, GLN(), RELU, two_time=each) for each in (True, False))
    np.testing.assert_allclose(equal.f_test, whole.f_test, atol=1e-12)
    for l in (1, 2):
        np.testing.assert_allclose(equal.Phi[l].equal_time(), whole.Phi[l].equal_time(), atol=1e-12)
        np.testing.assert_allclose(equal.G[l].equal_time(), whole.G[l].equal_time(), atol=1e-12)
    with pytest.raises(ValueError, match="two_time=True"):
        equal.Phi[2].block(1, 2)


def test_a_test_point_equal_to_a_training_point_is_predicted_as_it():
    solution = solve_dmft(replace(PROBLEM, X_test=X), GLN(), RELU)
    # probabilities of patterns are known to 1e-9
    np.testing.assert_allclose(solution.f_test, solution.f, atol=1e-7)
    drawn = solve_dmft(replace(PROBLEM, X_test=X), GLN(), RELU, 32, 2, method="conditional", rank_tol=1e-12)
    np.testing.assert_allclose(drawn.f_test, drawn.f, atol=1e-6)


def test_inputs_in_a_plane_have_few_patterns_whatever_their_number():
    plane = RANDOM.normal(size=(2, 6))
    p = Problem(RANDOM.normal(size=(4, 2)) @ plane, np.array([1.0, -1.0, 0.5, -0.5]), 1.5, 0.3, 6, X_test=np.array([[0.6, -0.8]]) @ plane)
    arcs = solve_dmft(p, GLN(), RELU)
    assert arcs.settings["patterns"] == 10  # five lines through the origin, the test input's included
    f, Phi, _ = matrix_equations(replace(p, X_test=None), 2, pattern_weights(p))
    # quadrature of a covariance of rank two: 1e-8
    np.testing.assert_allclose(arcs.f, f, atol=1e-7)
    np.testing.assert_allclose(arcs.Phi[2].block(-1, 1), Phi[2][-4:, 4:8], atol=1e-7)
    assert np.ptp(arcs.f_test) > 0.01
    seen = solve_dmft(replace(p, X_test=p.X[1:2]), GLN(), RELU)
    np.testing.assert_allclose(seen.f_test[:, 0], seen.f[:, 1], atol=1e-10)
    many = Problem(RANDOM.normal(size=(30, 2)), np.ones(30), steps=2)
    assert solve_dmft(many, GLN(), RELU).settings["patterns"] == 60


@pytest.mark.parametrize("method", ["exact", "conditional", "sampling"])
def test_inputs_that_are_all_zero(method):
    """Only biases are left, and gates at zero; of other test inputs either sign of a gate is as likely."""
    tests = np.concatenate([X_TEST[:1], np.zeros((1, 6))])
    p = replace(PROBLEM, X=np.zeros((3, 6)), X_test=tests, steps=4)
    nothing = solve_dmft(p, GLN(), MLP(1, "relu"), samples=64, method=method)
    np.testing.assert_array_equal(nothing.f, 0.0)
    net = MLP(1, "relu", sigma_b=0.7)
    found = solve_dmft(p, GLN(), net, samples=512, method=method)
    networks = train_finite(p, GLN(), net, width=400, seeds=6)
    scores = worst(found, networks)
    assert max(scores.values()) < LIMIT, scores
    assert found.f[-1, 0] > 0.05


class TestDrawnGates:
    """method="conditional": only the gates are drawn."""

    def test_it_agrees_with_sampling_and_has_smaller_errors(self):
        given = solve_dmft(PROBLEM, GLN(), TANH, 128, 8, method="conditional")
        sampled = solve_dmft(PROBLEM, GLN(), TANH, 2048, 8, method="sampling")
        assert given.settings["calibrated"] and given.settings["method"] == "conditional"
        scores = worst(given, sampled)
        assert max(scores.values()) < LIMIT, scores
        # errors of eight replicas are known to a quarter; these differ by a factor of three and more
        assert np.linalg.norm(given.loss_se) < 0.6 * np.linalg.norm(sampled.loss_se)

    def test_it_agrees_with_the_sum_over_patterns(self):
        p = Problem(RANDOM.normal(size=(5, 8)), np.ones(5), 1.5, 0.4, 6)
        given, exact = solve_dmft(p, GLN(), RELU, 128, 8, method="conditional", rank_tol=1e-9), solve_dmft(p, GLN(), RELU)
        assert exact.settings["patterns"] == 32
        scores = worst(given, exact)
        assert max(scores.values()) < LIMIT, scores

    def test_the_lazy_limit_has_no_error(self):
        """Second moments of the gates are exact; with equal weights they are not."""
        p = replace(PROBLEM, gamma0=1e-5, X_test=None)
        lazy = solve_lazy(p, GLN(), TANH)
        given = solve_dmft(p, GLN(), TANH, 128, 2, method="conditional", rank_tol=1e-22)
        np.testing.assert_allclose(given.f, lazy.f, atol=1e-6)
        few = solve_dmft(p, GLN(), TANH, 8, 2, method="conditional")  # not enough to choose weights
        assert not few.settings["calibrated"] and np.max(np.abs(few.f - lazy.f)) > 1e-3

    def test_samples_are_doubled_until_the_error_is_met(self):
        found = solve_dmft(PROBLEM, GLN(), TANH, 16, 4, method="conditional", tol=2e-3, max_samples=1024)
        assert found.stats["status"] == "converged" and found.settings["samples"] > 16
        assert np.max(found.loss_se) <= 2e-3 * found.loss[0]


def test_what_it_refuses():
    many = Problem(RANDOM.normal(size=(12, 20)), np.ones(12), steps=2)
    with pytest.raises(ValueError, match=r"2\^12 patterns"):
        solve_dmft(many, GLN(), RELU, method="exact")
    with pytest.raises(ValueError, match="more than two values"):
        solve_dmft(PROBLEM, GLN(), TANH, method="exact")
    gated_fa = Rule("gated FA", dphi(m) * z, Feedback(independent=1), forward=dphi(m) * h)
    for rule in (gated_fa, Rule("sine", dphi(m) * h * z, Feedback(transported=1), forward=dphi(m) * h**2 / 2)):
        with pytest.raises(ValueError, match="not Gaussian given"):
            solve_dmft(PROBLEM, rule, RELU, method="conditional")
    for method in ("exact", "conditional"):
        with pytest.raises(ValueError, match="draws no fields"):
            solve_dmft(PROBLEM, GLN(), RELU, method=method, snapshots=[0])
    with pytest.raises(ValueError, match="rank_tol"):
        solve_dmft(PROBLEM, GLN(), RELU, rank_tol=1e-30)
