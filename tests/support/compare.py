"""Theory against simulation: how far two estimates with standard errors are apart, in standard deviations."""

from __future__ import annotations

import numpy as np

from numerics.agreement import deviates

# |z| that no comparison may pass; each takes the largest of up to a few hundred correlated numbers.
LIMIT = 4.0


def z_scores(a, b) -> np.ndarray:
    """Sizes of the differences in standard deviations; entries that are exact on both sides must agree."""
    (mean_a, se_a, n_a), (mean_b, se_b, n_b) = a, b
    exact = np.hypot(se_a, se_b) < 1e-12
    np.testing.assert_allclose(mean_a[exact], mean_b[exact], atol=1e-9)
    found = ~exact
    return np.abs(deviates(mean_a[found], se_a[found], n_a, mean_b[found], se_b[found], n_b))


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
    return {name: (mean, se, solution.runs) for name, (mean, se) in found.items()}


def worst(solution, simulation) -> dict[str, float]:
    """The largest z of each quantity."""
    a, b = record(solution), record(simulation)
    scores = {name: z_scores(a[name], b[name]) for name in a}
    return {name: float(z.max()) for name, z in scores.items() if z.size}
