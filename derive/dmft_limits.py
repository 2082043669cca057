"""Limits of the mean-field equations, taken on the equations themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from . import fields as F
from .duals import Covariance, PairFunction, pair_function, slope_in_feedback
from .errors import DeriveError
from .fields import c0
from .symbols import K_mumu, K_munu, K_nunu, z

if TYPE_CHECKING:
    from .dmft import DMFTEquations


def lazy_limit(eqs: DMFTEquations) -> tuple[sp.Expr, ...]:
    """γ0 → 0: the eNTK's contributions for ℓ = 0…L.

    With c0 = ηγ0/P → 0 the memory terms drop out of every field equation. The responses go with them: A needs h to depend on ζ, which it
    does only through its memory term, and B, B̃ are averages that are odd in a centred Gaussian field. What is left is
    h = u and z̃ linear in the Gaussian parts, whose covariance with z is read off the equations.

    Raises:
        DeriveError: a field equation keeps a term that is not Gaussian at γ0 → 0.
    """
    bound, depth = eqs.bound, eqs.net.depth
    forward = pair_function("Phi", bound.forward, bound.forward)
    pulled = pair_function("G", bound.slope, slope_in_feedback(bound.pseudo_gradient))
    inputs = Covariance(K_mumu, K_munu, K_nunu)
    affine = lambda q: q.map(lambda entry: eqs.net.sigma_w**2 * entry + eqs.net.sigma_b**2)
    _check_forward(eqs)
    covariances = [affine(inputs)]
    for _ in range(depth):
        covariances.append(affine(forward.on(covariances[-1], gates=inputs)))
    backward = [sp.Integer(1)]
    for layer in range(depth, 0, -1):
        share = _share(eqs, layer)
        slope = _mean_slope(pulled, covariances[layer - 1], inputs) if share != 0 and not pulled.is_zero else sp.Integer(0)
        backward.append(eqs.net.sigma_w**2 * share * slope * backward[-1])
    backward.reverse()
    return tuple(g * q.munu for g, q in zip(backward, covariances, strict=True))


def _mean_slope(pulled: PairFunction, covariance: Covariance, inputs: Covariance) -> sp.Expr:
    if pulled.uses(z):
        raise DeriveError(
            "the pseudo-gradient is not linear in the feedback field: its γ0 → 0 limit needs the variance of z̃ as well; use lazy_kernel"
        )
    return pulled.on(covariance, gates=inputs).munu


def _drop_memory(expr: sp.Expr) -> sp.Expr:
    """The expression at c0 = 0 and without response sums."""
    return expr.subs(c0, 0).replace(lambda e: isinstance(e, sp.Sum), lambda e: sp.Integer(0))


def _check_forward(eqs: DMFTEquations) -> None:
    left = _drop_memory(eqs.equations["preactivation"].rhs)
    if left.func is not F.field_u:
        raise DeriveError(f"at γ0 → 0 the preactivation should be its Gaussian part u, not {left}")


def _share(eqs: DMFTEquations, layer: int) -> sp.Expr:
    """The coefficient of the Gaussian part of W(0)ᵀg̃ (or of w(0)) in z̃^ℓ at γ0 → 0: Cov(z, z̃) is it times σ_w² G̃^{ℓ+1}."""
    readout = layer == eqs.net.depth
    name = "readout feedback field" if readout else "feedback field"
    if eqs.follows_gradient:
        return sp.Integer(1)
    if name not in eqs.equations:
        return sp.Integer(0)
    left = _drop_memory(eqs.equations[name].rhs)
    if readout:
        return left.coeff(F.field_r(F.L)) / eqs.net.sigma_w
    shares = [field for field in left.atoms(F.Field) if isinstance(field, F.field_zeta)]
    coefficient = left.coeff(shares[0]) if shares else sp.Integer(0)
    values = {sp.Indexed(sp.IndexedBase(name), F.ell): getattr(eqs.bound.path[layer - 1], name) for name in ("transported", "initial")}
    return coefficient.subs(values)
