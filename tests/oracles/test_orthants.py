"""Products of signs and probabilities of sign patterns of Gaussian vectors."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from numerics.orthants import cost, even_products, sign_patterns, sign_products, walsh


def covariance(P, D, seed=0):
    X = np.random.default_rng(seed).standard_normal((P, D))
    return X @ X.T / D


def probabilities(C):
    return walsh(even_products(C)[0]) / 2 ** len(C)


@pytest.mark.parametrize("P", [2, 3, 4, 5, 6, 7, 8])
def test_equal_correlations_of_one_half(P):
    """x_i = a_i − b: all signs agree if b is the smallest or the largest of P + 1 equal normals."""
    found = probabilities(0.5 * (np.ones((P, P)) + np.eye(P)))
    assert found[0] == pytest.approx(1 / (P + 1), abs=1e-9)
    assert found[-1] == pytest.approx(1 / (P + 1), abs=1e-9)
    # k of P negative: b is the (k + 1)-th smallest, each set of k as likely as any other
    assert found[1] == pytest.approx(1 / (P + 1) / P, abs=1e-9)


def test_five_variables_against_an_integrator_of_another_kind():
    C = covariance(5, 8)
    found = probabilities(C)
    patterns = sign_patterns(5)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    for k in (0, 3, 9, 22):
        turned = C * patterns[k][:, None] * patterns[k]
        # scipy integrates by randomised lattices, to about 1e-5 with these settings
        expected = multivariate_normal.cdf(np.zeros(5), cov=turned, maxpts=2_000_000, abseps=1e-6, releps=1e-6)
        assert found[k] == pytest.approx(expected, abs=2e-5)
    # signs taken as independent are far off
    assert np.max(np.abs(found - 2.0**-5)) > 0.01


def test_the_scale_of_variables_does_not_matter_and_their_order_is_followed():
    C, scale, order = covariance(4, 6), np.array([0.1, 3.0, 1.0, 20.0]), [2, 0, 3, 1]
    product = lambda C: sign_products(C[None], 19)[0]
    assert product(C * scale[:, None] * scale) == pytest.approx(product(C), abs=1e-13)
    assert product(C[order][:, order]) == pytest.approx(product(C), abs=1e-9)
    assert product(-C + 2 * np.diag(np.diag(C))) != pytest.approx(product(C), abs=1e-3)


def test_dependent_variables_and_variables_that_cost_too_much():
    C = covariance(4, 3)  # of fifteen regions, two patterns cannot happen
    found = probabilities(C)
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(4), C, 200_000)
    seen = np.bincount((draws < 0) @ (2 ** np.arange(4)), minlength=16) / len(draws)
    assert np.sum(found < 1e-12) == 2 and np.all(seen[found < 1e-12] == 0)
    assert np.max(np.abs(found - seen)) < 5 * 0.5 / np.sqrt(len(draws))  # five standard errors at most
    assert even_products(covariance(8, 20), within=1000) is None
    assert cost(4, 10) == 3 * 10 and cost(8, 10) == 105 * 10**3
