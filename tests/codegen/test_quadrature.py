"""Expectations without closed form: against independent two-dimensional rules, and against closed forms where there are some."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp

from derive import GD, MLP, Abs, Max, Min, Piecewise, Rational, a, activation, exp, lazy_kernel, log, sign, sin, sqrt, step, tanh, x
from derive.codegen.series import breakpoints
from derive.errors import BadInput
from numerics import jaxify, quadrature

VARIANCES = (0.1, 1.0, 4.0, 9.0)
COSINES = (-1.0, -0.7, -0.01, 0.3, 0.9, 1 - 1e-8, 1.0)
GRID = [(a, c * np.sqrt(a * b), b) for a in VARIANCES for b in VARIANCES for c in COSINES]
SMOOTH = ("tanh", "softplus", "silu", "sigmoid", "mish", x * tanh(x))


def trapezoid(f, g, a: float, c: float, b: float) -> float:
    """E[f(u) g(v)] on a fine product grid, for smooth f and g."""
    step = 0.03
    nodes = np.arange(-9.5, 9.5, step)
    weights = np.exp(-(nodes**2) / 2) * step / np.sqrt(2 * np.pi)
    rho = c / np.sqrt(a * b)
    v = np.sqrt(b) * (rho * nodes[:, None] + np.sqrt(max(0.0, 1 - rho**2)) * nodes)
    return float((weights * f(np.sqrt(a) * nodes)) @ g(v) @ weights)


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_smooth_duals_and_slopes(activation) -> None:
    kernel = lazy_kernel(GD(), MLP(1, activation))
    module = jaxify(kernel).module
    points = GRID[:: 2 if activation == "tanh" else 5]
    for number, dual in enumerate(kernel.duals, 1):
        function = sp.lambdify(x, dual.f, ["numpy", "scipy"])
        pair = jax.jit(getattr(module, f"E{number}"))
        single = jax.jit(getattr(module, f"E{number}_diagonal"))
        exact = np.array([trapezoid(function, function, *point) for point in points])
        values = np.array([float(pair(*(jnp.full((1, 1), q) for q in point))[0, 0]) for point in points])
        size = np.array([np.sqrt(single(a) * single(b)) for a, _, b in points])
        # 1e-10 of the value; of its scale where it passes through 0
        assert (np.abs(values - exact) <= 1e-10 * np.maximum(np.abs(exact), 1e-2 * size)).all()
        for q in VARIANCES:
            np.testing.assert_allclose(single(q), trapezoid(function, function, q, q, q), rtol=1e-12)


def test_series_against_mpmath() -> None:
    module = jaxify(lazy_kernel(GD(), MLP(1, "tanh"))).module
    a, c, b = 1.0, 0.6, 2.25
    with mpmath.workdps(20):
        rho = mpmath.mpf(c) / mpmath.sqrt(a * b)
        # the trapezoidal rule misses e^{−2πd/h} = 1e-17 for the pole at distance d = π/3
        step = mpmath.mpf(1) / 6
        nodes = [step * k for k in range(-48, 49)]
        weights = [step * mpmath.npdf(t) for t in nodes]
        rest = [mpmath.sqrt(1 - rho**2) * t for t in nodes]
        exact = mpmath.mpf(0)
        for s, w in zip(nodes, weights, strict=True):
            law = mpmath.fsum(p * mpmath.tanh(1.5 * (rho * s + t)) for p, t in zip(weights, rest, strict=True))
            exact += w * mpmath.tanh(s) * law
    np.testing.assert_allclose(float(module.E1(*(jnp.full((1, 1), q) for q in (a, c, b)))[0, 0]), float(exact), rtol=1e-10)


def test_beyond_the_checked_range_is_nan() -> None:
    module = jaxify(lazy_kernel(GD(), MLP(1, "tanh"))).module
    big = jnp.full((1, 1), 1e4)
    assert np.isnan(module.E1(big, big / 2, big)).all()
    with pytest.raises(ValueError, match="beyond the variances"):
        jaxify(lazy_kernel(GD(), MLP(1, "tanh")))(np.full((2, 2), 1e3))


def test_the_error_is_measured_at_the_values_of_parameters() -> None:
    """A symbol and the number in its place give the same, up to where the number is refused, too."""
    kernel = jaxify(lazy_kernel(GD(), MLP(1, activation(tanh(a * x), parameters=[a]))))
    points = np.array([[1.0, 0.3], [0.2, -0.8]])
    with_number = jaxify(lazy_kernel(GD(), MLP(1, tanh(3 * x))))
    np.testing.assert_allclose(kernel(points, a=3), with_number(points), rtol=1e-12)
    for value in (20.0, 200.0):
        with pytest.raises(ValueError, match=rf"a={value:g} with inputs of variance .* up to 0.545: .*varies too sharply"):
            kernel(points[:2], a=value)
    # traced, where nothing can be raised: NaN, also for slopes
    total = jax.jit(jax.value_and_grad(lambda value: kernel.nngp(points, a=value)[0, 1]))
    assert np.isnan(total(200.0)).all()
    step = 1e-5
    difference = (kernel.nngp(points, a=1 + step) - kernel.nngp(points, a=1 - step))[0, 1] / (2 * step)
    np.testing.assert_allclose(total(1.0)[1], difference, rtol=1e-7)


def test_a_sharp_kink_of_a_parameter_against_mpmath() -> None:
    kernel = jaxify(lazy_kernel(GD(), MLP(1, activation(sqrt(a + x**2), parameters=[a]))))
    one = np.array([[1.0]])
    slope = float(kernel(one, a=0.3)[0, 0] - kernel.nngp(one, a=0.3)[0, 0])
    with mpmath.workdps(25):
        exact = 2 * mpmath.quad(lambda u: u**2 / (mpmath.mpf(0.3) + u**2) * mpmath.npdf(u), [0, 0.1, 1, 4, 12])
    np.testing.assert_allclose(slope, float(exact), rtol=1e-11)
    with pytest.raises(ValueError, match="a=1e-06 with inputs"):
        kernel(one, a=1e-6)


def test_kinks_with_parameters() -> None:
    bent = activation(Piecewise((x, x > 1), (tanh(a * x), True)), parameters=[a])
    module = jaxify(lazy_kernel(GD(), MLP(1, bent))).module
    q = [jnp.full((1, 1), value) for value in (1.0, 0.3, 1.0)]
    one = jax.jit(lambda value: module.E1(*q, a=value))
    assert np.isfinite(one(0.5)).all() and np.isnan(one(50.0)).all()
    soft = lambda p: quadrature.angular(lambda u: jnp.abs(u) ** p, lambda v: jnp.abs(v) ** p, *q, None)
    both = jax.jit(soft)
    np.testing.assert_allclose(both(2.0), 1 + 2 * 0.3**2, rtol=1e-12)
    assert np.isnan(both(0.5)).all()


@pytest.mark.parametrize(
    ("phi", "reason"),
    [
        (sqrt(Abs(x)), r"is infinite: .*\^\(-1\)"),
        (Abs(x) ** Rational(1, 3), r"is infinite: .*\^\(-1.3\)"),
        (sign(x) * Abs(x) ** Rational(2, 3), "cannot be integrated to .* singularity"),
        (x * log(Abs(x)), "cannot be integrated to .* singularity"),
        (Abs(x - 1) ** Rational(3, 2), "cannot be integrated to .* of x = 1 the functions have a singularity"),
        (sin(x) / x, "is 0/0 at x = 0"),
        (sp.sinc(x), "is 0/0 at x = 0"),
        (1 / x, "is infinite at x = 0"),
    ],
    ids=str,
)
def test_singular_functions_are_refused_with_the_reason(phi, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        lazy_kernel(GD(), MLP(1, phi)).source()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("phi", [exp(exp(x)), exp(exp(Abs(x))), exp(exp(x)) * step(x - 1)], ids=str)
def test_functions_that_overflow_are_refused_without_warnings(phi) -> None:
    with pytest.raises(BadInput, match="cannot be integrated"):
        lazy_kernel(GD(), MLP(1, activation(phi))).source()


def test_powers_at_a_kink_keep_to_their_measured_error() -> None:
    """E[|u|^p sign u |v|^p sign v] = 2^{p+1} Γ(1 + p/2)² ρ ₂F₁((1 − p)/2, (1 − p)/2; 3/2; ρ²)/π."""
    kernel, power, cosines = lazy_kernel(GD(), MLP(1, Abs(x) ** Rational(5, 2))), mpmath.mpf(3) / 2, (-0.6, 0.3, 0.99)
    series = lambda c: c * mpmath.hyp2f1((1 - power) / 2, (1 - power) / 2, 1.5, c**2)
    exact = [float(2 ** (power + 1) * mpmath.gamma(1 + power / 2) ** 2 * series(c) / mpmath.pi) for c in cosines]
    ones = jnp.ones((1, 3))
    values = jax.jit(jaxify(kernel).module.E2)(ones, jnp.array([cosines]), ones)[0] * 4 / 25
    size = float(2**power * mpmath.gamma(power + 0.5) / mpmath.sqrt(mpmath.pi))
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-6 * size)


ELU = sp.Piecewise((x, x > 0), (sp.exp(x) - 1, True))


@pytest.mark.slow
def test_elu_and_its_slope() -> None:
    kernel = lazy_kernel(GD(), MLP(1, "elu"))
    module = jaxify(kernel).module
    columns = [jnp.asarray(v) for v in zip(*GRID, strict=True)]
    for number in (1, 2):
        f = getattr(module, f"f{number}")
        exact = quadrature.nested(f, f, *(v[::24] for v in columns), (0.0,), (0.0,))
        # one call over the whole range of variances
        values = jax.jit(getattr(module, f"E{number}"))(*columns)[::24]
        np.testing.assert_allclose(values, exact, rtol=1e-10)


def test_the_rules_for_kinks_against_relu() -> None:
    relu = lambda u: jnp.maximum(u, 0)
    a, c, b = (jnp.asarray(v) for v in zip(*GRID, strict=True))
    theta = np.arccos(np.clip(c / np.sqrt(a * b), -1, 1))
    exact = np.sqrt(a * b) / (2 * np.pi) * (np.sin(theta) + (np.pi - theta) * np.cos(theta))
    size = 1e-13 * np.sqrt(a * b)
    assert (abs(jax.jit(lambda *entries: quadrature.angular(relu, relu, *entries, 3.05))(a, c, b) - exact) <= size).all()
    part = slice(None, None, 17)
    nested = jax.jit(lambda *entries: quadrature.nested(relu, relu, *entries, (0.0,), (0.0,)))
    assert (abs(nested(a[part], c[part], b[part]) - exact[part]) <= size[part]).all()


def test_hard_tanh_by_nested_rules() -> None:
    """E[φ(u) φ(v)] at ρ → 1 is E[φ²]; between, Monte Carlo with common random numbers."""
    kernel = lazy_kernel(GD(), MLP(1, Max(-1, Min(1, x))))
    made = jaxify(kernel)
    assert "nested Gauss rules" in repr(made)
    values = np.asarray(made.nngp(np.array([[1.0, 0.3], [0.2, 2.0], [1.0, 0.3 + 1e-9]])))
    np.testing.assert_allclose(values[0, 2], values[0, 0], rtol=1e-8)
    rng = np.random.default_rng(0)
    W = rng.normal(size=(400_000, 2)) / np.sqrt(2)
    first, second = (np.clip(W @ row, -1, 1) for row in ([1.0, 0.3], [0.2, 2.0]))
    product = first * second
    assert abs(product.mean() - values[0, 1]) < 4 * product.std() / np.sqrt(len(W))


@pytest.mark.parametrize("activation", ["sigmoid", pytest.param("elu", marks=pytest.mark.slow)])
def test_gradients_of_integrals(activation: str) -> None:
    kernel = jaxify(lazy_kernel(GD(), MLP(1, activation)))
    points = jnp.array([[1.0, 0.5], [0.2, -1.0], [0.7, 0.9]])
    value = jax.jit(lambda a: jnp.sum(jnp.sin(kernel.nngp(a))))
    step, direction = 1e-4, jnp.array([[0.3, -0.7], [1.0, 0.1], [-0.4, 0.6]])
    difference = (value(points + step * direction) - value(points - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(jax.grad(value)(points) * direction), difference, rtol=1e-6)


def test_breakpoints() -> None:
    assert breakpoints(Max(x, 0)) == (0.0,)
    assert breakpoints(Piecewise((0, x < -1), (x, x < 2), (2, True))) == (-1.0, 2.0)
    assert breakpoints(sp.tanh(x)) == ()
    with pytest.raises(BadInput, match="is no number"):
        breakpoints(Max(x - sp.Symbol("t", real=True), 0))
