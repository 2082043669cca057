"""Rules that have no infinite-width theory here: refused at once, with the term and the reason."""

import numpy as np
import pytest
import sympy as sp

from derive import (
    GD,
    MLP,
    BadInput,
    Delta,
    Evolution,
    Feedback,
    Loss,
    Rule,
    W,
    activation,
    conservation_laws,
    dphi,
    entrywise_feedback,
    f,
    g_tilde,
    h,
    lazy_kernel,
    m,
    phi,
    rho,
    sign,
    u,
    w,
    x,
    y,
    z,
)
from derive import fields as F
from derive.fields import ell, mu, nu, s, t

PATH = Feedback(transported=1)


def pseudo_gradient(expr):
    return lambda: Rule("own", expr, PATH)


@pytest.mark.parametrize(
    "make, term, why",
    [
        # entrywise functions of weights that learn
        (pseudo_gradient(dphi(h) * z + sign(W) * z), "z*sign(W)", "takes the forward weights entry by entry"),
        (lambda: Feedback(transported=W**2), "W**2", "random matrix plus outer products"),
        (lambda: entrywise_feedback(sign(W)), "sign(W)", "function of the initial weights"),
        (lambda: Evolution(decay=rho, outer=h * W), "W*h", "takes the forward weights entry by entry"),
        (pseudo_gradient(sp.MatrixSymbol("A", 3, 3)[0, 1] * z), "z*A[0, 1]", "contains the matrix A"),
        # times and places
        (pseudo_gradient(z + F.field_h(ell, mu, t + 1)), "h(ell, mu, t + 1)", "later than the update"),
        (pseudo_gradient(z * F.error(mu, t + 2)), "z*Delta(mu, t + 2)", "nothing at time t may need anything later"),
        (pseudo_gradient(z - F.field_h(ell, mu, t - 1)), "-h(ell, mu, t - 1)", "earlier than the update"),
        (pseudo_gradient(z * F.field_h(ell + 1, mu, t)), "z*h(ell + 1, mu, t)", "belongs to another layer"),
        (pseudo_gradient(z * F.Phi(ell, mu, nu, t, s)), "z*Phi(ell, mu, nu, t, s)", "place of its own"),
        (pseudo_gradient(z * F.average(phi(h))), "z*average(phi(h))", "its own fields only"),
        # symbols and functions
        (pseudo_gradient(x * z), "x*z", "the argument of an activation: write phi"),
        (pseudo_gradient(z * (y - 1)), "z*(y - 1)", "the target"),
        (pseudo_gradient(z + g_tilde), "g_tilde", "the pseudo-gradient of the layer above"),
        (pseudo_gradient(z + sp.Function("F")(h)), "F(h)", "unknown function F"),
        (pseudo_gradient(z + sp.I * h), "I*h", "not a finite real number"),
        (lambda: Rule("own", z, PATH, forward=phi(h) * Delta), "Delta*phi(h)", "contains Delta"),
        (lambda: Feedback(initial=[1, h]), "h", "the preactivation; allowed here: no field"),
        (lambda: Feedback(direct=m * rho), "m*rho", "the gate"),
    ],
)
def test_term_and_reason_are_named(make, term, why):
    with pytest.raises(BadInput) as refusal:
        make()
    assert f"its term {term} " in str(refusal.value)
    assert why in str(refusal.value)


def test_parameters_are_not_refused():
    """Symbols without a meaning of their own are the user's parameters, whatever they are called."""
    strength = sp.Symbol("strength", positive=True)
    rule = Rule("own", strength * dphi(h) * z, Feedback(transported=strength))
    assert rule.parameters == (strength,) and lazy_kernel(rule, MLP(2, "relu")).expr.has(strength)


H, Z, T = sp.symbols("h z t")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        (lambda: Rule("r", Z * dphi(H), Feedback(transported=1)).pseudo_gradient, z * dphi(h)),
        (lambda: activation(sp.tanh).expr, sp.tanh(x)),
        (lambda: activation(lambda q: q * sp.erf(q)).expr, x * sp.erf(x)),
        (lambda: activation(sp.Abs(sp.Symbol("x")) ** 3).expr, sp.Abs(x) ** 3),
        (lambda: activation(T * sp.exp(-T)).expr, x * sp.exp(-x)),
        (lambda: activation(sp.Symbol("k") * x, parameters=[sp.Symbol("k")]).expr, sp.Symbol("k") * x),
        (lambda: Loss("l", (sp.Symbol("f") - sp.Symbol("y")) ** 2).error, 2 * (y - f)),
        (lambda: Evolution(outer=H).outer, h),
        (lambda: entrywise_feedback(sp.sign(sp.Symbol("u")))[0], entrywise_feedback(sp.sign(u))[0]),
        (lambda: conservation_laws(GD(), MLP(1, "relu"), feedback=sp.sign(sp.Symbol("w"))), conservation_laws(GD(), MLP(1, "relu"), feedback=sp.sign(w))),
    ],
)
def test_symbols_are_known_by_their_names(given, ours):
    assert given() == ours or sp.expand(given() - ours) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: Rule("r", lambda h: h), "no expression that SymPy can read"),
        (lambda: Rule("r", Z * sp.Symbol("W"), Feedback(transported=1)), "entry by entry"),
        (lambda: activation(np.tanh), "SymPy's functions"),
        (lambda: activation([1, x]), "no scalar expression"),
        (lambda: activation(T * x), "declare parameters"),
    ],
)
def test_what_is_no_expression_is_refused(given, message):
    with pytest.raises(BadInput, match=message):
        given()
