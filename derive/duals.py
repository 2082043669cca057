"""Dual functions: E[f(u) g(v)] for a pair of Gaussians, as functions of their covariance.

A `Dual` is one such expectation; a `PairFunction` is a sum of products of them, over fields that are independent of one another:
preactivations h, gates m and feedback z. It is all a layer of a wide network is, seen from its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import sympy as sp

from .derivation import Step
from .errors import BadInput, NoClosedForm
from .gaussian import expectation
from .piecewise import KINKED, steps_form
from .symbols import h, m, u, v, x, z

# The covariance of the pair (u, v), by name.
q_mumu, q_nunu = sp.symbols("q_mumu q_nunu", positive=True)
q_munu = sp.Symbol("q_munu", real=True)
FIELDS = (h, m, z)


@dataclass(frozen=True)
class Covariance:
    """Covariance of a pair of Gaussians, [[mumu, munu], [munu, nunu]]."""

    mumu: sp.Expr
    munu: sp.Expr
    nunu: sp.Expr

    def map(self, function: Callable[[sp.Expr], sp.Expr]) -> Covariance:
        return Covariance(function(self.mumu), function(self.munu), function(self.nunu))

    @property
    def diagonal(self) -> tuple[Covariance, Covariance]:
        """The covariances of (u, u) and of (v, v)."""
        return Covariance(self.mumu, self.mumu, self.mumu), Covariance(self.nunu, self.nunu, self.nunu)


@dataclass(frozen=True)
class Dual:
    """E[f(u) g(v)] with (u, v) ~ N(0, q).

    Attributes:
        f, g: expressions in x.
        closed: the expectation in q_mumu, q_munu, q_nunu; None if there is no closed form.
        closed_diagonal: E[f(u) g(u)] in q_mumu; None if there is no closed form.
        reason: why there is none.
        steps, diagonal_steps: how the engine found them.
    """

    f: sp.Expr
    g: sp.Expr
    closed: sp.Expr | None
    closed_diagonal: sp.Expr | None
    reason: str
    steps: tuple[Step, ...]
    diagonal_steps: tuple[Step, ...]

    def on(self, q: Covariance) -> sp.Expr:
        """The expectation at a covariance; unevaluated, `E_{…}(q)`, where there is no closed form."""
        if q.mumu == q.munu == q.nunu:
            if self.closed_diagonal is not None:
                return self.closed_diagonal.subs(q_mumu, q.mumu)
        elif self.closed is not None:
            return self.closed.subs({q_mumu: q.mumu, q_munu: q.munu, q_nunu: q.nunu}, simultaneous=True)
        return sp.Function(self.label)(q.mumu, q.munu, q.nunu)

    @property
    def label(self) -> str:
        """A name that tells f and g, for expectations that stay unevaluated."""
        return f"E[{sp.Mul(self.f.subs(x, u), self.g.subs(x, v), evaluate=False)}]"

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return (self.f.free_symbols | self.g.free_symbols) - {x}


@dataclass(frozen=True)
class Term:
    """coefficient × Π_field Dual_field."""

    coefficient: sp.Expr
    duals: tuple[tuple[sp.Symbol, Dual], ...]


@dataclass(frozen=True)
class PairFunction:
    """E[F(h_μ, m_μ, z_μ) F'(h_ν, m_ν, z_ν)] as a sum of products of duals over the independent fields."""

    name: str
    left: sp.Expr
    right: sp.Expr
    terms: tuple[Term, ...]

    @property
    def is_zero(self) -> bool:
        return not self.terms

    @property
    def duals(self) -> tuple[Dual, ...]:
        return tuple(dict.fromkeys(dual for term in self.terms for _, dual in term.duals))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        found: set[sp.Symbol] = set()
        for term in self.terms:
            found |= term.coefficient.free_symbols
            for _, dual in term.duals:
                found |= dual.free_symbols
        return found

    def uses(self, field: sp.Symbol) -> bool:
        """Whether any term needs the covariance of this field."""
        return any(field == used for term in self.terms for used, _ in term.duals)

    def operations(self, preactivation: Covariance, gates: Covariance) -> Covariance:
        """About how many operations `on` has at (μ, μ), (μ, ν) and (ν, ν), from how many its arguments have."""
        at = {h: preactivation, m: gates, z: gates}
        terms = [(at[used], dual) for term in self.terms for used, dual in term.duals]
        off = sum(_operations(dual.closed, q.mumu, q.munu, q.nunu) for q, dual in terms)
        sides = [sum(_operations(dual.closed_diagonal, *(getattr(q, entry),) * 3) for q, dual in terms) for entry in ("mumu", "nunu")]
        return Covariance(sp.Integer(sides[0]), sp.Integer(off), sp.Integer(sides[1]))

    def on(self, preactivation: Covariance, gates: Covariance | None = None, feedback: Covariance | None = None) -> Covariance:
        """Evaluate at (μ, ν), (μ, μ) and (ν, ν)."""
        ones = Covariance(sp.Integer(1), sp.Integer(1), sp.Integer(1))
        at = {h: preactivation, m: gates or ones, z: feedback or ones}

        def value(pick: Callable[[Covariance], Covariance]) -> sp.Expr:
            total = sp.Integer(0)
            for term in self.terms:
                product = term.coefficient
                for field, dual in term.duals:
                    product *= dual.on(pick(at[field]))
                total += product
            return total

        return Covariance(value(lambda q: q.diagonal[0]), value(lambda q: q), value(lambda q: q.diagonal[1]))


def _operations(closed: sp.Expr | None, mumu: int, munu: int, nunu: int) -> int:
    """About how many operations a closed form has, when the entries of the covariance have so many."""
    if closed is None:
        return 1 + mumu + munu + nunu
    places = [node for node in sp.preorder_traversal(closed) if node in (q_mumu, q_munu, q_nunu)]
    return int(sp.count_ops(closed) + sum({q_mumu: mumu, q_munu: munu, q_nunu: nunu}[place] for place in places))


def pair_function(name: str, left: sp.Expr, right: sp.Expr) -> PairFunction:
    """Split E[left(μ) right(ν)] over h, m and z, which are independent, and give each factor to the Gaussian engine.

    Raises:
        BadInput: a term couples two of the fields (say tanh(h + m)), so that the expectation does not factorise.
    """
    terms: dict[tuple, sp.Expr] = {}
    for left_coefficient, left_factors in _separate(left):
        for right_coefficient, right_factors in _separate(right):
            duals = []
            for field in FIELDS:
                f, g = left_factors.get(field, sp.Integer(1)), right_factors.get(field, sp.Integer(1))
                if f != 1 or g != 1:
                    duals.append((field, dual(f, g)))
            key = tuple(duals)
            terms[key] = terms.get(key, sp.Integer(0)) + left_coefficient * right_coefficient
    kept = tuple(Term(value, key) for key, value in terms.items() if value != 0 and not any(d.closed == 0 for _, d in key))
    return PairFunction(name, left, right, kept)


def _separate(expr: sp.Expr) -> list[tuple[sp.Expr, dict[sp.Symbol, sp.Expr]]]:
    """A sum of (coefficient, {field: factor in x}); factors of one field stay in one piece, only those of several are expanded."""
    if expr == 0:
        return []
    fields = [field for field in FIELDS if expr.has(field)]
    if len(fields) == 1:
        constant, factor = expr.as_independent(fields[0], as_Add=False)
        return [_absorb_number(constant, {fields[0]: factor.subs(fields[0], x)})]
    if isinstance(expr, sp.Add):
        return [term for summand in expr.args for term in _separate(summand)]
    factors: dict[sp.Symbol, sp.Expr] = {}
    coefficient: sp.Expr = sp.Integer(1)
    for factor in sp.Mul.make_args(expr):
        inside = [field for field in FIELDS if factor.has(field)]
        if len(inside) > 1:
            return _separate_expanded(expr, factor, inside)
        if inside:
            factors[inside[0]] = factors.get(inside[0], sp.Integer(1)) * factor.subs(inside[0], x)
        else:
            coefficient *= factor
    return [_absorb_number(coefficient, factors)]


def _separate_expanded(product: sp.Expr, factor: sp.Expr, inside: list[sp.Symbol]) -> list[tuple[sp.Expr, dict[sp.Symbol, sp.Expr]]]:
    """A product with a factor of several fields, that factor expanded."""
    expanded = sp.expand(factor)
    if expanded == factor and not isinstance(factor, sp.Add):
        raise BadInput(
            f"the factor {factor} couples the fields {', '.join(map(str, inside))}: a lazy kernel needs products of functions of one "
            "field each (h, m and z are independent at t = 0)"
        )
    rest = product / factor
    return [term for summand in sp.Add.make_args(expanded) for term in _separate(rest * summand)]


def slope_in_feedback(pseudo_gradient: sp.Expr) -> sp.Expr:
    """∂g̃/∂z in the sense of Gaussian integration by parts: where g̃ jumps in z, the δ is kept, as a summand of its own.

    Jumps of factors with one field only; `pair_function` refuses others.
    """
    kinked = any(z in part.free_symbols for kind in KINKED for part in pseudo_gradient.atoms(kind))
    if not kinked:
        return sp.diff(pseudo_gradient, z)
    total = sp.S.Zero
    for coefficient, factors in _separate(pseudo_gradient):
        derived = sp.diff(steps_form(factors.get(z, sp.S.One)), x)
        smooth = derived.replace(sp.DiracDelta, lambda *_: sp.S.Zero)
        masses = (term for term in sp.Add.make_args(sp.expand(derived)) if term.has(sp.DiracDelta))
        others = sp.Mul(coefficient, *(factor.subs(x, field) for field, factor in factors.items() if field != z))
        total += others * smooth.subs(x, z)
        for mass in masses:
            total += others * _at_its_place(mass).subs(x, z)
    return total


def slope_vanishes(pseudo_gradient: sp.Expr) -> bool:
    """Whether ⟨∂g̃/∂h⟩ = 0 for independent Gaussians h and z by symmetry: every term is odd in z, or even in h, as a constant is."""
    terms = (factors for _, factors in _separate(pseudo_gradient))
    return all(_symmetric(factors.get(z, sp.S.One), -1) or _symmetric(factors.get(h, sp.S.One), 1) for factors in terms)


def _symmetric(f: sp.Expr, sign: int) -> bool:
    """Whether f(−x) = sign · f(x) for x ≠ 0."""
    q = sp.Dummy("q", positive=True)
    return sp.simplify(sp.piecewise_fold(f.subs(x, -q) - sign * f.subs(x, q))) == 0


def _at_its_place(mass: sp.Expr) -> sp.Expr:
    """c(x) δ(x − t) as c(t) δ(x − t)."""
    factor, delta = _point_mass(mass)
    return factor * delta


def _point_mass(mass: sp.Expr) -> tuple[sp.Expr, sp.DiracDelta]:
    """c(t) and δ(x − t)."""
    deltas = [factor for factor in sp.Mul.make_args(mass) if isinstance(factor, sp.DiracDelta)]
    if len(deltas) != 1 or len(deltas[0].args) != 1 or deltas[0].args[0].diff(x) != 1:
        raise BadInput(f"the average of {mass} is not known: give a pseudo-gradient whose jumps in z are at numbers")
    return (mass / deltas[0]).subs(x, x - deltas[0].args[0]), deltas[0]


def _absorb_number(coefficient: sp.Expr, factors: dict[sp.Symbol, sp.Expr]) -> tuple[sp.Expr, dict[sp.Symbol, sp.Expr]]:
    """Give a numerical coefficient back to the activation that it came from: the one factor that is not the bare field."""
    number, symbols = coefficient.as_independent(*coefficient.free_symbols) if coefficient.free_symbols else (coefficient, sp.Integer(1))
    activations = [field for field, factor in factors.items() if factor != x]
    if not activations:
        return coefficient, factors
    return symbols, {**factors, activations[-1]: number * factors[activations[-1]]}


@cache
def dual(f: sp.Expr, g: sp.Expr) -> Dual:
    """E[f(u) g(v)] by the Gaussian engine, on and off the diagonal."""
    parameters = (f.free_symbols | g.free_symbols) - {x}
    if {u, v} & parameters:
        clash = ", ".join(sorted(map(str, {u, v} & parameters)))
        raise BadInput(f"the parameter {clash} of {f}, {g} has the name of a Gaussian variable: rename it")
    if g.has(sp.DiracDelta):
        return _of_point_mass(f, g)
    f_steps, g_steps = steps_form(f), steps_form(g)
    pair = sp.Matrix([[q_mumu, q_munu], [q_munu, q_nunu]])
    closed, steps, reason = _try(f_steps.subs(x, u) * g_steps.subs(x, v), pair, (u, v))
    diagonal, diagonal_steps, _ = _try(f_steps.subs(x, u) * g_steps.subs(x, u), sp.Matrix([[q_mumu]]), (u,))
    return Dual(f, g, closed, diagonal, reason, steps, diagonal_steps)


def _of_point_mass(f: sp.Expr, g: sp.Expr) -> Dual:
    """E[f c δ(v − t)] for an f that is a constant: c f times the density of v at t."""
    value, delta = _point_mass(g)
    if x in f.free_symbols:
        raise BadInput(f"the average of {f} times {g} is not known: jumps of a pseudo-gradient may be in z only")
    density = lambda q: value * f * sp.exp(-((x - delta.args[0]) ** 2) / (2 * q)) / sp.sqrt(2 * sp.pi * q)
    steps = (Step("A δ leaves the density of the Gaussian at its place", density(q_nunu)),)
    return Dual(f, g, density(q_nunu), density(q_mumu), "", steps, steps)


def _try(integrand: sp.Expr, cov: sp.Matrix, variables: tuple[sp.Symbol, ...]) -> tuple[sp.Expr | None, tuple[Step, ...], str]:
    """Closed form, steps, and an empty reason; or None, no steps, and why there is no closed form."""
    try:
        found = expectation(integrand, cov, variables=variables)
    except NoClosedForm as error:
        return None, (), error.reason
    return found.expr, found.steps, ""
