"""The normal form of an integrand of Gaussian variables.

Every integrand that the engine can handle becomes a sum of terms

    coefficient · Π u_i^{n_i} · exp(−½ uᵀA u + bᵀu) · cos(ℓ·u + β) · Π_j E_ξ[sign(d_j·u + o_j + √τ_j ξ_j)]

with ξ_j independent standard normals. A step is ½ + ½ sign (τ = 0); erf(κ s) = E_ξ[sign(s + ξ/(√2 κ))], so an error function is a sign
of a variable with some independent noise, and needs no theory of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from .errors import NoClosedForm
from .piecewise import steps_form

Vector = tuple[sp.Expr, ...]
_DEGREE_LIMIT = 40


@dataclass(frozen=True)
class Kink:
    """sign(direction·u + offset + √noise ξ), ξ independent of u and of every other kink's ξ.

    `copy` tells apart the noises of two equal error functions, as in erf(u)².
    """

    direction: Vector
    offset: sp.Expr
    noise: sp.Expr
    copy: int = 0


@dataclass(frozen=True)
class Term:
    """One term of the normal form; A = quadratic, b = linear, (ℓ, β) = phase."""

    coefficient: sp.Expr
    powers: tuple[int, ...]
    quadratic: tuple[Vector, ...]
    linear: Vector
    phase: tuple[Vector, sp.Expr] | None = None
    kinks: tuple[Kink, ...] = ()

    @property
    def tilt(self) -> tuple:
        """What multiplies the Gaussian density, apart from polynomial and kinks."""
        return self.quadratic, self.linear, self.phase


def normal_form(expr: sp.Expr, variables: tuple[sp.Symbol, ...]) -> tuple[Term, ...]:
    """The terms of `expr` as a function of the real symbols `variables`.

    Raises:
        NoClosedForm: a function or power outside the class above; the reason names it.
    """
    return tuple(_Reader(expr, variables).terms())


class _Reader:
    """Replaces every function of the variables by a generator, expands, and reads the monomials off."""

    def __init__(self, expr: sp.Expr, variables: tuple[sp.Symbol, ...]) -> None:
        self.expr = expr
        self.variables = variables
        self.atoms: dict[sp.Dummy, tuple[str, Any]] = {}
        self.names: dict[tuple[str, Any], sp.Dummy] = {}

    def fail(self, reason: str) -> NoClosedForm:
        return NoClosedForm(self.expr, reason)

    def terms(self) -> Iterator[Term]:
        polynomial = sp.expand(self.read(self.expr))
        collected: dict[tuple, list[sp.Expr]] = {}
        for summand in sp.Add.make_args(polynomial) if polynomial != 0 else ():
            coefficient, dependent = summand.as_independent(*self.variables, *self.atoms, as_Add=False)
            powers = dependent.as_powers_dict()
            bad = next(
                (base for base, power in powers.items() if base not in self.atoms and base not in self.variables and base != 1), None
            )
            if bad is not None or any(not (power.is_Integer and power >= 0) for base, power in powers.items() if base != 1):
                raise self.fail(f"a quotient or root of functions of {self.variables}")
            key = tuple(sorted(((base, int(power)) for base, power in powers.items() if base != 1), key=str))
            collected.setdefault(key, []).append(coefficient)
        for key, coefficients in collected.items():
            total = sp.Add(*coefficients)
            if total != 0:
                yield from self.monomial(total, dict(key))

    # Reading functions of the variables -------------------------------------------------------------------------

    def read(self, e: sp.Expr) -> sp.Expr:
        """`e` with generators in place of functions of the variables."""
        if not e.free_symbols & set(self.variables) or e.is_Symbol:
            return e
        if e.is_Add or e.is_Mul:
            return e.func(*map(self.read, e.args))
        if isinstance(e, sp.exp):
            return self.exponential(e.args[0])
        if e.is_Pow:
            return self.power(*e.as_base_exp())
        if isinstance(e, (sp.Max, sp.Min, sp.Abs, sp.sign, sp.Heaviside, sp.Piecewise)):
            return self.piecewise(e)
        reader = _FUNCTIONS.get(e.func)
        if reader is None:
            raise self.fail(
                f"{e.func.__name__} is neither polynomial, exponential, trigonometric, piecewise polynomial nor an error function"
            )
        return reader(self, e.args[0])

    def power(self, base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
        if exponent.is_Integer and 0 < exponent <= _DEGREE_LIMIT:
            return self.read(base) ** exponent
        if not base.free_symbols & set(self.variables) and base.is_positive:
            return self.exponential(exponent * sp.log(base))
        if exponent.is_Integer and exponent < 0:
            raise self.fail(f"{base} in a denominator")
        raise self.fail(f"the power {base}**({exponent})")

    def exponential(self, argument: sp.Expr) -> sp.Expr:
        constant, rest = sp.expand(argument).as_independent(*self.variables, as_Add=True)
        if not rest.is_polynomial(*self.variables) or sp.Poly(rest, *self.variables).total_degree() > 2:
            raise self.fail(f"exp({argument}) is no exponential of a quadratic function")
        return sp.exp(constant) * self.atom("exp", rest)

    def trigonometric(self, argument: sp.Expr, shift: sp.Expr) -> sp.Expr:
        """cos(argument + shift)."""
        form = self.linear_form(argument)
        if form is None:
            raise self.fail(f"a trigonometric function of {argument}, which is not linear")
        return self.atom("cos", (form[0], form[1] + shift))

    def error_function(self, argument: sp.Expr) -> sp.Expr:
        form = self.linear_form(argument)
        if form is None:
            raise self.fail(f"erf of {argument}, which is not linear")
        direction, offset = form
        scale = sp.Mul(*[f for f in sp.Mul.make_args(sp.factor_terms(sp.gcd_terms(argument))) if f.is_number])
        if scale.is_zero or not scale.is_real:
            scale = sp.Integer(1)
        leading = _sign_of(next(entry for entry in direction if entry != 0) / sp.Abs(scale))
        scale = sp.Abs(scale) * (leading or 1)
        kink = Kink(tuple(sp.expand(entry / scale) for entry in direction), sp.expand(offset / scale), 1 / (2 * scale**2))
        return (leading or 1) * self.atom("erf", kink)

    def sign(self, argument: sp.Expr) -> sp.Expr:
        form = self.linear_form(argument)
        if form is None:
            raise self.fail(f"a step where {argument} changes sign: the boundary is not a hyperplane")
        direction, offset = form
        scale = next(entry for entry in direction if entry != 0)
        kink = Kink(tuple(sp.cancel(entry / scale) for entry in direction), sp.cancel(offset / scale), sp.Integer(0))
        return sp.sign(scale) * self.atom("sign", kink)

    def piecewise(self, e: sp.Expr) -> sp.Expr:
        """Steps as ½(1 + sign); other kinked functions through their breakpoints, or through steps of linear differences."""
        used = e.free_symbols & set(self.variables)
        if isinstance(e, sp.sign) and self.linear_form(e.args[0]):
            return self.sign(e.args[0])
        if isinstance(e, sp.Heaviside) and self.linear_form(e.args[0]):
            return (1 + self.sign(e.args[0])) / 2
        if len(used) == 1:
            smooth = steps_form(e, used.pop())
            if not smooth.has(sp.Max, sp.Min, sp.Abs, sp.sign, sp.Piecewise):
                return self.read(smooth)
        if isinstance(e, sp.Abs) and self.linear_form(e.args[0]):
            return self.read(e.args[0]) * self.sign(e.args[0])
        if isinstance(e, (sp.Max, sp.Min)) and len(e.args) == 2:
            gap = sp.expand(e.args[0] - e.args[1])
            if self.linear_form(gap):
                half = (1 + (1 if isinstance(e, sp.Max) else -1) * self.sign(gap)) / 2
                return self.read(e.args[1]) + self.read(gap) * half
        raise self.fail(f"{e} has kinks that cannot be brought to ordered thresholds of one linear form")

    def linear_form(self, argument: sp.Expr) -> tuple[Vector, sp.Expr] | None:
        """(direction, offset) of a linear function of the variables that depends on them; None for any other."""
        argument = sp.expand(argument)
        if not argument.is_polynomial(*self.variables):
            return None
        polynomial = sp.Poly(argument, *self.variables)
        if polynomial.total_degree() != 1:
            return None
        return tuple(polynomial.coeff_monomial(variable) for variable in self.variables), polynomial.coeff_monomial(1)

    def atom(self, kind: str, data: Any) -> sp.Dummy:
        key = (kind, data)
        if key not in self.names:
            dummy = sp.Dummy(f"{kind}{len(self.names)}", real=True)
            self.names[key], self.atoms[dummy] = dummy, key
        return self.names[key]

    # Reading monomials of the generators ------------------------------------------------------------------------

    def monomial(self, coefficient: sp.Expr, powers: dict[sp.Symbol, int]) -> Iterator[Term]:
        exponent: sp.Expr = sp.Integer(0)
        waves: list[tuple[Vector, sp.Expr]] = []
        smooth: list[Kink] = []
        sharp: list[Kink] = []
        for dummy, power in powers.items():
            kind, data = self.atoms.get(dummy, ("variable", None))
            if kind == "exp":
                exponent += power * data
            elif kind == "cos":
                waves += [data] * power
            elif kind == "erf":
                smooth += [replace(data, copy=copy) for copy in range(power)]
            elif kind == "sign" and power % 2:
                sharp.append(data)
        quadratic, linear = self.quadratic(exponent)
        degrees = tuple(powers.get(variable, 0) for variable in self.variables)
        base = Term(coefficient, degrees, quadratic, linear)
        for wave_factor, phase in _product_of_cosines(waves):
            for sign_factor, kinks in self.product_of_signs(sharp):
                ordered = tuple(sorted([*kinks, *smooth], key=str))
                yield replace(base, coefficient=coefficient * wave_factor * sign_factor, phase=phase, kinks=ordered)

    def quadratic(self, exponent: sp.Expr) -> tuple[tuple[Vector, ...], Vector]:
        """(A, b) with exponent = −½ uᵀA u + bᵀu."""
        variables = self.variables
        polynomial = sp.Poly(sp.expand(exponent), *variables)
        unit = lambda *at: tuple(at.count(k) for k in range(len(variables)))
        matrix = tuple(
            tuple(-polynomial.coeff_monomial(unit(i, j)) * (2 if i == j else 1) for j in range(len(variables)))
            for i in range(len(variables))
        )
        return matrix, tuple(polynomial.coeff_monomial(unit(i)) for i in range(len(variables)))

    def product_of_signs(self, kinks: list[Kink]) -> list[tuple[int, tuple[Kink, ...]]]:
        """Signs of parallel forms at different thresholds: sign(s + o₁) sign(s + o₂) = 1 + sign(s + o₁) − sign(s + o₂), o₁ < o₂."""
        total: list[tuple[int, tuple[Kink, ...]]] = [(1, ())]
        for kink in kinks:
            total = [term for factor, held in total for term in self.times_sign(factor, held, kink)]
        return total

    def times_sign(self, factor: int, held: tuple[Kink, ...], kink: Kink) -> list[tuple[int, tuple[Kink, ...]]]:
        parallel = next((other for other in held if other.direction == kink.direction), None)
        if parallel is None:
            return [(factor, (*held, kink))]
        rest = tuple(other for other in held if other is not parallel)
        if parallel.offset == kink.offset:
            return [(factor, rest)]
        order = _sign_of(kink.offset - parallel.offset)
        if order is None:
            raise self.fail(f"thresholds {-parallel.offset} and {-kink.offset} whose order is unknown")
        low, high = (parallel, kink) if order > 0 else (kink, parallel)
        return [(factor, rest), (factor, (*rest, low)), (-factor, (*rest, high))]


_FUNCTIONS = {
    sp.erf: _Reader.error_function,
    sp.erfc: lambda reader, q: 1 - reader.error_function(q),
    sp.cos: lambda reader, q: reader.trigonometric(q, sp.Integer(0)),
    sp.sin: lambda reader, q: reader.trigonometric(q, -sp.pi / 2),
    sp.cosh: lambda reader, q: (reader.exponential(q) + reader.exponential(-q)) / 2,
    sp.sinh: lambda reader, q: (reader.exponential(q) - reader.exponential(-q)) / 2,
}


def _product_of_cosines(waves: list[tuple[Vector, sp.Expr]]) -> list[tuple[sp.Expr, tuple[Vector, sp.Expr] | None]]:
    """Π cos as a sum of cosines: cos α cos β = ½ cos(α − β) + ½ cos(α + β)."""
    if not waves:
        return [(sp.Integer(1), None)]
    total = [(sp.Integer(1), waves[0])]
    for direction, offset in waves[1:]:
        total = [
            (factor / 2, (tuple(p + side * q for p, q in zip(held[0], direction, strict=True)), held[1] + side * offset))
            for factor, held in total
            for side in (-1, 1)
        ]
    return [(factor, phase) if any(entry != 0 for entry in phase[0]) else (factor * sp.cos(phase[1]), None) for factor, phase in total]


def _sign_of(expr: sp.Expr) -> int | None:
    """±1 where the sign is known, else None."""
    if expr.is_positive:
        return 1
    return -1 if expr.is_negative else None
