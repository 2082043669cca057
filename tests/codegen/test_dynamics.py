"""Generated single-site functions: finite everywhere, right slopes, the dtype of their arguments."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp

from derive import DFA, FA, GD, GLN, MLP, Hebb, Rule, activation, rho, tanh, x, z
from derive.activations import BUILTIN
from derive.codegen.printer import JnpPrinter
from derive.errors import BadInput
from numerics import jaxify

POINTS = np.array([-1e4, -800, -50, -3, -1.0, -0.3, 0, 0.2, 1.0, 2.5, 50, 800, 1e4])
GROWING = ("exp",)


def functions(name: str):
    module = jaxify(GD().bind(MLP(2, name)))
    given = dict.fromkeys(module.PARAMETERS, 0.3)
    return (lambda h: module.forward(h, h, **given)), (lambda h: module.slope(h, h, **given))


@pytest.mark.parametrize("name", BUILTIN)
def test_values_and_slopes_against_mpmath(name: str) -> None:
    moderate = POINTS[np.abs(POINTS) <= 50] if name in GROWING else POINTS
    inside = moderate[moderate != 0]
    forward, slope = functions(name)
    expr = BUILTIN[name](x).subs(sp.Symbol("alpha", real=True), sp.Rational(3, 10))
    for function, exact in ((forward, expr), (slope, activation(expr).derivative(1))):
        reference = sp.lambdify(x, exact, "mpmath")
        with mpmath.workdps(40):
            expected = np.array([float(mpmath.re(reference(mpmath.mpf(h)))) for h in inside])
        # 1 − tanh² and its like are 0 up to rounding at large h
        np.testing.assert_allclose(function(jnp.asarray(inside)), expected, rtol=1e-13, atol=3e-16)
    gradient = jax.vmap(jax.grad(forward))(jnp.asarray(inside))
    np.testing.assert_allclose(gradient, slope(jnp.asarray(inside)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_finite_in_every_dtype(name: str, dtype: str) -> None:
    points = jnp.asarray(POINTS[np.abs(POINTS) <= 50] if name in GROWING else POINTS, dtype)
    for function in functions(name):
        values, gradients = function(points), jax.vmap(jax.grad(function))(points)
        assert values.dtype == gradients.dtype == dtype
        assert values.shape == points.shape
        assert np.isfinite(values).all() and np.isfinite(gradients).all()


def test_path_and_constants() -> None:
    module = jaxify(FA(rho).bind(MLP(2, "relu")))
    assert module.PARAMETERS == ("rho",) and module.PATH == (("initial", "independent"),) * 2
    assert not module.PROPAGATES_GRADIENT and not module.USES_GATES
    np.testing.assert_allclose(module.path(rho=0.6), [(0, 0.6, 0, 0)] * 2 + np.array([0, 0, 0.8, 0]), rtol=1e-15)
    assert jaxify(GLN().bind(MLP(1))).USES_GATES and jaxify(GD().bind(MLP(1))).PROPAGATES_GRADIENT
    assert jaxify(DFA().bind(MLP(1))).PATH == (("direct",),) and jaxify(Hebb().bind(MLP(1))).PATH == ((),)


def test_pseudo_gradients() -> None:
    h, field, error = jnp.array([-1.0, 2.0]), jnp.array([3.0, 5.0]), jnp.array([7.0, 11.0])
    values = {rule.name: jaxify(rule.bind(MLP(1, "relu"))).pseudo_gradient(h, field, -h, error) for rule in (GD(), Hebb(), GLN())}
    np.testing.assert_allclose(values["GD"], [0, 5])
    np.testing.assert_allclose(values["Hebb"], [0, 22])
    np.testing.assert_allclose(values["GLN"], [3, 0])


def test_what_cannot_be_printed_is_refused() -> None:
    with pytest.raises(BadInput, match="besselj is not among the functions"):
        GD().bind(MLP(1, sp.besselj(0, x))).source()
    with pytest.raises(BadInput, match="'self' in generated code"):
        clash = sp.Symbol("self", positive=True)
        Rule("clash", clash * z, GD().feedback).bind(MLP(1)).source()
    with pytest.raises(BadInput, match="neither a field nor a declared parameter"):
        JnpPrinter({x: "x"}).doprint(x + sp.Symbol("q"))


def test_keyword_parameters_get_an_underscore() -> None:
    lam = sp.Symbol("lambda", real=True)
    module = jaxify(GD().bind(MLP(1, activation(tanh(lam * x), parameters=[lam]))))
    np.testing.assert_allclose(module.forward(jnp.array([0.5]), None, lambda_=2.0), np.tanh(1.0))


def test_a_users_rule() -> None:
    module = jaxify(Rule("no slope", z**3, FA(rho).feedback).bind(MLP(1, "tanh")))
    np.testing.assert_allclose(module.pseudo_gradient(jnp.ones(2), jnp.array([2.0, -1.0]), None, None, rho=0.1), [8, -1])
