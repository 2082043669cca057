"""How far two estimates are apart when their standard errors come from a few runs each."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float


def deviates(a: ArrayLike, a_se: ArrayLike, a_runs: float, b: ArrayLike, b_se: ArrayLike, b_runs: float) -> Float[np.ndarray, "*shape"]:
    """a − b in standard deviations of a normal distribution.

    (a − b)/error follows Welch's t distribution, whose tails are much heavier than a normal's when errors come from a few runs: with four runs
    each, 3.7 errors are as likely as 2.5 standard deviations. Returned is the number of standard deviations that is as likely.

    Args:
        a, b: means, of any shapes that broadcast.
        a_se, b_se: their standard errors; zero where they are exact.
        a_runs, b_runs: how many runs the errors come from, at least two where they are not zero; infinity where they are known.

    Returns:
        Signed deviates; NaN where neither has an error, or an error is unknown.

    Source: Welch 1947.
    """
    from scipy.stats import norm, t  # here, because it takes as long to import as all of JAX

    a_se, b_se = (np.asarray(se, float) for se in (a_se, b_se))
    difference: Any = np.asarray(a, float) - np.asarray(b, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(a_se, b_se)
        freedom = error**4 / (a_se**4 / (a_runs - 1) + b_se**4 / (b_runs - 1))
        size = np.abs(difference) / error
        # never more than that, also where the probability is below the smallest number
        found = np.sign(difference) * np.minimum(norm.isf(t.sf(size, freedom)), size)
    return np.where(error > 0, found, np.nan)
