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
# Beyond this an error is refused; what is smaller is part of the rule's description.
LIMIT = 1e-6
# Chebyshev nodes in (σ, θ) and Gauss nodes in (angle, radius) of the interpolation in the angle, and the error with which each is taken.
ANGULAR = (((22, 30), (28, 60), 3e-11), ((30, 40), (40, 80), 1e-9), ((40, 56), (56, 110), LIMIT))
# As numerics.quadrature has it: a series that is measured at run time.
HERMITE_LIMIT = 1e-11


@dataclass(frozen=True)
class Quadrature:
    """What a generated function of a dual is to do.

    Attributes:
        kind: "hermite", "angular" or "nested".
        arguments: the text of the arguments after the covariances.
        breaks: kinks of f and of g.
        error: bound relative to √(E[f²] E[g²]), measured.
        reach: the largest variance for which it was measured; None where parameters decide, and it is measured at every call.
    """

    kind: str
    arguments: str
    breaks: tuple[tuple[float, ...], tuple[float, ...]]
    error: float
    reach: float | None

    @property
    def at_run_time(self) -> bool:
        """Whether the error depends on parameters, so that it is measured when these are known."""
        return self.reach is None

    def __str__(self) -> str:
        name = {"hermite": "Hermite series", "angular": "interpolation in the angle", "nested": "nested Gauss rules"}[self.kind]
        if self.reach is None:
            return f"{name}, measured at the parameters: NaN where its error exceeds {self.error:.0e}"
        return f"{name}, error ≤ {self.error:.0e} for variances ≤ {self.reach:.3g}"


@cache
@np.errstate(all="ignore")
def quadrature(dual: Dual) -> Quadrature:
    """The rule for a dual, with its measured error. Functions that overflow have no finite error, and are refused for it.

    Raises:
        BadInput: kinks at thresholds that are no numbers, functions that are infinite or undefined somewhere, or that grow too fast or vary too
            sharply to be integrated.
    """
    refuse_infinite(dual)
    breaks = (breakpoints(dual.f), breakpoints(dual.g))
    at_zero = set(breaks[0]) | set(breaks[1]) == {0.0}
    if dual.free_symbols:
        if not any(breaks):
            return Quadrature("hermite", f'"{_parity(dual)}", ()', breaks, HERMITE_LIMIT, None)
        if at_zero:
            return Quadrature("angular", "None", breaks, LIMIT, None)
        return Quadrature("nested", f"{breaks[0]}, {breaks[1]}, True", breaks, LIMIT, None)
    f, g = (_numeric(e) for e in (dual.f, dual.g))
    if not any(breaks):
        terms, error = _hermite_terms(dual, f, g)
        return Quadrature("hermite", f'"{_parity(dual)}", {terms}', breaks, error, terms[-1][0] ** 2)
    return (_angular(f, g, breaks) if at_zero else None) or _nested(dual, f, g, breaks)


def _angular(f, g, breaks: tuple[tuple[float, ...], tuple[float, ...]]) -> Quadrature | None:
    """The coarsest interpolation that is good enough, if one is."""
    for sizes, rule, accepted in ANGULAR:
        given = "" if sizes == ANGULAR[0][0] else f", {sizes}, {rule}"
        errors = {sigma: _angular_error(f, g, sigma, sizes, rule) for sigma in SIGMAS[-2:]}
        limit = max((s for s, error in errors.items() if error < 3e-11), default=SIGMAS[-2])
        if errors[limit] < accepted:
            return Quadrature("angular", repr(limit) + given, breaks, errors[limit], limit**2)
    return None


def _nested(dual: Dual, f, g, breaks: tuple[tuple[float, ...], tuple[float, ...]]) -> Quadrature:
    error = _nested_error(f, g, breaks)
    if not error < LIMIT:
        raise BadInput(
            f"E[f(u) g(v)] with f = {dual.f}, g = {dual.g} cannot be integrated to {LIMIT:g} (measured error {error:.0e}): on one side of "
            f"{_listed(breaks)} the functions have a singularity (a fractional power or a logarithm), or they vary too sharply; use an activation "
            "that is smooth on both sides of its kinks"
        )
    return Quadrature("nested", f"{breaks[0]}, {breaks[1]}", breaks, error, SIGMAS[-2] ** 2)


def _listed(breaks: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    return "x = " + ", ".join(f"{t:g}" for t in sorted({*breaks[0], *breaks[1]}))


@cache
def refuse_infinite(dual: Dual) -> None:
    """Refuse functions without closed form that are not finite real numbers somewhere, or whose product has an infinite expectation.

    Raises:
        BadInput: saying where, and which.
    """
    if dual.free_symbols or (dual.closed is not None and dual.closed_diagonal is not None):
        return
    f, g = (_numeric(e) for e in (dual.f, dual.g))
    breaks = sorted({*breakpoints(dual.f), *breakpoints(dual.g)})
    for name, expr, function in (("f", dual.f, f), ("g", dual.g, g)):
        undefined = [at for at in (-2.37, -0.61, -0.1, 0.1, 0.61, 2.37) if np.isnan(_at(function, at))]
        if undefined:
            raise BadInput(f"{name}(x) = {expr} is not a real number at x = {undefined[0]:g}: an activation and its slope must be real for all real x")
        if 0.0 not in breaks and not np.isfinite(_at(function, 0.0)):
            value, remedy = ("0/0", "write it without a quotient, or as a Piecewise with a polynomial near 0") if np.isnan(_at(function, 0.0)) else (
                "infinite", "use an activation that is finite, with a finite slope, where it is smooth")  # fmt: skip
            raise BadInput(f"{name}(x) = {expr} is {value} at x = 0, and cannot be evaluated with all digits near it: {remedy}")
    for t in breaks:
        for side, where in ((-1, "below"), (1, "above")):
            power = _exponent(f, t, side) + _exponent(g, t, side)
            if power < -0.999:
                raise BadInput(
                    f"E[f(u) g(u)] with f = {dual.f}, g = {dual.g} is infinite: close {where} x = {t:g} the product grows like |x - {t:g}|^({power:.2g}). "
                    "Such units have no kernel at infinite width: use an activation whose slope is square-integrable"
                )


def _at(function, point: float) -> float:
    return float(function(np.full(1, point))[0])


def _exponent(function, t: float, side: int) -> float:
    """α where the function goes like |x − t|^α on one side of t; 0 where it vanishes there."""
    near, far = (1e-12, 1e-9) if t == 0 else (1e-7 * abs(t), 1e-4 * abs(t))
    first, second = np.abs(function(t + side * np.array([near, far])))
    if not (np.isfinite(first) and np.isfinite(second) and first > 0 and second > 0):
        return 0.0
    return float(np.log(second / first) / np.log(far / near))


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


def _angular_error(f, g, sigma: float, sizes: tuple[int, int], rule: tuple[int, int]) -> float:
    """What the Chebyshev series leaves out in θ and in σ ≤ `sigma`, and what the Gauss rules miss."""
    sector = lambda left, right, s, t, theta: _sector(left, right, s, t, theta, rule)
    finer = (rule[0] + 12, rule[1] + 30)
    scale = np.sqrt(sector(f, f, sigma, sigma, 0.0) * sector(g, g, sigma, sigma, 0.0))
    angles = (np.cos(np.pi * (np.arange(sizes[1]) + 0.5) / sizes[1]) + 1) * np.pi / 2
    widths = (np.cos(np.pi * (np.arange(sizes[0]) + 0.5) / sizes[0]) + 1) * sigma / 2
    in_angle = [sector(f, g, sigma, sigma, t) for t in angles]
    left = [sector(f, g, s, sigma, t) for t in (0.4, 2.4) for s in widths]
    right = [sector(f, g, sigma, s, t) for t in (0.4, 2.4) for s in widths]
    left_out = [_last(in_angle)] + [_last(v[k : k + sizes[0]]) for v in (left, right) for k in (0, sizes[0])]
    missed = max(abs(sector(f, g, sigma, sigma, t) - _sector(f, g, sigma, sigma, t, finer)) for t in (0.0, 0.7, 2.2, np.pi))
    return float(2 * (sum(left_out) + missed) / scale)


def _last(values: list[float]) -> float:
    """The size of the last Chebyshev coefficients."""
    size = len(values)
    rows = np.cos(np.arange(size - 2, size)[:, None] * np.pi * (np.arange(size) + 0.5) / size) * 2 / size
    return float(np.abs(rows @ np.asarray(values)).sum())


def _sector(f, g, sigma_u: float, sigma_v: float, theta: float, rule: tuple[int, int]) -> float:
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
    """The outer rule's error on E[f²], E[f], E[f ξ] and those of g at σ = 3, doubled for the inner integral.

    The square alone would not do: that of √|x| is smooth.
    """
    sigma, worst = SIGMAS[-2], 0.0
    for function, points in zip((f, g), breaks, strict=True):
        edges = np.unique(np.concatenate([np.linspace(-REACH, REACH, 19), np.array(points) / sigma]))
        on = lambda t, e=function: e(sigma * t)
        size = _composite(lambda t, f=on: f(t) ** 2, edges, 40)
        for integrand, scale in ((lambda t, f=on: f(t) ** 2, size), (on, np.sqrt(size)), (lambda t, f=on: t * f(t), np.sqrt(size))):
            gap = abs(_composite(integrand, edges, 12) - _composite(integrand, edges, 40)) / scale
            worst = max(worst, gap if np.isfinite(gap) else np.inf)
    return max(2 * worst, 1e-14)


def _composite(function, edges: np.ndarray, order: int) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    width = np.diff(edges)[:, None] / 2
    t = edges[:-1, None] + width * (nodes + 1)
    return float((width * weights * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) * function(t)).sum())
