"""Extrapolation in 1/N: the least squares, and networks against infinite width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compare import LIMIT, record, z_scores

from derive import FA, GD, MLP
from numerics import Problem, Solution, extrapolate, solve_dmft, train_finite
from numerics.extrapolate import combination

NET = MLP(depth=2, activation="tanh")


def problem(gamma0: float = 3.0) -> Problem:
    random = np.random.default_rng(2)
    return Problem(random.normal(size=(3, 8)), np.array([1.0, -1.0, 0.4]), gamma0=gamma0, eta=0.3, steps=6)


@pytest.fixture(scope="module")
def ensembles() -> list[Solution]:
    # narrow on purpose: their own 1/N corrections must show
    return [train_finite(problem(), GD(), NET, width=width, seeds=seeds, seed=width) for width, seeds in ((16, 1200), (32, 900), (64, 600))]


@pytest.mark.parametrize("order", [1, 2])
def test_polynomials_are_met_exactly(order):
    widths, random = np.array([10.0, 20.0, 50.0, 90.0]), np.random.default_rng(0)
    truth = random.normal(size=order + 1)
    values = sum(c / widths**k for k, c in enumerate(truth))
    w = combination(widths, widths * random.integers(1, 9, 4), order)
    assert w @ values == pytest.approx(truth[0], abs=1e-10)
    assert w.sum() == pytest.approx(1.0)
    # the next power is not in the fit
    assert abs(w @ (values + 30.0 / widths ** (order + 1)) - truth[0]) > 1e-4


def test_weights_are_those_of_least_squares():
    # two coefficients by the normal equations
    widths, weights = np.array([8.0, 16.0, 40.0]), np.array([3.0, 5.0, 2.0])
    design = np.stack([np.ones(3), 1 / widths], axis=1)
    normal = np.linalg.solve(design.T @ (weights[:, None] * design), design.T * weights)[0]
    np.testing.assert_allclose(combination(widths, weights, 1), normal, rtol=1e-10)


def test_narrow_networks_lead_to_infinite_width(ensembles):
    limit = solve_dmft(problem(), GD(), NET, samples=4096, replicas=8)
    found = extrapolate(ensembles, order=2)
    theory, seeds = record(limit), found.runs
    for name in ("f", "loss"):
        mean, se = getattr(found, name), getattr(found, f"{name}_se")
        assert z_scores(theory[name], (mean, se, seeds)).max() < LIMIT
        # no single ensemble is there
        narrow = ensembles[0]
        assert z_scores(theory[name], (getattr(narrow, name), getattr(narrow, f"{name}_se"), seeds)).max() > LIMIT
    for l in (1, 2):
        pair = found.Phi[l].block(-1, -1), found.Phi[l].block_se(-1, -1), seeds
        assert z_scores(theory[f"Phi{l}"], pair).max() < LIMIT
    assert found.stats["freedom"] == 0


def test_errors_are_larger_than_the_widest_ensembles_and_survive_the_disk(ensembles, tmp_path):
    found = extrapolate(each for each in ensembles)
    assert found.stats["freedom"] == 1
    assert found.stats["chi2"] >= 0
    assert np.all(found.loss_se[1:] > ensembles[-1].loss_se[1:])
    found.save(tmp_path / "limit.npz")
    back = Solution.load(tmp_path / "limit.npz")
    np.testing.assert_array_equal(back.Phi[1].block_se(2, 2), found.Phi[1].block_se(2, 2))
    np.testing.assert_array_equal(back.G[2].dense(), found.G[2].dense())


def test_what_cannot_be_extrapolated_is_refused(ensembles):
    with pytest.raises(ValueError, match="cannot fix 2 coefficients"):
        extrapolate(ensembles[:1])
    for order in (0, 1.5):
        with pytest.raises(ValueError, match=f"order={order}.*give an integer order >= 1"):
            extrapolate(ensembles, order=order)
    twice = replace(ensembles[0], settings={**ensembles[0].settings, "seed": 64})
    with pytest.raises(ValueError, match=r"widths 16 and 64 share seed=64.*a seed of its own"):
        extrapolate([twice, *ensembles[1:]])
    other = replace(ensembles[0], problem=problem(1.0))
    with pytest.raises(ValueError, match="different problems"):
        extrapolate([other, *ensembles[1:]])
    fa = train_finite(problem(), FA(0.5), NET, width=8, seeds=2)
    with pytest.raises(ValueError, match="differ in source"):
        extrapolate([*ensembles, fa])
    with pytest.raises(ValueError, match="no width"):
        extrapolate([solve_dmft(problem(), GD(), NET, samples=16, replicas=1), *ensembles])
