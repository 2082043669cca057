"""The search: words that a law may be made of, their time derivatives, and the exact nullspace of those.

Every law around a hidden layer ℓ is sought as tr S(Σ c XY) with one constant probe S on the units of the layer:

    S = 1            one number                      "layer"
    S diagonal       a number for every neuron       "neuron"
    S general        a whole matrix                  "matrix"

A general probe between the layers ℓ+1 and ℓ finds laws that are linear in the weights ("matrix" too). The coefficients c are those for
which the time derivative vanishes as a combination of words, for all S, data and errors; with decay, those that it only multiplies by a
rate. Words are independent, so the condition is linear and solved exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import sympy as sp

from .weight_flow import WeightFlow
from .words import Letter, TraceSum, Word, canonical, differentiate, reduce

KINDS = ("layer", "neuron", "matrix")


@dataclass(frozen=True)
class Found:
    """A combination Q of words with dQ/dt = −rate · Q."""

    kind: str
    layer: int
    total: TraceSum
    rate: sp.Expr
    linear: bool = False


def probe(kind: str, layer: int, linear: bool = False) -> Word:
    """S, as the beginning of a word; nothing for a layer's single number."""
    if linear:
        return (Letter("S", layer, layer + 1, tex="S"),)
    return {
        "layer": (),
        "neuron": (Letter("S", layer, layer, diagonal=True, tex="S"),),
        "matrix": (Letter("S", layer, layer, tex="S"),),
    }[kind]


def candidates(flow: WeightFlow, kind: str, layer: int, linear: bool = False) -> list[Word]:
    """Words with the probe in which something moves; words of the layer's own weights first, of the forward weights above last."""
    S = probe(kind, layer, linear)
    letters = sorted({*flow.velocity, *flow.constants})
    if linear:
        found = {canonical((*S, letter)) for letter in flow.velocity if (letter.rows, letter.columns) == (layer + 1, layer)}
        return sorted(found, reverse=True)
    sides = [side for letter in letters if not letter.diagonal for side in (letter, letter.T)]
    found = {
        canonical((*S, X, Y))
        for X, Y in product(sides, sides)
        if X.left == layer and X.right == Y.left and Y.right == layer and {X.plain, Y.plain} & set(flow.velocity)
    }
    if flow.entrywise is not None and kind != "matrix":
        found.add(canonical((*S, flow.Psi(layer))))
    own = {flow.W(layer - 1), flow.b(layer - 1)}

    def order(word: Word) -> tuple[int, int, Word]:
        inside = {letter.plain for letter in word if letter.name != "S"}
        return (not inside <= own, sum(letter.plain == flow.W(layer) for letter in word), word)

    return sorted(found, key=order)


def rate_of(flow: WeightFlow, total: TraceSum, layer: int) -> TraceSum:
    """dQ/dt with everything put in that is known of the two passes."""
    return reduce(differentiate(total, flow.velocity), flow.identities(layer))[0]


def search(flow: WeightFlow, kind: str, layer: int, linear: bool = False, known: Sequence[TraceSum] = ()) -> list[Found]:
    """All laws of a kind around a layer, up to linear combination.

    Args:
        flow: rule and network.
        kind, layer: where.
        linear: laws linear in the weights W^ℓ, ℓ = `layer`, instead of quadratic ones.
        known: combinations of words that are conserved for a reason of their own (products of linear laws) and not reported again.
    """
    words = candidates(flow, kind, layer, linear)
    if not words:
        return []
    rates = [rate_of(flow, TraceSum({word: sp.S.One}), layer) for word in words]
    others = sorted({word for rate in rates for word in rate.terms} - set(words))
    entries = lambda rows: sp.Matrix(len(rows), len(words), lambda i, j: rates[j].terms.get(rows[i], sp.S.Zero))
    still, within = entries(others), entries(words)
    space = _invariant(_nullspace(still, len(words)), within)
    if not space:
        return []
    basis = sp.Matrix.hstack(*space)
    motion = _coordinates(basis, within * basis)
    found = []
    taken = [sp.Matrix([each.terms.get(word, sp.S.Zero) for word in words]) for each in known]
    for rate, vector in _eigenvectors(motion):
        column = (basis * vector).applyfunc(sp.cancel)
        if _independent(column, taken):
            taken.append(column)
            total = TraceSum.of((c, word) for c, word in zip(column, words, strict=True) if c != 0)
            found.append(Found(kind, layer, _normalised(flow, total, kind, layer), sp.cancel(-rate), linear))
    return found


def products(linear: Found, kind: str) -> list[TraceSum]:
    """tr S XᵀX and, one layer up, tr S XXᵀ of a law that is a matrix X by itself, in the words of the search."""
    factors = [(c, next(letter for letter in word if letter.name != "S")) for c, word in linear.total.pairs()]
    factors = [(c, letter.plain) for c, letter in factors]
    below = TraceSum.of((c * d, (*probe(kind, linear.layer), X.T, Y)) for (c, X), (d, Y) in product(factors, factors))
    above = TraceSum.of((c * d, (*probe(kind, linear.layer + 1), X, Y.T)) for (c, X), (d, Y) in product(factors, factors))
    return [below, above]


# ---- exact linear algebra ---------------------------------------------------------------------------------------------


def _nullspace(matrix: sp.Matrix, columns: int) -> list[sp.Matrix]:
    if matrix.rows == 0:
        return [sp.eye(columns)[:, j] for j in range(columns)]
    return matrix.applyfunc(sp.cancel).nullspace(simplify=sp.cancel)


def _invariant(space: list[sp.Matrix], motion: sp.Matrix) -> list[sp.Matrix]:
    """The largest subspace of `space` that `motion` maps into itself."""
    while space:
        basis = sp.Matrix.hstack(*space)
        outside = _nullspace(basis.T, basis.rows)  # what vanishes on the subspace
        if not outside:
            return space
        condition = (sp.Matrix.hstack(*outside).T * motion * basis).applyfunc(sp.cancel)
        kept = _nullspace(condition, condition.cols)
        if len(kept) == len(space):
            return space
        space = [basis * vector for vector in kept]
    return space


def _coordinates(basis: sp.Matrix, image: sp.Matrix) -> sp.Matrix:
    """A with basis · A = image."""
    gram = basis.T * basis
    return (gram.LUsolve(basis.T * image)).applyfunc(sp.cancel)


def _eigenvectors(matrix: sp.Matrix) -> list[tuple[sp.Expr, sp.Matrix]]:
    """(eigenvalue, eigenvector), basis vectors where the matrix is diagonal."""
    if matrix.is_diagonal():
        return [(matrix[j, j], sp.eye(matrix.rows)[:, j]) for j in range(matrix.rows)]
    return [(value, vector) for value, _, vectors in matrix.eigenvects(simplify=True) for vector in vectors]


def _independent(column: sp.Matrix, taken: list[sp.Matrix]) -> bool:
    return sp.Matrix.hstack(*taken, column).rank(simplify=True) == sp.Matrix.hstack(*taken).rank(simplify=True) + 1 if taken else True


def _normalised(flow: WeightFlow, total: TraceSum, kind: str, layer: int) -> TraceSum:
    """With ½ (1 for a matrix) in front of the layer's own weights, over their learning rate where layers have rates of their own."""
    own = canonical((*probe(kind, layer), flow.W(layer - 1), flow.W(layer - 1).T))
    lead = total.terms.get(own)
    if lead is None:
        return total * (1 / next(iter(value for value, _ in total.pairs())))
    several = len(set(flow.rates)) > 1
    wanted = (sp.S.One if kind == "matrix" else sp.S.Half) / (flow.rates[layer - 1] if several else 1)
    return total * (wanted / lead)


