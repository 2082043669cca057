"""Other losses and other steps: infinite width against wide networks, and training that was mistaken for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compare import LIMIT, record, worst, z_scores

from derive import FA, GD, MLP, Hebb, kolen_pollack, symmetric_alignment
from numerics import Problem, Solution, solve_dmft, train_finite

NET = MLP(depth=2, activation="tanh")
LABELS = (1.0, -1.0, 1.0)
TRAINING = {
    "logistic": ({"y": LABELS, "loss": "logistic", "eta": 1.0}, FA(0.6)),
    "momentum": ({"momentum": 0.7}, GD()),
    "weight decay": ({"weight_decay": 0.2}, FA(0.6)),
    "batches": ({"batches": [[0, 1], [2], [1, 2]]}, GD()),
    "all": (
        {"y": LABELS, "loss": "logistic", "momentum": 0.5, "weight_decay": 0.2, "batches": [[0, 1], [2]]},
        symmetric_alignment(rate=0.2),
    ),
}


def problem(y=(1.0, -1.0, 0.5), **training) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 12)), random.normal(size=(2, 12))
    settings = {"gamma0": 1.5, "eta": 0.4, "steps": 10} | training
    return Problem(X, np.array(y), X_test=X_test, **settings)


def theory(p: Problem, rule, net=NET) -> Solution:
    return solve_dmft(p, rule, net, samples=512, replicas=8)


def networks(p: Problem, rule, net=NET) -> Solution:
    return train_finite(p, rule, net, width=800, seeds=10, seed=2)


def outputs_apart(a: Solution, b: Solution) -> float:
    return float(z_scores(record(a)["f"], record(b)["f"]).max())


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "all")) for name in TRAINING])
def test_theory_agrees_with_networks_and_plain_training_does_not(name):
    training, rule = TRAINING[name]
    p = problem(**training)
    plain = problem(p.y)
    simulation = networks(p, rule)
    scores = worst(theory(p, rule), simulation)
    assert max(scores.values()) < LIMIT, scores
    assert outputs_apart(theory(plain, rule), simulation) > 1.5 * LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GD(), FA(0.6), Hebb(), kolen_pollack(decay=0.1)], ids=lambda r: r.name)
@pytest.mark.parametrize("name", TRAINING)
def test_theory_agrees_with_networks_for_other_rules_and_with_biases(name, rule):
    p, net = problem(**TRAINING[name][0]), MLP(depth=3, activation="tanh", sigma_w=1.2, sigma_b=0.3)
    scores = worst(theory(p, rule, net), networks(p, rule, net))
    assert max(scores.values()) < LIMIT, scores


def test_order_of_batches_matters():
    """Each batch alone, in the other order: the same examples, another solution."""
    first, second = (problem(batches=order, steps=4) for order in ([[0], [1, 2]], [[1, 2], [0]]))
    simulation = networks(first, GD())
    assert outputs_apart(theory(first, GD()), simulation) < LIMIT < outputs_apart(theory(second, GD()), simulation)


def test_half_the_decay_is_noticed():
    p = problem(weight_decay=0.2)
    assert outputs_apart(theory(replace(p, weight_decay=0.1), GD()), networks(p, GD())) > 1.5 * LIMIT
