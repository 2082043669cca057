"""The Gaussian engine against quadrature at 34 digits, which shares no formula with it.

The truth is computed in polar coordinates, u = √a r cos θ, v = √b r cos(θ − θ₀) with cos θ₀ = c/√(ab): the integrand is then analytic
between the kinks' directions, however close to ±1 the correlation is, so that Gauss–Legendre in r and in each sector (or the
trapezoidal rule over the circle, without kinks) converges geometrically. Tolerance 1e-25: a thousandth of what the rules reach.
"""

from __future__ import annotations

import itertools
from functools import cache

import mpmath as mp
import numpy as np
import pytest
import sympy as sp

from derive.activations import activation, gelu, hermite, relu, step
from derive.errors import BadInput, NoClosedForm
from derive.gaussian import Expectation, covariance, expectation
from derive.symbols import alpha, s, u, v, w, x

A, B = sp.symbols("A B", positive=True)
C = sp.Symbol("C", real=True)
COV = [[A, C], [C, B]]
k = sp.Symbol("k", real=True)
DIGITS, TOLERANCE = 34, mp.mpf("1e-25")
RADIUS = 13  # exp(−13²/2) = 2e-37

# Unequal variances, negative correlation, correlations ±0.999.
POINTS = [("1.3", "0.7", "0.45"), ("0.6", "1.5", "-0.55"), ("1", "1", "0.999"), ("0.5", "1.2", "-0.77382")]
KINKED = {
    "relu": "relu", "leaky_relu": x * sp.Heaviside(x) + alpha * x * sp.Heaviside(-x), "abs": "abs", "sign": "sign", "step": "step",
    "relu2": "relu2", "relu3": "relu3", "x4_step": x**4 * sp.Heaviside(x), "max": sp.Max(x, 0), "relu_sq_max": sp.Max(x, 0) ** 2,
}  # fmt: skip
SMOOTH = {
    "linear": "linear", "square": "square", "cube": "cube", "poly6": x**6 - 2 * x**3 + k * x - 1,
    "he4": hermite(4)(x), "he5": hermite(5)(x), "erf": sp.erf(k * x), "erf_root": sp.erf(x / sp.sqrt(2)), "gelu": "gelu",
    "bump": sp.exp(-k * x**2), "exp": sp.exp(k * x), "sin": sp.sin(k * x + alpha), "cos": sp.cos(k * x + alpha), "rbf": "rbf",
    "xbump": x * sp.exp(-(x**2)), "xcosh": x * sp.cosh(x / 2),
}  # fmt: skip
VALUES = {k: sp.Rational(4, 5), alpha: sp.Rational(3, 10)}


@cache
def legendre(order: int) -> list[tuple[mp.mpf, mp.mpf]]:
    """Nodes and weights on [−1, 1] by Newton's method."""
    found = []
    for i in range(order):
        node = mp.cos(mp.pi * (i + mp.mpf(3) / 4) / (order + mp.mpf(1) / 2))
        for _ in range(7):
            before, here = mp.mpf(1), node
            for n in range(2, order + 1):
                before, here = here, ((2 * n - 1) * node * here - (n - 1) * before) / n
            slope = order * (node * here - before) / (node**2 - 1)
            node -= here / slope
        found.append((node, 2 / ((1 - node**2) * slope**2)))
    return found


def panel(left, right, order):
    """Gauss–Legendre on one interval."""
    half, middle = (right - left) / 2, (right + left) / 2
    return [(middle + half * node, half * weight) for node, weight in legendre(order)]


def circle(directions, order):
    """Rule over the circle, split where a kink's argument vanishes; trapezoidal without kinks."""
    if not directions:
        return [(2 * mp.pi * i / order, 2 * mp.pi / order) for i in range(order)]
    cuts = sorted({(angle + side * mp.pi / 2) % (2 * mp.pi) for angle in directions for side in (-1, 1)})
    cuts.append(cuts[0] + 2 * mp.pi)
    return [point for left, right in itertools.pairwise(cuts) for point in panel(left, right, order)]


def truth(f, g, a, b, c, kinked: bool, radial: int, angular: int):
    """E[f(u) g(v)] by quadrature in polar coordinates."""
    a, b, c = map(mp.mpf, (a, b, c))
    turn = mp.acos(c / mp.sqrt(a * b))
    total = mp.mpf(0)
    radii = [(r, weight * r * mp.exp(-r * r / 2)) for r, weight in panel(mp.mpf(0), mp.mpf(RADIUS), radial)]
    for angle, weight in circle((mp.mpf(0), turn) if kinked else (), angular):
        first, second = mp.sqrt(a) * mp.cos(angle), mp.sqrt(b) * mp.cos(angle - turn)
        total += weight * mp.fsum(factor * f(first * r) * g(second * r) for r, factor in radii)
    return total / (2 * mp.pi)


def numeric(expr):
    """A function of x for mpmath."""
    return sp.lambdify(x, expr.subs(VALUES), [{"Heaviside": lambda q, *_: mp.mpf(q > 0), "sign": mp.sign}, "mpmath"])


def value(result, a, b, c):
    return sp.lambdify((A, B, C), sp.sympify(result).subs(VALUES), "mpmath")(*map(mp.mpf, (a, b, c)))


def close(first, second) -> bool:
    return abs(first - second) <= TOLERANCE * max(abs(second), mp.mpf("1e-3"))


def check(f, g, points, kinked, orders=None):
    result = expectation(f.subs(x, u) * g.subs(x, v), COV, variables=(u, v))
    radial, angular = orders or ((64, 28) if kinked else (64, 128))
    with mp.workdps(DIGITS):
        for point in points:
            assert close(value(result, *point), truth(numeric(f), numeric(g), *point, kinked, radial, angular)), (result, point)
    assert not result.has(sp.I, sp.Piecewise, sp.Abs)
    return result


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", KINKED)
def test_kinked_pairs(name, order):
    f = activation(KINKED[name], parameters=(alpha,)).derivative(order)
    check(f, f, POINTS[order:3] if order else POINTS, kinked=True)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_pairs(name, order):
    f = activation(SMOOTH[name], parameters=(k, alpha)).derivative(order)
    narrow = name in ("xbump", "bump")  # cheap, but the integrand is sharper
    check(f, f, POINTS[1 : 3 - order], kinked=False, orders=(84, 192) if narrow else None)


MIXED = {
    "relu × linear": (relu(x), x, True), "erf × square": (sp.erf(x), x**2, False), "erf × cube": (sp.erf(x), x**3, False),
    "relu × sign": (relu(x), sp.sign(x), True), "relu2 × step": (relu(x) ** 2, step(x), True),
    "gelu × erf": (gelu(x), sp.erf(x), False), "sin × cos": (sp.sin(x), sp.cos(x + 1), False), "exp × cube": (sp.exp(x), x**3, False),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_mixed_pairs(name):
    f, g, kinked = MIXED[name]
    check(f, g, POINTS[:1], kinked)


@pytest.mark.parametrize("pair", [(sp.erf(x), step(x)), (gelu(x), relu(x)), (sp.exp(x), relu(x)), (sp.exp(-(x**2)), relu(x) ** 2)])
def test_smooth_times_kinked(pair):
    f, g = pair
    result = expectation(f.subs(x, u) * g.subs(x, v), COV, variables=(u, v))
    point = POINTS[1]
    with mp.workdps(DIGITS):
        assert close(value(result, *point), truth(numeric(f), numeric(g), *point, True, 64, 40))


@pytest.mark.parametrize("name", [*KINKED, *SMOOTH, "hard_tanh", "elu"])
def test_one_variable(name):
    """E[φ(u)²]; hard tanh and ELU close here though their pairs do not."""
    f = activation({**KINKED, **SMOOTH}.get(name, name), parameters=(k, alpha)).expr
    result = expectation(f.subs(x, u) ** 2, [[A]], variables=[u])
    variance = sp.Rational(6, 5)
    with mp.workdps(DIGITS):
        function, deviation = numeric(f), mp.sqrt(mp.mpf(6) / 5)
        density = lambda q: function(q) ** 2 * mp.npdf(q, 0, deviation)
        cuts = [mp.mpf(cut) for cut in (-14, -5, -1, 0, 1, 5, 14)]
        exact = mp.fsum(weight * density(q) for left, right in itertools.pairwise(cuts) for q, weight in panel(left, right, 40))
        assert close(sp.N(result.expr.subs(VALUES).subs(A, variance), DIGITS), exact)
    assert not result.has(sp.I, sp.Piecewise, sp.Abs)


def test_a_wrong_variance_or_sign_is_noticed():
    """Negative control: the comparison fails for the right formula at wrong arguments."""
    f = relu(x)
    result = expectation(relu(u) * relu(v), COV)
    with mp.workdps(DIGITS):
        exact = truth(numeric(f), numeric(f), "1.3", "0.7", "0.45", True, 64, 28)
        assert close(value(result, "1.3", "0.7", "0.45"), exact)
        assert not close(value(result, "1.3", "0.7", "-0.45"), exact)
        assert not close(value(result, "1.3000000001", "0.7", "0.45"), exact)


PRICE = {"relu": relu(x), "gelu": gelu(x), "erf": sp.erf(k * x), "bump": sp.exp(-k * x**2), "cube": x**3}


@pytest.mark.parametrize("names", list(itertools.combinations_with_replacement(PRICE, 2)))
def test_price_theorem(names):
    """∂/∂c E[f(u) g(v)] = E[f'(u) g'(v)], two independent runs of the engine."""
    f, g = (activation(PRICE[name], parameters=(k,)) for name in names)
    left = sp.diff(expectation(f(u) * g(v), COV, variables=(u, v)).expr, C)
    right = expectation(f.derivative(1, u) * g.derivative(1, v), COV, variables=(u, v)).expr
    for point in POINTS:
        assert abs(value(left - right, *point)) < 1e-12


def test_relu_form():
    """The compact form, with the determinant in one piece."""
    root = sp.sqrt(A * B - C**2)
    assert expectation(relu(u) * relu(v), COV) == (root + C * sp.atan2(root, -C)) / (2 * sp.pi)
    assert expectation(step(u) * step(v), COV) == sp.atan2(root, -C) / (2 * sp.pi)
    erf = expectation(sp.erf(u) * sp.erf(v), COV).expr
    assert erf == 2 * sp.atan2(2 * C, sp.sqrt((1 + 2 * A) * (1 + 2 * B) - 4 * C**2)) / sp.pi


# Three and four variables -----------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
FACTOR = RNG.normal(size=(4, 4)) * 0.6
S4 = FACTOR @ FACTOR.T + 0.3 * np.eye(4)


def at_s4(result, *variables):
    """The value at the covariance S4 of (u, v, w, s)."""
    names = [u, v, w, s]
    matrix = covariance(*names)
    return float(result.expr.subs({matrix[i, j]: sp.Float(S4[i, j], 30) for i in range(4) for j in range(i, 4)}))


def c(*labels):
    """S4's entries by 1-based labels, as the paper writes them."""
    return S4[labels[0] - 1, labels[1] - 1]


G = lambda q: sp.erf(q / sp.sqrt(2))
DG = lambda q: sp.sqrt(2 / sp.pi) * sp.exp(-(q**2) / 2)


def gauss_hermite(function, n=20):
    """E[function(u, v, w, s)] at S4 for smooth functions: a 20⁴ tensor rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    grid = np.array(np.meshgrid(*[nodes] * 4, indexing="ij")).reshape(4, -1)
    weight = np.prod(np.array(np.meshgrid(*[weights] * 4, indexing="ij")).reshape(4, -1), axis=0) / (2 * np.pi) ** 2
    return float(weight @ function(*(np.linalg.cholesky(S4) @ grid)))


def test_online_learning_integrals_of_erf():
    """I2, I3, I4, J2 of Saad & Solla 1995 (as in Refinetti et al. 2021), and a tensor rule for I4."""
    i2 = 2 / np.pi * np.arcsin(c(1, 2) / np.sqrt((1 + c(1, 1)) * (1 + c(2, 2))))
    assert at_s4(expectation(G(u) * G(v), covariance(u, v))) == pytest.approx(i2, rel=1e-13)
    lam3 = (1 + c(1, 1)) * (1 + c(3, 3)) - c(1, 3) ** 2
    i3 = 2 / np.pi * (c(2, 3) * (1 + c(1, 1)) - c(1, 2) * c(1, 3)) / ((1 + c(1, 1)) * np.sqrt(lam3))
    assert at_s4(expectation(DG(u) * v * G(w), covariance(u, v, w))) == pytest.approx(i3, rel=1e-13)
    l4 = (1 + c(1, 1)) * (1 + c(2, 2)) - c(1, 2) ** 2
    assert at_s4(expectation(DG(u) * DG(v), covariance(u, v))) == pytest.approx(2 / np.pi / np.sqrt(l4), rel=1e-13)
    l0 = l4 * c(3, 4) - c(2, 3) * c(2, 4) * (1 + c(1, 1)) - c(1, 3) * c(1, 4) * (1 + c(2, 2))
    l0 += c(1, 2) * (c(1, 3) * c(2, 4) + c(1, 4) * c(2, 3))
    side = lambda j: l4 * (1 + c(j, j)) - c(2, j) ** 2 * (1 + c(1, 1)) - c(1, j) ** 2 * (1 + c(2, 2)) + 2 * c(1, 2) * c(1, j) * c(2, j)
    i4 = 4 / np.pi**2 / np.sqrt(l4) * np.arcsin(l0 / np.sqrt(side(3) * side(4)))
    engine = at_s4(expectation(DG(u) * DG(v) * G(w) * G(s), covariance(u, v, w, s)))
    assert engine == pytest.approx(i4, rel=1e-12)
    from scipy.special import erf

    rule = gauss_hermite(lambda p, q, r, t: 2 / np.pi * np.exp(-(p**2 + q**2) / 2) * erf(r / 2**0.5) * erf(t / 2**0.5))
    assert engine == pytest.approx(rule, abs=2e-4)


def test_online_learning_integrals_of_relu_and_linear():
    rho = c(1, 3) / np.sqrt(c(1, 1) * c(3, 3))
    i3 = c(1, 2) * np.sqrt(c(1, 1) * c(3, 3) - c(1, 3) ** 2) / (2 * np.pi * c(1, 1)) + c(2, 3) * (0.25 + np.arcsin(rho) / (2 * np.pi))
    assert at_s4(expectation(step(u) * v * relu(w), covariance(u, v, w))) == pytest.approx(i3, rel=1e-13)
    matrix = covariance(u, v, w, s)
    assert expectation(w * s, matrix, variables=(u, v, w, s)) == matrix[2, 3]
    with pytest.raises(NoClosedForm, match="four-dimensional orthant"):
        expectation(step(u) * step(v) * relu(w) * relu(s), matrix)


def test_polynomials_of_four_variables():
    integrand = u**2 * v * w**3 * s**2 + u * v * w * s - 3 * u**2 * s**2
    rule = gauss_hermite(lambda p, q, r, t: p**2 * q * r**3 * t**2 + p * q * r * t - 3 * p**2 * t**2, n=8)
    assert at_s4(expectation(integrand, covariance(u, v, w, s))) == pytest.approx(rule, rel=1e-11)


def test_three_steps_and_three_relus():
    """Orthant probability ⅛ + Σ asin ρ/(4π); three ReLUs through Price's theorem."""
    angle = lambda i, j: np.arcsin(c(i, j) / np.sqrt(c(i, i) * c(j, j)))
    orthant = 1 / 8 + (angle(1, 2) + angle(1, 3) + angle(2, 3)) / (4 * np.pi)
    matrix = covariance(u, v, w)
    assert at_s4(expectation(step(u) * step(v) * step(w), matrix)) == pytest.approx(orthant, rel=1e-13)
    left = sp.diff(expectation(relu(u) * relu(v) * relu(w), matrix).expr, matrix[0, 1])
    right = expectation(step(u) * step(v) * relu(w), matrix)
    difference = Expectation(left - right.expr)
    assert abs(at_s4(difference)) < 1e-13 < abs(at_s4(right))


# Means, singular covariances, refusals ------------------------------------------------------------------------------


def test_means():
    mean = sp.Symbol("m", real=True)
    result = expectation(relu(u), [[A]], mean=[mean]).expr
    cdf = (1 + sp.erf(mean / sp.sqrt(2 * A))) / 2
    exact = mean * cdf + sp.sqrt(A / (2 * sp.pi)) * sp.exp(-(mean**2) / (2 * A))
    assert sp.simplify(result - exact) == 0
    assert sp.expand(expectation(u**2 * v, COV, mean={u: mean, v: 2}) - (2 * mean**2 + 2 * A + 2 * C * mean)) == 0
    assert expectation(sp.erf(u - 1), [[A]]) == -sp.erf(1 / sp.sqrt(1 + 2 * A))
    shifted = expectation(sp.exp(-(u**2) / 2) * v, COV, mean=[mean, 0])
    rule = mp.quad(lambda q: mp.exp(-((q + 0.4) ** 2) / 2) * 0.45 / 1.3 * q * mp.npdf(q, 0, mp.sqrt(1.3)), [-15, 0, 15])
    assert float(shifted.subs({A: 1.3, B: 0.7, C: 0.45, mean: 0.4})) == pytest.approx(float(rule), rel=1e-12)
    with pytest.raises(NoClosedForm, match="Owen"):
        expectation(relu(u) * relu(v), COV, mean=[1, 2])


def test_singular_covariances():
    assert expectation(relu(u) * relu(v), [[2, 2], [2, 2]]) == 1
    assert expectation(relu(u) * relu(v), [[1, -1], [-1, 1]]) == 0
    assert expectation(gelu(u) * relu(v), [[0, 0], [0, 2]]) == 0
    assert expectation(sp.sign(u) * sp.sign(v), [[A, 0], [0, B]]) == 0
    assert expectation(relu(u + 1), [[0]]) == 1
    assert expectation(u * v + 1, sp.zeros(2)) == 1
    assert expectation(sp.cos(u), [[0]], mean=[1]) == sp.cos(1)
    root = sp.sqrt(A * B)
    assert sp.simplify(expectation(relu(u) * relu(v), [[A, root], [root, B]]) - root / 2) == 0


@pytest.mark.parametrize(
    ("integrand", "reason"),
    [
        (sp.tanh(u) * sp.tanh(v), "tanh"),
        (sp.log(1 + sp.exp(u)), "log"),
        (1 / (1 + sp.exp(-u)), "denominator"),
        (sp.sin(u) * step(v), "sine or cosine times a step"),
        (activation("hard_tanh")(u) * activation("hard_tanh")(v), "Owen's T"),
        (sp.exp(u**3), "quadratic"),
        (sp.sqrt(sp.Abs(u)), "power"),
        (step(u - sp.Symbol("p")) * step(u - sp.Symbol("q")), "order is unknown"),
    ],
)
def test_refusals_name_the_obstruction(integrand, reason):
    with pytest.raises(NoClosedForm, match=reason):
        expectation(integrand, COV, variables=(u, v))


@pytest.mark.parametrize(
    "call",
    [
        lambda: expectation(u * v, [[1, 2]]),
        lambda: expectation(u * v, [[1, 2], [3, 1]]),
        lambda: expectation(u * v, [[1, 2], [2, 1]]),
        lambda: expectation(u * v, [[-1, 0], [0, 1]]),
        lambda: expectation(u, sp.eye(5)),
        lambda: expectation(u * v, {(u, u): 1, (v, v): 1}),
        lambda: expectation(sp.Symbol("p") * sp.Symbol("q"), [[1]]),
        lambda: expectation(u * v, COV, variables=(u,)),
        lambda: expectation(u * v, COV, mean=[1]),
        lambda: expectation(u, [[u]]),
        lambda: expectation("u +", [[1]]),
        lambda: expectation(sp.exp(u**2), [[1]]),
        lambda: expectation(sp.exp(u * v), [[1, 0.5], [0.5, 1]]),
    ],
)
def test_bad_input(call):
    with pytest.raises(BadInput):
        call()


def test_convergence_condition_is_recorded():
    result = expectation(sp.exp(-k * u**2), [[A]], variables=[u])
    assert result == 1 / sp.sqrt(1 + 2 * A * k)
    assert any(child.equation == (2 * A * k + 1 > 0) for entry in result.steps for child in entry.children)


def test_variables():
    p, q = sp.symbols("p q")
    assert expectation(relu(p) * relu(q), COV) == expectation(relu(u) * relu(v), COV)
    assert expectation(x**2, [[A]]) == A
    assert expectation(u**2, COV) == A
    assert expectation(v**2, {(u, u): A, (u, v): C, (v, v): B}) == B
    assert expectation(alpha * v * u, COV) == alpha * C
    assert expectation(relu(u) * v, [[A + 1, 2 * C], [2 * C, B**2]]) == C


def test_result_behaves_as_its_expression():
    result = expectation(relu(u) * relu(v), COV)
    assert sp.simplify(result - result.expr) == 0
    assert 2 * result == 2 * result.expr and hash(result) == hash(result.expr) and result.expr == result
    assert sp.lambdify((A, B, C), result)(1, 1, 0.5) == pytest.approx(float(result.subs({A: 1, B: 1, C: 0.5})))
    assert float(expectation(relu(u) ** 2, [[2]])) == 1.0 and sp.N(expectation(relu(u) ** 2, [[2]])) == 1.0
    assert result.free_symbols == {A, B, C} and sp.latex(result) == result.latex() and str(result) == str(result.expr)
    with pytest.raises(AttributeError):
        result.expr = 0


def test_steps_tell_the_theorems():
    text = str(expectation(gelu(u) * gelu(v), COV).derivation())
    assert "Stein" in text and "Price" in text and "E[sign(" in text
    assert "Complete the square" in str(expectation(sp.exp(-(u**2)) * v**2, COV).derivation())
