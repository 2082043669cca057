"""Bring a dual function to the stable primitives of `numerics.safe`.

The engine's closed forms hold √(ab − c²) and angles made of it. As they stand they lose half the digits at coincident inputs
and have slopes 0·∞ there. Here every radicand of the form P·Q − R² is recognised, and the angles and sums that it sits in are
named, so that the printer can emit `safe.det2(P, Q, R)`, `safe.coangle(R, s)` and `safe.wedge(R, s)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp

from ..duals import q_mumu, q_munu, q_nunu


class Coangle(sp.Function):
    """π − θ from (R, s), s = √(PQ − R²) and cos θ = R/√(PQ)."""

    nargs = 2


class Angle(sp.Function):
    """θ from (R, s)."""

    nargs = 2


class Wedge(sp.Function):
    """s + R (π − θ) from (R, s)."""

    nargs = 2


class Cowedge(sp.Function):
    """s − R θ from (R, s); the wedge less π R."""

    nargs = 2


class ExpDifference(sp.Function):
    """e^x − e^y from (x, y)."""

    nargs = 2


class Divide(sp.Function):
    """numerator/denominator where the denominator may vanish, and the numerator with it."""

    nargs = 2


class Distance(sp.Function):
    """1/denominator where the denominator may vanish: how far a kink is away from the mean, in standard deviations or their squares."""

    nargs = 1


SAFE_FUNCTIONS: dict[type, str] = {
    Coangle: "safe.coangle",
    Angle: "safe.angle",
    Wedge: "safe.wedge",
    Cowedge: "safe.cowedge",
    ExpDifference: "safe.exp_difference",
    Divide: "safe.divide",
    Distance: "safe.distance",
}


# g = √(q_mumu q_nunu), and what is missing from the covariance to that: e = g − q_munu.
SCALE, GAP = sp.symbols("scale gap", nonnegative=True)


@dataclass(frozen=True)
class Root:
    """s = √(P·Q − R²)."""

    symbol: sp.Symbol
    P: sp.Expr
    Q: sp.Expr
    R: sp.Expr

    @property
    def plain(self) -> bool:
        """Whether it is √(q_mumu q_nunu − q_munu²)."""
        return bool(q_mumu * q_nunu == self.P * self.Q and q_munu == self.R)


@dataclass(frozen=True)
class Lowered:
    """An expression in q_mumu, q_munu, q_nunu and the symbols of `roots`."""

    expr: sp.Expr
    roots: tuple[Root, ...]


def lower(expr: sp.Expr) -> Lowered:
    """Rewrite a closed form of a dual with stable primitives; values are unchanged.

    Args:
        expr: in q_mumu, q_munu, q_nunu and parameters.

    Returns:
        The rewritten expression and the roots that it refers to, in the order in which they are to be computed.
    """
    roots: dict[sp.Expr, Root] = {}

    def name_root(power: sp.Pow) -> sp.Expr:
        base, exponent = power.base, power.exp
        if base not in roots:
            split = determinant(base)
            if split is None:
                return power
            # s is the generated functions' argument, √(q_mumu q_nunu − q_munu²)
            root = Root(sp.Symbol("s", nonnegative=True), *split)
            roots[base] = root if root.plain else replace(root, symbol=sp.Symbol(f"s_{len(roots) + 1}", nonnegative=True))
        return roots[base].symbol ** (2 * exponent)

    is_root = lambda e: isinstance(e, sp.Pow) and e.exp.is_Rational and e.exp.q == 2 and e.base.has(q_munu)
    expr = expr.replace(is_root, name_root)
    for root in roots.values():
        expr = _angles(expr, root)
    expr = expr.replace(lambda e: isinstance(e, sp.Add), _exp_differences)
    expr = expr.replace(lambda e: isinstance(e, sp.erf | sp.erfc | sp.exp), _at_a_distance)
    expr = expr.replace(lambda e: isinstance(e, sp.Mul | sp.Pow), _vanishing_denominators)
    return Lowered(expr, tuple(roots.values()))


def gap(expr: sp.Expr, diagonal: sp.Expr, root: Root) -> sp.Expr | None:
    """√(Φ_μμ Φ_νν) − Φ_μν for the dual Φ of a homogeneous activation, in a form that keeps its digits at θ → 0.

    Φ_μμ = κ q_μμⁿ, so that √(Φ_μμ Φ_νν) = κ gⁿ with g = √(q_μμ q_νν). Everything in Φ that is not small with θ is a
    polynomial in g and c = q_μν = g − e; κ gⁿ cancels against it exactly.

    Args:
        expr: the lowered dual.
        diagonal: its value at (μ, μ), in q_mumu.
        root: s = √(q_mumu q_nunu − q_munu²).

    Returns:
        An expression in q_munu, s, `SCALE` (g) and `GAP` (e), and angles; None if the dual is not of this kind.
    """
    kappa, power = diagonal.as_independent(q_mumu)
    base, degree = power.as_base_exp()
    if kappa.is_negative or base not in (q_mumu, 1) or not root.plain:
        return None
    c, s = root.R, root.symbol
    small = {Cowedge(c, s): sp.Dummy(), Angle(c, s): sp.Dummy(), s: sp.Dummy()}
    opened = expr.subs(Wedge(c, s), Cowedge(c, s) + sp.pi * c)
    opened = opened.subs({Coangle(c, s): sp.pi - Angle(c, s), sp.atan2(c, s): sp.pi / 2 - Angle(c, s)})
    opened = sp.expand(opened.subs(small).subs(q_nunu, SCALE**2 / q_mumu))
    large = opened.subs(dict.fromkeys(small.values(), 0))
    cancelled = sp.expand((kappa * SCALE ** (degree if base == q_mumu else 0) - large).subs(c, SCALE - GAP))
    if opened.has(q_mumu) or not opened.is_polynomial(*small.values(), c) or sp.expand(cancelled.subs(GAP, 0)) != 0:
        return None
    back = {dummy: value for value, dummy in small.items()}
    return sp.factor(cancelled) - sp.factor_terms(sp.expand(opened - large)).subs(back)


def determinant(radicand: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr] | None:
    """(P, Q, R) with radicand = P(q_mumu) Q(q_nunu) − R², R = k q_munu; None if it is not of that form."""
    polynomial = sp.Poly(sp.expand(radicand), q_munu) if radicand.is_polynomial(q_munu) else None
    if polynomial is None or polynomial.degree() != 2 or polynomial.coeff_monomial(q_munu) != 0:
        return None
    R = sp.sqrt(-polynomial.coeff_monomial(q_munu**2)) * q_munu
    if R.has(sp.I):
        return None
    coefficient, factors = sp.factor_list(polynomial.coeff_monomial(1), q_mumu, q_nunu)
    P, Q = sp.Integer(1), sp.Integer(1)
    for factor, power in factors:
        if not factor.has(q_nunu):
            P *= factor**power
        elif not factor.has(q_mumu):
            Q *= factor**power
        else:
            return None
    if P.subs(q_mumu, 0).is_negative:  # variances, as long as there is an expectation
        P, Q = -P, -Q
    share = sp.sqrt(coefficient)
    if share.is_Rational:
        return share * P, share * Q, R
    return coefficient * P, Q, R


def _angles(expr: sp.Expr, root: Root) -> sp.Expr:
    """atan2(s, −R) → coangle, atan2(s, R) → angle; s + R · coangle and s + R · arctan2(R, s) → wedge."""
    s, R = root.symbol, root.R
    expr = expr.subs({sp.atan2(s, -R): Coangle(R, s), sp.atan2(s, R): Angle(R, s)})
    whole = {R * Coangle(R, s): Wedge(R, s), R * sp.atan2(R, s): Wedge(R, s) - sp.pi * R / 2}

    def join(total: sp.Add) -> sp.Expr:
        for term in total.args:
            for part, joined in whole.items():
                weight = term / part
                if not weight.has(Coangle, sp.atan2, R) and weight * s in total.args:
                    return total - term - weight * s + weight * joined
        return total

    return expr.replace(lambda e: isinstance(e, sp.Add), join)


def _exp_differences(total: sp.Add) -> sp.Expr:
    """k e^x − k e^y with exponents that move with the inputs, as one difference."""
    terms = list(total.args)
    for first in terms:
        weight, rest = first.as_independent(sp.exp, as_Add=False)
        if not isinstance(rest, sp.exp) or not rest.has(q_munu) or weight.could_extract_minus_sign():
            continue
        for second in terms:
            other, tail = second.as_independent(sp.exp, as_Add=False)
            if isinstance(tail, sp.exp) and tail.has(q_munu) and other == -weight:
                return total - first - second + weight * ExpDifference(rest.exp, tail.exp)
    return total


def _at_a_distance(function: sp.Expr) -> sp.Expr:
    """Quotients in an error function or exponential whose denominator alone is 0 at zero variance, through `safe.distance`."""

    def written(term: sp.Expr) -> sp.Expr:
        numerator, denominator = _split(term)
        return term if denominator == 1 or _vanishes(numerator) else numerator * Distance(denominator)

    return function.func(sp.Add(*map(written, sp.Add.make_args(function.args[0]))))


def _vanishing_denominators(expr: sp.Expr) -> sp.Expr:
    """Quotients whose denominator is 0 at zero variance, through `safe.divide`."""
    numerator, denominator = _split(expr)
    return expr if denominator == 1 else Divide(numerator, denominator)


def _split(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Numerator, and the factors of the denominator that are 0 at zero variance."""
    numerator, denominator = sp.Integer(1), sp.Integer(1)
    for factor in sp.Mul.make_args(expr):
        base, power = factor.as_base_exp()
        if power.is_number and power.is_negative and base.free_symbols & {q_mumu, q_nunu} and _vanishes(base):
            denominator /= factor
        else:
            numerator *= factor
    return numerator, denominator


def _vanishes(expr: sp.Expr) -> bool:
    return expr.subs({q_mumu: 0, q_nunu: 0, q_munu: 0}) == 0
