"""Differences of estimates whose errors come from a few runs."""

from __future__ import annotations

import numpy as np
import pytest

from numerics.agreement import deviates

TRIALS = 100_000


def _estimate(rng, runs: int, spread: float):
    x = spread * rng.normal(size=(runs, TRIALS))
    return x.mean(axis=0), x.std(axis=0, ddof=1) / np.sqrt(runs)


@pytest.mark.parametrize("runs, spread", [((4, 4), 1.0), ((4, 3), 3.0), ((16, 4), 1.0)])
def test_deviates_of_equal_means_are_normal(runs, spread):
    """Nearly as often beyond 2 and 3 as a normal variable (4.6 and 0.27 %), for Welch's law is approximate; much less often than in units of the errors."""
    rng = np.random.default_rng(0)
    a, b = _estimate(rng, runs[0], 1.0), _estimate(rng, runs[1], spread)
    z, plain = deviates(*a, runs[0], *b, runs[1]), (a[0] - b[0]) / np.hypot(a[1], b[1])
    share = lambda values, beyond: float(np.mean(np.abs(values) > beyond))
    assert 0.03 < share(z, 2) < 0.065 and share(z, 3) < 0.009
    assert share(plain, 3) > 1.5 * share(z, 3) and share(plain, 2) > 0.06
    assert abs(np.mean(z)) < 0.02


def test_known_errors_give_their_own_units():
    assert deviates(3.0, 1.0, np.inf, 1.0, 0.0, np.inf) == pytest.approx(2.0)
    assert deviates(1.0, 0.3, np.inf, 3.0, 0.4, np.inf) == pytest.approx(-4.0)
    assert deviates(90.0, 1.0, np.inf, 0.0, 0.0, 2) == pytest.approx(90.0)  # less likely than the smallest number


def test_deviates_without_errors_are_unknown():
    assert np.isnan(deviates([1.0, 1.0], [0.0, np.nan], 4, 2.0, 0.0, 4)).all()


def test_few_runs_count_for_less():
    z = [float(deviates(5.0, 1.0, runs, 0.0, 0.0, 4)) for runs in (3, 4, 16, 1000)]
    assert z == sorted(z) and z[0] < 2.2 < 4.9 < z[-1]
