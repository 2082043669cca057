"""Probabilities of the sign patterns of Gaussian vectors, by quadrature over a tree of conditional covariances.

With x ~ N(0, C) let x₀'s covariances with the others be t C₀ⱼ. Price's theorem gives, for an even number of signs,

    d/dt E[Π sgn x_i] = Σ_j C₀ⱼ E[2δ(x₀) 2δ(x_j) Π_rest sgn]          t C₀ⱼ/√(C₀₀ C_jj) = sin θ
    E[Π sgn x_i] = (2/π) Σ_j ∫₀^{asin ρ₀ⱼ} dθ E[Π_rest sgn | x₀ = x_j = 0]

which is zero at t = 0 and has two signs fewer on the right: a product of n signs costs (n − 1)!! m^{n/2 − 1} arcsines with m nodes an integral.
Products of an odd number of signs vanish. The 2^P probabilities are the Walsh transform of the 2^{P−1} even products.

Source: Price 1958; Plackett 1954 (the reduction of orthant probabilities to conditional ones).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float

# Nodes of an integral; the next number is tried until the last change is below `ENOUGH`.
NODES = (6, 9, 13, 19, 28, 42, 63)
ENOUGH = 1e-9
# Conditional variances below are round-off.
NOTHING = 1e-13
# Arcsines that one call may cost: seconds.
BUDGET = 6e7


def sign_products(C: Float[np.ndarray, "B n n"], nodes: int) -> Float[np.ndarray, "B"]:
    """E[sgn x₁ … sgn x_n] for a batch of covariances, n even."""
    deviation = np.sqrt(np.diagonal(C, axis1=1, axis2=2))
    return _products(C / deviation[:, :, None] / deviation[:, None, :], nodes)


def _products(C: Float[np.ndarray, "B n n"], nodes: int) -> Float[np.ndarray, "B"]:
    """The same for variables that had unit variance before conditioning."""
    n = C.shape[-1]
    if n == 0:
        return np.ones(len(C))
    # a variable that the others fix at zero, as a copy of one of them: its sign is odd in that one, and the product vanishes
    fixed = np.min(np.diagonal(C, axis1=1, axis2=2), axis=1) < NOTHING
    C = np.where(fixed[:, None, None], np.eye(n), C)
    scale = np.sqrt(C[:, 0, 0, None] * np.diagonal(C, axis1=1, axis2=2))
    theta = np.arcsin(np.clip(C[:, 0] / scale, -1.0, 1.0))  # rounding only: |ρ| ≤ 1
    if n == 2:
        return 2 / np.pi * theta[:, 1] * ~fixed
    x, weight = _nodes(nodes)
    total = np.zeros(len(C))
    for j in range(1, n):
        rest = [i for i in range(1, n) if i != j]
        inner = _products(_conditional(C, theta[:, j], scale[:, j], j, rest, x), nodes).reshape(len(C), nodes)
        total += 2 / np.pi * theta[:, j] * (inner @ weight)
    return total * ~fixed


def _nodes(count: int) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """Gauss's points for ∫₀¹ dx after x = sin(πy/2): where C is singular the integrand has a root of 1 − x, which is smooth in y."""
    y, weight = np.polynomial.legendre.leggauss(count)
    angle = np.pi / 4 * (y + 1)
    return np.sin(angle), np.pi / 4 * np.cos(angle) * weight


def _conditional(C, theta, scale, j: int, rest: list[int], x) -> Float[np.ndarray, "Bm k k"]:
    """Covariances of the rest given x₀ = x_j = 0 at the nodes, where x₀'s covariances are multiplied by t."""
    angle = theta[:, None] * x
    correlation = np.sin(angle)
    t = correlation * scale[:, None] / np.where(C[:, 0, j] == 0, 1.0, C[:, 0, j])[:, None]
    a = t[:, :, None] * C[:, None, 0, rest] / np.sqrt(C[:, 0, 0])[:, None, None]
    b = C[:, None, j, rest] / np.sqrt(C[:, j, j])[:, None, None]
    # x₀ and what x_j has beyond it, both of unit variance
    b = (b - correlation[:, :, None] * a) / np.cos(angle)[:, :, None]
    found = C[:, None][:, :, rest][:, :, :, rest] - a[..., :, None] * a[..., None, :] - b[..., :, None] * b[..., None, :]
    return found.reshape(-1, len(rest), len(rest))


def cost(n: int, nodes: int) -> float:
    """Arcsines for one product of n signs."""
    return float(np.prod(np.arange(1, n, 2, dtype=float)) * nodes ** max(n // 2 - 1, 0))


def even_products(
    C: Float[np.ndarray, "P P"], within: float = BUDGET, with_last: bool = False
) -> tuple[Float[np.ndarray, "A"], float] | None:
    """E[Π_{i ∈ A} sgn x_i] for all subsets A, numbered by their bits.

    Args:
        C: covariance.
        within: arcsines that may be computed.
        with_last: only subsets with the last variable, numbered by the bits of the others.

    Returns:
        The products and the largest change with the last increase of the number of nodes; None where it costs too much or does not
        converge (a nearly singular covariance of many variables), and where a variable is zero.
    """
    P = len(C)
    if np.min(np.diag(C)) <= 0:
        return None
    subsets = [np.array(list(combinations(range(P), size))) for size in range(2, P + 1, 2)]
    if with_last:
        subsets = [some[some[:, -1] == P - 1] for some in subsets]
    before, spent = None, 0.0
    for nodes in NODES:
        spent += sum(len(some) * cost(some.shape[1], nodes) for some in subsets)
        if spent > within:
            return None
        found = np.zeros(2**P)
        found[0] = 1.0
        for some in subsets:
            found[np.sum(2**some, axis=1)] = sign_products(C[some[:, :, None], some[:, None, :]], nodes)
        change = np.inf if before is None else float(np.max(np.abs(found - before)))
        if P <= 3 or change < ENOUGH:
            return found[2 ** (P - 1) :] if with_last else found, 0.0 if P <= 3 else change
        before = found
    return None


def walsh(values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "N *k"]:
    """Σ_A values_A (−1)^{|A ∩ s|} for all s, both numbered by bits."""
    found, block = values, 1
    while block < len(values):
        pairs = found.reshape(-1, 2, block, *values.shape[1:])
        found = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(values.shape)
        block *= 2
    return found


def sign_patterns(P: int) -> Float[np.ndarray, "N P"]:
    """All patterns of ±1; bit i of a pattern's number is set where sign i is −1."""
    return 1.0 - 2.0 * ((np.arange(2**P)[:, None] >> np.arange(P)) & 1)
