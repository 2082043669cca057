"""Gaussian averages of a product of functions, one for each of up to four examples, in a form fit for arrays.

A factor exp(−a u²/2) of any of the functions is absorbed by tilting, Σ → Σ(1 + AΣ)⁻¹ with weight det(1 + AΣ)^{−1/2}, which is left to be
evaluated with arrays; what remains goes to the Gaussian engine with a covariance of plain symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import sympy as sp

from .derivation import Step
from .errors import NoClosedForm
from .gaussian import Expectation, expectation
from .symbols import GAUSSIAN, x


def entry(i: int, j: int) -> sp.Symbol:
    """The symbol of Σ_ij."""
    i, j = min(i, j), max(i, j)
    return sp.Symbol(f"S{i}{j}", positive=True) if i == j else sp.Symbol(f"S{i}{j}", real=True)


@dataclass(frozen=True)
class Moment:
    """E[Π_i functions_i(u_i)], u ~ N(0, Σ).

    Attributes:
        functions: expressions in x.
    """

    functions: tuple[sp.Expr, ...]

    @cached_property
    def split(self) -> tuple[tuple[sp.Expr, sp.Expr], ...]:
        """(a_i, rest_i) with functions_i = rest_i exp(−a_i x²/2)."""
        return tuple(map(_gaussian_factor, self.functions))

    @property
    def tilts(self) -> tuple[sp.Expr, ...]:
        """a_i."""
        return tuple(a for a, _ in self.split)

    @property
    def vanishes(self) -> bool:
        """Whether the average is zero by symmetry: the functions have parities, and an odd number of them is odd."""
        parities = [_parity(f) for f in self.functions]
        return None not in parities and sum(p for p in parities if p) % 2 == 1

    @cached_property
    def result(self) -> Expectation:
        """The average of what tilting leaves, in the symbols of `entry`.

        Raises:
            NoClosedForm: the engine has none.
        """
        n = len(self.functions)
        if n == 0:
            return Expectation(sp.Integer(1))
        if n > len(GAUSSIAN):
            raise NoClosedForm(f"an average of {n} functions", f"the engine takes at most {len(GAUSSIAN)} Gaussian variables")
        variables = GAUSSIAN[:n]
        integrand = sp.Mul(*(rest.subs(x, variable) for (_, rest), variable in zip(self.split, variables, strict=True)))
        return expectation(integrand, sp.Matrix(n, n, entry), variables=variables)

    @property
    def step(self) -> Step:
        """The average as a line of a derivation."""
        names = GAUSSIAN[: len(self.functions)]
        shown = sp.Mul(*(f.subs(x, name) for f, name in zip(self.functions, names, strict=True)), evaluate=False)
        reason = f"E[{shown}]"
        if any(self.tilts):
            reason += f": the exponentials tilt Σ to Σ' = Σ(1 + AΣ)⁻¹, A = diag{self.tilts}, with weight det(1 + AΣ)^(-1/2); in entries of Σ'"
        return Step(reason + ".", self.result.expr, self.result.steps)


@cache
def moment(functions: tuple[sp.Expr, ...]) -> Moment:
    """The average of these functions, one object for each tuple."""
    return Moment(functions)


def _gaussian_factor(f: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    for exponential in sorted(f.atoms(sp.exp), key=sp.default_sort_key):
        quadratic = sp.Poly(exponential.args[0], x) if exponential.args[0].is_polynomial(x) else None
        if quadratic is None or quadratic.monoms() != [(2,)]:
            continue
        rest = sp.expand(sp.powsimp(sp.expand(f / exponential)))
        if not rest.has(exponential) and not rest.atoms(sp.exp):
            return -2 * quadratic.LC(), rest
    return sp.Integer(0), f


def _parity(f: sp.Expr) -> int | None:
    """0 even, 1 odd, None neither."""
    mirrored = f.subs(x, -x)
    if sp.expand(mirrored - f) == 0:
        return 0
    return 1 if sp.expand(mirrored + f) == 0 else None
