"""Infinite width against wide networks: every rule, two depths, two activations; and mistakes that must be noticed."""

from __future__ import annotations

import numpy as np
import pytest
from derive import DFA, FA, GD, GLN, MLP, Feedback, Hebb, Rule, h, rho, sqrt, z
from numerics import Problem, solve_dmft, train_finite

# |z| that no comparison may pass: standard errors come from a handful of replicas and seeds, so z follows a t distribution
# with about ten degrees of freedom, and one comparison takes the largest of a few dozen correlated numbers.
LIMIT = 4.0

RULES = {"GD": GD(), "FA": FA(0.6), "DFA": DFA(), "Hebb": Hebb(), "GLN": GLN()}
QUICK = [(2, "tanh"), (3, "relu")]
THOROUGH = [(2, "relu"), (3, "tanh"), (1, "tanh"), (1, "relu")]


def z_scores(mean_a, se_a, mean_b, se_b) -> np.ndarray:
    """(a − b)/√(se_a² + se_b²) where either is uncertain; entries that are exact on both sides must agree."""
    error = np.sqrt(np.square(se_a) + np.square(se_b))
    exact = error < 1e-12
    np.testing.assert_allclose(np.broadcast_to(mean_a, exact.shape)[exact], np.broadcast_to(mean_b, exact.shape)[exact], atol=1e-9)
    return np.asarray((mean_a - mean_b)[~exact] / error[~exact])


def record(solution) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard error of the quantities to compare: outputs, losses, kernels of all layers at the end and across time."""
    found = {name: (getattr(solution, name), getattr(solution, f"{name}_se")) for name in ("f", "loss", "entk")}
    if solution.f_test is not None:
        found["f_test"] = (solution.f_test, solution.f_test_se)
    for name in ("Phi", "G", "G_tilde", "H"):
        for l in range(1, solution.depth + 1):
            kernel = getattr(solution, name)[l]
            found[f"{name}{l}"] = (kernel.block(-1, -1), kernel.block_se(-1, -1))
            found[f"{name}{l} across time"] = (kernel.block(2, -2), kernel.block_se(2, -2))
    return found


def worst(solution, simulation, names=None) -> dict[str, float]:
    """The largest |z| of each quantity."""
    a, b = record(solution), record(simulation)
    scores = {name: z_scores(*a[name], *b[name]) for name in (names or a)}
    return {name: float(np.abs(z).max()) for name, z in scores.items() if z.size}


def problem(steps: int = 10) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 12)), random.normal(size=(2, 12))
    return Problem(X, np.array([1.0, -1.0, 0.5]), gamma0=1.5, eta=0.4, steps=steps, X_test=X_test)


def theory(rule, net, p=None, **options):
    return solve_dmft(p or problem(), rule, net, samples=2048, replicas=8, **options)


def networks(rule, net, p=None, width=1024, seeds=12):
    return train_finite(p or problem(), rule, net, width=width, seeds=seeds, seed=1)


def check(rule, depth, activation):
    net = MLP(depth=depth, activation=activation)
    scores = worst(theory(rule, net), networks(rule, net))
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("depth", "activation"), QUICK)
def test_theory_agrees_with_wide_networks(name, depth, activation):
    check(RULES[name], depth, activation)


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("depth", "activation"), THOROUGH)
def test_theory_agrees_with_wide_networks_elsewhere(name, depth, activation):
    check(RULES[name], depth, activation)


def test_biases_and_weight_scale_agree_with_wide_networks():
    net = MLP(depth=2, activation="tanh", sigma_w=1.3, sigma_b=0.4)
    scores = worst(theory(FA(0.6), net), networks(FA(0.6), net))
    assert max(scores.values()) < LIMIT, scores


def test_a_rule_of_ones_own_agrees_with_wide_networks():
    # every feedback term at once, other coefficients in each layer, no slope in the pseudo-gradient
    feedback = Feedback(transported=[0.5, 0], initial=[rho, 0.3], independent=[sqrt(1 - rho**2), 0], direct=[0.2, 0.7])
    rule, net = Rule("mixed", z * (1 + h**2 / 10), feedback), MLP(depth=2, activation="tanh")
    p = problem()
    sol = solve_dmft(p, rule, net, samples=2048, replicas=8, parameters={"rho": 0.4})
    sim = train_finite(p, rule, net, width=1024, seeds=12, parameters={"rho": 0.4})
    scores = worst(sol, sim)
    assert max(scores.values()) < LIMIT, scores


class TestMistakesAreNoticed:
    """The same comparison must fail when the theory is wrong."""

    net = MLP(depth=2, activation="tanh")

    def test_shifted_correlation(self):
        scores = worst(theory(FA(0.6), self.net), networks(FA(0.75), self.net))
        assert scores["G_tilde1"] > LIMIT
        assert scores["f"] > LIMIT

    def test_dropped_responses(self):
        p = problem(20)
        scores = worst(theory(GD(), self.net, p, responses=False), networks(GD(), self.net, p))
        assert scores["f"] > LIMIT

    def test_layers_off_by_one(self):
        net = MLP(depth=3, activation="tanh")
        scores = worst(theory(FA([0.2, 0.6, 0.9]), net), networks(FA([0.6, 0.9, 0.2]), net))
        assert scores["f"] > LIMIT
        assert scores["G_tilde1"] > LIMIT

    def test_kernels_one_step_late(self):
        sol, sim = theory(GD(), self.net), networks(GD(), self.net)
        late = (sol.f[1:] - sim.f[:-1]) / np.sqrt(sol.f_se[1:] ** 2 + sim.f_se[:-1] ** 2)
        assert np.abs(late).max() > LIMIT
