"""The one integral of scalar training, τ(θ) = ∫₀^θ dθ′/(Y − m(θ′)), for polynomial and for exponential m."""

from __future__ import annotations

import sympy as sp

from .errors import DeriveError


def time_of_polynomial(m: sp.Expr, theta: sp.Symbol, end: sp.Symbol) -> sp.Expr | None:
    """τ(θ) for a polynomial m of degree ≤ 3 that grows; Y = m(θ_∞) is written through its root θ_∞.

    Y − m(θ) = (θ_∞ − θ) Q(θ) with a quadratic Q without real roots: partial fractions give a logarithm, log Q and an arctangent.
    """
    quotient, rest = sp.div(sp.Poly(m.subs(theta, end) - m, theta), sp.Poly(end - theta, theta))
    if rest != 0:
        raise DeriveError(f"{m} − m(θ_∞) is not divisible by θ − θ_∞")
    if quotient.degree() > 2:
        return None
    q2, q1, q0 = (quotient.coeff_monomial(theta**k) for k in (2, 1, 0))
    top = 1 / sp.factor(quotient.as_expr().subs(theta, end))
    # 1 = top Q + (θ_∞ − θ)(b θ + c), so b = top q2 and c from the constant term
    b, c = sp.simplify(top * q2), sp.simplify((1 - top * q0) / end)
    result = -top * sp.log(1 - theta / end)
    if q2 == 0:
        return result + sp.integrate((b * theta + c) / quotient.as_expr(), (theta, 0, theta))
    discriminant = sp.factor(4 * q2 * q0 - q1**2)
    width = sp.sqrt(discriminant)
    angle = lambda at: sp.atan((2 * q2 * at + q1) / width)
    result += b / (2 * q2) * sp.log(quotient.as_expr() / q0)
    result += sp.simplify(2 * (c - b * q1 / (2 * q2))) / width * (angle(theta) - angle(0))
    if sp.simplify(sp.diff(result, theta) - 1 / (m.subs(theta, end) - m)) != 0:
        raise DeriveError(f"the integral of 1/(Y − m) found for m = {m} does not differentiate back")
    return result


def _in_exponential(m: sp.Expr, theta: sp.Symbol) -> tuple[sp.Symbol, sp.Expr, sp.Expr] | None:
    """(E, k, m as a rational function of E = e^{kθ}), None if m contains more than one rate."""
    as_exp = sp.expand(m.rewrite(sp.exp))
    rates = {sp.simplify(e.args[0] / theta) for e in as_exp.atoms(sp.exp)}
    positive = sorted((r for r in rates if not r.could_extract_minus_sign()), key=sp.default_sort_key)
    if len(positive) != 1:
        return None
    E = sp.Symbol("E", positive=True)
    rational = as_exp.subs(sp.exp(-positive[0] * theta), 1 / E).subs(sp.exp(positive[0] * theta), E)
    return None if rational.has(theta) else (E, positive[0], sp.together(rational))


def _roots(m: sp.Expr, theta: sp.Symbol, target: sp.Expr) -> tuple[sp.Symbol, sp.Expr, sp.Expr, sp.Expr, sp.Expr] | None:
    """E, its rate k, the roots E₊ > E₋ of k E (Y − m) = 0 and its leading coefficient −l; None unless quadratic."""
    found = _in_exponential(m, theta)
    if found is None:
        return None
    E, rate, rational = found
    denominator = sp.Poly(sp.expand(sp.simplify(rate * E * (target - rational))), E)
    if denominator.degree() != 2 or not all(e.is_polynomial(E) for e in (denominator.as_expr(),)):
        return None
    second, first, zeroth = (denominator.coeff_monomial(E**k) for k in (2, 1, 0))
    middle, half = -first / (2 * second), sp.sqrt(sp.expand(first**2 - 4 * second * zeroth) / (4 * second**2))
    half = sp.sqrt(sp.expand(sp.simplify(half**2)))
    return E, rate, sp.expand(middle) + half, sp.expand(middle) - half, -second


def time_of_exponentials(m: sp.Expr, theta: sp.Symbol, target: sp.Expr) -> sp.Expr | None:
    """τ(θ) where Y − m is quadratic in E = e^{kθ}: a logarithm of a ratio. None otherwise."""
    found = _roots(m, theta, target)
    if found is None:
        return None
    _, rate, high, low, lead = found
    E = sp.exp(rate * theta)
    return sp.log((E - low) * (high - 1) / ((high - E) * (1 - low))) / (lead * (high - low))


def invert_exponentials(m: sp.Expr, theta: sp.Symbol, target: sp.Expr, tau: sp.Symbol, scale: sp.Expr) -> sp.Expr | None:
    """m(θ(τ))/scale by inverting `time_of_exponentials`; None where that has no closed form."""
    found = _roots(m, theta, target)
    exponential = _in_exponential(m, theta)
    if found is None or exponential is None:
        return None
    E, _, high, low, lead = found
    grown = (1 - low) / (high - 1) * sp.exp(lead * (high - low) * tau)
    return sp.together(exponential[2].subs(E, (low + grown * high) / (1 + grown))) / scale
