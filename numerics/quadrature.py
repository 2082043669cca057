"""E[f(u) g(v)] without a closed form, for arrays of covariances. Generated kernels call these; each states where it applies.

    hermite   smooth f and g: Σ_k a_k(σ_u) b_k(σ_v) ρ^k with Mehler's formula
    angular   f and g smooth but for kinks or jumps at 0: the expectation is analytic in the angle θ and in σ_u, σ_v
    nested    kinks or jumps anywhere: two integrals one inside the other, split where the integrand changes fast
    single    E[f(u) g(u)]

Covariances are given as q_mumu (N1, 1), q_munu (N1, N2), q_nunu (1, N2), or as three arrays of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import safe

Function = Callable[[jax.Array], jax.Array]
# The Gaussian measure beyond is below 1e-38.
REACH = 13.0
# How far c² may exceed ab, relatively, before it is no covariance.
SLACK = 1e-9
# Spacing of the trapezoidal rule for that many Hermite coefficients; errors e^{−2πd/h} for poles at distance d, π/(2σ) for
# tanh. A short series is only used for small σ.
SPACINGS = ((200, 0.1), (10**9, 0.05))
# Below this, terms of the series are dropped: a_k b_k ρ^k ≤ ‖f‖ ‖g‖ |ρ|^k.
NEGLIGIBLE = 1e-12
# Terms of the series in one pass over the pairs, and the degree up to which the short series goes.
GROUP = 12
SHORT = 96
# What depends on parameters is measured when these are known. Of √(E[f²] E[g²]): where a series is cut off; errors beyond which a series or
# a single integral, or a rule for kinks, gives NaN; the longest series, and how many of its last terms must be negligible.
CUT, SMOOTH_LIMIT, KINK_LIMIT = 3e-13, 1e-11, 1e-6
LONGEST, SPARE = 1400, 50
# Sizes and rule of the interpolation in the angle where the usual ones do not do.
FINEST = ((30, 40), (40, 80))


# ---- nodes, computed once with NumPy ---------------------------------------------------------------------------------


@cache
def hermite_table(degrees: tuple[int, ...], half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x_j and weights T_jk = w_j h_k(x_j) N(x_j) with Σ_j T_jk f(x_j) = E[f(ξ) h_k(ξ)], h_k orthonormal.

    Args:
        degrees: the k that are kept.
        half: only x_j ≥ 0, with doubled weights: for integrands that are even.
    """
    spacing = next(h for limit, h in SPACINGS if max(degrees) < limit)
    nodes = np.arange(0 if half else -REACH, REACH + spacing / 2, spacing)
    weights = np.full(nodes.shape, spacing * (2 if half else 1) / np.sqrt(2 * np.pi))
    weights[0 if half else slice(0)] *= 0.5 if half else 1.0
    # h_k e^{−x²/4} stays below 1 where h_k alone overflows
    half_density = np.exp(-(nodes**2) / 4)
    table = np.empty((len(nodes), len(degrees)))
    before, current = np.zeros_like(nodes), half_density
    column = {degree: index for index, degree in enumerate(degrees)}
    for degree in range(max(degrees) + 1):
        if degree in column:
            table[:, column[degree]] = weights * half_density * current
        before, current = current, (nodes * current - np.sqrt(degree) * before) / np.sqrt(degree + 1)
    return nodes, table


@cache
def legendre(panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss–Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    nodes, weights = (nodes + 1) / (2 * panels), weights / (2 * panels)
    shifted = nodes[None, :] + np.arange(panels)[:, None] / panels
    return shifted.ravel(), np.tile(weights, panels)


@cache
def radial(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights for ∫_0^∞ r e^{−r²/2} f(r) dr, by Stieltjes' procedure on a fine rule."""
    fine, weight = legendre(64, 24)
    r = fine * 18.0
    measure = weight * 18.0 * r * np.exp(-(r**2) / 2)
    alpha, beta = np.empty(order), np.empty(order)
    before, current = np.zeros_like(r), np.ones_like(r) / np.sqrt(measure.sum())
    for k in range(order):
        alpha[k] = (measure * r * current**2).sum()
        following = (r - alpha[k]) * current - (beta[k - 1] * before if k else 0)
        beta[k] = np.sqrt((measure * following**2).sum())
        before, current = current, following / beta[k]
    values, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
    return values, measure.sum() * vectors[0] ** 2


# ---- one variable ----------------------------------------------------------------------------------------------------


def single(f: Function, g: Function, q: jax.Array, breaks: Sequence[float] = (), measured: bool = False) -> jax.Array:
    """E[f(u) g(u)] with u ~ N(0, q): Gauss–Legendre on panels that end at the kinks.

    Args:
        f, g: elementwise functions, smooth between `breaks`.
        q: variances, any shape.
        breaks: the kinks of f and g, increasing.
        measured: compare with a finer rule, and give NaN where they differ.
    """
    q = jnp.asarray(q)
    total = _on_panels(f, g, q, breaks, (40, 16))
    if not measured:
        return total
    missed = jnp.abs(total - _on_panels(f, g, q, breaks, (64, 20)))
    size = jnp.sqrt(_on_panels(f, f, q, breaks, (40, 16)) * _on_panels(g, g, q, breaks, (40, 16)))
    return _where_small(missed, size, KINK_LIMIT if breaks else SMOOTH_LIMIT, total)


def _where_small(error: jax.Array, size: jax.Array, limit: float, value: jax.Array) -> jax.Array:
    """`value` where error ≤ limit · size, NaN elsewhere, and where either is none; in single precision within what rounding leaves."""
    error, size = lax.stop_gradient(error), lax.stop_gradient(size)
    limit = max(limit, 1e3 * float(jnp.finfo(value.dtype).eps))
    return _where((error <= limit * size) & jnp.isfinite(size), value)


def _where(valid: jax.Array, value: jax.Array) -> jax.Array:
    """NaN elsewhere, in value and slope."""
    return value * jnp.where(valid, 1.0, jnp.nan).astype(value.dtype)


def _on_panels(f: Function, g: Function, q: jax.Array, breaks: Sequence[float], rule: tuple[int, int]) -> jax.Array:
    sigma = safe.sqrt(q)[..., None]
    fractions, weights = (jnp.asarray(v, sigma.dtype) for v in legendre(*rule))
    edges = [-REACH * jnp.ones_like(sigma)]
    edges += [jnp.clip(safe.divide(jnp.asarray(t, sigma.dtype), sigma), -REACH, REACH) for t in breaks]
    edges += [REACH * jnp.ones_like(sigma)]
    total = jnp.zeros_like(sigma[..., 0])
    for low, high in pairwise(edges):
        xi = low + (high - low) * fractions
        u = sigma * xi
        total += jnp.sum(weights * (high - low) * _density(xi) * f(u) * g(u), axis=-1)
    return total


def _density(xi: jax.Array) -> jax.Array:
    return jnp.exp(-xi * xi / 2) / float(np.sqrt(2 * np.pi))


# ---- smooth functions: Hermite series --------------------------------------------------------------------------------


def hermite(
    f: Function, g: Function, q_mumu: jax.Array, q_munu: jax.Array, q_nunu: jax.Array,
    parity: str, terms: Sequence[tuple[float, int]],
) -> jax.Array:  # fmt: skip
    """E[f(u) g(v)] = Σ_k a_k(σ_u) b_k(σ_v) ρ^k, a_k = E[f(σ_u ξ) h_k(ξ)], for smooth f and g.

    Args:
        f, g: elementwise functions, analytic near the real line.
        parity: "even" or "odd" where f and g both are, else "".
        terms: (largest σ, degrees needed) in increasing order, as checked when the code was generated. The largest σ and |ρ|
            of the arguments choose at run time; beyond the last σ the result is NaN, never silently wrong. Empty where f and g have
            parameters: then the degrees are counted here, and the result is NaN where there are too many.
    """
    sigma_u, sigma_v = safe.sqrt(q_mumu), safe.sqrt(q_nunu)
    rho = safe.divide(q_munu, sigma_u * sigma_v)
    largest = jnp.maximum(jnp.max(sigma_u), jnp.max(sigma_v))
    if terms:
        needed = jnp.asarray(terms[0][1], rho.dtype)
        for (limit, _), (_, count) in pairwise(terms):
            needed = jnp.where(largest > limit, count, needed)
        valid, longest = largest <= terms[-1][0], terms[-1][1]
    else:
        smallest = jnp.minimum(jnp.min(sigma_u), jnp.min(sigma_v))
        needed, valid = _counted(f, g, smallest + (largest - smallest) * jnp.asarray((0.0, 0.5, 1.0), rho.dtype), bool(parity))
        longest = LONGEST
    correlation = jnp.clip(jnp.max(jnp.abs(rho)), 1e-9, 1 - 1e-6)
    negligible = max(NEGLIGIBLE, float(jnp.finfo(rho.dtype).eps) / 10)
    needed = jnp.minimum(needed, np.log(negligible) / jnp.log(correlation))
    # two compiled lengths: the short one keeps little for gradients, the long one skips the groups that it does not need
    ladder = [*(count for count in (SHORT,) if count < longest), longest]
    choice = sum((needed > count).astype(jnp.int32) for count in ladder[:-1])

    def branch(count: int) -> Callable[[], jax.Array]:
        degrees = tuple(range(1 if parity == "odd" else 0, count, 2 if parity else 1))
        return lambda: _series(f, g, sigma_u, sigma_v, rho, needed, degrees, parity)

    value = lax.switch(choice, list(map(branch, ladder)))
    return _where(valid, value)


def _counted(f: Function, g: Function, sigma: jax.Array, half: bool) -> tuple[jax.Array, jax.Array]:
    """How many degrees leave CUT of √(E[f²] E[g²]) at these σ, and whether the series can hold them.

    The rest is bounded by √(Σ a_k² Σ b_k²) over the later degrees. That the nodes see all of f is checked against E[f²] by other nodes.
    """
    # even and odd degrees alike: one of the two kinds of coefficients vanishes with the function's parity
    nodes, table = hermite_table(tuple(range(LONGEST)), False)
    cut = max(CUT, float(jnp.finfo(sigma.dtype).eps))
    rests, valid = [], jnp.asarray(True)
    for function in (f, g):
        a = jnp.einsum("sj,jk->sk", function(sigma[:, None] * jnp.asarray(nodes, sigma.dtype)), jnp.asarray(table, sigma.dtype), precision="highest")
        rest = jnp.cumsum((a * a)[:, ::-1], axis=1)[:, ::-1]
        whole = single(function, function, sigma**2, (), True)
        valid &= jnp.all(jnp.abs(rest[:, 0] - whole) <= max(SMOOTH_LIMIT, 1e3 * float(jnp.finfo(sigma.dtype).eps)) * whole)
        rests.append(jnp.sqrt(rest))
    product = lax.stop_gradient(rests[0] * rests[1])
    needed = jnp.max(jnp.sum(product > cut * product[:, :1], axis=1))
    return (needed + 2).astype(sigma.dtype), valid & (needed < LONGEST - SPARE)


def _series(
    f: Function, g: Function, sigma_u: jax.Array, sigma_v: jax.Array, rho: jax.Array,
    needed: jax.Array, degrees: tuple[int, ...], parity: str,
) -> jax.Array:  # fmt: skip
    """Horner's rule in ρ (or ρ²), GROUP terms a pass, from the highest degree that is needed; coefficients as they are used."""
    nodes, table = hermite_table(degrees, bool(parity))
    padded = np.pad(table, ((0, 0), (0, -table.shape[1] % GROUP)))
    groups = np.moveaxis(padded.reshape(len(nodes), -1, GROUP), 1, 0)[::-1]
    starts = np.arange(0, padded.shape[1], GROUP)[::-1] * (2 if parity else 1)
    at = jnp.asarray(nodes, rho.dtype)
    values = [h(sigma[..., None] * at) for h, sigma in ((f, sigma_u), (g, sigma_v))]
    step = rho * rho if parity else rho

    def accumulate(total: jax.Array, group: jax.Array) -> jax.Array:
        # a_k = E[f(σ_u ξ) h_k(ξ)] = Σ_j f(σ_u x_j) T_jk
        a, b = (jnp.einsum("...j,jk->k...", value, group, precision="highest") for value in values)
        for k in range(GROUP - 1, -1, -1):
            total = total * step + a[k] * b[k]
        return total

    def advance(total: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        start, group = item
        return lax.cond(start < needed, accumulate, lambda total, _: total, total, group), None

    items = (jnp.asarray(starts, rho.dtype), jnp.asarray(groups, rho.dtype))
    total, _ = lax.scan(advance, jnp.zeros_like(rho), items)
    return total * rho if parity == "odd" else total


# ---- kinks at 0: interpolation in the angle --------------------------------------------------------------------------


def angular(
    f: Function, g: Function, q_mumu: jax.Array, q_munu: jax.Array, q_nunu: jax.Array,
    limit: float | None, sizes: tuple[int, int] = (22, 30), rule: tuple[int, int] = (28, 60),
) -> jax.Array:  # fmt: skip
    """E[f(u) g(v)] for f, g that are smooth on either side of 0.

    With u = σ_u r cos t, v = σ_v r cos(t − θ) the plane falls into four sectors, in each of which f and g are smooth; so the
    expectation is analytic in θ on [0, π] and in the σ's. It is computed by Gauss rules in (t, r) on a Chebyshev grid in
    (σ_u, σ_v, θ) over the range of the arguments, and interpolated.

    Args:
        f, g: elementwise functions.
        limit: the largest σ for which the grid was checked; NaN beyond it. None where f and g have parameters: then the error is measured
            here, and the result is NaN where it is too large.
        sizes: Chebyshev nodes in σ and in θ.
        rule: nodes in the angle of a sector and in the radius.
    """
    if limit is not None:
        value, sigma, _ = _interpolated(f, g, q_mumu, q_munu, q_nunu, sizes, rule)
        return _where(sigma <= limit, value)
    best = lambda: _measured(f, g, q_mumu, q_munu, q_nunu, *FINEST)
    value, error = _measured(f, g, q_mumu, q_munu, q_nunu, sizes, rule)
    value, error = lax.cond(error < max(1e-10, 1e2 * float(jnp.finfo(value.dtype).eps)), lambda: (value, error), best)
    return _where_small(error, jnp.ones_like(error), KINK_LIMIT, value)


def _measured(
    f: Function, g: Function, q_mumu: jax.Array, q_munu: jax.Array, q_nunu: jax.Array, sizes: tuple[int, int], rule: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """The interpolation and its error relative to √(E[f²] E[g²]): what the last coefficients leave out and what a finer rule finds."""
    value, sigma, coefficients = _interpolated(f, g, q_mumu, q_munu, q_nunu, sizes, rule)
    size = jnp.abs(lax.stop_gradient(coefficients))
    left_out = jnp.max(size[-2:].sum((0, 2))) + jnp.max(size[:, -2:].sum((1, 2))) + jnp.max(size[:, :, -2:].sum((1, 2)))
    sigma, at = sigma[None], jnp.asarray((0.0, 0.7, 2.2, np.pi), value.dtype)
    finer = (rule[0] + 12, rule[1] + 30)
    missed = jnp.max(jnp.abs(_sectors(f, g, sigma, sigma, at, rule) - _sectors(f, g, sigma, sigma, at, finer)))
    u, v = (_sectors(h, h, sigma, sigma, at[:1], rule)[0, 0, 0] for h in (f, g))
    error = lax.stop_gradient(2 * (left_out + missed) / jnp.sqrt(u * v))
    return value, jnp.where(u * v == 0, 0, error)


def _interpolated(
    f: Function, g: Function, q_mumu: jax.Array, q_munu: jax.Array, q_nunu: jax.Array, sizes: tuple[int, int], rule: tuple[int, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The expectation by interpolation, the largest σ, and the Chebyshev coefficients in σ_u, σ_v, θ."""
    sigma_u, sigma_v = safe.sqrt(q_mumu), safe.sqrt(q_nunu)
    theta = safe.angle(q_munu, _root(q_mumu, q_nunu, q_munu))
    inside_u, grid_u = _chebyshev_range(sigma_u, sizes[0])
    inside_v, grid_v = _chebyshev_range(sigma_v, sizes[0])
    inside_theta = theta * (2 / np.pi) - 1
    grid_theta = jnp.asarray((_chebyshev_nodes(sizes[1]) + 1) * (np.pi / 2), theta.dtype)
    table = _sectors(f, g, grid_u, grid_v, grid_theta, rule)
    to_series = lambda size: jnp.asarray(_chebyshev_transform(size), theta.dtype)
    # C_pqk: Chebyshev coefficients in σ_u, σ_v, θ
    coefficients = jnp.einsum(
        "pa,qb,kc,abc->pqk", to_series(sizes[0]), to_series(sizes[0]), to_series(sizes[1]), table, precision="highest"
    )
    left = jnp.einsum("p...,pqk->kq...", _chebyshev(inside_u, sizes[0]), coefficients, precision="highest")
    right = _chebyshev(inside_v, sizes[0])

    # Clenshaw's recurrence in θ; the coefficient of T_k is Σ_q left_kq T_q(σ_v)
    def recur(carry: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        one, two = carry
        value = _contract(rows, right)
        return (value + 2 * inside_theta * one - two, one), None

    zero = jnp.zeros_like(theta)
    (one, two), _ = lax.scan(recur, (zero, zero), left[:0:-1])
    value = _contract(left[0], right) + inside_theta * one - two
    return value, jnp.maximum(jnp.max(sigma_u), jnp.max(sigma_v)), coefficients


def _root(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """√(ab − c²) of covariances that were integrated themselves, and may miss c² ≤ ab by their error."""
    determinant = safe.det2(a, b, c)
    return safe.sqrt(jnp.where((determinant < 0) & (determinant > -SLACK * a * b), 0, determinant))


def _contract(left: jax.Array, right: jax.Array) -> jax.Array:
    """Σ_q left_q right_q, as a matrix product where the arguments are a column and a row."""
    if left.ndim == 3 and left.shape[2] == 1 and right.shape[1] == 1:
        return jnp.einsum("qm,qn->mn", left[:, :, 0], right[:, 0, :], precision="highest")
    return jnp.sum(left * right, axis=0)


def _chebyshev_nodes(size: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(size) + 0.5) / size)


def _chebyshev_transform(size: int) -> np.ndarray:
    """Values at the nodes → coefficients."""
    matrix = np.cos(np.arange(size)[:, None] * np.pi * (np.arange(size)[None, :] + 0.5) / size) * 2 / size
    matrix[0] /= 2
    return matrix


def _chebyshev(x: jax.Array, size: int) -> jax.Array:
    """T_0 … T_{size−1} at x, along a new first axis."""
    values = [jnp.ones_like(x), x]
    for _ in range(size - 2):
        values.append(2 * x * values[-1] - values[-2])
    return jnp.stack(values)


def _chebyshev_range(sigma: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """σ mapped to [−1, 1] by its own range, and the nodes of that range."""
    low, high = jnp.min(sigma), jnp.max(sigma)
    inside = safe.divide(2 * sigma - low - high, high - low)
    return inside, low + (high - low) * (jnp.asarray(_chebyshev_nodes(size), sigma.dtype) + 1) / 2


def _sectors(f: Function, g: Function, sigma_u: jax.Array, sigma_v: jax.Array, theta: jax.Array, rule: tuple[int, int]) -> jax.Array:
    """E[f(u) g(v)] on the grid (σ_u, σ_v, θ), by Gauss rules in the four sectors where u and v keep their signs."""
    fractions, angle_weights = (jnp.asarray(v, theta.dtype) for v in legendre(1, rule[0]))
    r, radial_weights = (jnp.asarray(v, theta.dtype) for v in radial(rule[1]))

    def at_angle(theta: jax.Array) -> jax.Array:
        total = jnp.zeros((len(sigma_u), len(sigma_v)), theta.dtype)
        # u > 0 for t in (−π/2, π/2), v > 0 for t − θ in it
        for start, width in (
            (theta - np.pi / 2, np.pi - theta), (jnp.asarray(np.pi / 2, theta.dtype), theta),
            (theta + np.pi / 2, np.pi - theta), (jnp.asarray(-np.pi / 2, theta.dtype), theta),
        ):  # fmt: skip
            t = start + width * fractions
            left = f(sigma_u[:, None, None] * jnp.cos(t)[:, None] * r)
            right = g(sigma_v[:, None, None] * jnp.cos(t - theta)[:, None] * r)
            weights = width * angle_weights[:, None] * radial_weights / (2 * np.pi)
            total += jnp.einsum("atr,btr,tr->ab", left, right, weights, precision="highest")
        return total

    return jnp.moveaxis(lax.map(at_angle, theta), 0, -1)


# ---- kinks anywhere --------------------------------------------------------------------------------------------------


def nested(
    f: Function, g: Function, q_mumu: jax.Array, q_munu: jax.Array, q_nunu: jax.Array,
    breaks_f: Sequence[float], breaks_g: Sequence[float], measured: bool = False,
) -> jax.Array:  # fmt: skip
    """E[f(u) g(v)] for kinks or jumps anywhere, pair by pair: E[f(σ_u x) E[g(σ_v (ρ x + √(1−ρ²) y))]].

    The inner integral is split at g's kinks. As a function of x it turns over within w = √(1−ρ²)/|ρ| of where ρ x meets one,
    so the outer integral is split there, at multiples of w. About 150,000 evaluations a pair. With `measured`, for f and g with parameters,
    the result is NaN where integrals over f and over g alone show that the panels are too wide.
    """
    shape = jnp.broadcast_shapes(q_mumu.shape, q_munu.shape, q_nunu.shape)
    flat = [jnp.ravel(jnp.broadcast_to(q, shape)) for q in (q_mumu, q_munu, q_nunu)]
    one = jax.checkpoint(lambda q: _nested_pair(f, g, q[0], q[1], q[2], tuple(breaks_f), tuple(breaks_g)))
    values = lax.map(one, tuple(flat), batch_size=16).reshape(shape)
    if not measured:
        return values
    for function, q, breaks in ((f, q_mumu, breaks_f), (g, q_nunu, breaks_g)):
        largest = jnp.max(q)
        size = _on_panels(function, function, largest, breaks, (9, 40))
        line = lambda x, q=largest: safe.divide(x, safe.sqrt(q))
        for other, scale in ((function, size), (jnp.ones_like, jnp.sqrt(size)), (line, jnp.sqrt(size))):
            missed = jnp.abs(jnp.subtract(*(_on_panels(function, other, largest, breaks, rule) for rule in ((9, 12), (9, 40)))))
            values = _where_small(2 * missed, scale, KINK_LIMIT, values)
    return values


def _nested_pair(
    f: Function, g: Function, a: jax.Array, c: jax.Array, b: jax.Array, breaks_f: tuple[float, ...], breaks_g: tuple[float, ...]
) -> jax.Array:
    sigma_u, sigma_v = safe.sqrt(a), safe.sqrt(b)
    scale = sigma_u * sigma_v
    rho = safe.divide(c, scale)
    rest = safe.divide(_root(a, b, c), scale)
    rest = jnp.where(scale == 0, 1, rest)
    clip = lambda edge: jnp.clip(edge, -REACH, REACH)
    outer = [jnp.asarray(v, a.dtype) for v in np.linspace(-REACH, REACH, 19)]
    outer += [clip(safe.divide(jnp.asarray(t, a.dtype), sigma_u)) for t in breaks_f]
    for t in breaks_g:
        centre, width = safe.divide(jnp.asarray(t, a.dtype), sigma_v * rho), safe.divide(rest, jnp.abs(rho))
        outer += [clip(centre + factor * width) for factor in (-9, -5, -2.5, -1, 0, 1, 2.5, 5, 9)]
    x, weight_x = _panels(jnp.sort(jnp.stack(outer)), 1, 16)
    inner = [jnp.full_like(x, -REACH)]
    for t in breaks_g:
        away = jnp.asarray(t, a.dtype) - sigma_v * rho * x
        side = jnp.where(away == 0, 0, jnp.sign(away) * REACH)
        edge = jnp.where(rest * sigma_v == 0, side, safe.divide(away, rest * sigma_v))
        inner.append(clip(edge))
    inner.append(jnp.full_like(x, REACH))
    y, weight_y = _panels(jnp.sort(jnp.stack(inner, axis=-1)), 12, 12)
    v = sigma_v * (rho * x[:, None] + rest * y)
    conditional = jnp.sum(weight_y * _density(y) * g(v), axis=-1)
    return jnp.sum(weight_x * _density(x) * f(sigma_u * x) * conditional)


def _panels(edges: jax.Array, panels: int, order: int) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights on the intervals between edges (…, n): (…, (n − 1) · panels · order)."""
    fractions, weights = (jnp.asarray(v, edges.dtype) for v in legendre(panels, order))
    low, width = edges[..., :-1, None], jnp.diff(edges)[..., None]
    flat = lambda v: v.reshape(*edges.shape[:-1], -1)
    return flat(low + width * fractions), flat(width * weights)
