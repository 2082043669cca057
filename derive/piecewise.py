"""One normal form for piecewise functions of one variable: smooth pieces times Heaviside steps.

    f(x) = f₀(x) + Σ_k (f_k(x) − f_{k−1}(x)) Θ(x − t_k),    t₁ < t₂ < …

Found generically: the breakpoints are where an argument of Max, Min, Abs, sign, Heaviside or a condition of a Piecewise changes
sign; on each interval between them every such function is one smooth piece.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import sympy as sp

from .errors import BadInput
from .symbols import x

KINKED = (sp.Max, sp.Min, sp.Abs, sp.sign, sp.Heaviside, sp.Piecewise)


def steps_form(expr: sp.Expr, variable: sp.Symbol = x) -> sp.Expr:
    """Write Max, Min, Abs, sign, Heaviside and Piecewise of `variable` with steps Θ(variable − t) (value ½ at t).

    ReLU given as Max(x, 0), x*Heaviside(x), (x + |x|)/2 or a Piecewise comes out as x*Heaviside(x), Max(x, 0)**2 as
    x**2*Heaviside(x), and Min(Max(x, -1), 1) as hard tanh. An expression without kinks is returned as it is. So is one whose
    breakpoints cannot be found or ordered (symbolic thresholds of unknown order).

    Raises:
        BadInput: a Piecewise that leaves part of the line undefined, or has conditions that are no comparisons.
    """
    if not expr.has(*KINKED):
        return expr
    try:
        split = _split(expr, variable)
    except _Unordered:
        return expr
    total = split.pieces[0]
    for threshold, left, right in zip(split.thresholds, split.pieces, split.pieces[1:], strict=False):
        jump = sp.expand(right - left)
        if jump != 0:
            total += jump * sp.Heaviside(variable - threshold)
    return sp.expand(total)


class _Unordered(Exception):
    """Breakpoints that cannot be found or compared."""


@dataclass(frozen=True)
class _Split:
    """A function of one variable, smooth between ordered thresholds: len(pieces) = len(thresholds) + 1."""

    thresholds: tuple[sp.Expr, ...]
    pieces: tuple[sp.Expr, ...]

    def on(self, thresholds: tuple[sp.Expr, ...]) -> tuple[sp.Expr, ...]:
        """The pieces on a finer set of thresholds."""
        finer, index = [self.pieces[0]], 0
        for threshold in thresholds:
            if index < len(self.thresholds) and self.thresholds[index] == threshold:
                index += 1
            finer.append(self.pieces[index])
        return tuple(finer)


def _split(expr: sp.Expr, variable: sp.Symbol) -> _Split:
    """Bottom up: split the arguments, then refine where a kinked function of them changes branch."""
    if not expr.has(*KINKED) or variable not in expr.free_symbols:
        return _Split((), (expr,))
    if isinstance(expr, sp.Piecewise):
        return _split_piecewise(expr, variable)
    arguments = expr.args[:1] if isinstance(expr, sp.Heaviside) else expr.args
    inner = [_split(argument, variable) for argument in arguments]
    thresholds = _merge(*(part.thresholds for part in inner))
    columns = list(zip(*(part.on(thresholds) for part in inner), strict=True))
    if isinstance(expr, (sp.Max, sp.Min)):
        switches = [first - second for row in columns for i, first in enumerate(row) for second in row[:i]]
    elif isinstance(expr, KINKED):
        switches = [row[0] for row in columns]
    else:
        return _Split(thresholds, tuple(expr.func(*row) for row in columns))
    refined = _merge(thresholds, *(_zeros(switch, variable) for switch in switches))
    rows = zip(*(part.on(refined) for part in inner), strict=True)
    points = _Intervals(refined, variable)
    return _Split(refined, tuple(_branch(expr, row, points, k) for k, row in enumerate(rows)))


def _split_piecewise(expr: sp.Piecewise, variable: sp.Symbol) -> _Split:
    conditions = [sp.sympify(condition) for _, condition in expr.args]
    relations = set().union(*(condition.atoms(sp.core.relational.Relational) for condition in conditions))
    inner = [_split(value, variable) for value, _ in expr.args]
    zeros = [_zeros(relation.lhs - relation.rhs, variable) for relation in relations]
    thresholds = _merge(*(part.thresholds for part in inner), *zeros)
    values = [part.on(thresholds) for part in inner]
    points = _Intervals(thresholds, variable)
    pieces = []
    for k in range(len(thresholds) + 1):
        for value, condition in zip(values, conditions, strict=True):
            truth = condition.xreplace({rel: points.truth(rel, k) for rel in condition.atoms(sp.core.relational.Relational)})
            if truth == sp.true:
                pieces.append(value[k])
                break
            if truth != sp.false:
                raise BadInput(f"the Piecewise {expr} has the condition {condition}: give conditions that compare {variable} with numbers")
        else:
            raise BadInput(f"the Piecewise {expr} is undefined on part of the line: end it with (value, True)")
    return _Split(thresholds, tuple(pieces))


class _Intervals:
    """The open intervals between ordered thresholds, and the sign of an expression that has no zero inside one."""

    def __init__(self, thresholds: tuple[sp.Expr, ...], variable: sp.Symbol) -> None:
        ends = [None, *thresholds, None]
        self.variable = variable
        self.inside = [_between(left, right) for left, right in itertools.pairwise(ends)]

    def sign(self, expr: sp.Expr, k: int) -> int:
        """The sign of `expr` on interval k."""
        value = sp.expand(expr.subs(self.variable, self.inside[k]))
        if value.is_zero:
            return 0
        if value.is_number and value.is_comparable:
            value = value.evalf(30)
        if value.is_positive:
            return 1
        if value.is_negative:
            return -1
        raise _Unordered

    def truth(self, relation: sp.core.relational.Relational, k: int) -> sp.logic.boolalg.BooleanAtom:
        """Whether a comparison holds inside interval k (equalities hold at single points only, or everywhere)."""
        side = self.sign(relation.lhs - relation.rhs, k)
        return sp.sympify(bool(relation.func(sp.Integer(side), sp.Integer(0))))


def _between(left: sp.Expr | None, right: sp.Expr | None) -> sp.Expr:
    if left is None:
        return sp.Integer(0) if right is None else right - 1
    return left + 1 if right is None else (left + right) / 2


def _branch(expr: sp.Expr, row: tuple[sp.Expr, ...], points: _Intervals, k: int) -> sp.Expr:
    """The smooth function that a kinked one is on interval k."""
    if isinstance(expr, (sp.Max, sp.Min)):
        best = row[0]
        for candidate in row[1:]:
            side = points.sign(candidate - best, k)
            if (side > 0) == isinstance(expr, sp.Max) and side:
                best = candidate
        return best
    side = points.sign(row[0], k)
    if isinstance(expr, sp.Abs):
        return side * row[0]
    if isinstance(expr, sp.sign):
        return sp.Integer(side)
    return sp.Rational(1 + side, 2)


def _zeros(expr: sp.Expr, variable: sp.Symbol) -> tuple[sp.Expr, ...]:
    """Real zeros of `expr` where it changes branch, in increasing order."""
    expr = sp.expand(expr)
    if variable not in expr.free_symbols:
        return ()
    if expr.is_polynomial(variable):
        polynomial = sp.Poly(expr, variable)
        if polynomial.degree() == 1:
            return (sp.cancel(-polynomial.nth(0) / polynomial.nth(1)),)
        if polynomial.domain.is_QQ or polynomial.domain.is_ZZ:
            return tuple(dict.fromkeys(sp.real_roots(polynomial)))
    found = sp.solveset(expr, variable, sp.S.Reals)
    if found is sp.S.EmptySet:
        return ()
    if not isinstance(found, sp.FiniteSet):
        raise _Unordered
    return _merge(*((zero,) for zero in found))


def _merge(*lists: tuple[sp.Expr, ...]) -> tuple[sp.Expr, ...]:
    """One increasing list of distinct thresholds."""
    merged: list[sp.Expr] = []
    for threshold in (entry for part in lists for entry in part):
        if threshold not in merged:
            larger = (position for position, other in enumerate(merged) if _less(threshold, other))
            merged.insert(next(larger, len(merged)), threshold)
    return tuple(merged)


def _less(first: sp.Expr, second: sp.Expr) -> bool:
    if first == second:
        return False
    gap = second - first
    known = gap.evalf(30).is_positive if gap.is_number else gap.is_positive
    if known is None or (not known and not gap.is_number and not gap.is_negative):
        raise _Unordered
    return bool(known)
