"""The benchmarks' baseline, the published alternating algorithm, against the causal solver: the same limit, or its speed means nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from derive import DFA, FA, GD, MLP, Hebb
from numerics import Problem, solve_dmft

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NET = MLP(depth=2, activation="tanh")
SEEDS = 8
# Eight seeds a side: t distribution with about seven degrees of freedom and 1 - 1e-4 quantile 7.1; losses at five times, strongly correlated.
LIMIT = 7.1


@pytest.fixture(scope="module")
def published():
    spec = importlib.util.spec_from_file_location("published_algorithm", BENCHMARKS / "published.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def problem() -> Problem:
    return Problem(np.random.default_rng(0).normal(size=(2, 8)), np.array([1.0, -1.0]), gamma0=1.5, eta=0.4, steps=6)


def compare(published, rule, **options):
    """z-scores of the losses after t = 0, which is exact, and the relative L2 distance of the loss curves."""
    sol = solve_dmft(problem(), rule, NET, samples=2048, replicas=SEEDS)
    settings = {"samples": 4000, "sweeps": 8, "paths": "causal", **options}
    runs = np.array([published.solve_published(problem(), rule, NET, seed=seed, **settings).loss for seed in range(SEEDS)])
    mean, error = runs.mean(axis=0), runs.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    z = (mean - sol.loss)[1:] / np.hypot(error, sol.loss_se)[1:]
    return np.abs(z).max(), np.linalg.norm(mean - sol.loss) / np.linalg.norm(sol.loss)


def test_both_algorithms_have_one_limit(published):
    z, distance = compare(published, GD())
    assert z < LIMIT
    assert distance < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("rule", [FA(0.5), DFA(), Hebb()], ids=["FA", "DFA", "Hebb"])
def test_both_algorithms_have_one_limit_for_other_rules(published, rule):
    z, distance = compare(published, rule, samples=10_000)
    assert z < LIMIT
    assert distance < 0.01


def test_errors_to_first_order_in_eta_are_noticed(published):
    # the public code's treatment: about one per cent off at this learning rate
    assert compare(published, GD(), continuous=True)[0] > LIMIT


@pytest.mark.slow
def test_fixed_points_and_marching_find_the_same_paths(published):
    # the same samples: only the tolerance of the fixed-point iteration is between them
    found = [published.solve_published(problem(), GD(), NET, 200, sweeps=2, paths=paths) for paths in ("fixed-point", "causal")]
    for name, value in found[0].digest().items():
        np.testing.assert_allclose(value, found[1].digest()[name], rtol=1e-3, atol=1e-5)


def test_networks_that_the_baseline_does_not_cover_are_refused(published):
    with pytest.raises(ValueError, match="sigma_b"):
        published.solve_published(problem(), GD(), MLP(depth=2, activation="tanh", sigma_b=0.5))
    with pytest.raises(ValueError, match="batch=50"):
        published.solve_published(problem(), GD(), NET, samples=1001)
