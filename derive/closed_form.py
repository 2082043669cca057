"""From reduced averages to a closed form: base cases, and the sum put together compactly.

What Stein's lemma leaves is Σ coefficient · E[Π_{j∈C} 2δ(s_j) Π_{j∈R} sign(s_j)]. The δ's give the density of s_C at 0; the signs that
remain are the base cases: none, one (an error function of its mean), two (Price's theorem: an angle), an odd number (0 by symmetry).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import sympy as sp

from .derivation import Step
from .errors import BadInput, NoClosedForm
from .integrand import Kink, Term
from .wick import Gaussian, Scalar, Scalars, Stein, Tilted, blocks, length, powers


class Mean(sp.Function):
    """E[·], unevaluated, in recorded steps."""

    nargs = 1
    is_real = True

    def _sympystr(self, printer: sp.printing.printer.Printer) -> str:
        return f"E[{printer._print(self.args[0])}]"

    def _latex(self, printer: sp.printing.printer.Printer) -> str:
        return rf"\mathbb{{E}}\left[{printer._print(self.args[0])}\right]"


class ClosedForm:
    """The average of a sum of terms.

    Args:
        terms: the integrand's normal form.
        variables: names of u₁…u_n.
        cov, mean: their covariance and mean, rational in symbols.

    Raises:
        NoClosedForm: a base case without closed form.
        BadInput: the average is infinite.
    """

    def __init__(self, terms: tuple[Term, ...], variables: tuple[sp.Symbol, ...], cov: sp.Matrix, mean: tuple[sp.Expr, ...]) -> None:
        self.terms, self.variables = terms, variables
        self.kinks: list[Kink] = sorted({kink for term in terms for kink in term.kinks}, key=str)
        self.first = len(variables)
        self.scalars = Scalars(_expressions(terms, self.kinks, cov, mean))
        self.scale = {self.first + j: (1 / kink.noise if kink.noise else sp.Integer(1)) for j, kink in enumerate(self.kinks)}
        self.joint = self._joint(cov, mean)
        self.items: dict[tuple, Scalar] = {}
        self.radicands: dict[Scalar, sp.Expr] = {}
        self.steps: list[Step] = []
        self.remarks: dict[str, sp.Basic] = {}
        self.expr = self._evaluate()

    def _joint(self, cov: sp.Matrix, mean: tuple[sp.Expr, ...]) -> Gaussian:
        """Law of (u, s): Cov(u, s_j) = Σ d_j, Cov(s_j, s_k) = d_jᵀ Σ d_k + τ_j δ_jk, E s_j = d_jᵀ m + o_j."""
        rows = [[self.scalars(1 if i == k else 0) for i in range(self.first)] for k in range(self.first)]
        rows += [[self.scalars(entry) for entry in kink.direction] for kink in self.kinks]
        sigma = [[self.scalars(entry) for entry in cov.row(i)] for i in range(self.first)]
        zero = self.scalars.zero
        dot = lambda p, q: sum((s * t for s, t in zip(p, q, strict=True)), zero)
        images = [[dot(row, column) for column in sigma] for row in rows]
        noise = [zero] * self.first + [self.scalars(kink.noise) for kink in self.kinks]
        joint = tuple(tuple(dot(images[i], rows[j]) + (noise[i] if i == j else zero) for j in range(len(rows))) for i in range(len(rows)))
        offsets = [zero] * self.first + [self.scalars(kink.offset) for kink in self.kinks]
        means = [self.scalars(entry) for entry in mean]
        return Gaussian(self.scalars, joint, tuple(dot(row, means) + offset for row, offset in zip(rows, offsets, strict=True)))

    def _evaluate(self) -> sp.Expr:
        tilts: dict[tuple, list[Term]] = {}
        for term in self.terms:
            tilts.setdefault(term.tilt, []).append(term)
        for tilt, terms in tilts.items():
            self._tilt(tilt, terms)
        return self._sum()

    # One tilt ---------------------------------------------------------------------------------------------------

    def _tilt(self, tilt: tuple, terms: list[Term]) -> None:
        quadratic, linear, phase = tilt
        wave, offset = phase if phase else ((sp.Integer(0),) * self.first, sp.Integer(0))
        matrix = [[self.scalars(entry) for entry in row] for row in quadratic]
        try:
            tilted = self.joint.tilt(matrix, [*map(self.scalars, linear)], [*map(self.scalars, wave)])
        except ZeroDivisionError:
            raise self._infinite(quadratic) from None
        self._record_tilt(tilt, tilted)
        stein = Stein(tilted.law)
        for term in terms:
            if phase and term.kinks:
                raise NoClosedForm(self._integrand(term), "a sine or cosine times a step or an error function")
            present = frozenset(self.first + self.kinks.index(kink) for kink in term.kinks)
            reduced = stein.reduce(term.powers, frozenset(), present)
            self._record_stein(term, reduced)
            constant, rest = _split_constant(term.coefficient)
            for (given, signs), coefficient in reduced.items():
                weight = self.scalars(rest) * coefficient
                self._add(constant, weight, stein.law(given), given, signs, tilted, (wave, offset) if phase else None, tilt)

    def _add(
        self, constant: sp.Expr, weight: Scalar, law: Gaussian, given: frozenset[int], signs: frozenset[int],
        tilted: Tilted, phase: tuple | None, tilt: tuple,
    ) -> None:  # fmt: skip
        """Add weight · constant · E[Π_{given} 2δ Π_{signs} sign] under the tilted law to the sum."""
        base, angles = self._signs(law, signs, tilted.determinant * tilted.law.det(given))
        if base == 0:
            return
        radicand, outer = tilted.determinant * tilted.law.det(given), constant
        for j in given:
            constant *= sp.sqrt(2 * self.scale[j] / sp.pi)
            radicand *= self.scalars(self.scale[j])
        self._name_radicand(radicand, given, tilt)
        exponent = self.scalars.sympy(tilted.exponent - self._energy(tilted.law, given), factor=True)
        if given:
            self._record_density(given, tilt, constant / outer * sp.exp(exponent) / sp.sqrt(self.radicands[radicand]))
        constant *= (2 / sp.pi) ** angles
        if phase is None:
            self._collect(constant, radicand, exponent, base, weight)
            return
        angle = sp.expand(self.scalars.sympy(tilted.phase) + phase[1])
        real, imaginary = self.scalars.parts(weight)
        self._collect(constant, radicand, exponent, base * sp.cos(angle), real)
        self._collect(constant, radicand, exponent, base * sp.sin(angle), -imaginary)

    def _collect(self, constant: sp.Expr, radicand: Scalar, exponent: sp.Expr, base: sp.Expr, weight: Scalar) -> None:
        if weight == 0 or base == 0:
            return
        rational, constant = constant.as_coeff_Mul()
        number, base = base.as_coeff_Mul()
        key = (constant, radicand, exponent, base)
        self.items[key] = self.items.get(key, self.scalars.zero) + weight * self.scalars(rational * number)

    def _energy(self, law: Gaussian, given: Iterable[int]) -> Scalar:
        """½ m_Cᵀ Σ_CC⁻¹ m_C, one conditioning after the other."""
        total = self.scalars.zero
        for j in sorted(given):
            if law.mean[j] != 0:
                total += law.mean[j] ** 2 / (2 * law.cov[j][j])
            law = law.condition(j)
        return total

    # Base cases -------------------------------------------------------------------------------------------------

    def _signs(self, law: Gaussian, signs: frozenset[int], determinant: Scalar) -> tuple[sp.Expr, int]:
        """E[Π sign(s_j)] as (expression, k): the value is expression · (2/π)^k. Independent blocks factorise."""
        value, angles = sp.Integer(1), 0
        parts = blocks(law, signs)
        if any(len(block) % 2 and all(law.mean[j] == 0 for j in block) for block in parts):
            return sp.Integer(0), 0
        for block in parts:
            if len(block) == 1:
                value *= self._one_sign(law, block[0])
            elif any(law.mean[j] != 0 for j in block):
                raise NoClosedForm(self._product(block), "two thresholds away from the mean: Owen's T function")
            elif len(block) == 2:
                value *= self._two_signs(law, block[0], block[1], determinant)
                angles += 1
            else:
                raise NoClosedForm(self._product(block), "a four-dimensional orthant probability")
        return value, angles

    def _one_sign(self, law: Gaussian, j: int) -> sp.Expr:
        """E[sign(s)] = erf(m/√(2Σ))."""
        scale = self.scale[j]
        mean, variance = self.scalars.sympy(law.mean[j], factor=True), self.scalars.sympy(law.cov[j][j] * self.scalars(scale))
        value = sp.erf(mean * sp.sqrt(scale / 2) / sp.sqrt(variance))
        self.remarks.setdefault(
            "One sign: the derivative of its average in the mean is twice the density at 0, so that it is an error function",
            sp.Eq(Mean(self._product([j])), value, evaluate=False),
        )
        return value

    def _two_signs(self, law: Gaussian, j: int, k: int, determinant: Scalar) -> sp.Expr:
        """(π/2) E[sign(s_j) sign(s_k)], the angle atan2(c, √(AB − c²))."""
        _check_price_integral()
        first, second = sp.nsimplify(self.scale[j]), sp.nsimplify(self.scale[k])
        left = self.scalars.sympy(determinant * law.cov[j][j] * self.scalars(first))
        right = self.scalars.sympy(determinant * law.cov[k][k] * self.scalars(second))
        cross = self.scalars.sympy(determinant * law.cov[j][k])
        radicand = _shorter(left * right - first * second * cross**2)
        angle = sp.atan2(sp.sqrt(first * second) * cross, sp.sqrt(radicand))
        self.remarks.setdefault(
            "Price's theorem: the derivative in the covariance c of the two arguments (variances A, B) is E[2δ 2δ] = (2/π)/√(AB − c²); "
            "the average vanishes at c = 0 by symmetry, and the antiderivative in c is (2/π) atan2(c, √(AB − c²))",
            sp.Eq(Mean(self._product([j, k])), 2 * angle / sp.pi, evaluate=False),
        )
        return angle

    # Radicands in the form "product minus square" ------------------------------------------------------------------

    def _name_radicand(self, value: Scalar, given: frozenset[int], tilt: tuple) -> None:
        """Remember a display of det(1 + AΣ) det Σ_CC: for two directions, product of variances minus squared covariance."""
        if value in self.radicands:
            return
        quadratic = tilt[0]
        diagonal = all(entry == 0 for i, row in enumerate(quadratic) for j, entry in enumerate(row) if i != j)
        members = [*(i for i in range(self.first) if quadratic[i][i] != 0), *sorted(given)] if diagonal else []
        self.radicands[value] = self.scalars.sympy(value, factor=True)
        if len(members) != 2:
            return
        factors = [quadratic[i][i] if i < self.first else self.scale[i] for i in members]
        sides = [
            self.scalars(factor) * self.joint.cov[i][i] + (1 if i < self.first else 0) for i, factor in zip(members, factors, strict=True)
        ]
        i, j = members
        square = self.scalars(factors[0]) * self.scalars(factors[1]) * self.joint.cov[i][j] ** 2
        if sides[0] * sides[1] - square == value:
            left, right = map(self.scalars.sympy, sides)
            self.radicands[value] = _shorter(left * right - self.scalars.sympy(square))

    # The sum ----------------------------------------------------------------------------------------------------

    def _sum(self) -> sp.Expr:
        groups: dict[tuple, list[tuple[Scalar, sp.Expr]]] = {}
        for (constant, radicand, exponent, base), weight in self._turned().items():
            for part, power in powers(weight, radicand):
                display = self.radicands[radicand] ** power * base
                groups.setdefault((constant, exponent), []).append((part, display))
        total = sp.Integer(0)
        for (constant, exponent), members in groups.items():
            common = self._common([weight for weight, _ in members])
            inside = sp.Add(*(self.scalars.sympy(weight / common, factor=True) * display for weight, display in members))
            total += constant * self.scalars.sympy(common, factor=True) * sp.exp(exponent) * inside
        return total

    def _turned(self) -> dict[tuple, Scalar]:
        """Use atan2(c, √D) = atan2(√D, −c) − π/2 and erf = 1 − erfc wherever that shortens the term without them.

        Besides being shorter, the sum then has no cancellation where the angle is small.
        """
        items = dict(self.items)
        for (constant, radicand, exponent, base), weight in self.items.items():
            if isinstance(base, sp.atan2):
                cross, root = base.args
                turned_base, factor, sign = sp.atan2(root, -cross), constant * sp.pi / 2, 1
            elif isinstance(base, sp.erf):
                turned_base, factor, sign = sp.erfc(base.args[0]), constant, -1
            else:
                continue
            rational, partner = factor.as_coeff_Mul()
            key = (partner, radicand, exponent, sp.Integer(1))
            plain = items.get(key, self.scalars.zero)
            turned = plain - weight * self.scalars(sign * rational)
            if length(turned) < length(plain):
                del items[constant, radicand, exponent, base]
                items[constant, radicand, exponent, turned_base] = sign * weight
                items[key] = turned
        return {key: weight for key, weight in items.items() if weight != 0}

    def _common(self, weights: list[Scalar]) -> Scalar:
        """A factor that makes all weights polynomials with small integer coefficients, if one does."""
        numerator, denominator = weights[0].numer, weights[0].denom
        for weight in weights:
            numerator, denominator = numerator.gcd(weight.numer), denominator.gcd(weight.denom)
        field = self.scalars.field.field
        common = field(numerator) / field(denominator)
        contents = [sp.Rational(str((weight / common).numer.content() / (weight / common).denom.content())) for weight in weights]
        scale = sp.Rational(math.gcd(*(int(content.p) for content in contents)), math.lcm(*(int(content.q) for content in contents)))
        return common * self.scalars(scale)

    # Recorded steps -----------------------------------------------------------------------------------------------

    def _sign_symbol(self, j: int) -> sp.Expr:
        """s_j as an expression, with its noise."""
        kink = self.kinks[j - self.first]
        noise = sp.sqrt(kink.noise) * sp.Symbol(f"xi_{j - self.first + 1}", real=True)
        return sp.Add(*(d * v for d, v in zip(kink.direction, self.variables, strict=True)), kink.offset, noise)

    def _product(self, signs: Iterable[int]) -> sp.Expr:
        return sp.Mul(*(sp.sign(self._sign_symbol(j)) for j in sorted(signs)), evaluate=False)

    def _integrand(self, term: Term, tilted: bool = True) -> sp.Expr:
        """A term of the normal form as an expression (without its coefficient)."""
        u = self.variables
        factors = [v**power for v, power in zip(u, term.powers, strict=True)]
        factors += [sp.sign(self._sign_symbol(self.first + self.kinks.index(kink))) for kink in term.kinks]
        if tilted:
            quadratic = sum(entry * u[i] * u[j] for i, row in enumerate(term.quadratic) for j, entry in enumerate(row))
            factors.append(sp.exp(sp.expand(-quadratic / 2 + sum(p * q for p, q in zip(term.linear, u, strict=True)))))
            if term.phase:
                factors.append(sp.cos(sum(p * q for p, q in zip(term.phase[0], u, strict=True)) + term.phase[1]))
        return sp.Mul(*factors)

    def _record_tilt(self, tilt: tuple, tilted: Tilted) -> None:
        quadratic, linear, phase = tilt
        if phase is None and all(entry == 0 for row in (*quadratic, linear) for entry in row):
            return
        number, exponent = self.scalars.sympy(tilted.determinant, factor=True), self.scalars.sympy(tilted.exponent, factor=True)
        support = [i for i, row in enumerate(quadratic) if any(entry != 0 for entry in row)]
        if number.is_nonpositive or (support and _indefinite(quadratic, self.joint, self.scalars, support)):
            raise self._infinite(quadratic)
        factor = Term(sp.Integer(1), (0,) * self.first, quadratic, linear, phase)
        children = []
        if support:
            law = [[self.scalars.sympy(entry, factor=True) for entry in row[: self.first]] for row in tilted.law.cov[: self.first]]
            children.append(Step("covariance under the tilted density", sp.Matrix(law)))
            if not number.is_positive:
                children.append(Step("which needs 1 + AΣ positive definite, in particular", sp.Gt(number, 0)))
        value = sp.exp(exponent) / sp.sqrt(number)
        if phase:
            value *= sp.cos(self.scalars.sympy(tilted.phase) + phase[1])
        self.steps.append(
            Step(
                "Complete the square: an exponential times a Gaussian density is a Gaussian density, tilted"
                + (" (an imaginary exponent shifts the mean along the imaginary axis)" if phase else ""),
                sp.Eq(Mean(self._integrand(factor)), value, evaluate=False),
                tuple(children),
            )
        )

    def _record_density(self, given: frozenset[int], tilt: tuple, value: sp.Expr) -> None:
        """E[tilt · Π 2δ(s_j)], the (tilted) density of the kinks' arguments at 0."""
        factor = self._integrand(Term(sp.Integer(1), (0,) * self.first, *tilt))
        deltas = [2 * sp.DiracDelta(self._sign_symbol(j), evaluate=False) for j in sorted(given)]
        equation = sp.Eq(Mean(factor * sp.Mul(*deltas)), value, evaluate=False)
        step = Step("Gaussian density where the arguments of the kinks vanish", equation)
        if step not in self.steps:
            self.steps.append(step)

    def _infinite(self, quadratic: tuple) -> BadInput:
        u = self.variables
        form = sp.exp(-sum(entry * u[i] * u[j] for i, row in enumerate(quadratic) for j, entry in enumerate(row)) / 2)
        return BadInput(f"the expectation of {form} is infinite at this covariance: the exponent must be smaller than that of the density")

    def _record_stein(self, term: Term, reduced: dict) -> None:
        if not any(term.powers) and not term.kinks:
            return
        left = Mean(self._integrand(term, tilted=False))
        right = sp.Integer(0)
        for (given, signs), coefficient in reduced.items():
            deltas = [2 * sp.DiracDelta(self._sign_symbol(j), evaluate=False) for j in sorted(given)]
            product = sp.Mul(*deltas, *(sp.sign(self._sign_symbol(j)) for j in sorted(signs)))
            weight = self.scalars.sympy(coefficient, factor=True).subs(self.scalars.i, sp.I)
            right += weight * (Mean(product) if product != 1 else 1)
        if left == right:
            return
        reason = "Stein's lemma, E[u F] = E[u] E[F] + Σ Cov(u, ·) E[∂F], until no power is left"
        if not any(term.powers) or not reduced:
            reason = "An odd number of odd functions of centred variables: 0 by the symmetry u → −u"
        self.steps.append(Step(reason, sp.Eq(left, right, evaluate=False)))


@cache
def _check_price_integral() -> None:
    """Differentiate the antiderivative of Price's theorem back; a wrong one would make every kernel wrong."""
    first, second = sp.symbols("A B", positive=True)
    c = sp.Symbol("c", real=True)
    root = sp.sqrt(first * second - c**2)
    if sp.simplify(sp.diff(sp.atan2(c, root), c) - 1 / root) != 0 or sp.atan2(0, sp.sqrt(first * second)) != 0:
        raise AssertionError("atan2(c, √(AB − c²)) is not the antiderivative of 1/√(AB − c²)")


def _expressions(terms: tuple[Term, ...], kinks: list[Kink], cov: sp.Matrix, mean: tuple[sp.Expr, ...]) -> list[sp.Expr]:
    """Everything that the field of scalars must contain."""
    found: list[sp.Expr] = [*cov, *mean]
    for term in terms:
        found += [_split_constant(term.coefficient)[1], *term.linear, *(entry for row in term.quadratic for entry in row)]
        found += term.phase[0] if term.phase else ()
    for kink in kinks:
        found += [*kink.direction, kink.offset, kink.noise]
    return found


def _split_constant(coefficient: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(irrational number, rest) with product `coefficient`."""
    number, rest = coefficient.as_independent(*coefficient.free_symbols, as_Add=False)
    rational, number = number.as_coeff_Mul()
    return number, rational * rest


def _shorter(expr: sp.Expr) -> sp.Expr:
    """The expanded form if it has fewer operations."""
    expanded = sp.expand(expr)
    return expanded if sp.count_ops(expanded) < sp.count_ops(expr) else expr


def _indefinite(quadratic: tuple, law: Gaussian, scalars: Scalars, support: list[int]) -> bool:
    """Whether 1 + AΣ is known not to be positive definite: some coefficient of its characteristic polynomial has the wrong sign."""
    a = sp.Matrix([[quadratic[i][j] for j in support] for i in support])
    sigma = sp.Matrix([[scalars.sympy(law.cov[i][j]) for j in support] for i in support])
    coefficients = (sp.eye(len(support)) + a * sigma).charpoly().all_coeffs()
    return any(((-1) ** k * coefficient).is_nonpositive for k, coefficient in enumerate(coefficients))
