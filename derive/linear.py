"""Linear units: the mean-field equations close on covariances.

With F(h) = f h and g̃ = α h + β z̃ every field is a linear combination of Gaussian parts. Over the joint index (t, μ) the equations are
matrix equations; the couplings are triangular in time, so that the inverse below exists, is itself causal, and can be built up step by step:

    h = R (u + C β (κ ζ + c q + d ξ)),   R = (1 − C (α + β E f))⁻¹

Order parameters are quadratic in the coefficient matrices and responses are the coefficient matrices themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from . import fields as F
from .couplings import KERNELS, PATH_NAMES, coupling, linear_response, summands
from .derivation import Derivation, to_latex
from .errors import DeriveError
from .fields import L, ell, mu, nu, s, t
from .latex import Documented
from .symbols import Delta, m

if TYPE_CHECKING:
    from .dmft import DMFTEquations

n = sp.Symbol("n", integer=True, positive=True)  # T P, the size of the joint index (t, μ)
Fields = Mapping[sp.MatrixSymbol, sp.MatrixExpr]


class Past(sp.MatrixExpr):
    """[M]_<: the blocks of M with s < t, zero elsewhere."""

    def __new__(cls, matrix: sp.MatrixExpr) -> Past:
        return sp.MatrixExpr.__new__(cls, matrix)

    @property
    def shape(self) -> tuple[sp.Expr, sp.Expr]:
        return self.args[0].shape

    def _latex(self, printer) -> str:
        return rf"\bigl[{printer._print(self.args[0])}\bigr]_{{<}}"

    def _sympystr(self, printer) -> str:
        return f"[{printer._print(self.args[0])}]_<"


def matrix(tex: str) -> sp.MatrixSymbol:
    """An n × n matrix over (t, μ)."""
    return sp.MatrixSymbol(tex, n, n)


def vector(tex: str) -> sp.MatrixSymbol:
    """A field: a vector over (t, μ)."""
    return sp.MatrixSymbol(tex, n, 1)


ONE = sp.Identity(n)
ALL = matrix("J")  # all entries 1: what is the same for all times and examples
ERRORS = matrix("D")  # diag Δ
GATES = matrix(r"\Gamma")  # diag φ̇(m)
SOURCES = {name: vector(rf"{tex}^{{\ell}}") for name, tex in (("u", "u"), ("r", "r"), ("zeta", r"\zeta"), ("q", "q"), ("xi", r"\xi"))}
LETTERS = {"A": "A", "B": "B", "B_tilde": r"\tilde B", "Phi": r"\Phi", "G": "G", "G_tilde": r"\tilde G", "H": "H"}


def kernel(name: str, layer: str = r"\ell") -> sp.MatrixSymbol:
    """An order parameter or response of a layer as a matrix."""
    return matrix(rf"{LETTERS[name]}^{{{layer}}}")


@dataclass(frozen=True)
class LinearEquations(Documented):
    """Mean-field equations of linear units as closed matrix equations.

    Attributes:
        eqs: the equations that they were derived from.
        f, alpha, beta: F(h) = f h and g̃ = α h + β z̃.

    Source: Bordelon & Pehlevan 2023, appendix on deep linear networks; THEORY section 4.
    """

    eqs: DMFTEquations
    f: sp.Expr
    alpha: sp.Expr
    beta: sp.Expr

    @property
    def same(self) -> bool:
        """g̃ = g: one gradient field, one backward Gaussian field."""
        return self.eqs.follows_gradient

    # ---- couplings, read off the equations ---------------------------------------------------------------------------

    @cached_property
    def couplings(self) -> Mapping[str, sp.Expr]:
        """C, E and E_r as scalar expressions in kernels at (μ, t; ν, s), Δ_ν(s) and c0; at the readout B = 0 and G̃ = H = 1.

        Raises:
            DeriveError: the readout's equations are not those of a hidden layer with these values.
        """
        eqs, forward = self.eqs.equations, self.eqs.forward(ell, nu, s)
        found = {"C": coupling(eqs["preactivation"], self.eqs.g_tilde(ell, nu, s))}
        for name, field, top in (("E", "feedback field", "readout feedback field"), ("E_r", "gradient field", "readout gradient field")):
            if name == "E" and self.same:
                continue
            at_top = coupling(eqs[top], self.eqs.forward(L, nu, s)) if top in eqs else sp.Integer(0)
            if field not in eqs:
                found[name] = self._lifted(name, at_top)
                continue
            found[name] = coupling(eqs[field], forward)
            self._check_readout(name, found[name], at_top)
        if self.same:
            found["E"] = found["E_r"]
        return MappingProxyType(found)

    def _lifted(self, name: str, at_top: sp.Expr) -> sp.Expr:
        """A readout's coupling written with the kernel above it, which is 1 there."""
        above = KERNELS[F.G if self.same else F.H if name == "E" else F.G_tilde]
        return at_top * above

    def _check_readout(self, name: str, hidden: sp.Expr, at_top: sp.Expr) -> None:
        values = {KERNELS[kind]: 0 for kind in (F.A, F.B, F.B_tilde)} | {KERNELS[kind]: 1 for kind in (F.G, F.G_tilde, F.H)}
        last = {sp.Symbol(key, real=True): getattr(self.eqs.bound.path[-1], key) for key in PATH_NAMES}
        if sp.expand(hidden.subs(values).subs(last) - at_top) != 0:
            raise DeriveError(f"the readout's coupling {at_top} is not that of a hidden layer, {hidden}, with B = 0 and G̃ = H = 1 above")

    @cached_property
    def gaussian_parts(self) -> Mapping[str, sp.Expr]:
        """Coefficients of ζ, q and ξ in z̃, as the equations give them."""
        eqs = self.eqs
        if self.same:
            return MappingProxyType({"r": sp.Integer(1)})
        if not eqs._uses_feedback:
            return MappingProxyType({})
        sw = eqs.net.sigma_w
        if "feedback field" in eqs.equations:
            static = summands(eqs.equations["feedback field"])[0]
            parts = {"zeta": (eqs.zeta(ell, mu, t), 1), "q": (F.field_q(ell, mu, t), 1), "xi": (F.field_xi(ell), 1)}
        else:
            static = summands(eqs.equations["readout feedback field"])[0]
            parts = {"zeta": (F.field_r(L), sw), "q": (F.field_q(L), sw), "xi": (F.field_xi(L), 1)}
        found = {name: _symbolic(sp.expand(static).coeff(field) / scale) for name, (field, scale) in parts.items()}
        return MappingProxyType({name: value for name, value in found.items() if value != 0})

    # ---- fields ------------------------------------------------------------------------------------------------------

    def diagonal(self, coefficient: sp.Expr) -> sp.Expr | sp.MatrixExpr:
        """A coefficient that may contain Δ and gates as a diagonal matrix; a plain factor if it is a constant."""
        result: sp.Expr | sp.MatrixExpr = sp.Integer(1)
        for factor in sp.Mul.make_args(coefficient):
            if factor == Delta:
                result = result * ERRORS
            elif factor.has(m):
                result = result * GATES
            elif factor.has(Delta):
                result = result * matrix(rf"\operatorname{{diag}}\bigl({to_latex(factor)}\bigr)")
            else:
                result = factor * result
        return result

    def coupling_matrix(self, name: str) -> sp.MatrixExpr:
        """C, E or E_r written with the kernels' matrices."""
        terms = []
        for term in sp.Add.make_args(sp.expand(self.couplings[name])):
            kernels = [symbol for symbol in KERNELS.values() if term.has(symbol)]
            body: sp.MatrixExpr = ALL
            if kernels:
                own = kernels[0] in (KERNELS[F.B], KERNELS[F.B_tilde])
                body = kernel(kernels[0].name, r"\ell-1" if name == "C" else r"\ell" if own else r"\ell+1")
            rest = sp.expand(term / kernels[0]) if kernels else term
            if rest.has(Delta):  # only what was learned carries Δ, and it was learned before t
                terms.append(rest / Delta * Past(body) * ERRORS)
            elif rest != 0:
                terms.append(rest * body)
        return sp.MatAdd(*terms) if len(terms) > 1 else terms[0] if terms else sp.ZeroMatrix(n, n)

    @cached_property
    def driving(self) -> sp.MatrixExpr:
        """What R inverts: 1 − C (α + β E f)."""
        own = self.diagonal(self.alpha)
        own = own * ONE if not isinstance(own, sp.MatrixExpr) else own
        loop: sp.MatrixExpr = own if self.alpha != 0 else sp.ZeroMatrix(n, n)
        if self.beta != 0 and self.couplings["E"] != 0:
            loop = loop + self.diagonal(self.beta) * matrix(r"E^{\ell}") * self.diagonal(self.f)
        return ONE - matrix(r"C^{\ell}") * loop

    @cached_property
    def fields(self) -> Mapping[str, Fields]:
        """Every field as {Gaussian part: coefficient matrix}, in terms of R, C and E."""
        R, C, E, E_r = (matrix(tex) for tex in (r"R^{\ell}", r"C^{\ell}", r"E^{\ell}", r"E_r^{\ell}"))
        f, alpha, beta = (self.diagonal(value) for value in (self.f, self.alpha, self.beta))
        drive = {SOURCES[name]: value for name, value in self.gaussian_parts.items()}
        h: dict = {SOURCES["u"]: R}
        if self.beta != 0:
            h |= {source: value * (R * C * beta) for source, value in drive.items()}
        z_tilde = {source: value * ONE for source, value in drive.items()}
        if self.couplings["E"] != 0:
            z_tilde = _add(z_tilde, {source: E * f * value for source, value in h.items()})
        g_tilde = _add({source: alpha * value for source, value in h.items()} if self.alpha != 0 else {},
                       {source: beta * value for source, value in z_tilde.items()} if self.beta != 0 else {})  # fmt: skip
        z = z_tilde if self.same else _add({SOURCES["r"]: ONE}, {source: E_r * f * value for source, value in h.items()})
        g = {source: f * value for source, value in z.items()}
        forward = {source: f * value for source, value in h.items()}
        return MappingProxyType({"h": h, "F": forward, "z_tilde": z_tilde, "g_tilde": g_tilde, "z": z, "g": g})

    def covariance(self, left: str, right: str) -> sp.MatrixExpr:
        """⟨left rightᵀ⟩ of two fields: Σ_ab (coefficient of a) Cov(a, b) (coefficient of b)ᵀ."""
        terms = []
        for a, first in self.fields[left].items():
            for b, second in self.fields[right].items():
                between = self.source_covariance(a, b)
                if between is not None:
                    terms.append(first * between * sp.Transpose(second))
        return sp.Add(*terms) if terms else sp.ZeroMatrix(n, n)

    def source_covariance(self, a: sp.MatrixSymbol, b: sp.MatrixSymbol) -> sp.MatrixExpr | None:
        """Covariance of two Gaussian parts, None if they are independent."""
        names = {symbol: name for name, symbol in SOURCES.items()}
        weight = self.eqs.net.sigma_w**2
        pair = (names[a], names[b])
        if pair == ("u", "u"):
            bias = self.eqs.net.sigma_b**2
            below = weight * kernel("Phi", r"\ell-1")
            return below + bias * ALL if bias != 0 else below
        if pair == ("xi", "xi"):
            return ALL
        above = {("r", "r"): "G", ("zeta", "zeta"): "H", ("q", "q"): "H", ("r", "zeta"): "G_tilde", ("zeta", "r"): "G_tilde"}.get(pair)
        if above is None:
            return None
        found = weight * kernel(above, r"\ell+1")
        return sp.Transpose(found).doit() if pair == ("zeta", "r") else found

    # ---- equations ---------------------------------------------------------------------------------------------------

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """Closed matrix equations by name, layers 1 ≤ ℓ ≤ L with Φ⁰ = K^x ⊗ J, G^{L+1} = G̃^{L+1} = H^{L+1} = J and B^L = 0."""
        from .linear_text import matrix_equations

        return matrix_equations(self)

    def derivation(self) -> Derivation:
        """From the single-site equations to the closed matrix equations."""
        from .linear_text import linear_derivation

        return linear_derivation(self)

    def title(self) -> str:
        """One line: rule and depth."""
        return f"Linear units, {self.eqs.rule.name}, {self.eqs.net.size}: closed matrix equations"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        from .linear_text import linear_definitions

        return linear_definitions(self)

    def source(self) -> str:
        """The couplings and coefficients as a Python module: what `numerics.solve_linear` runs, one time step after the other.

        Raises:
            BadInput: gates, whose average is not a covariance.
        """
        from .codegen.linear import linear_source

        return linear_source(self)

    def __repr__(self) -> str:
        from .derivation import in_unicode

        return "\n".join([self.title(), *(f"  {name}: {in_unicode(to_latex(equation))}" for name, equation in self.equations.items())])


def linear_equations(eqs: DMFTEquations) -> LinearEquations:
    """Close the mean-field equations of linear units on covariances.

    Raises:
        BadInput: activation or pseudo-gradient are not linear.
    """
    return LinearEquations(eqs, *linear_response(eqs))


def _add(first: Fields, second: Fields) -> dict[sp.MatrixSymbol, sp.MatrixExpr]:
    total = dict(first)
    for source, value in second.items():
        total[source] = total[source] + value if source in total else value
    return total


def _symbolic(value: sp.Expr) -> sp.Expr:
    """Per-layer coefficients name_ℓ as plain symbols."""
    return value.xreplace({entry: sp.Symbol(entry.base.name, real=True) for entry in value.atoms(sp.Indexed)})


__all__ = ["LinearEquations", "Past", "linear_equations"]
