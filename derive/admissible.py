"""What an infinite-width theory can treat, checked on a rule's expressions: each refusal names the term and says why."""

from __future__ import annotations

from collections.abc import Collection

import sympy as sp
from sympy.core.function import AppliedUndef

from . import fields as F
from .errors import BadInput
from .fields import ell, t
from .symbols import Delta, K_mumu, K_munu, K_nunu, W, f, g_tilde, h, log_Z, m, omega, x, y, z

MEANINGS: dict[sp.Symbol, str] = {
    h: "the preactivation", z: "the feedback field", m: "the gate", Delta: "the error signal", x: "the argument of an activation: write phi(h)",
    g_tilde: "the pseudo-gradient of the layer above, which feedback weights may learn from", omega: "what feedback weights make of the features "
    "below, which they may learn from", f: "the output, of which rules see the error Delta only", y: "the target, of which rules see the error "
    "Delta only", log_Z: "the normalisation inside a loss", **{K: "the input kernel, which is not known to a unit" for K in (K_mumu, K_munu, K_nunu)},
}  # fmt: skip
# The symbols that mean something in an expression of a rule; all others are parameters.
TAKEN = (*MEANINGS, W)


def check(owner: str, role: str, expr: sp.Basic, allowed: Collection[sp.Symbol]) -> None:
    """Refuse an expression with terms that have no infinite-width limit, or whose symbols mean something else there.

    Args:
        owner: whose expression it is, for the message.
        role: what it is of the owner.
        expr: the expression.
        allowed: the fields that it may use; symbols without a meaning are parameters.

    Raises:
        BadInput: weights entry by entry, matrices, fields of other times or layers, averages, unknown functions, symbols with another meaning.
    """

    def refuse(part: sp.Basic, why: str) -> None:
        raise BadInput(f"{owner}: the {role} {expr} cannot be treated: its term {_term(expr, part)} {why}")

    if W in expr.free_symbols:
        refuse(W, "takes the forward weights entry by entry. At infinite width a weight matrix that learns is known by what it does to vectors, as a "
               "random matrix plus outer products; a function of its entries is not of that form. Use Feedback(transported=…) for W(t)ᵀ itself, "
               "entrywise_feedback(f(u, v)) for a function of the initial weights")  # fmt: skip
    for matrix in sorted(expr.atoms(sp.MatrixSymbol), key=str):
        refuse(matrix, f"contains the matrix {matrix}: rules are written in fields of single units, matrices enter through the feedback path")
    for field in sorted(expr.atoms(F.Field, F.Signal, F.Kernel), key=str):
        refuse(field, _displaced(field))
    for average in sorted(expr.atoms(F.average), key=str):
        refuse(average, "is an average over units: a unit's update may use its own fields only")
    for function in sorted(expr.atoms(AppliedUndef), key=str):
        refuse(function, f"contains the unknown function {function.func}: use phi, dphi, or functions of SymPy with a known definition")
    for symbol in sorted(expr.free_symbols & set(MEANINGS) - set(allowed), key=str):
        known = ", ".join(sorted(map(str, allowed))) or "no field"
        refuse(symbol, f"contains {symbol}, {MEANINGS[symbol]}; allowed here: {known}, and parameters")
    if expr.has(sp.I, sp.zoo, sp.nan, sp.oo):
        refuse(expr, "is not a finite real number for real fields")


def _displaced(field: sp.Basic) -> str:
    """Why a field at a place of its own cannot be part of a rule."""
    times = [argument for argument in field.args if argument.has(t)]
    ahead = [sp.simplify(time - t) for time in times]
    if any(lag.is_positive for lag in ahead):
        return "is later than the update that it enters: the theory is solved forward in time, and nothing at time t may need anything later"
    if any(lag.is_negative for lag in ahead):
        return "is earlier than the update: rules see the fields of their own time; for a memory of past updates use momentum"
    if not isinstance(field, F.Signal) and field.args[0] != ell:
        return "belongs to another layer: a rule uses the fields of its own layer, what comes from above is z"
    return "is a field at a place of its own: write the rule in h, z, m and Delta, which stand for its own layer, example and time"


def _term(expr: sp.Basic, part: sp.Basic) -> sp.Basic:
    """The summand that contains a part."""
    return next((term for term in sp.Add.make_args(expr) if term.has(part)), expr)
