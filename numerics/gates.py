"""Gates of a gated network as a quadrature: patterns of slopes f(m_μ), m ~ N(0, K^x), with weights.

Gates that depend on the sign of m only have at most 2^P patterns, whose probabilities are computed (`orthants.py`): averages over them are
exact. Others are drawn, and reweighted so that ⟨f(m_μ) f(m_ν)⟩ is exact: kernels at t = 0, and with them the lazy limit, then have no error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .dynamics import Dynamics
from .infinite import coordinates, outside
from .lazy import at_start, layers_module
from .orthants import BUDGET, even_products, sign_patterns, walsh
from .problem import Problem
from .sampling import Innovations

# Examples above which patterns are not enumerated: 2^P of them.
MOST_EXAMPLES = 9
# Patterns of smaller probability are round-off of a degenerate covariance.
LEAST = 1e-13


@dataclass(frozen=True)
class Gates:
    """The gates of one layer.

    Attributes:
        slopes: f(m_μ).
        test: f at the test inputs, or its mean given the pattern of the training inputs: outputs are linear in it.
        weights: of the patterns; they sum to 1.
        calibrated: whether second moments of the slopes are exact.
    """

    slopes: Float[np.ndarray, "P S"]
    test: Float[np.ndarray, "K S"] | None
    weights: Float[np.ndarray, "S"]
    calibrated: bool


def slopes(rule: Dynamics, values: dict[str, float], m: Float[np.ndarray, "n S"]) -> Float[np.ndarray, "n S"]:
    """f(m)."""
    return np.broadcast_to(np.asarray(rule.module.slope(np.zeros_like(m), m, **values), float), m.shape)


def all_patterns(p: Problem, rule: Dynamics, values: dict[str, float]) -> Gates | None:
    """Every pattern of gates that depend on signs only, with its probability.

    Returns:
        None for other gates, for more than `MOST_EXAMPLES` examples that span more than a plane, and where the probabilities cannot be
        computed to 1e-9 in seconds.
    """
    if not rule.sign_gates:
        return None
    if not np.any(p.X):
        return _at_zero(p, rule, values)
    if (found := _in_a_plane(p, rule, values)) is not None:
        return found
    slow = p.P >= 8 and np.linalg.matrix_rank(p.Kx) < p.P - 2
    return None if p.P > MOST_EXAMPLES or slow else _by_products(p, rule, values)


def _at_zero(p: Problem, rule: Dynamics, values: dict[str, float]) -> Gates:
    """Inputs that are all zero have one pattern, f(0); of a test input that is not, either sign is as likely."""
    low, zero, high = slopes(rule, values, np.array([[-1.0, 0.0, 1.0]]))[0]
    test = None if p.X_test is None else np.where(np.any(p.X_test, axis=1), (low + high) / 2, zero)[:, None]
    return Gates(np.full((p.P, 1), zero), test, np.ones(1), True)


def _in_a_plane(p: Problem, rule: Dynamics, values: dict[str, float]) -> Gates | None:
    """Inputs of rank two at most: m = C x and x has any direction with equal probability, so that patterns are arcs between the lines m_μ = 0."""
    points = coordinates(p)[0]
    if points.shape[1] > 2:
        return None
    tests = np.zeros((0, points.shape[1]))
    if p.X_test is not None:
        tests, beyond = outside(p)
        if np.max(beyond) > 1e-7 * np.max(np.abs(points)):  # the root of round-off
            return None
    every = np.concatenate([points, tests])
    every = np.pad(every, ((0, 0), (0, 2 - every.shape[1])))
    lines = np.arctan2(-every[:, 0], every[:, 1]) % np.pi
    ends = np.unique(np.concatenate([lines, lines + np.pi]))
    arcs = np.diff(ends, append=ends[0] + 2 * np.pi)
    kept = arcs > LEAST
    middle = (ends + arcs / 2)[kept]
    found = slopes(rule, values, every @ np.stack([np.cos(middle), np.sin(middle)]))
    weights = arcs[kept] / np.sum(arcs[kept])
    return Gates(found[: p.P], None if p.X_test is None else found[p.P :], weights, True)


def _by_products(p: Problem, rule: Dynamics, values: dict[str, float]) -> Gates | None:
    """All signs, by the expectations of their products."""
    tests = np.zeros((0, p.D)) if p.X_test is None else p.X_test
    share = BUDGET / (1 + len(tests))
    found = even_products(p.Kx, share)
    if found is None:
        return None
    probability = walsh(found[0]) / 2**p.P
    kept = probability > LEAST
    patterns, weights = sign_patterns(p.P)[kept].T, probability[kept] / np.sum(probability[kept])
    low, high = slopes(rule, values, np.array([[-1.0, 1.0]]))[0]
    at = lambda sign: (low + high) / 2 + (high - low) / 2 * sign
    test = np.empty((len(tests), len(weights)))
    for row, x in zip(test, tests, strict=True):
        if (mean := _mean_sign(p, x, share)) is None:
            return None
        row[:] = at(mean[kept] / probability[kept])
    return Gates(at(patterns), None if p.X_test is None else test, weights, True)


def _mean_sign(p: Problem, x: Float[np.ndarray, "D"], within: float) -> Float[np.ndarray, "N"] | None:
    """E[sgn m(x); pattern] for all patterns."""
    joint = np.concatenate([p.X, x[None]])
    found = even_products(joint @ joint.T / p.D, within, with_last=True)
    return None if found is None else walsh(found[0]) / 2**p.P


def drawn(p: Problem, rule: Dynamics, values: dict[str, float], innovations: Innovations, layer: int, second: np.ndarray | None) -> Gates:
    """Gates of a layer, drawn.

    Args:
        p, rule, values: what to solve.
        innovations: where normals come from.
        layer: 0…L−1; each is a population of its own.
        second: exact ⟨f(m_μ) f(m_ν)⟩, or None for equal weights.
    """
    C = coordinates(p)[0]
    rank = C.shape[1]
    rows = replace(innovations, population=layer + 1).rows(0, rank + 1).astype(float)
    found, S = slopes(rule, values, C @ rows[:rank]), innovations.samples
    test = None
    if p.X_test is not None:
        inside, beyond = outside(p)
        test = slopes(rule, values, inside @ rows[:rank] + beyond[:, None] * rows[rank])
    weights = None if second is None else reweighted(found, second)
    return Gates(found, test, np.full(S, 1 / S) if weights is None else weights, weights is not None)


def enough(P: int) -> int:
    """Samples for which weights are looked for: two for each of the second moments."""
    return P * (P + 1)


def reweighted(values: Float[np.ndarray, "P S"], second: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "S"] | None:
    """Weights nearest to equal ones (in relative entropy) with Σ_i w_i values_μi values_νi = second_μν and Σ w = 1.

    They are w ∝ exp(λ·F) with F the products of pairs; λ minimises log Σ exp(λ·(F − target)), by Newton's method.

    Returns:
        None where that has no minimum: too few samples for the target to lie among them.
    """
    if values.shape[1] < enough(len(values)):
        return None
    pairs = np.triu_indices(len(values))
    target = second[pairs]
    F = (values[pairs[0]] * values[pairs[1]] - target[:, None]) / np.maximum(np.abs(target), 1e-3)[:, None]
    at, log, weights = np.zeros(len(F)), 0.0, np.full(F.shape[1], 1 / F.shape[1])
    for _ in range(50):
        gradient = F @ weights
        if np.max(np.abs(gradient)) < 1e-10:
            return weights
        hessian = (F * weights) @ F.T - np.outer(gradient, gradient)
        step = -np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        descent, size = float(gradient @ step), 1.0
        # near the minimum log is known to its round-off only
        while (trial := _tilted(F, at + size * step))[0] > log + 1e-4 * size * descent + 1e-14 and size > 1e-6:
            size /= 2
        at, (log, weights) = at + size * step, trial
    return None


def _tilted(F: Float[np.ndarray, "k S"], at: Float[np.ndarray, "k"]) -> tuple[float, Float[np.ndarray, "S"]]:
    """log of the mean of exp(at·F), and its weights."""
    exponent = at @ F
    top = float(np.max(exponent))
    weights = np.exp(exponent - top)
    return top + float(np.log(np.mean(weights))), weights / np.sum(weights)


def second_moments(p: Problem, rule: Any, net: Any, bound: Dynamics, values: dict[str, float]) -> Float[np.ndarray, "P P"]:
    """⟨f(m_μ) f(m_ν)⟩ by the rule's derived lazy kernel: G^L at t = 0, over σ_w²."""
    module = layers_module(rule, net)
    needed = {name: value for name, value in values.items() if name in module.PARAMETERS}
    weight = float(bound.module.scales(**values)[0]) ** 2
    return np.asarray(at_start(jnp.asarray(p.X), needed, module)["G"][-1], float) / weight
