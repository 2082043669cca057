"""Generated kernels against 200-digit evaluations of the same formulas, as functions of the input covariance."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp
from kernel_reference import DIGITS, dual_value, kernel_values

from derive import GD, MLP, alpha, exp, gelu, lazy_kernel, leaky_relu, relu, step, x
from numerics import jaxify, safe

ACTIVATIONS = {
    name: name for name in ("linear", "relu", "leaky_relu", "abs", "sign", "step", "square", "cube", "erf", "gelu", "gaussian", "sin", "cos", "rbf")
} | {"x exp(−x²)": x * exp(-(x**2)), "exp": exp(sp.Rational(2, 5) * x) / 2, "relu²": "relu2", "relu³": "relu3", "x + x² step": x**2 * step(x) + x}  # fmt: skip
# 1 − |cos θ|
NEAR = [0.0, *(10.0**-k for k in range(2, 15, 3)), 1e-14]
# Away from θ = π, where the duals of powers of ReLU vanish like (π − θ)^5 and more, and the difference of their terms does not.
VANISHING = {"relu²", "relu³", "x + x² step"}
# Powers of ReLU plus lower ones are not homogeneous: at depth ≥ 2 their angle is known to √eps only.
NOT_HOMOGENEOUS = {"x + x² step"}


def covariances(name: str) -> list[tuple[float, float, float]]:
    rng = np.random.default_rng(3)
    cosines = [*rng.uniform(-0.9, 0.9, 4), *(1 - d for d in NEAR)]
    cosines += [] if name in VANISHING else [-(1 - d) for d in NEAR]
    cosines = [c for c in cosines if c > -0.5 or name not in VANISHING]
    made = [(1.0, c, 1.0) for c in cosines] + [(1.7, 1.7 * c, 1.7) for c in cosines]
    return made + [(0.4, float(c * np.sqrt(0.4 * 2.3)), 2.3) for c in cosines if abs(c) < 1 - 1e-13]


def evaluate(function, points) -> np.ndarray:
    return np.asarray(jax.jit(function)(*(jnp.asarray(column) for column in zip(*points, strict=True))))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ntk_and_nngp(name: str, depth: int) -> None:
    kernel = lazy_kernel(GD(), MLP(depth, ACTIVATIONS[name]))
    parameters = ((alpha, sp.Rational(3, 10)),) if alpha in kernel.parameters else ()
    given = {"alpha": 0.3} if parameters else {}
    module = jaxify(kernel).module
    points = covariances(name)
    if name in NOT_HOMOGENEOUS and depth > 1:
        points = [(a, c, b) for a, c, b in points if abs(c) < 0.9 * np.sqrt(a * b)]
    exact = np.array([kernel_values(kernel, point, parameters) for point in points])
    for index, pairs in enumerate((module.ntk_pairs, module.nngp_pairs)):
        values = evaluate(lambda a, c, b, pairs=pairs: pairs(a, c, b, **given), points)
        scale = abs(exact[:, index])
        # a kernel that passes through 0 keeps its absolute error: relative to 1e-3 of its diagonal there
        floor = mpmath.mpf(10) ** -3 * max(scale)
        errors = [float(abs(mpmath.mpf(float(v)) - e) / max(abs(e), floor)) for v, e in zip(values, exact[:, index], strict=True)]
        assert max(errors) <= 1e-13, points[int(np.argmax(errors))]


MIXED = {
    "relu + erf": relu(x) + sp.erf(x), "erf + relu − x/3": sp.erf(x) + relu(x) - x / 3, "relu + Gaussian": relu(x) + exp(-(x**2)),
    "|x| + Gaussian": sp.Abs(x) + exp(-(x**2) / 2), "relu · Gaussian": relu(x) * exp(-(x**2)), "gelu + relu": gelu(x) + relu(x),
    "leaky relu + x · Gaussian": leaky_relu(x, sp.Rational(1, 10)) + x * exp(-(x**2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_closed_forms_with_several_roots(name: str) -> None:
    """√(q_mumu q_nunu − q_munu²) is handed to generated functions, and others are computed in them."""
    kernel, points = lazy_kernel(GD(), MLP(1, MIXED[name])), [(1.0, 0.3, 0.8), (0.5, -0.2, 2.0), (1.0, 0.999, 1.0)]
    module = jaxify(kernel).module
    exact = np.array([kernel_values(kernel, point, ()) for point in points], float)
    found = np.stack([evaluate(pairs, points) for pairs in (module.ntk_pairs, module.nngp_pairs)], axis=1)
    np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_expectations_that_are_infinite_are_not_finite() -> None:
    """E[e^{a u²} e^{a v²}] beyond variances of 1/(2a), where det(1 − 2aΣ) is positive again; and right before."""
    pairs = jaxify(lazy_kernel(GD(), MLP(1, exp(x**2)))).module.nngp_pairs
    assert np.isnan(pairs(2.0, 0.0, 2.0)) and np.isnan(pairs(2.0, 0.3, 0.1)) and np.isnan(pairs(0.3, 0.3, 0.3))
    assert float(pairs(0.2, 0.1, 0.3)) == pytest.approx((0.6 * 0.4 - 0.04) ** -0.5, rel=1e-13)
    # growth against decay: E[e^{u²/5} e^{−v²/5}] has a determinant with the other sign of c²
    kernel, points = lazy_kernel(GD(), MLP(1, sp.cosh(x**2 / 5))), [(1.0, 0.3, 0.8), (0.5, -0.2, 1.1)]
    exact = [float(kernel_values(kernel, point, ())[1]) for point in points]
    np.testing.assert_allclose(evaluate(jaxify(kernel).module.nngp_pairs, points), exact, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "activation",
    ["hard_tanh", sp.Max(x - 1, 0), sp.Max(x + 1, 0), sp.Max(sp.Min(x, 6), 0), sp.Piecewise((-1, x < -1), (x, x < 0.5), (x**2, x < 2), (4, True))],
    ids=str,
)
def test_at_a_zero_input_kinks_elsewhere_are_infinitely_far(activation, depth: int, dtype: str) -> None:
    """The kernel there is that of a small input, and its NNGP part what the function is at 0."""
    module = jaxify(lazy_kernel(GD(), MLP(depth, activation)))
    X = np.array([[0.0, 0.0], [1.0, 1.0]], dtype)
    small = np.array([[1e-8, 1e-8], [1.0, 1.0]], dtype)
    for kernel in (module, module.nngp):
        found = np.asarray(kernel(X))
        assert found.dtype == dtype and np.all(np.isfinite(found))
        np.testing.assert_allclose(found, kernel(small), rtol=1e-5, atol=1e-7)
    if depth == 1:
        at_zero = float(MLP(1, activation).activation.expr.subs(x, 0))
        np.testing.assert_allclose(module.nngp(X)[0, 0], at_zero**2, atol=1e-12)


def test_slopes_at_a_zero_input() -> None:
    """Of hard tanh's kernel at an input with itself: 2 q near 0."""
    kernel = jaxify(lazy_kernel(GD(), MLP(1, "hard_tanh"))).module.ntk_diagonal
    assert jax.grad(kernel)(0.0) == pytest.approx(2.0, abs=1e-12) == pytest.approx(float(jax.grad(kernel)(1e-3)), abs=1e-6)


@pytest.mark.parametrize("name", ["relu", "step", "abs", "sign", "erf", "gelu"])
def test_duals_keep_their_digits_where_they_vanish(name: str) -> None:
    kernel = lazy_kernel(GD(), MLP(1, name))
    points = [(a, c, b) for a, c, b in covariances(name) if abs(c) < np.sqrt(a * b)]
    values = evaluate(jaxify(kernel).module.nngp_pairs, points)
    with mpmath.workdps(DIGITS):
        exact = [dual_value(kernel.duals[0], tuple(map(mpmath.mpf, point))) for point in points]
        errors = [float(abs(mpmath.mpf(float(v)) / e - 1)) for v, e in zip(values, exact, strict=True)]
    assert max(errors) <= 1e-13


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 4e-16), ("float32", 3e-7)])
def test_determinant(dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.1, 9, (2, 400)).astype(dtype)
    c = (np.sqrt(a.astype(float) * b) * (1 - 10.0 ** -rng.uniform(0, 13, 400)) * rng.choice([-1, 1], 400)).astype(dtype)
    a[:3], b[:3], c[:3] = 1, 1, (1, -1, 0)
    values = np.asarray(jax.jit(safe.det2)(a, b, c))
    assert values.dtype == dtype and values[0] == values[1] == 0
    with mpmath.workdps(60):
        for row in range(400):
            p, q, r = (mpmath.mpf(float(v[row])) for v in (a, b, c))
            # c itself may be rounded beyond √(ab)
            exact = max(p * q - r * r, mpmath.mpf(0))
            assert abs(float(values[row]) - exact) <= tolerance * exact


def test_an_impossible_covariance_is_not_hidden() -> None:
    assert np.isnan(safe.sqrt(safe.det2(1.0, 1.0, 1.001)))


def test_angles_in_float32_and_float64() -> None:
    for dtype, tolerance in (("float64", 5e-16), ("float32", 3e-7)):
        theta = np.concatenate([np.linspace(0, np.pi, 301), [1e-3, 1e-5]])
        c, s = np.cos(theta).astype(dtype), np.abs(np.sin(theta)).astype(dtype)
        exact = np.arctan2(s.astype(float), c.astype(float))
        np.testing.assert_allclose(safe.angle(c, s), exact, rtol=tolerance, atol=1e-16)
        np.testing.assert_allclose(safe.arctan2(s, -c), np.arctan2(s.astype(float), -c.astype(float)), rtol=tolerance, atol=1e-16)
        assert safe.angle(c, s).dtype == dtype
