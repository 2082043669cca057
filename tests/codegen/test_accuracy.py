"""Generated kernels against 200-digit evaluations of the same formulas, as functions of the input covariance."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp
from kernel_reference import DIGITS, dual_value, kernel_values

from derive import GD, MLP, alpha, exp, lazy_kernel, step, x
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
