"""The order-parameter equations for given K and M: sums written out, integrals replaced by their closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from .errors import BadInput
from .online_integrals import FIELD_INTEGRALS, entry
from .teacher_student import STUDENTS, Q, R, T, i, k, lam, m

if TYPE_CHECKING:
    from .teacher_student import Average, TeacherStudent


def written_out(ts: TeacherStudent, students: int, teachers: int, T_value: sp.Matrix | None) -> Mapping[str, sp.Expr]:
    """Rates of every order parameter and the error, as `TeacherStudent.at` describes."""
    for name, value in (("students", students), ("teachers", teachers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadInput(f"{name}={value!r} is no number of units: give an integer >= 1")
    if T_value is not None and sp.Matrix(T_value).shape != (teachers, teachers):
        raise BadInput(f"overlaps of shape {sp.Matrix(T_value).shape} for {teachers} teachers: give a {teachers} × {teachers} matrix")
    of = range(1, students + 1)
    found: dict[str, sp.Expr] = {}

    def put(label: str, name: str, at: dict[sp.Symbol, int]) -> None:
        total = sp.Add(*(_sum(ts, term, at, students, teachers) for term in ts.terms[name]))
        found[label] = total if T_value is None else total.xreplace(_overlaps(T_value))

    for a in of:
        for b in range(1, teachers + 1):
            put(f"R[{a},{b}]", "R", {i: a, m: b})
        for b in range(a, students + 1):
            put(f"Q[{a},{b}]", "Q", {i: a, k: b})
        put(f"v[{a}]", "v", {i: a})
    put("eg", "eg", {})
    return MappingProxyType(found)


def covariance(first: sp.Indexed, second: sp.Indexed) -> sp.Expr:
    """Cov of two of the fields λ_a, ρ_b: an entry of Q, R or T."""
    a, b = first.indices[0], second.indices[0]
    if first.base == lam and second.base == lam:
        return Q[_sorted(a, b)]
    if first.base == lam:
        return R[a, b]
    return R[b, a] if second.base == lam else T[_sorted(a, b)]


def closed(ts: TeacherStudent, integral: sp.Expr) -> sp.Expr:
    """An integral of fields by its closed form."""
    name = next(name for name, kind in FIELD_INTEGRALS.items() if isinstance(integral, kind))
    fields = integral.args
    put = {entry(a + 1, b + 1): covariance(fields[a], fields[b]) for a in range(len(fields)) for b in range(a, len(fields))}
    return ts.integrals[name].expr.xreplace(put)


def _sum(ts: TeacherStudent, term: Average, at: dict[sp.Symbol, int], students: int, teachers: int) -> sp.Expr:
    if term.summed:
        index, *rest = term.summed
        inner = type(term)(term.coefficient, term.integral, tuple(rest))
        size = students if index in STUDENTS else teachers
        return sp.Add(*(_sum(ts, inner, {**at, index: value}, students, teachers) for value in range(1, size + 1)))
    numbers = {symbol: sp.Integer(value) for symbol, value in at.items()}
    integral = sp.sympify(term.integral).xreplace(numbers)
    coefficient = term.coefficient.xreplace(numbers).replace(lambda e: isinstance(e, sp.Indexed) and e.base == Q, lambda e: Q[_sorted(*e.indices)])
    return coefficient * (closed(ts, integral) if integral.args else integral)


def _overlaps(value: sp.Matrix) -> dict[sp.Expr, sp.Expr]:
    matrix = sp.Matrix(value)
    return {T[a + 1, b + 1]: matrix[a, b] for a in range(matrix.rows) for b in range(a, matrix.cols)}


def _sorted(a: sp.Expr, b: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    return (a, b) if not (a.is_Integer and b.is_Integer and a > b) else (b, a)


__all__ = ["closed", "covariance", "written_out"]
