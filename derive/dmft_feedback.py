"""What feedback weights that learn add to the mean-field equations: a memory, and the fields that they carry themselves.

    ω^ℓ = σ_w Bᵀ F(h^{ℓ−1})/√N + σ_b b^ℓ     what B makes of the features below
    ψ^ℓ = B h^{ℓ+1}/√N                       what it reconstructs from the preactivations above

B(t) is b₁(t) W(0)ᵀ + b₀(t) V plus outer products, term by term as in `evolution`. Applied to a field, each random matrix gives a Gaussian part
and a reaction, each outer product an order parameter times a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from . import fields as F
from .dmft_terms import eq, past, past_and_present
from .fields import L, P, c0, ell, mu, nu, s, t
from .symbols import h

if TYPE_CHECKING:
    from .dmft import DMFTEquations, MatrixProduct

ZERO = sp.S.Zero


def products(eqs: DMFTEquations) -> list[MatrixProduct]:
    """What the random matrices inside B multiply besides the pseudo-gradients."""
    from .dmft import MatrixProduct

    found, above = [], F.field_h(ell + 1, nu, s)
    if eqs.mirrors and eqs.owns_matrix:
        found.append(MatrixProduct("V", False, eqs.forward(ell, nu, s), False, F.field_p(ell + 1, nu, s)))
    if eqs.null != 0 and eqs.on_initial != 0:
        found.append(MatrixProduct("W", True, above, False, F.field_theta(ell, nu, s)))
    if eqs.null != 0 and eqs.owns_matrix:
        found.append(MatrixProduct("V", True, above, False, F.field_chi(ell, nu, s)))
    return found


def learned_feedback(eqs: DMFTEquations, layer: sp.Expr, weight: sp.Expr, overlap: sp.Expr, total) -> sp.Expr:
    """What the feedback weights have learned, applied to g̃: forward updates with their memory κ, and their own outer products.

    Args:
        layer: ℓ, or L for the readout.
        weight: what an update is weighted with.
        overlap: H at a hidden layer, 1 at the readout, with σ_w².
        total: the sum over the past.
    """
    found, last, features = ZERO, layer == L, eqs.forward(layer, nu, s)
    if eqs.feedback_memory != 0:
        found += c0 * total(eqs.feedback_memory * weight * overlap * features)
    if eqs.product != 0:
        carried = eqs.outer(L + 1, nu, s) if last else F.R(layer + 1, nu, mu, s, t)
        found += eqs.net.sigma_w / P * total(eqs.remembered * carried * features)
    if eqs.null != 0:
        carried = F.field_h(L + 1, nu, s) if last else F.S(layer + 1, nu, mu, s, t)
        found -= eqs.net.sigma_w * eqs.null / P * total(eqs.remembered * carried * F.field_psi(layer, nu, s))
    return found


def carried_fields(eqs: DMFTEquations) -> dict[str, sp.Equality]:
    """ω and ψ of hidden layers, and what stands for them and for h at the readout."""
    found: dict[str, sp.Equality] = {}
    if eqs.net.depth > 1:
        if eqs.mirrors:
            found["mirrored features"] = eq(F.field_omega(ell, mu, t), _mirrored(eqs))
        if eqs.null != 0:
            found["reconstruction"] = eq(F.field_psi(ell, mu, t), _reconstruction(eqs))
    return found | _at_readout(eqs)


def _mirrored(eqs: DMFTEquations) -> sp.Expr:
    """ω^ℓ, 2 ≤ ℓ ≤ L."""
    sw, sb, here, above = eqs.net.sigma_w, eqs.net.sigma_b, eqs.g_tilde(ell, nu, s), F.field_h(ell, nu, s)
    Phi = F.Phi(ell - 1, mu, nu, t, s)
    right = sb**2 * c0 * past(eqs.driven(nu) * here) + sb * eqs.training.kept_at_t * F.field_b(ell)
    if eqs.on_initial != 0:
        reactions = eqs.reaction(F.A, sw**2 * here, past, ell - 1) + eqs.reaction(F.D, sw * above, past, ell - 1)
        right += eqs.on_initial * (F.field_u(ell, mu, t) - sb * F.field_b(ell) + reactions)
    if eqs.owns_matrix:
        reactions = eqs.reaction(F.A_V, sw**2 * here, past, ell - 1) + eqs.reaction(F.D_V, sw * above, past, ell - 1)
        right += eqs.on_independent * (F.field_p(ell, mu, t) + reactions)
    if eqs.feedback_memory != 0:
        right += c0 * past(eqs.feedback_memory * eqs.unweighted(nu) * sw**2 * Phi * here)
    right += sw / P * past(eqs.remembered * Phi * eqs.outer(ell, nu, s))
    if eqs.null != 0:
        right -= sw * eqs.null / P * past(eqs.remembered * F.Psi(ell - 1, mu, nu, t, s) * above)
    return right


def _reconstruction(eqs: DMFTEquations) -> sp.Expr:
    """ψ^ℓ, 1 ≤ ℓ < L."""
    sw, features, right = eqs.net.sigma_w, eqs.forward(ell, nu, s), ZERO
    if eqs.on_initial != 0:
        right += eqs.on_initial * (F.field_theta(ell, mu, t) + eqs.reaction(F.E, sw * features, past_and_present))
    if eqs.owns_matrix:
        right += eqs.on_independent * (F.field_chi(ell, mu, t) + eqs.reaction(F.E_V, sw * features, past_and_present))
    if eqs.feedback_memory != 0:
        right += c0 * sw * past(eqs.feedback_memory * eqs.unweighted(nu) * F.S(ell + 1, mu, nu, t, s) * features)
    if eqs.product != 0:
        right += past(eqs.remembered * F.R_h(ell + 1, nu, mu, s, t) * features) / P
    return right - eqs.null / P * past(eqs.remembered * F.C(ell + 1, nu, mu, s, t) * F.field_psi(ell, nu, s))


def _at_readout(eqs: DMFTEquations) -> dict[str, sp.Equality]:
    """h^{L+1} = σ_w w·F/N, ω^{L+1} = σ_w w̃·F/N, ψ^L = w̃ h^{L+1}, w̃ being the part of z̃^L that learns, over σ_w."""
    last, found = eqs.bound.path[-1], {}
    true, features = F.field_z(L, mu, t), eqs.forward(L, mu, t)
    own = eqs.z_tilde(L, mu, t) - last.transported * true - last.direct * F.field_xi(L)
    if h in eqs.product.free_symbols or eqs.null != 0:
        found["readout activity"] = eq(F.field_h(L + 1, mu, t), F.average(true * features))
    if eqs.mirrors:
        found["mirrored readout"] = eq(F.field_omega(L + 1, mu, t), F.average(own * features))
    if eqs.null != 0:
        found["readout reconstruction"] = eq(F.field_psi(L, mu, t), own * F.field_h(L + 1, mu, t) / eqs.net.sigma_w)
    return found


def covariances(eqs: DMFTEquations) -> dict[str, sp.Equality]:
    """Of the Gaussian parts that are met only here."""
    cov, sw, found = F.covariance_of, eqs.net.sigma_w, {}
    first, second, pair = (ell, mu, t), (ell, nu, s), (ell + 1, mu, nu, t, s)
    if eqs.mirrors and eqs.owns_matrix:
        found["covariance p"] = eq(cov(F.field_p(*first), F.field_p(*second)), sw**2 * F.Phi(ell - 1, mu, nu, t, s))
    if eqs.mirrors and eqs.net.sigma_b != 0:
        found["covariance u b"] = eq(cov(F.field_u(*first), F.field_b(ell)), eqs.net.sigma_b)
    if eqs.null == 0:
        return found
    if eqs.on_initial != 0:
        field, observed = F.field_theta, F.average(F.field_g(ell + 1, mu, t) * F.field_h(ell + 1, nu, s))
        found["covariance theta"] = eq(cov(field(*first), field(*second)), F.C(*pair))
        found["covariance theta zeta"] = eq(cov(field(*first), eqs.zeta(*second)), sw * F.S(*pair))
        found["covariance r theta"] = eq(cov(F.field_r(*first), field(*second)), sw * observed)
    if eqs.owns_matrix:
        found["covariance chi"] = eq(cov(F.field_chi(*first), F.field_chi(*second)), F.C(*pair))
        found["covariance chi q"] = eq(cov(F.field_chi(*first), F.field_q(*second)), sw * F.S(*pair))
    return found


def order_parameters(eqs: DMFTEquations) -> dict[str, sp.Equality]:
    """Overlaps of what B learns with what it carries."""
    mean, first, second, pair = F.average, (ell, mu, t), (ell, nu, s), (ell, mu, nu, t, s)
    found: dict[str, sp.Equality] = {}
    if eqs.product != 0:
        found["R"] = eq(F.R(*pair), mean(eqs.outer(*first) * eqs.g_tilde(*second)))
    if eqs.null != 0:
        found["S"] = eq(F.S(*pair), mean(F.field_h(*first) * eqs.g_tilde(*second)))
        found["C"] = eq(F.C(*pair), mean(F.field_h(*first) * F.field_h(*second)))
        if eqs.product != 0:
            found["R_h"] = eq(F.R_h(*pair), mean(eqs.outer(*first) * F.field_h(*second)))
        if eqs.mirrors:
            found["Psi"] = eq(F.Psi(*pair), mean(eqs.forward(*first) * F.field_psi(*second)))
    return found

