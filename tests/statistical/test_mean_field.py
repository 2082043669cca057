"""Equations as they are printed, evaluated literally, against the solver, which never reads them."""

from __future__ import annotations

import numpy as np
import pytest
from compare import LIMIT, z_scores
from mean_field import MeanField

from derive import (
    MLP,
    EvolvingFeedback,
    Rational,
    Training,
    activation_alignment,
    amp,
    decay,
    dmft_equations,
    information_alignment,
    lam,
    null,
    self_feedback,
    sparse,
    tied_gradient,
    weight_mirror,
)
from numerics import Problem, solve_dmft

NET = MLP(depth=2, activation="tanh", sigma_w=1.5)
RULES = {
    "weight mirror": weight_mirror(1, Rational(1, 20)),
    "information alignment": information_alignment(1, 2, Rational(1, 20)),
    "activation alignment": activation_alignment(2),
}
# every primitive at once, from correlated B(0): all responses there are
ALL = EvolvingFeedback(decay / 10 + self_feedback / 5 + 2 * amp + sparse / 2 + null / 2 + tied_gradient / 2, Rational(1, 2), Rational(1, 2))
RUNS = 6


def problem(**changes) -> Problem:
    """Strong learning in few steps, so that what feedback weights learn matters at once."""
    return Problem(np.random.default_rng(7).normal(size=(2, 6)), np.array([1.0, -1.0]), **{"gamma0": 2.0, "eta": 1.5, "steps": 4} | changes)


def worst(p: Problem, rule, net: MLP = NET, training: Training | None = None, without: tuple[str, ...] = (), runs: int = RUNS) -> dict[str, float]:
    """The largest z of output and kernels, at all times."""
    equations, compiled = dmft_equations(rule, net, training or Training()), {}
    drawn = [MeanField(equations, p, seed=seed, without=without, compiled=compiled).solve() for seed in range(runs)]
    solution = solve_dmft(p, rule, net, samples=4096, replicas=8)
    scores = {"f": z_scores((solution.f, solution.f_se, 8), _statistics([each.f for each in drawn]))}
    every = [(t, s) for t in range(p.steps) for s in range(t + 1)]
    for name in ("Phi", "G", "G_tilde", "H"):
        for l in (1, 2):
            kernel = getattr(solution, name)[l]
            theirs = np.array([kernel.block(t, s) for t, s in every]), np.array([kernel.block_se(t, s) for t, s in every])
            ours = [np.array([each.kernels[name, l][t, :, s] for t, s in every]) for each in drawn]
            scores[f"{name}{l}"] = z_scores((*theirs, 8), _statistics(ours))
    return {name: float(z.max()) for name, z in scores.items()}


def _statistics(runs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    return np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs)), len(runs)


# activation alignment is compared with networks in test_evolution.py
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "activation alignment")) for name in RULES])
def test_the_equations_are_what_the_solver_solves(name):
    scores = worst(problem(), RULES[name])
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.parametrize(
    "name, missing, felt",
    [("weight mirror", "R", "H1"), ("information alignment", "S", "H1"), pytest.param("activation alignment", "response A_V", "H1", marks=pytest.mark.slow)],
)
def test_no_part_can_be_left_out(name, missing, felt):
    """The overlap that the mirror needs, that of reconstructions, and the reaction of V to being used forward."""
    assert worst(problem(), RULES[name], without=(missing,))[felt] > LIMIT + 1


@pytest.mark.slow
def test_all_primitives_together_with_biases_batches_and_decay():
    net, training = MLP(depth=2, activation="tanh", sigma_w=1.25, sigma_b=0.5), Training(weight_decay=lam, batches=True)
    p = problem(steps=3, weight_decay=0.1, batches=[[0], [0, 1]])
    scores = worst(p, ALL, net, training, runs=4)
    assert max(scores.values()) < LIMIT + 0.5, scores  # 24 numbers a kernel, and errors from four runs
    wrong = worst(p, ALL, net, training, without=("response E",), runs=4)
    assert scores["f"] < 2 and wrong["f"] > LIMIT + 1, wrong  # the reaction of preactivations to what comes down
