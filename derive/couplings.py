"""Reading the mean-field equations: what multiplies a field under a sum over the past, and the Gaussian part in front.

Every field equation is "static part + Σ_{s,ν} coupling · field". Reductions of the equations (`linear.py`, `scalar.py`, `expansion.py`) start
from these two pieces, taken from the equations themselves.
"""

from __future__ import annotations

import sympy as sp

from . import fields as F
from .dmft import DMFTEquations
from .errors import BadInput, DeriveError
from .fields import mu, nu, s, t
from .symbols import Delta, h, z

# Kernels inside a coupling, as plain symbols: entries (μ, t; ν, s) of a matrix each.
KERNELS: dict[type, sp.Symbol] = {
    F.A: sp.Symbol("A", real=True), F.B: sp.Symbol("B", real=True), F.B_tilde: sp.Symbol("B_tilde", real=True),
    F.Phi: sp.Symbol("Phi", real=True), F.G: sp.Symbol("G", real=True), F.G_tilde: sp.Symbol("G_tilde", real=True),
    F.H: sp.Symbol("H", real=True),
}  # fmt: skip
PATH_NAMES = ("transported", "initial", "independent", "direct")
TRANSPORTED, INITIAL, INDEPENDENT, DIRECT = (sp.Symbol(name, real=True) for name in PATH_NAMES)


def summands(equation: sp.Equality) -> tuple[sp.Expr, tuple[tuple[sp.Expr, sp.Expr], ...]]:
    """The static part of a field equation, and (factor, summand) of every sum over the past."""
    static, sums = sp.Integer(0), []
    for term in sp.Add.make_args(sp.expand(equation.rhs)):
        inside = [factor for factor in sp.Mul.make_args(term) if isinstance(factor, sp.Sum)]
        if not inside:
            static += term
        elif len(inside) == 1:
            sums.append((term / inside[0], inside[0].function))
        else:
            raise DeriveError(f"the term {term} of the equation of {equation.lhs} is a product of sums: this reduction reads sums of one field")
    return static, tuple(sums)


def coupling(equation: sp.Equality, field: sp.Expr) -> sp.Expr:
    """What multiplies `field` (at (ν, s)) under the sums of an equation, with kernels as the symbols of `KERNELS`.

    Raises:
        DeriveError: a summand is not linear in that field.
    """
    total = sp.Integer(0)
    for factor, summand in summands(equation)[1]:
        found = sp.expand(factor * summand).coeff(field)
        if sp.expand(found * field - factor * summand) != 0:
            raise DeriveError(f"the summand {summand} in the equation of {equation.lhs} is not a multiple of {field}")
        total += found
    return plain_kernels(total)


def plain_kernels(expr: sp.Expr) -> sp.Expr:
    """Kernels and errors at (μ, t; ν, s) as plain symbols.

    H(s, t)_νμ is H(t, s)_μν: Φ, G and H are symmetric. No other kernel may come transposed.
    """

    def named(kernel: sp.Expr) -> sp.Expr:
        _, first, second, *times = kernel.args
        if (first, second, *times) == (nu, mu, s, t) and not isinstance(kernel, F.G | F.H | F.Phi):
            raise DeriveError(f"{kernel} comes transposed, which its symmetry does not allow")
        return KERNELS[type(kernel)]

    values: dict[sp.Expr, sp.Expr] = {kernel: named(kernel) for kernel in expr.atoms(F.Kernel)}
    values[F.error(nu, s)] = Delta
    for name in PATH_NAMES:
        values[sp.Indexed(sp.IndexedBase(name), F.ell)] = sp.Symbol(name, real=True)
    return expr.xreplace(values)


def linear_response(eqs: DMFTEquations) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """(f, α, β) with F(h) = f h and g̃ = α h + β z̃.

    Raises:
        BadInput: forward map or pseudo-gradient is not linear and homogeneous in h and z; the message shows the term.
    """
    bound = eqs.bound
    if eqs.rule.evolution is not None:
        raise BadInput(
            f"rule {eqs.rule.name!r}: its feedback weights learn, which adds memory terms that this reduction does not read; use solve_dmft, "
            "or rule.frozen_at(step) for its weights after some step"
        )
    forward = sp.expand(bound.forward.diff(h))
    alpha, beta = sp.expand(bound.pseudo_gradient.diff(h)), sp.expand(bound.pseudo_gradient.diff(z))
    rest = sp.expand(bound.forward - forward * h)
    if forward.has(h) or rest != 0:
        raise BadInput(
            f"activation {eqs.net.activation}: the forward map {bound.forward} is not linear in h, so covariances do not close on themselves: "
            "use MLP(depth, 'linear')"
        )
    rest = sp.expand(bound.pseudo_gradient - alpha * h - beta * z)
    if alpha.has(h, z) or beta.has(h, z) or rest != 0:
        raise BadInput(
            f"rule {eqs.rule.name!r}: the pseudo-gradient {bound.pseudo_gradient} is not linear in h and z, so covariances do not close on "
            "themselves: use a rule such as GD(), FA(rho), DFA() or Hebb()"
        )
    return forward, alpha, beta
