"""One hidden linear layer: the limit closes on W⁰ᵀw/N, W⁰ᵀW⁰/N and |w|²/N, so the solver can be checked without sampling error."""

from __future__ import annotations

import numpy as np

from derive import GD, MLP
from numerics import Problem, dmft, solve_dmft, solve_lazy


def exact(p: Problem):
    """f and Φ¹ at all times, from the closed recursion of discrete gradient descent."""
    D, rate = p.D, p.eta * p.gamma0 / p.P
    overlap, gram, norm = np.zeros(D), np.eye(D), 1.0  # Wᵀw/N, WᵀW/N, |w|²/N
    f, Phi = [], []
    for _ in range(p.steps):
        f.append(p.X @ overlap / np.sqrt(D) / p.gamma0)
        Phi.append(p.X @ gram @ p.X.T / D)
        s = rate * (p.y - f[-1]) @ p.X / np.sqrt(D)
        # W ← W + w sᵀ, w ← w + W s
        overlap, gram, norm = (
            overlap + gram @ s + s * norm + s * (overlap @ s),
            gram + np.outer(overlap, s) + np.outer(s, overlap) + norm * np.outer(s, s),
            norm + 2 * overlap @ s + s @ gram @ s,
        )
    return np.array(f), np.array(Phi)


def test_linear_network_is_exact_within_errors(monkeypatch):
    monkeypatch.setattr(dmft, "FIELDS_LIMIT", 0)  # bases also for fields that no other field meets
    random = np.random.default_rng(3)
    p = Problem(random.normal(size=(4, 9)), random.normal(size=4), gamma0=2.0, eta=0.3, steps=40)
    f, Phi = exact(p)
    sol = solve_dmft(p, GD(), MLP(1, "linear"), samples=8192, replicas=8, method="sampling")
    # t distribution with seven degrees of freedom, 160 correlated numbers
    assert np.abs((sol.f - f)[1:] / sol.f_se[1:]).max() < 6
    assert np.linalg.norm(sol.f - f) < 5e-3 * np.linalg.norm(f)
    assert np.abs(sol.Phi[1].block(-1, -1) - Phi[-1]).max() < 6 * sol.Phi[1].block_se(-1, -1).max()
    # features live in the span of four inputs' fields and w: nothing else may enter the bases
    assert max(map(max, sol.stats["rank_forward"])) <= 5


def test_error_falls_faster_than_monte_carlo():
    random = np.random.default_rng(3)
    p = Problem(random.normal(size=(3, 9)), random.normal(size=3), gamma0=1.0, eta=0.3, steps=20)
    f, _ = exact(p)
    error = lambda S, kind: np.sqrt(
        np.mean([(solve_dmft(p, GD(), MLP(1, "linear"), S, 1, seed, sampling=kind, method="sampling").f - f) ** 2 for seed in range(6)])
    )
    assert error(4096, "sobol") < 0.3 * error(4096, "plain")
    assert error(4096, "sobol") < 0.5 * error(256, "sobol")


def test_lazy_test_outputs_have_one_entry_a_test_point():
    """f_test of the lazy solution is the kernel ridge path K_* K⁻¹ (1 − (1 − ηK/P)^t) y."""
    random = np.random.default_rng(0)
    X, X_test, y = random.normal(size=(3, 5)), random.normal(size=(4, 5)), np.array([1.0, -1.0, 0.5])
    p = Problem(X, y, eta=0.3, steps=12, X_test=X_test)
    sol = solve_lazy(p, GD(), MLP(depth=1, activation="linear"))
    K, K_test = 2 * X @ X.T / 5, 2 * X_test @ X.T / 5
    decay = np.linalg.matrix_power(np.eye(3) - 0.3 / 3 * K, 11)
    np.testing.assert_allclose(sol.f_test[-1], K_test @ np.linalg.solve(K, (np.eye(3) - decay) @ y), rtol=1e-10)
