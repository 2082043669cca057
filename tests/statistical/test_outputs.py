"""Several outputs with cross-entropy: infinite width against wide networks, and a theory without what outputs share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compare import LIMIT, worst

from derive import DFA, FA, GD, MLP, Hebb, symmetric_alignment
from numerics import Problem, Solution, solve_dmft, train_finite

NET = MLP(depth=2, activation="tanh", sigma_b=0.3)


def problem(**settings) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 12)), random.normal(size=(2, 12))
    given = {"y": np.eye(3)[[0, 2, 0]], "loss": "cross-entropy", "eta": 1.0} | settings
    return Problem(X, gamma0=1.5, steps=8, X_test=X_test, **given)


def theory(p: Problem, rule) -> Solution:
    return solve_dmft(p, rule, NET, samples=512, replicas=8)


def networks(p: Problem, rule) -> Solution:
    return train_finite(p, rule, NET, width=800, seeds=10, seed=2)


def test_theory_agrees_with_networks():
    scores = worst(theory(problem(), FA(0.6)), networks(problem(), FA(0.6)))
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GD(), DFA(), Hebb(), symmetric_alignment(rate=0.2)], ids=lambda r: r.name)
def test_theory_agrees_with_networks_for_other_rules(rule):
    p = problem(momentum=0.5, weight_decay=0.1, batches=[[0, 1], [2]], eta=0.5)
    scores = worst(theory(p, rule), networks(p, rule))
    assert max(scores.values()) < LIMIT, scores


def test_outputs_share_their_features():
    """With the squared loss outputs meet in the features alone: one theory for each output by itself must miss that."""
    p = problem(y=np.array([[1.0, 0.5], [-1.0, 1.0], [0.5, -1.0]]), loss="squared", eta=0.5)
    together, simulation = theory(p, GD()), networks(p, GD())
    alone = [theory(replace(p, y=p.y[:, c]), GD()) for c in range(2)]
    apart = lambda a, a_se: np.max(np.abs(a - simulation.f)[1:] / np.sqrt(a_se**2 + simulation.f_se**2)[1:])
    # the largest of 42 t-distributed numbers with about 15 degrees of freedom
    assert apart(together.f, together.f_se) < 5
    assert apart(*(np.stack([getattr(each, name) for each in alone], axis=-1) for name in ("f", "f_se"))) > 10
