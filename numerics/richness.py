"""How far features move: what decides between lazy and rich training, whatever the units of inputs, targets and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from .dynamics import Dynamics
from .problem import Problem

# Quantiles of a Gaussian that stand for its law; a size is wanted, not a kernel.
QUANTILES = 256


def richness(p: Problem, bound: Dynamics, values: Mapping[str, float]) -> float:
    """γ = γ0 |Δ|/|φ^L| at t = 0: by how much features move, relative to their size, while outputs reach their targets. γ0 where either is zero.

    Targets in other units, s y, are another γ0, s γ0; so are other units of inputs where units are homogeneous.

    Args:
        p: the problem.
        bound, values: the rule on the network, and its parameters.
    """
    return _richness(p, bound, tuple(values.items()))


@lru_cache(maxsize=4)
def _richness(p: Problem, bound: Dynamics, values: tuple[tuple[str, float], ...]) -> float:
    error = np.asarray(p.objective.error(np.zeros_like(p.y), p.y), float).reshape(p.P, -1)
    wanted, size = np.sqrt(np.mean(np.sum(error**2, axis=1))), np.sqrt(np.mean(_energies(p, bound, dict(values))))
    return float(p.gamma0 * (wanted / size if wanted > 0 and size > 0 else 1.0))


def _energies(p: Problem, bound: Dynamics, values: Mapping[str, float]) -> Float[np.ndarray, "P"]:
    """⟨φ(h^L)²⟩ of each example at t = 0."""
    sigma_w, sigma_b = map(float, bound.module.scales(**values))
    u = ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES)
    inputs = np.diag(p.Kx)
    m = np.sqrt(inputs)[:, None] * u.reshape(16, -1).T.ravel()  # in an order that has nothing to do with that of h
    energy = inputs
    for _ in range(bound.depth):
        h = np.sqrt(sigma_w**2 * energy + sigma_b**2)[:, None] * u
        energy = np.mean(np.square(np.asarray(bound.module.forward(h, m, **values))), axis=1)
    return energy
