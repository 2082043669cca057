"""Kernels as objects to call: transformations, gradients at singular inputs, blocks, near pairs, dtypes, bad input."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp
from kernel_reference import DIGITS, kernel_values

from derive import FA, GD, GLN, MLP, Hebb, Rational, Rule, lazy_kernel, phi, rho, z
from derive.symbols import h
from numerics import jaxify
from numerics.near import THRESHOLD, near_indices

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 7))
Y = RNG.normal(size=(40, 7))


@pytest.fixture(scope="module")
def relu():
    return jaxify(lazy_kernel(FA(rho), MLP(2, "relu")))


def test_transformations(relu) -> None:
    plain = relu(X, Y, rho=0.3)
    np.testing.assert_allclose(jax.jit(relu)(X, Y, rho=0.3), plain, rtol=1e-14)
    batched = jax.vmap(lambda a: relu(a, Y, rho=0.3))(jnp.asarray(X).reshape(3, 20, 7))
    np.testing.assert_allclose(batched.reshape(60, 40), plain, rtol=1e-13)
    assert relu.nngp(X, Y).shape == (60, 40)
    # eNTK at ρ = 0 keeps the last layer's features only
    np.testing.assert_allclose(relu(X, Y, rho=0.0), relu.nngp(X, Y, rho=0.0), rtol=1e-15)


@pytest.mark.parametrize("activation", ["relu", pytest.param("gelu", marks=pytest.mark.slow), pytest.param("softplus", marks=pytest.mark.slow)])
def test_gradient_against_differences(activation: str) -> None:
    kernel = jaxify(lazy_kernel(GD(), MLP(2 if activation == "relu" else 1, activation)))
    weight = RNG.normal(size=(4, 5))
    value = jax.jit(lambda a: jnp.sum(weight * kernel(a, Y[:5])))
    direction, step = RNG.normal(size=(4, 7)), 1e-5
    slope = jnp.sum(jax.grad(value)(jnp.asarray(X[:4])) * direction)
    difference = (value(X[:4] + step * direction) - value(X[:4] - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


def test_gradient_by_a_parameter(relu) -> None:
    step = 1e-5
    value = lambda r: jnp.sum(relu(X[:4], Y[:5], rho=r))
    np.testing.assert_allclose(jax.grad(value)(0.4), (value(0.4 + step) - value(0.4 - step)) / (2 * step), rtol=1e-7)


@pytest.mark.parametrize("activation", ["relu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("abs", "relu2", "gelu", "tanh"))])
def test_gradients_at_singular_inputs(activation: str) -> None:
    kernel = jaxify(lazy_kernel(GD(), MLP(1 if activation == "tanh" else 2, activation)))
    points = jnp.array([[1.0, 0.5], [1.0, 0.5], [-1.0, -0.5], [0.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    assert np.isfinite(kernel(points)).all()
    assert np.isfinite(jax.grad(lambda a: jnp.sum(jnp.sin(kernel(a))))(points)).all()
    assert np.isfinite(jax.grad(lambda a: jnp.sum(jnp.sin(kernel(a, points))))(points)).all()
    # d k(x, x)/dx along a direction, from both sides
    step, direction = 1e-5, jnp.array([0.3, -0.7])
    alone = lambda a: kernel(a[None])[0, 0]
    slope = jax.grad(alone)(points[0]) @ direction
    difference = (alone(points[0] + step * direction) - alone(points[0] - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-9)


def test_diagonal_and_symmetry() -> None:
    kernel = lazy_kernel(GD(), MLP(3, "relu"))
    values = np.asarray(jaxify(kernel)(X))
    assert (values == values.T).all()
    for row in range(5):
        with mpmath.workdps(DIGITS):
            variance = sum(mpmath.mpf(float(v)) ** 2 for v in X[row]) / 7
            exact = kernel_values(kernel, (variance,) * 3)[0]
            assert abs(float(values[row, row]) / exact - 1) < 1e-14


def test_blocks_agree(relu) -> None:
    # several tiles, with and without padding
    for block in (20, 59):
        np.testing.assert_allclose(relu(X, rho=0.3, block=block), relu(X, rho=0.3), rtol=1e-13)
        np.testing.assert_allclose(relu(X, Y, rho=0.3, block=block), relu(X, Y, rho=0.3), rtol=1e-13)
    one = jaxify(lazy_kernel(GD(), MLP(1, "relu")))
    total = lambda block: jax.grad(lambda a: jnp.sum(jnp.sin(one(a, block=block))))(jnp.asarray(X))
    np.testing.assert_allclose(total(13), total(60), rtol=1e-10)


def test_a_kernel_that_is_not_symmetric() -> None:
    rule = Rule("squared features", phi(h) ** 2 * z, GD().feedback)
    kernel = lazy_kernel(rule, MLP(2, "relu"))
    made = jaxify(kernel)
    assert not made.module.SYMMETRIC
    values = np.asarray(made(X))
    np.testing.assert_allclose(values, made(X, X + 0.0), rtol=1e-6)
    np.testing.assert_allclose(values, made(X, block=13), rtol=1e-12)
    assert abs(values - values.T).max() > 1e-3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_near_pairs(depth: int) -> None:
    kernel = lazy_kernel(GD(), MLP(depth, "relu", sigma_b=Rational(1, 5)))
    made = jaxify(kernel)
    base, other = RNG.normal(size=(2, 30))
    angle = np.sqrt(2e-14)
    points = np.stack([base, base + angle * other, 1.3 * base + angle * other, base + 1e-3 * other, base * (1 + 1e-9)])
    with mpmath.workdps(DIGITS):
        dot = lambda p, q: sum(mpmath.mpf(float(s)) * mpmath.mpf(float(t)) for s, t in zip(p, q, strict=True)) / 30
        exact = [[kernel_values(kernel, (dot(p, p), dot(p, q), dot(q, q)))[0] for q in points] for p in points]
        error = lambda values: max(abs(float(values[i, j]) / exact[i][j] - 1) for i in range(5) for j in range(5))
        assert error(made(points, near_pairs=True)) < 1e-12
        assert error(made(points, points + 0.0, near_pairs=True)) < 1e-12
        assert error(jax.jit(lambda a: made(a, near_pairs=True))(points)) < 1e-12
        # what it is for: the Gram matrix alone loses half the digits
        assert error(made(points)) > 1e-11


def test_near_indices() -> None:
    points = np.array([[1.0, 0], [1, THRESHOLD / 2], [1, 3 * THRESHOLD], [-1, 0], [0, 1]])
    assert sorted(zip(*map(list, near_indices(points, None)), strict=True)) == [(0, 1), (0, 3), (1, 3)]


@pytest.mark.parametrize("activation", ["relu", "erf", "sin", pytest.param("tanh", marks=pytest.mark.slow)])
def test_float32(activation: str) -> None:
    kernel = jaxify(lazy_kernel(FA(rho), MLP(1 if activation == "tanh" else 2, activation)))
    single = kernel(X.astype(np.float32), rho=np.float64(0.3))
    assert single.dtype == jnp.float32
    slope = jax.eval_shape(jax.grad(lambda a: kernel(a, rho=0.3).sum()), jnp.asarray(X, jnp.float32))
    assert slope.dtype == jnp.float32
    np.testing.assert_allclose(single, kernel(X, rho=0.3), rtol=1e-5, atol=1e-6)


def test_bad_input(relu) -> None:
    with pytest.raises(TypeError, match=r"needs a value of rho: call k\(X1, X2, rho=…\)"):
        relu(X)
    with pytest.raises(TypeError, match=r"alpha=2 is no parameter.*its parameters are rho"):
        relu(X, rho=0.3, alpha=2)
    with pytest.raises(TypeError, match="it has none"):
        jaxify(lazy_kernel(GLN(), MLP(1)))(X, rho=0.1)
    with pytest.raises(ValueError, match=r"X1 has shape \(7,\).*X1\[None, :\]"):
        relu(X[0], rho=0.3)
    with pytest.raises(ValueError, match=r"X2\[3, 2\] = nan is not finite"):
        relu(X, np.where(np.arange(280).reshape(40, 7) == 23, np.nan, Y), rho=0.3)
    with pytest.raises(ValueError, match="X1 has D = 7 features, X2 has 3"):
        relu(X, Y[:, :3], rho=0.3)
    with pytest.raises(ValueError, match="block=0"):
        relu(X, rho=0.3, block=0)
    with pytest.raises(TypeError, match="has no generated source"):
        jaxify(3)
    with pytest.raises(ValueError, match=r"X2 is complex.*X2.real"):
        relu(X, Y + 0j, rho=0.3)


@pytest.mark.parametrize("value", [2.0, -0.1, np.nan])
def test_a_correlation_is_checked_when_it_has_a_value(relu, value: float) -> None:
    with pytest.raises(ValueError, match=f"rho={value:g} is not a correlation: FA needs 0 <= rho <= 1"):
        relu(X, rho=value)
    assert np.isfinite(relu.nngp(X, rho=value)).all()  # which does not depend on it


@pytest.mark.parametrize("rule", [GD(), FA(Rational(1, 2)), Hebb()], ids=lambda rule: rule.name)
def test_a_constant_activation(rule) -> None:
    kernel = jaxify(lazy_kernel(rule, MLP(2, sp.Integer(2))))
    assert (np.asarray(kernel(X)) == 4).all() and kernel(X, Y).shape == (60, 40)
    assert (np.asarray(kernel.nngp(X, Y)) == 4).all()


def test_repr(relu) -> None:
    assert repr(relu) == "<kernel of FA(rho=rho), depth 2: k(X1, X2=None, rho); closed form>"
    assert "quadrature (tanh(x): Hermite series, error ≤" in repr(jaxify(lazy_kernel(GD(), MLP(1, "tanh"))))
    assert relu.source == lazy_kernel(FA(rho), MLP(2, "relu")).source()


def test_the_same_text_gives_the_same_function():
    """What was compiled for a kernel serves whoever derives it again, such as the points of a sweep."""
    derive_again = lambda: lazy_kernel(FA(rho), MLP(depth=1, activation="erf"))
    assert jaxify(derive_again()) is jaxify(derive_again())
    assert jaxify(derive_again()) is not jaxify(lazy_kernel(FA(rho), MLP(depth=2, activation="erf")))
