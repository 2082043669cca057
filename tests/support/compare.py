"""Theory against simulation: how far two estimates with standard errors are apart, in standard deviations."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

# |z| that no comparison may pass; each takes the largest of up to a few hundred correlated numbers.
LIMIT = 4.0


def z_scores(a, b) -> np.ndarray:
    """Differences in standard deviations of a normal distribution that are as unlikely as the observed ones.

    Errors are estimated from a dozen runs, so (a − b)/error follows Welch's t distribution; its tails are heavier than a normal's.
    Entries that are exact on both sides must agree.
    """
    (mean_a, se_a, n_a), (mean_b, se_b, n_b) = a, b
    error = np.sqrt(se_a**2 + se_b**2)
    exact = error < 1e-12
    np.testing.assert_allclose(mean_a[exact], mean_b[exact], atol=1e-9)
    se_a, se_b, error, t = se_a[~exact], se_b[~exact], error[~exact], np.abs(mean_a - mean_b)[~exact] / error[~exact]
    freedom = error**4 / (se_a**4 / (n_a - 1) + se_b**4 / (n_b - 1))
    return norm.isf(student.sf(t, freedom))


def record(solution) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Mean, standard error and number of runs of what is compared: outputs, losses, kernels of all layers at the end and across time."""
    found = {name: (getattr(solution, name), getattr(solution, f"{name}_se")) for name in ("f", "loss", "entk")}
    if solution.f_test is not None:
        found["f_test"] = (solution.f_test, solution.f_test_se)
    for name in ("Phi", "G", "G_tilde", "H"):
        for l in range(1, solution.depth + 1):
            kernel = getattr(solution, name)[l]
            found[f"{name}{l}"] = (kernel.block(-1, -1), kernel.block_se(-1, -1))
            found[f"{name}{l} across time"] = (kernel.block(2, -2), kernel.block_se(2, -2))
    runs = solution.settings.get("replicas") or solution.settings.get("seeds", np.inf)  # what is exact needs no runs
    return {name: (mean, se, runs) for name, (mean, se) in found.items()}


def worst(solution, simulation) -> dict[str, float]:
    """The largest z of each quantity."""
    a, b = record(solution), record(simulation)
    scores = {name: z_scores(a[name], b[name]) for name in a}
    return {name: float(z.max()) for name, z in scores.items() if z.size}
