"""Gaussian averages of polynomials times signs: tilting, conditioning and Stein's lemma, in a field of rational functions.

Coordinates are the variables u₁…u_n followed by the arguments s_j of the signs (noise included), jointly Gaussian. All numbers are
elements of ℚ(parameters); `Scalars` goes back and forth to SymPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from .errors import NoClosedForm

Scalar = Any  # an element of Scalars.field
Key = tuple[frozenset[int], frozenset[int]]


class Scalars:
    """ℚ(symbols), with whatever is not rational (√2, π, e^b, …) standing as a further symbol; i is one too, with i² = −1."""

    def __init__(self, expressions: Iterable[sp.Expr]) -> None:
        self.symbol_of: dict[sp.Expr, sp.Symbol] = {}
        self.i = sp.Dummy("i")
        rational = [self._rational(sp.sympify(e)) for e in expressions]
        symbols = set().union(*(e.free_symbols for e in rational))
        self.back = {symbol: e for e, symbol in self.symbol_of.items()}
        self.field = sp.QQ.frac_field(*sorted(symbols, key=str), self.i)
        self.zero, self.one = self.field.zero, self.field.one
        self.imaginary = self.field.from_sympy(self.i)

    def _rational(self, e: sp.Expr) -> sp.Expr:
        if e.is_Rational or e.is_Symbol:
            return e
        if e.is_Add or e.is_Mul:
            return e.func(*map(self._rational, e.args))
        if e.is_Pow and e.exp.is_Integer:
            return self._rational(e.base) ** e.exp
        if e not in self.symbol_of:
            self.symbol_of[e] = sp.Dummy(f"k{len(self.symbol_of)}")
        return self.symbol_of[e]

    def __call__(self, e: sp.Expr) -> Scalar:
        return self.field.from_sympy(self._rational(sp.sympify(e)))

    def sympy(self, value: Scalar, factor: bool = False) -> sp.Expr:
        """SymPy's form of a scalar, factored if asked."""
        e = self.field.to_sympy(value)
        return (sp.factor(e) if factor else e).xreplace(self.back)

    def polynomial(self, value: Any, factor: bool = True) -> sp.Expr:
        """SymPy's form of a numerator or denominator."""
        e = value.as_expr()
        return (sp.factor(e) if factor else e).xreplace(self.back)

    def parts(self, value: Scalar) -> tuple[Scalar, Scalar]:
        """Real and imaginary part."""
        position = self.field.gens.index(self.imaginary)
        ring = value.numer.ring
        found = [ring.zero, ring.zero]
        for monomial, coefficient in value.numer.terms():
            power = monomial[position]
            rest = ring({(*monomial[:position], 0, *monomial[position + 1 :]): coefficient})
            found[power % 2] += rest if power % 4 < 2 else -rest
        denominator = self.field.field(value.denom)
        return self.field.field(found[0]) / denominator, self.field.field(found[1]) / denominator


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of (u₁…u_n, s₁…s_k) in a field of scalars."""

    scalars: Scalars
    cov: tuple[tuple[Scalar, ...], ...]
    mean: tuple[Scalar, ...]

    @property
    def size(self) -> int:
        return len(self.mean)

    @cached_property
    def centred(self) -> bool:
        return all(m == 0 for m in self.mean)

    def det(self, indices: Iterable[int]) -> Scalar:
        """Determinant of the covariance of some coordinates."""
        chosen = sorted(indices)
        if not chosen:
            return self.scalars.one
        rows = [[self.cov[i][j] for j in chosen] for i in chosen]
        return DomainMatrix(rows, (len(chosen), len(chosen)), self.scalars.field).det()

    def condition(self, j: int) -> Gaussian:
        """The law given s_j = 0: Σ − Σ_j Σ_jᵀ/Σ_jj, m − Σ_j m_j/Σ_jj."""
        variance, column = self.cov[j][j], self.cov[j]
        if variance == 0:
            raise NoClosedForm("the average", "a kink whose argument is certain (the covariance is singular)")
        gain = [entry / variance for entry in column]
        cov = tuple(tuple(entry - gain[r] * column[c] for c, entry in enumerate(row)) for r, row in enumerate(self.cov))
        return Gaussian(self.scalars, cov, tuple(m - g * self.mean[j] for m, g in zip(self.mean, gain, strict=True)))

    def tilt(self, quadratic: list[list[Scalar]], linear: list[Scalar], wave: list[Scalar]) -> Tilted:
        """Multiply the density by exp(−½ uᵀA u + bᵀu + i ℓᵀu).

        Returns:
            The new law, Σ' = Σ(1 + AΣ)⁻¹ and m' = m + Σ'(b − Am + iℓ); det(1 + AΣ), whose −½ power is the normalisation; and the
            exponent and phase that come out: bᵀm − ½mᵀAm + ½βᵀΣ'β − ½ℓᵀΣ'ℓ and ℓᵀ(m + Σ'β) with β = b − Am.
        """
        zero, n = self.scalars.zero, len(linear)
        support = [i for i in range(n) if any(entry != 0 for entry in quadratic[i])]
        cov, determinant = self._absorb(support, quadratic)
        dot = lambda left, right: sum((p * q for p, q in zip(left, right, strict=True)), zero)
        pull = [linear[i] - dot(quadratic[i], self.mean[:n]) for i in range(n)]
        shift = [dot(row[:n], pull) for row in cov]
        wobble = [dot(row[:n], wave) for row in cov]
        exponent = dot(linear, self.mean[:n]) + (dot(pull, shift[:n]) - dot(wave, wobble[:n])) / 2
        exponent -= sum((self.mean[i] * quadratic[i][j] * self.mean[j] for i in support for j in support), zero) / 2
        phase = dot(wave, self.mean[:n]) + dot(wave, shift[:n])
        i = self.scalars.imaginary
        mean = tuple(m + s + i * t for m, s, t in zip(self.mean, shift, wobble, strict=True))
        return Tilted(Gaussian(self.scalars, cov, mean), determinant, exponent, phase)

    def _absorb(self, support: list[int], quadratic: list[list[Scalar]]) -> tuple[tuple[tuple[Scalar, ...], ...], Scalar]:
        """Σ(1 + AΣ)⁻¹ = Σ − Σ_K (1 + A_KK Σ_KK)⁻¹ A_KK Σ_Kᵀ and det(1 + A_KK Σ_KK); K supports A."""
        if not support:
            return self.cov, self.scalars.one
        field, k = self.scalars.field, len(support)
        a = DomainMatrix([[quadratic[i][j] for j in support] for i in support], (k, k), field)
        inner = DomainMatrix.eye(k, field) + a * DomainMatrix([[self.cov[i][j] for j in support] for i in support], (k, k), field)
        wide = DomainMatrix([[self.cov[i][j] for j in support] for i in range(self.size)], (self.size, k), field)
        determinant = inner.det()
        if determinant == 0:
            raise ZeroDivisionError
        cov = DomainMatrix([list(row) for row in self.cov], (self.size, self.size), field) - wide * (inner.inv() * (a * wide.transpose()))
        return tuple(map(tuple, cov.to_list())), determinant


@dataclass(frozen=True)
class Tilted:
    """A tilted law, det(1 + AΣ), and the exponent and phase of the constant that came out."""

    law: Gaussian
    determinant: Scalar
    exponent: Scalar
    phase: Scalar


class Stein:
    """E[Π u_i^{n_i} Π_{j∈J} sign(s_j)] reduced to averages without powers.

    Stein's lemma E[u_i F] = m_i E[F] + Σ_k Σ_ik E[∂_k F], with ∂ sign = 2δ; δ(s_j) leaves the law given s_j = 0. The result maps
    (C, R) to the coefficient of E[Π_{j∈C} 2δ(s_j) Π_{j∈R} sign(s_j)].
    """

    def __init__(self, law: Gaussian) -> None:
        self.laws: dict[frozenset[int], Gaussian] = {frozenset(): law}
        self.memo: dict[tuple, dict[Key, Scalar]] = {}

    def law(self, given: frozenset[int]) -> Gaussian:
        """The law given that the s_j, j in `given`, are 0."""
        if given not in self.laws:
            last = max(given)
            self.laws[given] = self.law(given - {last}).condition(last)
        return self.laws[given]

    def reduce(self, powers: tuple[int, ...], given: frozenset[int], signs: frozenset[int]) -> dict[Key, Scalar]:
        """Coefficients of the averages without powers."""
        law = self.law(given)
        if law.centred and (sum(powers) + len(signs)) % 2:
            return {}
        if not any(powers):
            return {(given, signs): law.scalars.one}
        key = (powers, given, signs)
        if key not in self.memo:
            self.memo[key] = self._strip(powers, given, signs, law)
        return self.memo[key]

    def _strip(self, powers: tuple[int, ...], given: frozenset[int], signs: frozenset[int], law: Gaussian) -> dict[Key, Scalar]:
        i = next(k for k, power in enumerate(powers) if power)
        less = (*powers[:i], powers[i] - 1, *powers[i + 1 :])
        terms: list[tuple[Scalar, tuple[int, ...], frozenset[int], frozenset[int]]] = [(law.mean[i], less, given, signs)]
        for k, power in enumerate(less):
            if power:
                terms.append((law.cov[i][k] * power, (*less[:k], power - 1, *less[k + 1 :]), given, signs))
        terms += [(law.cov[i][j], less, given | {j}, signs - {j}) for j in signs]
        total: dict[Key, Scalar] = {}
        for factor, lower, zeros, remaining in terms:
            if factor != 0:
                for key, coefficient in self.reduce(lower, zeros, remaining).items():
                    total[key] = total.get(key, law.scalars.zero) + factor * coefficient
        return {key: coefficient for key, coefficient in total.items() if coefficient != 0}


def blocks(law: Gaussian, signs: frozenset[int]) -> list[list[int]]:
    """Connected components of the covariance graph."""
    left, found = sorted(signs), []
    while left:
        block, stack = [], [left.pop(0)]
        while stack:
            j = stack.pop()
            block.append(j)
            linked = [k for k in left if law.cov[j][k] != 0]
            stack += linked
            left = [k for k in left if k not in linked]
        found.append(sorted(block))
    return found


def powers(weight: Scalar, radicand: Scalar) -> list[tuple[Scalar, sp.Rational]]:
    """[(w_p, p)] with weight / √radicand = Σ w_p · radicand^p: whole factors pulled, and sums split where that is shorter."""
    power, base = -sp.Rational(1, 2), radicand.numer
    if base.is_ground or not radicand.denom.is_ground:
        return [(weight, power)]
    while weight.denom.div(base)[1] == 0:
        weight, power = weight * radicand, power - 1
    found: list[tuple[Scalar, sp.Rational]] = []
    while True:
        quotient, remainder = weight.numer.div(base)
        if quotient == 0 or (remainder != 0 and len(quotient) + len(remainder) >= len(weight.numer)):
            return [*found, (weight, power)]
        field, content = weight.field, radicand.field(radicand.denom)
        if remainder != 0:
            found.append((field(remainder) / field(weight.denom), power))
        weight, power = field(quotient) / field(weight.denom) * content, power + 1


def length(value: Scalar) -> int:
    """Number of terms of numerator and denominator; 0 for zero."""
    return len(value.numer.terms()) + len(value.denom.terms()) if value != 0 else 0
