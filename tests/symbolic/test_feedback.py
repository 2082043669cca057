"""Feedback that is an entrywise function of the forward weights, reduced to a correlation by derivation."""

import pytest
import sympy as sp

from derive import BadInput, NoClosedForm, entrywise_feedback, kolen_pollack, sign_concordant, symmetric_alignment, u, v, weight_mirror, x


def coefficients(function):
    path, _ = entrywise_feedback(function)
    return path.initial, path.independent


def test_sign_concordant_feedback_has_correlation_two_over_pi():
    path = sign_concordant().feedback
    assert path.initial == 2 / sp.pi
    assert sp.simplify(path.initial**2 + path.independent**2 - 1) == 0


def test_known_reductions():
    assert coefficients(u) == (1, 0)
    assert coefficients(v) == (0, 1)
    initial, independent = coefficients(sp.sign(u))
    assert initial == sp.sqrt(2 / sp.pi) and sp.simplify(independent**2 - (1 - 2 / sp.pi)) == 0
    r = sp.Rational(3, 10)
    initial, independent = coefficients(r * u + sp.sqrt(1 - r**2) * v)
    assert initial == r and sp.simplify(independent - sp.sqrt(1 - r**2)) == 0


def test_size_counts():
    """W̃ = 2 W is twice the initial weights, not a correlation of one."""
    assert coefficients(2 * u) == (2, 0)


def test_sampled_moments_agree():
    """The derived coefficients against 10^6 sampled entries; a tenth off is noticed."""
    import numpy as np

    random = np.random.default_rng(0)
    W, V = random.normal(size=(2, 10**6))
    entries = np.abs(V) * np.sign(W)
    initial, _ = coefficients(sp.Abs(v) * sp.sign(u))
    assert abs(np.mean(entries * W) - float(initial)) < 5 / np.sqrt(10**6)
    assert abs(np.mean(entries * W) - 0.9 * float(initial)) > 5 / np.sqrt(10**6)


@pytest.mark.parametrize(
    "function, error, message",
    [
        (sp.Abs(v), BadInput, "has mean"),
        (u * x, BadInput, "contains x"),
        (sp.S.Zero, BadInput, "is zero"),
        (sp.tanh(u), NoClosedForm, "tanh"),
    ],
)
def test_what_cannot_be_reduced_is_refused(function, error, message):
    with pytest.raises(error, match=message):
        entrywise_feedback(function)


def test_named_rules_carry_their_updates():
    assert symmetric_alignment(0.1).evolution.pull == sp.Rational(1, 10)
    assert kolen_pollack().evolution.copy == 1
    assert weight_mirror().evolution.outer != 0
