"""Units of targets, outputs and inputs: the same training in other units has the same solution, whatever tolerances there are."""

from __future__ import annotations

import numpy as np
import pytest

from derive import DFA, GD, GLN, MLP
from numerics import Problem, SolveFailed, solve_dmft, train_finite
from numerics.dynamics import dynamics
from numerics.richness import richness

X = np.random.default_rng(2).normal(size=(3, 4))
Y = np.array([1.0, -1.0, 0.5])
NET = MLP(depth=3, activation="relu")


def relative_loss(X: np.ndarray, y: np.ndarray, gamma0: float, eta: float) -> float:
    solution = solve_dmft(Problem(X, y, gamma0, eta, 20), GD(), NET, samples=128, replicas=1)
    return float(solution.loss[-1] / solution.loss[0])


def test_other_units_are_the_same_problem():
    """y → s y is γ0 → s γ0; X → c X is η → η/c² and γ0 → γ0/c³ for homogeneous units."""
    expected = relative_loss(X, Y, 1e-3, 0.5)
    assert relative_loss(X, 1e-3 * Y, 1.0, 0.5) == pytest.approx(expected, rel=1e-6)
    assert relative_loss(10 * X, Y, 1e-2, 0.005) == pytest.approx(expected, rel=1e-3)
    # a tolerance for features that move by their size misses a third and more
    solution = solve_dmft(Problem(X, 1e-3 * Y, 1.0, 0.5, 20), GD(), NET, samples=128, replicas=1, rank_tol=1e-7)
    assert solution.loss[-1] / solution.loss[0] != pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("rule", "net"), [(GD(), NET), (DFA(), MLP(depth=2, activation="tanh", sigma_b=1)), (GLN(), MLP(depth=2, activation="relu"))],
    ids=["GD", "DFA", "GLN"],
)  # fmt: skip
def test_richness_is_targets_over_features(rule, net):
    features = train_finite(Problem(X, Y, steps=1), rule, net, width=1000, seeds=4).Phi[net.depth].block(0, 0)
    expected = 0.1 * np.sqrt(np.mean(Y**2) / np.mean(np.diag(features)))
    assert richness(Problem(X, Y, 0.1), *dynamics(rule, net, None)) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("X", "y"), [(X, 0 * Y), (0 * X, Y)])
def test_what_does_not_move_counts_as_gamma0(X, y):
    assert richness(Problem(X, y, 0.3), *dynamics(GD(), NET, None)) == 0.3


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gated_networks_that_diverge_say_so(activation):
    p = Problem(X, Y, eta=30.0, steps=30)
    with pytest.raises(SolveFailed, match="stability limit"):
        solve_dmft(p, GLN(), MLP(depth=2, activation=activation), samples=256)
