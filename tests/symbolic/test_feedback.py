"""Feedback that is an entrywise function of the forward weights, reduced to a correlation by derivation."""

import pytest
import sympy as sp

from derive import (
    MLP,
    BadInput,
    NoClosedForm,
    Rule,
    dmft_equations,
    dphi,
    entrywise_feedback,
    h,
    kolen_pollack,
    lazy_kernel,
    sign_concordant,
    small_feature_expansion,
    symmetric_alignment,
    u,
    v,
    weight_mirror,
    x,
    z,
)  # fmt: skip


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


def test_the_readout_keeps_the_function():
    """Of what is Gaussian nothing is left to keep, also where a sum is one only after simplification."""
    kept = lambda function: entrywise_feedback(function)[0].readout
    assert kept(u) is kept(v) is kept(sp.cos(1) * u + sp.sin(1) * v) is kept(-2 * u) is None
    assert kept(sp.sign(u)) == sp.sign(u)
    with pytest.raises(BadInput, match=r"z at the readout, u\*\*3, is not Gaussian"):
        lazy_kernel(Rule("cube", dphi(h) * z**3, entrywise_feedback(u**3)[0]), MLP(1, "relu"))
    with pytest.raises(BadInput, match=r"readout's feedback .* is not Gaussian"):
        small_feature_expansion(sign_concordant(), MLP(1, "erf"))
    assert "not Gaussian" in dmft_equations(sign_concordant(), MLP(1, "erf")).document()


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
