"""Gradients of scalars of matrices: traces of products, entrywise functions and stop-gradients, differentiated in reverse.

A scalar is a sum of terms coefficient · tr M. Its differential is passed from the trace to the matrix that is asked for, one node at a
time: d tr M = ⟨1, dM⟩, and ⟨G, d(A M C)⟩ = ⟨Aᵀ G Cᵀ, dM⟩, ⟨G, dMᵀ⟩ = ⟨Gᵀ, dM⟩, ⟨G, d f(M)⟩ = ⟨G ∘ f′(M), dM⟩.

Source: Giles 2008 (collected matrix derivative results for reverse mode).
"""

from __future__ import annotations

import sympy as sp
from sympy.printing.latex import LatexPrinter

from .activations import almost_everywhere_derivative
from .errors import DeriveError
from .symbols import x


class Stop(sp.MatrixExpr):
    """sg(M): M where values are concerned, a constant where derivatives are."""

    def __new__(cls, matrix: sp.MatrixExpr) -> Stop:
        return sp.MatrixExpr.__new__(cls, matrix)

    @property
    def shape(self) -> tuple[sp.Expr, sp.Expr]:
        return self.args[0].shape

    def _latex(self, printer: LatexPrinter) -> str:
        return rf"\operatorname{{sg}}\left({printer._print(self.args[0])}\right)"


class Centred(sp.MatrixExpr):
    """M minus its mean over the columns (examples): M Π with the projector Π = 1 − 11ᵀ/P."""

    def __new__(cls, matrix: sp.MatrixExpr) -> Centred:
        return sp.MatrixExpr.__new__(cls, matrix)

    @property
    def shape(self) -> tuple[sp.Expr, sp.Expr]:
        return self.args[0].shape

    def _latex(self, printer: LatexPrinter) -> str:
        inside = printer._print(self.args[0])
        return (rf"\left({inside}\right)" if isinstance(self.args[0], sp.MatAdd) else inside) + r" \Pi"


class Entrywise(sp.MatrixExpr):
    """f(M), entry by entry; f is given as an expression in `x`."""

    def __new__(cls, function: sp.Expr, matrix: sp.MatrixExpr) -> sp.MatrixExpr:
        function = sp.sympify(function)
        return matrix if function == x else sp.MatrixExpr.__new__(cls, function, matrix)

    @property
    def shape(self) -> tuple[sp.Expr, sp.Expr]:
        return self.args[1].shape

    def derivative(self) -> sp.MatrixExpr:
        """f′(M), without δ at kinks."""
        slope = almost_everywhere_derivative(self.args[0])
        return sp.MatrixExpr.__new__(type(self), slope, self.args[1])

    def _latex(self, printer: LatexPrinter) -> str:
        name = printer._print(self.args[0].subs(x, sp.Symbol(r"\,\cdot\,")))
        return rf"\left[{name}\right]\!\left({printer._print(self.args[1])}\right)"


def gradient(scalar: sp.Expr, matrix: sp.MatrixSymbol) -> sp.MatrixExpr:
    """∂ scalar/∂ matrix, in the shape of the matrix, as a sum of products; stop-gradients are opened afterwards.

    Args:
        scalar: a sum of terms coefficient · Trace(…).
        matrix: what to differentiate by.

    Raises:
        DeriveError: a term that is no multiple of a trace, or a matrix function without a rule here.
    """
    total: sp.MatrixExpr = sp.ZeroMatrix(*matrix.shape)
    for term in sp.Add.make_args(sp.expand(scalar)):
        traces = [factor for factor in sp.Mul.make_args(term) if isinstance(factor, sp.Trace)]
        if len(traces) != 1 or (term / traces[0]).has(matrix):
            if term.has(matrix):
                raise DeriveError(f"{term} is no multiple of one trace: its gradient by {matrix} is not known here")
            continue
        inside = traces[0].arg
        total += term / traces[0] * _pulled_back(inside, sp.Identity(inside.shape[0]), matrix)
    return open_stops(products(total))


def _pulled_back(M: sp.MatrixExpr, G: sp.MatrixExpr, matrix: sp.MatrixSymbol) -> sp.MatrixExpr:
    """The gradient by `matrix` of ⟨G, M⟩ with G held fixed."""
    if matrix == M:
        return G
    if isinstance(M, Stop) or not M.has(matrix):
        return sp.ZeroMatrix(*matrix.shape)
    if isinstance(M, sp.MatAdd):
        return sum((_pulled_back(part, G, matrix) for part in M.args), sp.ZeroMatrix(*matrix.shape))
    if isinstance(M, sp.Transpose):
        return _pulled_back(M.arg, G.T, matrix)
    if isinstance(M, Entrywise):
        return _pulled_back(M.args[1], sp.hadamard_product(G, M.derivative()), matrix)
    if isinstance(M, Centred):
        return _pulled_back(M.args[0], Centred(G), matrix)
    if isinstance(M, sp.MatMul):
        coefficient, factors = M.as_coeff_matrices()
        total: sp.MatrixExpr = sp.ZeroMatrix(*matrix.shape)
        for place, factor in enumerate(factors):
            left, right = _product(factors[:place], factor.shape[0]), _product(factors[place + 1 :], factor.shape[1])
            total += coefficient * _pulled_back(factor, left.T * G * right.T, matrix)
        return total
    raise DeriveError(f"{type(M).__name__} in {M} has no derivative rule: use products, sums, transposes, entrywise functions")


def _product(factors: list[sp.MatrixExpr], size: sp.Expr) -> sp.MatrixExpr:
    return sp.MatMul(*factors).doit() if factors else sp.Identity(size)


def products(expr: sp.MatrixExpr) -> sp.MatrixExpr:
    """A sum of products, with transposes of products opened and equal terms collected."""
    return sp.expand(sp.expand(expr.doit()).doit())


def open_stops(expr: sp.Basic) -> sp.Basic:
    """Values only: sg(M) is M."""
    opened = expr.replace(lambda e: isinstance(e, Stop), lambda e: e.args[0])
    return products(opened) if isinstance(opened, sp.MatrixExpr) else opened.doit()


def terms(expr: sp.MatrixExpr) -> list[tuple[sp.Expr, list[sp.MatrixExpr]]]:
    """(coefficient, factors) of every product in a sum of products; the zero matrix has none."""
    found = [part.as_coeff_matrices() if isinstance(part, sp.MatMul) else (sp.S.One, [part]) for part in sp.MatAdd.make_args(products(expr))]
    return [(coefficient, list(factors)) for coefficient, factors in found if not isinstance(factors[0], sp.ZeroMatrix)]
