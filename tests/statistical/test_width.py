"""Infinite width against wide networks: every rule, two depths, two activations; and mistakes that must be noticed."""

from __future__ import annotations

import numpy as np
import pytest
from compare import LIMIT, record, worst, z_scores

from derive import DFA, FA, GD, GLN, MLP, Feedback, Hebb, Rule, h, rho, sqrt, z
from numerics import Problem, solve_dmft, train_finite

RULES = {"GD": GD(), "FA": FA(0.6), "DFA": DFA(), "Hebb": Hebb(), "GLN": GLN()}
QUICK = [*((2, "tanh", name) for name in RULES), (3, "relu", "GD")]
THOROUGH = [(2, "relu"), (3, "tanh"), (1, "tanh"), (1, "relu"), (3, "relu")]


def problem(steps: int = 10, gamma0: float = 1.5) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 12)), random.normal(size=(2, 12))
    return Problem(X, np.array([1.0, -1.0, 0.5]), gamma0=gamma0, eta=0.4, steps=steps, X_test=X_test)


def theory(rule, net, p=None, **options):
    return solve_dmft(p or problem(), rule, net, samples=2048, replicas=8, **options)


def networks(rule, net, p=None, width=1024, seeds=14):
    # at width 512 and three ReLU layers the networks' own 1/N correction shows at four standard errors of 64 seeds; here it does not
    return train_finite(p or problem(), rule, net, width=width, seeds=seeds, seed=2)


def check(rule, depth, activation):
    net = MLP(depth=depth, activation=activation)
    # error-modulated Hebbian updates of an unbounded activation run away at large γ0
    p = problem(gamma0=0.5) if (rule.name, activation) == ("Hebb", "relu") else problem()
    scores = worst(theory(rule, net, p), networks(rule, net, p))
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.parametrize(("depth", "activation", "name"), QUICK)
def test_theory_agrees_with_wide_networks(depth, activation, name):
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
    sim = train_finite(p, rule, net, width=1024, seeds=14, parameters={"rho": 0.4})
    scores = worst(sol, sim)
    assert max(scores.values()) < LIMIT, scores


class TestMistakesAreNoticed:
    """The same comparison must fail when the theory is wrong."""

    net = MLP(depth=2, activation="tanh")

    def test_shifted_correlation(self):
        scores = worst(theory(FA(0.6), self.net), networks(FA(0.75), self.net, width=512))
        assert scores["G_tilde1"] > LIMIT
        assert scores["f"] > LIMIT

    def test_dropped_responses(self):
        p = problem(20)
        scores = worst(theory(GD(), self.net, p, responses=False), networks(GD(), self.net, p, width=512))
        assert scores["f"] > LIMIT

    def test_layers_off_by_one(self):
        scores = worst(theory(FA([0.2, 0.9]), self.net), networks(FA([0.9, 0.2]), self.net, width=512))
        assert scores["f"] > LIMIT
        assert scores["G_tilde2"] > LIMIT

    def test_kernels_one_step_late(self):
        sol, sim = theory(GD(), self.net), networks(GD(), self.net, width=512)
        a, b = record(sol)["f"], record(sim)["f"]
        assert z_scores((a[0][2:], a[1][2:], a[2]), (b[0][1:-1], b[1][1:-1], b[2])).max() > LIMIT
