"""Single precision in the fields, double precision in what is averaged over them; and responses with and without adjointness."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from derive import DFA, FA, GD, MLP, Evolution, Feedback, Hebb, Rational, Rule, dphi, h, z
from numerics import Problem, solve_dmft
from numerics.dynamics import dynamics
from numerics.infinite import Layout, Room, start
from numerics.rows import _parts, bracket, part, wide
from numerics.sampling import Innovations

NET = MLP(depth=2, activation="tanh", sigma_b=0.3)
MIRROR = Rule("weight mirror", dphi(h) * z, Feedback(independent=1, evolution=Evolution(decay=Rational(1, 20), outer=h)))


def problem() -> Problem:
    random = np.random.default_rng(4)
    return Problem(random.normal(size=(3, 7)), np.array([1.0, -0.5, 0.2]), 1.0, 0.3, 6, X_test=random.normal(size=(2, 7)))


@pytest.mark.parametrize("rule", [GD(), *(pytest.param(rule, marks=pytest.mark.slow) for rule in (FA(0.5), MIRROR))])
def test_single_precision_follows_double(rule):
    # one tolerance for the bases, so that directions are dropped alike; round-off of fields is 1e-7, more where residuals are small
    options = {"samples": 96, "replicas": 1, "rank_tol": 1e-4, "two_time": False}
    fine, coarse = (solve_dmft(problem(), rule, NET, dtype=kind, **options) for kind in ("float64", "float32"))
    np.testing.assert_allclose(coarse.f, fine.f, atol=2e-4)
    np.testing.assert_allclose(coarse.f_test, fine.f_test, atol=2e-4)
    assert np.abs(coarse.f - fine.f).max() > 0  # it did run in single precision
    assert coarse.stats["gram_error"] < 1e-5


def test_small_matrices_are_double_whatever_the_fields_are():
    bound, _ = dynamics(FA(0.5), NET)
    state, _ = start(problem(), bound, Innovations(32), Layout.of(problem(), bound), Room(8, 8), jnp.dtype("float32"), 1e-5)
    hidden = state.matrices[1]
    assert {hidden.A.dtype, hidden.B.dtype, hidden.D.dtype, hidden.a.dtype, hidden.span.g.dtype} == {wide()}
    assert {hidden.Xi.dtype, hidden.basis.rows.dtype} == {jnp.dtype("float32")}


def test_long_averages_do_not_drift():
    # equal terms are the worst case: every partial sum is rounded the same way, and only within a part
    samples = 8 * part()
    ones = jnp.full((2, samples), 1.1, "float32")
    np.testing.assert_allclose(bracket(ones, ones), float(np.float32(1.1)) ** 2, rtol=3e-5)
    fields = jnp.asarray(np.random.default_rng(0).normal(size=(3, samples)), "float32")
    exact = np.asarray(fields, float) @ np.asarray(fields, float).T / samples
    np.testing.assert_allclose(bracket(fields, fields), exact, atol=1e-6)
    assert bracket(ones, ones).dtype == wide()


@pytest.mark.parametrize(("samples", "parts"), [(1000, 1), (part(), 1), (64 * part(), 64), (61 * part() + 64, 64), (3 * part(), 8), (part() + 1, 5)])
def test_averages_are_cut_into_equal_parts(samples, parts):
    assert _parts(samples) == parts
    assert samples % parts == 0
    assert _parts(16_000_057) == 1  # a prime number of samples cannot be cut


@pytest.mark.parametrize("rule", [DFA(), pytest.param(Hebb(), marks=pytest.mark.slow)])
def test_adjointness_changes_nothing_that_does_not_respond(rule):
    # nothing but observables comes down: outputs are the same bits
    options = {"samples": 64, "replicas": 1}
    np.testing.assert_array_equal(*(solve_dmft(problem(), rule, NET, adjoint=each, **options).f for each in (True, False)))


def test_both_ways_of_responding_have_one_limit_and_differ_before():
    options = {"samples": 1024, "replicas": 4}
    a, b = (solve_dmft(problem(), GD(), NET, adjoint=each, **options) for each in (True, False))
    error = np.sqrt(a.f_se**2 + b.f_se**2).max()
    assert 0 < np.abs(a.f - b.f).max() < 6 * error
    wrong = solve_dmft(problem(), GD(), NET, responses=False, **options)
    assert np.abs(wrong.f - a.f).max() > 6 * error
