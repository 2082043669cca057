"""Theory of feedback weights of linear layers: derived fixed points, rates, stability and noise floors against simulation of the update.

The simulations know the update only through the generated gradient of the regulariser.
"""

import jax
import numpy as np
import pytest
import sympy as sp
from pylatexenc.latexwalker import LatexWalker

from derive import BadInput, BatchNoise, CoTraining, alignment_theory, amp, decay, null, self_feedback, sparse, tied_gradient
from derive.alignment import Sigma, l, mu
from derive.cotraining import variance
from derive.primitives import W
from numerics import jaxify

a, d, s, nu, t = sp.symbols("a d s nu t_", positive=True)
RULES = {
    "SA": d * decay / 2 + t * self_feedback,
    "AA": s * sparse / 2 + a * amp,
    "WM": d * decay / 2 + a * amp,
    "IA": d * decay / 2 + a * amp + nu * null / 2,
}
VALUES = {"SA": {"d": 1.0, "t_": 1.0}, "AA": {"s": 1.0, "a": 1.0}, "WM": {"d": 1.0, "a": 1.0}, "IA": {"d": 1.0, "a": 1.0, "nu": 1.0}}


def layer(n=30, m=20, seed=0):
    """W, B(0), and an anisotropic Σ with its eigenvalues."""
    random = np.random.default_rng(seed)
    values = np.exp(0.8 * random.normal(size=n))
    axes = np.linalg.qr(random.normal(size=(n, n)))[0]
    return random.normal(size=(m, n)) / np.sqrt(n), random.normal(size=(n, m)) / np.sqrt(n), axes * values @ axes.T, values


def test_fixed_points_and_rates():
    theories = {name: alignment_theory(rule) for name, rule in RULES.items()}
    assert theories["SA"].fixed_point == t / d * W.T and theories["SA"].rate == d
    assert theories["AA"].fixed_point == a / s * W.T and theories["AA"].rate == s * l
    assert theories["WM"].fixed_point == a / d * Sigma * W.T and theories["WM"].rate == d
    assert theories["IA"].rate == nu * mu + d and sp.simplify(theories["IA"].gain - a * l / (nu * mu + d)) == 0


@pytest.mark.parametrize("name", RULES)
def test_time_course_is_the_flow_of_the_generated_gradient(name):
    """Runge–Kutta on the gradient with inputs whose second moment is exactly Σ, against the closed form; a wrong rate is noticed."""
    W_, B0, Sigma_, values = layer()
    inputs = np.linalg.cholesky(Sigma_) * np.sqrt(len(values))  # X Xᵀ/P = Σ exactly
    gradient = jax.jit(jaxify(RULES[name]).feedback_gradient)
    flow = lambda B: -np.asarray(gradient(W_, B, inputs, **VALUES[name]))
    B, h = B0.copy(), 0.02
    for _ in range(100):
        k1 = flow(B)
        k2 = flow(B + h / 2 * k1)
        k3 = flow(B + h / 2 * k2)
        B = B + h / 6 * (k1 + 2 * k2 + 2 * k3 + flow(B + h * k3))
    theory = jaxify(alignment_theory(RULES[name]))
    closed = theory.feedback(2.0, B0, W_, Sigma_, **VALUES[name])
    # fourth order: (rate · h)⁴ per unit of time, rates up to about 10
    np.testing.assert_allclose(B, closed, rtol=0, atol=1e-4)
    assert np.max(np.abs(B - np.asarray(theory.feedback(2.2, B0, W_, Sigma_, **VALUES[name])))) > 1e-3
    at_rest = theory.fixed_point(W_, Sigma_, **VALUES[name])
    np.testing.assert_allclose(flow(np.asarray(at_rest)), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["SA", "AA", "WM"])
def test_angles_of_wide_layers(name):
    """The average over independent W and B(0); deviations of relative size 1/√(n m)."""
    W_, B0, Sigma_, values = layer(400, 300)
    theory = jaxify(alignment_theory(RULES[name]))
    for time in (0.5, 2.0):
        exact = np.degrees(float(theory.angle(time, B0, W_, Sigma_, **VALUES[name])))
        assert abs(exact - np.degrees(float(theory.random_angle(time, values, **VALUES[name])))) < 0.6
    assert abs(exact - np.degrees(float(theory.random_angle(1.0, values, **VALUES[name])))) > 3


def test_weight_mirror_stands_on_a_knife_edge():
    system = CoTraining(RULES["WM"])
    assert system.is_linear and system.knife_edge(d) == (a * variance,)
    assert set(system.eigenvalues((0, 0))) == {a * variance - d, -a * variance - d}
    assert sp.expand(system.balance_rate - 2 * d) == 0


def test_information_alignment_has_a_stable_point():
    system = CoTraining(RULES["IA"])
    assert not system.is_linear
    aligned = [point for point in system.fixed_points if point != (0, 0)]
    assert len(aligned) == 2 and sp.expand(system.balance_rate - 2 * d) == 0
    for point in aligned:
        assert point[0] == point[1] and sp.simplify(point[0] ** 2 - (a * variance - d) / (nu * variance)) == 0
        assert {sp.expand(value) for value in system.eigenvalues(point)} == {sp.expand(-2 * (a * variance - d)), -2 * d}


def test_growth_and_balance_in_simulation():
    """W and B moved together by their generated gradients, white inputs of second moment 3/2."""
    W_, B0, _, _ = layer(12, 8)
    inputs = np.sqrt(1.5 * 12) * np.eye(12)
    grown = {}
    for forgetting in (1.0, 1.5, 2.0):
        grown[forgetting] = _cotrained("WM", {"d": forgetting, "a": 1.0}, W_, B0, inputs, 6.0)
    for forgetting, (W_end, B_end, W_mid, B_mid) in grown.items():
        rate = np.log(np.linalg.norm(W_end + B_end.T) / np.linalg.norm(W_mid + B_mid.T)) / 3.0
        assert abs(rate - (1.5 - forgetting)) < 1e-3  # Euler steps of 0.001
    start = np.linalg.norm(W_ @ W_.T - B0.T @ B0)
    W_end, B_end, *_ = _cotrained("IA", {"d": 0.2, "a": 1.0, "nu": 1.0}, W_, B0, inputs, 4.0)
    left = np.linalg.norm(W_end @ W_end.T - B_end.T @ B_end) / start
    assert abs(left - np.exp(-0.4 * 4)) < 2e-3


def _cotrained(name, values, W_, B, inputs, until, h=0.001):
    module = jaxify(RULES[name].configure(update_forward=True))

    def step(_, both):
        W_, B = both
        return W_ - h * module.forward_gradient(W_, B, inputs, **values), B - h * module.feedback_gradient(W_, B, inputs, **values)

    half = jax.jit(lambda both: jax.lax.fori_loop(0, int(until / h / 2), step, both))
    middle = half((W_, B))
    return (*map(np.asarray, half(middle)), *map(np.asarray, middle))


def test_batch_noise_vanishes_where_it_is_multiplicative():
    assert BatchNoise(alignment_theory(RULES["AA"])).vanishes and BatchNoise(alignment_theory(RULES["SA"])).vanishes
    assert not BatchNoise(alignment_theory(RULES["WM"])).vanishes
    floor = BatchNoise(alignment_theory(RULES["WM"])).white_floor
    assert floor.has(d) and not floor.has(a)


@pytest.mark.parametrize("name, n, m", [("WM", 40, 30), pytest.param("IA", 40, 20, marks=pytest.mark.slow)])
def test_batch_noise_floor(name, n, m):
    """Root mean square over time and 4 runs of the deviation from B*, and the angle that it leaves."""
    random, eta, batch, steps = np.random.default_rng(3), 0.05, 20, 1500
    W_ = random.normal(size=(m, n)) / np.sqrt(n)
    module, theory = jaxify(RULES[name]), jaxify(BatchNoise(alignment_theory(RULES[name])))
    star = theory.fixed_point(W_, np.eye(n), **VALUES[name])

    def step(B, key):
        inputs = jax.random.normal(key, (n, batch))
        B = B - eta * module.feedback_gradient(W_, B, inputs, **VALUES[name])
        return B, (((B - star) ** 2).sum(), (B * W_.T).sum() / jax.numpy.linalg.norm(B))

    run = jax.jit(jax.vmap(lambda key: jax.lax.scan(step, star, jax.random.split(key, steps))[1]))
    deviations, along = (np.asarray(each)[:, 200:].mean(axis=1) for each in run(jax.random.split(jax.random.key(0), 4)))
    angle, N = theory.floor(W_, np.eye(n), eta, batch, **VALUES[name])
    error = deviations.std(ddof=1) / 2
    assert abs(deviations.mean() - N.sum()) < 4 * error + 0.01 * float(N.sum())
    assert abs(deviations.mean() - 0.9 * N.sum()) > 4 * error  # a tenth off is noticed
    measured = np.degrees(np.arccos(along.mean() / np.linalg.norm(W_)))
    assert abs(measured - np.degrees(float(angle))) < 0.3


def test_white_floor_of_the_weight_mirror_is_its_compiled_floor():
    n, m = 100, 60
    W_ = np.random.default_rng(0).normal(size=(m, n)) / 10
    noise = BatchNoise(alignment_theory(RULES["WM"]))
    angle, _ = jaxify(noise).floor(W_, np.eye(n), 0.01, 10, d=1.0, a=1.0)
    named = {"eta": 0.01, "N_b": 10, "n": n, "d": 1.0}
    value = float(noise.white_floor.subs({symbol: named[symbol.name] for symbol in noise.white_floor.free_symbols}))
    assert abs(np.tan(float(angle)) ** 2 / value - 1) < 1e-9


def test_weight_noise():
    """The variance of an autoregression of the derived rate."""
    theory = alignment_theory(RULES["SA"])
    eta, v, rate = 0.05, 1e-3, 0.2
    exact = float(jaxify(theory).weight_noise_variance(eta, v, 0.0, 0.0, d=rate, t_=rate))
    random, x, total = np.random.default_rng(0), np.zeros(4000), []
    for _ in range(2000):
        x = (1 - eta * rate) * x + eta * np.sqrt(v) * random.normal(size=x.shape)
        total.append(np.mean(x**2))
    assert abs(np.mean(total[800:]) / exact - 1) < 0.02  # a hundred relaxation times of 4000 walks: 0.3 %
    assert abs(exact / (eta * v / (2 * rate)) - 1) < 0.02


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: alignment_theory(null.configure(reversed=True)), "does not diagonalise"),
        (lambda: alignment_theory(amp.configure(centred=True)), "no function of second moments"),
        (lambda: alignment_theory(amp.configure(forward_activation="tanh")), "no function of second moments"),
        (lambda: alignment_theory(decay + tied_gradient), "tied gradients"),
        (lambda: alignment_theory(amp.configure(update_forward=True)), "moves W too"),
        (lambda: alignment_theory(2), "no composition of primitives"),
        (lambda: alignment_theory(sparse + null).fixed_point, "on both sides"),
        (lambda: alignment_theory(amp).fixed_point, "grows without end"),
        (lambda: BatchNoise(alignment_theory(sparse + null / 2 + amp)), "batches enter its gradient as"),
        (lambda: jaxify(alignment_theory(sp.Symbol("mu", positive=True) * decay)), "cannot be called 'mu'"),
    ],
)
def test_what_is_not_covered_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize("name", RULES)
def test_documents_parse(name):
    theory = alignment_theory(RULES[name])
    for subject in (theory, CoTraining(RULES[name]), BatchNoise(theory)):
        source = subject.document()
        assert LatexWalker(source, tolerant_parsing=False).get_latex_nodes()[0] and repr(subject)
        assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})
