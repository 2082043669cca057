"""Generated integrals of online learning against independent numerical integration, fields that coincide included."""

import jax
import numpy as np
import pytest
import sympy as sp
from numpy.polynomial.legendre import leggauss
from scipy.special import ndtr

from derive import DFA, Feedback, Rule, erf, exp, relu, sqrt, teacher_student, x, z
from derive.activations import activation
from derive.errors import BadInput, NoClosedForm
from derive.rules import GLN, Hebb
from numerics.jaxify import load_source

UPPER = list(zip(*np.triu_indices(4), strict=True))
FUNCTIONS = {
    "saad": (erf(x / sqrt(2)), lambda q: 2 * ndtr(q) - 1, lambda q: np.sqrt(2 / np.pi) * np.exp(-(q**2) / 2)),
    "cube": ("cube", lambda q: q**3, lambda q: 3 * q**2),
    "sin": ("sin", np.sin, np.cos),
}


def covariance(seed: int, coincide: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    """Fields that are combinations of five normals; equal labels give equal fields."""
    rows = np.random.default_rng(seed).normal(size=(4, 5))[list(coincide)]
    return rows @ rows.T / 5


def entries(C: np.ndarray, n: int) -> list[np.ndarray]:
    return [np.array([C[i, j]]) for i, j in UPPER if i < n and j < n]


def average(C: np.ndarray, f, n: int = 36) -> float:
    """E[f] by a Gauss–Hermite product rule; smooth f only."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    values, basis = np.linalg.eigh(C)
    root = basis * np.sqrt(np.maximum(values, 0))
    grid = np.stack(np.meshgrid(*[nodes] * len(C), indexing="ij"), -1) @ root.T
    weight = np.ones(()) / np.sqrt(2 * np.pi) ** len(C)
    for _ in range(len(C)):
        weight = weight[..., None] * weights
    return float(np.sum(weight * f(*np.moveaxis(grid, -1, 0))))


def orthant(C: np.ndarray, n: int = 60, reach: float = 9.0) -> float:
    """∫_{χ1, χ2, χ3 > 0} χ3 E[max(χ4, 0) | χ1, χ2, χ3], Gauss–Legendre in each direction: I4 of ReLU, by another route."""
    nodes, weights = leggauss(n)
    scale = reach * np.sqrt(np.diag(C))[:3]
    X = np.stack(np.meshgrid(*[(nodes + 1) / 2 * s for s in scale], indexing="ij"), -1)
    W = np.einsum("i,j,k->ijk", *[weights / 2 * s for s in scale])
    inverse = np.linalg.inv(C[:3, :3])
    density = np.exp(-0.5 * np.einsum("...i,ij,...j", X, inverse, X)) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(C[:3, :3]))
    gain = inverse @ C[:3, 3]
    mean, deviation = X @ gain, np.sqrt(C[3, 3] - C[3, :3] @ gain)
    rectified = mean * ndtr(mean / deviation) + deviation * np.exp(-(mean**2) / (2 * deviation**2)) / np.sqrt(2 * np.pi)
    return float(np.sum(W * density * X[..., 2] * rectified))


def over_orthants(C: np.ndarray, coincide: tuple[int, ...], p, g, n: int = 36, reach: float = 8.5) -> float:
    """I4 of functions with kinks at 0 and at most three distinct fields, Gauss–Legendre in each direction of each orthant."""
    nodes, weights = leggauss(n)
    distinct = [coincide.index(label) for label in sorted(set(coincide))]
    C = C[np.ix_(distinct, distinct)]
    scale = reach * np.sqrt(np.diag(C))
    X = np.stack(np.meshgrid(*[np.concatenate([-(nodes + 1), nodes + 1]) / 2 * s for s in scale], indexing="ij"), -1)
    density = np.exp(-0.5 * np.einsum("...i,ij,...j", X, np.linalg.inv(C), X)) / np.sqrt((2 * np.pi) ** len(C) * np.linalg.det(C))
    for axis, s in enumerate(scale):
        density = density * (np.concatenate([weights, weights]) / 2 * s).reshape([-1 if a == axis else 1 for a in range(len(C))])
    a, b, c, d = (X[..., label] for label in coincide)
    return float(np.sum(density * p(a) * p(b) * g(c) * g(d)))


def by_product_rules(C: np.ndarray, g, p, two: int = 36, three: int = 36) -> dict[str, float]:
    """All four integrals, with so many nodes for those of two and of three fields."""
    return {
        "I2": average(C[:2, :2], lambda a, b: g(a) * g(b), n=two),
        "J2": average(C[:2, :2], lambda a, b: p(a) * p(b), n=two),
        "I3": average(C[:3, :3], lambda a, b, c: p(a) * b * g(c), n=three),
        "I4": average(C, lambda a, b, c, d: p(a) * p(b) * g(c) * g(d), n=30),
    }


@pytest.fixture(scope="module", name="relu_module")
def _relu_module():
    module = load_source(teacher_student(DFA(), "relu").source())
    module.I4, module.I4_error = jax.jit(module.I4, static_argnames="order"), jax.jit(module.I4_error)
    return module


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("coincide", [(0, 1, 2, 3), (0, 0, 1, 2), (0, 1, 0, 1), (0, 0, 0, 0)])
def test_smooth_integrals_match_product_quadrature(name, coincide):
    expr, g, p = FUNCTIONS[name]
    module = load_source(teacher_student(DFA(), expr).source())
    C = 0.2 * covariance(3, coincide)
    expected = by_product_rules(C, g, p)
    for integral, size in (("I2", 2), ("J2", 2), ("I3", 3), ("I4", 4)):
        found = float(getattr(module, integral)(*entries(C, size))[0])
        # at these variances the product rule has converged to 1e-9 for erf
        assert found == pytest.approx(expected[integral], rel=2e-8, abs=2e-8), integral


@pytest.mark.parametrize("seed", range(4))
def test_relu_I4_matches_integration_over_the_orthant(relu_module, seed):
    C = covariance(seed)
    found = float(relu_module.I4(*entries(C, 4))[0])
    # both rules converge exponentially; 60 nodes are at rounding for these covariances
    assert found == pytest.approx(orthant(C), abs=1e-11)
    assert float(relu_module.I4_error(*entries(C, 4))[0]) < 1e-11


def test_relu_I4_error_bounds_the_true_error_of_a_coarse_rule(relu_module):
    """With 4 nodes the error is visible, and the change on doubling is at least half of it."""
    C = covariance(7)
    C[0, 2] = C[2, 0] = 0.97 * np.sqrt(C[0, 0] * C[2, 2])
    C += 0.5 * np.diag(np.diag(C)) * 0.2
    coarse, doubled = (float(relu_module.I4(*entries(C, 4), order=order)[0]) for order in (3, 6))
    error = abs(coarse - orthant(C))
    assert error > 1e-8
    assert abs(doubled - coarse) > error / 2


@pytest.mark.parametrize("coincide", [(0, 0, 1, 2), (0, 1, 2, 2), (0, 0, 1, 1), (0, 1, 0, 2), (0, 1, 0, 1), (0, 1, 1, 1), (0, 0, 0, 0)])
def test_relu_I4_where_fields_coincide_is_the_limit_of_distinct_fields(relu_module, coincide):
    """Equal up to rounding: entries of the covariance differ in their last bits, which must not matter."""
    limit = [float(relu_module.I4(*entries(covariance(5, coincide) + eps * np.diag([1.0, 2.0, 3.0, 4.0]), 4))[0]) for eps in (1e-8, 1e-10)]
    found = float(relu_module.I4(*entries(covariance(5, coincide), 4))[0])
    # noise of variance ε changes the average by O(√ε): 1e-5 at 1e-10
    assert found == pytest.approx(limit[1], abs=5e-5)
    assert abs(found - limit[1]) < 0.5 * abs(found - limit[0]) + 1e-8
    noisy = covariance(5, coincide) * (1 + 1e-16 * np.arange(4)[:, None])
    assert float(relu_module.I4(*entries(noisy, 4))[0]) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("swap", [(1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2)])
def test_relu_I4_is_symmetric_in_slopes_and_in_values(relu_module, swap):
    C = covariance(11)
    swapped = C[np.ix_(swap, swap)]
    assert float(relu_module.I4(*entries(C, 4))[0]) == pytest.approx(float(relu_module.I4(*entries(swapped, 4))[0]), abs=1e-13)
    wrong = C[np.ix_((2, 1, 0, 3), (2, 1, 0, 3))]  # a slope for a value is another integral
    assert abs(float(relu_module.I4(*entries(C, 4))[0]) - float(relu_module.I4(*entries(wrong, 4))[0])) > 1e-4


STEP = lambda q: np.where(q > 0, 1.0, 0.0)
KINKED = {
    "abs": ("abs", np.sign, np.abs),
    "absolute value with a line and a constant": (sp.Abs(x) + x / 2 - 2, lambda q: np.sign(q) + 0.5, lambda q: np.abs(q) + q / 2 - 2),
    "piecewise": (sp.Piecewise((x, x > 0), (x / 5, True)), lambda q: np.where(q > 0, 1, 0.2), lambda q: np.where(q > 0, q, q / 5)),
    "maximum": (sp.Max(2 * x, -x / 3), lambda q: np.where(q > 0, 2, -1 / 3), lambda q: np.maximum(2 * q, -q / 3)),
    "relu and a square": (relu(x) + x**2 / 4, lambda q: STEP(q) + q / 2, lambda q: np.maximum(q, 0) + q**2 / 4),
    "absolute value and a square": (sp.Abs(x) + x**2 / 4, lambda q: np.sign(q) + q / 2, lambda q: np.abs(q) + q**2 / 4),
    "relu and a cube": (relu(x) + x**3 / 9, lambda q: STEP(q) + q**2 / 3, lambda q: np.maximum(q, 0) + q**3 / 9),
    "relu, a square and a cube": (
        relu(x) - x**2 / 4 + x**3 / 9,
        lambda q: STEP(q) - q / 2 + q**2 / 3,
        lambda q: np.maximum(q, 0) - q**2 / 4 + q**3 / 9,
    ),
}
COINCIDING = [(0, 1, 2, 2), (0, 1, 1, 2), (0, 0, 1, 2), (0, 1, 0, 2), (0, 1, 0, 1), (0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0)]


@pytest.mark.parametrize("name", KINKED)
def test_I4_with_kinks_where_fields_coincide_matches_integration_over_orthants(name):
    expr, p, g = KINKED[name]
    module = load_source(teacher_student(DFA(), expr).source())
    I4 = jax.jit(module.I4)
    for coincide in COINCIDING:
        C = covariance(5, coincide)
        expected = over_orthants(C, coincide, p, g)
        # cubes reach further into the tails that the reference cuts off
        assert float(I4(*entries(C, 4))[0]) == pytest.approx(expected, abs=1e-8 if "cube" in name else 1e-11), coincide
        # fields that differ by noise of variance 1e-10 change the average by O(1e-5) of itself
        near = C + 1e-10 * np.diag([1.0, 2.0, 3.0, 4.0])
        assert float(I4(*entries(near, 4))[0]) == pytest.approx(expected, abs=1e-4), coincide


def test_rates_equal_the_equations_written_out():
    """Generated einsums against the sums of the derivation, K = 2, M = 1, with noise, decay and mixed feedback."""
    from derive.teacher_student import A, F, Q, R, T, v

    ts = teacher_student(Rule("mixed", z * 1, Feedback(transported="1/3", direct=1)), erf(x / sqrt(2)))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 8))
    C = rows @ rows.T / 8
    values = {"v": rng.normal(size=2), "F": rng.normal(size=2), "A": rng.normal(size=1)}
    module = load_source(ts.source())
    dQ, dR, dv = jax.jit(module.rates)(C[:2, :2], C[:2, 2:], values["v"], values["F"], C[2:, 2:], values["A"], 0.3, 0.4, 0.2)
    number = lambda base, *at: base[tuple(sp.Integer(n + 1) for n in at)]
    put = {number(Q, a, b): C[a, b] for a in range(2) for b in range(2)} | {number(R, a, b): C[a, 2 + b] for a in range(2) for b in range(1)}
    put |= {number(T, a, b): C[2 + a, 2 + b] for a in range(1) for b in range(1)}
    put |= {number(base, a): values[name][a] for name, base in (("v", v), ("F", F), ("A", A)) for a in range(len(values[name]))}
    put |= dict(zip(_parameters(), (0.3, 0.4, 0.2), strict=True))
    found = {f"Q[{a},{b}]": dQ[a - 1, b - 1] for a, b in ((1, 1), (1, 2), (2, 2))} | {f"v[{a}]": dv[a - 1] for a in (1, 2)}
    found |= {f"R[{a},{b}]": dR[a - 1, b - 1] for a in (1, 2) for b in (1,)}
    found["eg"] = jax.jit(module.error)(C[:2, :2], C[:2, 2:], values["v"], C[2:, 2:], values["A"])
    written = ts.at(2, 1)
    assert found.keys() == written.keys()
    for name, expr in written.items():
        assert float(found[name]) == pytest.approx(float(expr.xreplace(put)), rel=1e-11, abs=1e-12), name


def _parameters():
    from derive.symbols import eta, kappa
    from derive.teacher_student import sigma

    return eta, sigma, kappa


@pytest.mark.parametrize("rule", [Hebb(), GLN()])
def test_rules_outside_are_refused_with_a_reason(rule):
    with pytest.raises(BadInput, match=r"pseudo-gradient|gates"):
        teacher_student(rule, "erf")


@pytest.mark.parametrize("name", ["hard_tanh", "elu"])
def test_kinks_without_closed_integrals_are_refused_at_once_with_advice(name):
    with pytest.raises(NoClosedForm, match="take a smooth activation"):
        teacher_student(DFA(), name).source()


REFUSED = {
    "relu + erf": (relu(x) + erf(x), "exponentials or error functions beside kinks"),
    "relu + x^5": (relu(x) + x**5 / 50, "powers above x"),
    "relu^2 + x": (sp.Max(x, 0) ** 2 + x, "four-dimensional orthant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_kinks_beside_what_is_too_long_are_refused_and_small_rates_do_without(name):
    """The closed forms that these would need take minutes, or lose their digits."""
    expr, reason = REFUSED[name]
    with pytest.raises(NoClosedForm, match=rf"{reason}.*small_rate=True"):
        teacher_student(DFA(), expr).source()
    assert teacher_student(DFA(), expr, small_rate=True).source()


# ---- smooth functions without closed integrals ---------------------------------------------------------------------------

SUMMED = {
    "gelu": ("gelu", lambda q: q * ndtr(q), lambda q: ndtr(q) + q * np.exp(-(q**2) / 2) / np.sqrt(2 * np.pi)),
    "softplus": ("softplus", lambda q: np.logaddexp(0, q), lambda q: 1 / (1 + np.exp(-q))),
    "tanh": ("tanh", np.tanh, lambda q: 1 / np.cosh(q) ** 2),
}


@pytest.mark.parametrize("name", SUMMED)
@pytest.mark.parametrize("coincide", [(0, 1, 2, 3), (0, 0, 1, 2), (0, 1, 0, 1), (0, 0, 0, 0)])
def test_summed_integrals_match_product_quadrature(name, coincide):
    """The reference is Gauss–Hermite in as many dimensions as there are fields; tanh's poles keep it at 1e-6 for these variances."""
    expr, g, p = SUMMED[name]
    module = load_source(teacher_student(DFA(), expr).source())
    C = 0.2 * covariance(3, coincide)
    expected = by_product_rules(C, g, p, two=60, three=50)
    wrong = average(C, lambda a, b, c, d: p(a) * g(b) * p(c) * g(d), n=20)
    for integral, size in (("I2", 2), ("J2", 2), ("I3", 3), ("I4", 4)):
        found = float(getattr(module, integral)(*entries(C, size))[0])
        assert found == pytest.approx(expected[integral], abs=3e-6 if name == "tanh" else 3e-8), integral
    assert abs(found - wrong) > 1e-4 or len(set(coincide)) == 1  # where all fields are one, they may be exchanged


def test_the_reported_error_is_that_of_the_sum():
    """Against many more nodes; variances of 2, where tanh's poles are near."""
    module = load_source(teacher_student(DFA(), "tanh").source())
    for seed in range(3):
        C = covariance(seed)
        C *= 2 / np.sqrt(np.outer(np.diag(C), np.diag(C)))
        exact = float(module.I4(*entries(C, 4), order=64)[0])
        reported, true = (float(module.I4_error(*entries(C, 4))[0]), abs(float(module.I4(*entries(C, 4))[0]) - exact))
        assert 1e-9 < true < 3e-3
        assert reported == pytest.approx(true, rel=0.5)


def test_parameters_reach_the_sums():
    slope = sp.Symbol("a", positive=True)
    named = load_source(teacher_student(DFA(), activation(sp.tanh(slope * x), parameters=[slope])).source())
    plain, C = load_source(teacher_student(DFA(), "tanh").source()), 0.2 * covariance(1)
    for integral, size, power in (("I2", 2, 0), ("I3", 3, 0), ("J2", 2, 2), ("I4", 4, 2)):
        value = lambda module, C, integral=integral, size=size, **given: float(getattr(module, integral)(*entries(C, size), **given)[0])
        # g(a h), whose slope carries a factor a for each p, and in I3 a χ₂ that is not scaled against it
        assert value(named, C, a=1.3) == pytest.approx(1.3**power * value(plain, 1.69 * C), rel=1e-10)
        assert value(named, C, a=1.3) != pytest.approx(value(plain, C), rel=1e-2)


def test_long_closed_forms_are_not_derived():
    """x e^{−x²} has a closed I4 that takes minutes; I2, I3 and J2 stay closed."""
    ts = teacher_student(DFA(), x * exp(-(x**2)))
    assert [ts.integrals[name].closed for name in ("I2", "I3", "J2", "I4")] == [True, True, True, False]
    assert "Mehler" in str(ts.derivation()) and "numerical quadrature (powers" in repr(ts)


@pytest.mark.parametrize("shape", ["parameter", "two terms"])
def test_closed_forms_made_long_by_parameters_or_terms_are_not_derived(shape):
    width = sp.Symbol("a", positive=True)
    if shape == "parameter":
        ts, given = teacher_student(DFA(), activation(exp(-width * x**2 / 2), parameters=[width])), {"a": 0.7}
        g, p = lambda q: np.exp(-0.35 * q**2), lambda q: -0.7 * q * np.exp(-0.35 * q**2)
    else:
        ts, given = teacher_student(DFA(), exp(-(x**2) / 2) + exp(-(x**2) / 3)), {}
        g = lambda q: np.exp(-(q**2) / 2) + np.exp(-(q**2) / 3)
        p = lambda q: -q * np.exp(-(q**2) / 2) - 2 * q / 3 * np.exp(-(q**2) / 3)
    assert [ts.integrals[name].closed for name in ("I2", "I3", "J2", "I4")] == [True, True, True, False]
    module, C = load_source(ts.source()), 0.2 * covariance(3)
    # both rules converge exponentially; at these variances to 1e-9
    assert float(module.I4(*entries(C, 4), **given)[0]) == pytest.approx(by_product_rules(C, g, p)["I4"], abs=1e-8)
