"""How to integrate an expectation that has no closed form, decided and checked when the code is generated.

Smooth functions get a Hermite series whose number of terms is read off its coefficients; functions with kinks or jumps at 0 a
Chebyshev interpolation in the angle; any others nested Gauss rules. The error is measured here, with NumPy, against finer rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import sympy as sp

from ..duals import Dual
from ..errors import BadInput
from ..piecewise import KINKED, steps_form
from ..symbols import x

# Of √(E_μμ E_νν): the value itself may be a hundred times smaller at ρ = −1, and is wanted to 1e-10.
TOLERANCE = 3e-13
# Standard deviations at which the series' length is decided: variances of about ½, 1, 3, 9 and 20.
SIGMAS = (0.7, 1.05, 1.8, 3.05, 4.5)
# As numerics.quadrature has them.
REACH, SPACINGS = 13.0, ((200, 0.1), (10**9, 0.05))
_FINE, _DEGREES = 0.025, 1400


@dataclass(frozen=True)
class Quadrature:
    """What a generated function of a dual is to do.

    Attributes:
        kind: "hermite", "angular" or "nested".
        arguments: the text of the arguments after the covariances.
        breaks: kinks of f and of g.
        error: bound relative to √(E[f²] E[g²]), measured.
        reach: the largest variance for which it was measured.
        checked_at: parameters set to 1 for the measurement.
    """

    kind: str
    arguments: str
    breaks: tuple[tuple[float, ...], tuple[float, ...]]
    error: float
    reach: float
    checked_at: tuple[str, ...]

    def __str__(self) -> str:
        name = {"hermite": "Hermite series", "angular": "interpolation in the angle", "nested": "nested Gauss rules"}[self.kind]
        note = f" at {', '.join(f'{p} = 1' for p in self.checked_at)}" if self.checked_at else ""
        return f"{name}, error ≤ {self.error:.0e} for variances ≤ {self.reach:.3g}{note}"


@cache
def quadrature(dual: Dual) -> Quadrature:
    """The rule for a dual, with its measured error.

    Raises:
        BadInput: kinks at thresholds that are no numbers, or functions that grow too fast to be integrated.
    """
    breaks = (breakpoints(dual.f), breakpoints(dual.g))
    checked_at = tuple(sorted(map(str, dual.free_symbols)))
    f, g = (_numeric(e) for e in (dual.f, dual.g))
    if not any(breaks):
        terms, error = _hermite_terms(dual, f, g)
        return Quadrature("hermite", f'"{_parity(dual)}", {terms}', breaks, error, terms[-1][0] ** 2, checked_at)
    if set(breaks[0]) | set(breaks[1]) == {0.0}:
        errors = {sigma: _angular_error(f, g, sigma) for sigma in SIGMAS[-2:]}
        limit = max((s for s, error in errors.items() if error < 3e-11), default=SIGMAS[-2])
        return Quadrature("angular", repr(limit), breaks, errors[limit], limit**2, checked_at)
    return Quadrature("nested", f"{breaks[0]}, {breaks[1]}", breaks, _nested_error(f, g, breaks), SIGMAS[-2] ** 2, checked_at)


def breakpoints(expr: sp.Expr) -> tuple[float, ...]:
    """Where a function of x has kinks or jumps, in increasing order."""
    if not expr.has(*KINKED):
        return ()
    split = steps_form(expr)
    points = set()
    for step in split.atoms(sp.Heaviside):
        threshold = x - step.args[0]
        if not threshold.is_number:
            raise BadInput(f"the threshold {threshold} of {expr} is no number: kernels without closed form need numeric thresholds")
        points.add(float(threshold))
    if split.has(*(kind for kind in KINKED if kind is not sp.Heaviside)):
        raise BadInput(f"cannot find the kinks of {expr}: write it with Piecewise, Max, Min or Heaviside of x")
    return tuple(sorted(points))


def _parity(dual: Dual) -> str:
    for name, side in (("even", 1), ("odd", -1)):
        if all(_same(e.subs(x, -x), side * e) for e in (dual.f, dual.g)):
            return name
    return ""


def _same(left: sp.Expr, right: sp.Expr) -> bool:
    """Equality by simplification where a look at a few points does not rule it out."""
    points = {s: 1 for s in (left.free_symbols | right.free_symbols) - {x}}
    gap = (left - right).subs(points)
    if any(abs(sp.N(gap.subs(x, sp.Rational(p, 7)))) > 1e-9 for p in (3, 11)):
        return False
    return sp.simplify(left - right) == 0


def _numeric(expr: sp.Expr):
    """NumPy function of an expression, parameters set to 1."""
    values = {s: sp.Integer(1) for s in expr.free_symbols - {x}}
    function = sp.lambdify(x, expr.subs(values), ["numpy", "scipy"])

    def evaluate(points: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(function(points), float), points.shape)

    return evaluate


# ---- Hermite series --------------------------------------------------------------------------------------------------


def _hermite_terms(dual: Dual, f, g) -> tuple[tuple[tuple[float, int], ...], float]:
    """((largest σ, degrees), …) and the error that they leave."""
    terms, worst = [], 0.0
    for sigma in SIGMAS:
        fine = [_coefficients(function, sigma, _FINE) for function in (f, g)]
        scale = np.sqrt((fine[0] ** 2).sum() * (fine[1] ** 2).sum())
        if not np.isfinite(scale):
            break
        product = np.abs(fine[0] * fine[1]) / scale
        tail = np.append(np.cumsum(product[::-1])[::-1], 0.0)
        degrees = int(np.argmax(tail < TOLERANCE))
        if degrees > _DEGREES - 50:
            break
        degrees = max(8, degrees + degrees % 2)
        spacing = next(h for limit, h in SPACINGS if degrees < limit)
        coarse = [_coefficients(function, sigma, spacing) for function in (f, g)]
        rule = np.abs(coarse[0] * coarse[1] - fine[0] * fine[1])[:degrees].sum() / scale
        error = float(tail[degrees] + rule)
        if error > 1e-11:
            break
        worst = max(worst, error)
        terms.append((sigma, degrees))
    if not terms:
        raise BadInput(
            f"E[f(u) g(v)] with f = {dual.f}, g = {dual.g} cannot be integrated to {TOLERANCE:g} by a Hermite series at variance 1: "
            "the functions grow too fast or vary too sharply"
        )
    return tuple(terms), worst


@cache
def _table(spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x_j and rows w_j h_k(x_j) N(x_j), k < _DEGREES."""
    nodes = np.arange(-REACH, REACH + spacing / 2, spacing)
    half_density = np.exp(-(nodes**2) / 4)
    rows = np.empty((_DEGREES, len(nodes)))
    before, current = np.zeros_like(nodes), half_density
    for degree in range(_DEGREES):
        rows[degree] = spacing / np.sqrt(2 * np.pi) * half_density * current
        before, current = current, (nodes * current - np.sqrt(degree) * before) / np.sqrt(degree + 1)
    return nodes, rows


def _coefficients(f, sigma: float, spacing: float) -> np.ndarray:
    nodes, rows = _table(spacing)
    return rows @ f(sigma * nodes)


# ---- interpolation in the angle, nested rules ------------------------------------------------------------------------


def _angular_error(f, g, sigma: float, sizes: tuple[int, int] = (22, 30)) -> float:
    """What the Chebyshev series leaves out in θ and in σ ≤ `sigma`, and what the Gauss rules miss."""
    scale = np.sqrt(_sector(f, f, sigma, sigma, 0.0) * _sector(g, g, sigma, sigma, 0.0))
    angles = (np.cos(np.pi * (np.arange(sizes[1]) + 0.5) / sizes[1]) + 1) * np.pi / 2
    widths = (np.cos(np.pi * (np.arange(sizes[0]) + 0.5) / sizes[0]) + 1) * sigma / 2
    in_angle = [_sector(f, g, sigma, sigma, t) for t in angles]
    left = [_sector(f, g, s, sigma, t) for t in (0.4, 2.4) for s in widths]
    right = [_sector(f, g, sigma, s, t) for t in (0.4, 2.4) for s in widths]
    left_out = [_last(in_angle)] + [_last(v[k : k + sizes[0]]) for v in (left, right) for k in (0, sizes[0])]
    rule = max(abs(_sector(f, g, sigma, sigma, t) - _sector(f, g, sigma, sigma, t, (40, 90))) for t in (0.0, 0.7, 2.2, np.pi))
    return float(2 * (sum(left_out) + rule) / scale)


def _last(values: list[float]) -> float:
    """The size of the last Chebyshev coefficients."""
    size = len(values)
    rows = np.cos(np.arange(size - 2, size)[:, None] * np.pi * (np.arange(size) + 0.5) / size) * 2 / size
    return float(np.abs(rows @ np.asarray(values)).sum())


def _sector(f, g, sigma_u: float, sigma_v: float, theta: float, rule: tuple[int, int] = (28, 60)) -> float:
    """E[f(u) g(v)] by Gauss rules in the sectors where u and v keep their signs."""
    fractions, weights = np.polynomial.legendre.leggauss(rule[0])
    r, radial_weights = _radial(rule[1])
    total = 0.0
    starts = (theta - np.pi / 2, np.pi / 2, theta + np.pi / 2, -np.pi / 2)
    for start, width in zip(starts, (np.pi - theta, theta) * 2, strict=True):
        t = (start + width * (fractions + 1) / 2)[:, None]
        values = f(sigma_u * r * np.cos(t)) * g(sigma_v * r * np.cos(t - theta))
        total += width / 2 * weights @ values @ radial_weights / (2 * np.pi)
    return float(total)


@cache
def _radial(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes for ∫_0^∞ r e^{−r²/2} · dr, from the moments' recurrence on a fine rule."""
    nodes, weights = np.polynomial.legendre.leggauss(1200)
    r = (nodes + 1) * 9.0
    measure = weights * 9.0 * r * np.exp(-(r**2) / 2)
    alpha, beta = np.empty(order), np.empty(order)
    before, current = np.zeros_like(r), np.ones_like(r) / np.sqrt(measure.sum())
    for k in range(order):
        alpha[k] = (measure * r * current**2).sum()
        following = (r - alpha[k]) * current - (beta[k - 1] * before if k else 0)
        beta[k] = np.sqrt((measure * following**2).sum())
        before, current = current, following / beta[k]
    values, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
    return values, measure.sum() * vectors[0] ** 2


def _nested_error(f, g, breaks: tuple[tuple[float, ...], tuple[float, ...]]) -> float:
    """The outer rule's error on E[f²] and E[g²] at σ = 3, doubled for the inner integral."""
    sigma, worst = SIGMAS[-2], 0.0
    for function, points in zip((f, g), breaks, strict=True):
        edges = np.sort(np.concatenate([np.linspace(-REACH, REACH, 19), np.array(points) / sigma]))
        values = [_composite(lambda t, e=function: e(sigma * t) ** 2, edges, order) for order in (12, 40)]
        worst = max(worst, abs(values[0] - values[1]) / abs(values[1]))
    return max(2 * worst, 1e-14)


def _composite(function, edges: np.ndarray, order: int) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    width = np.diff(edges)[:, None] / 2
    t = edges[:-1, None] + width * (nodes + 1)
    return float((width * weights * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) * function(t)).sum())
