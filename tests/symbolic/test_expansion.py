"""Small feature learning: the remainder of the O(γ0²) expansion against exact references falls like γ0⁴."""

from functools import cache

import numpy as np
import pytest
import sympy as sp
from scipy.special import erf

from derive import DFA, FA, GD, MLP, BadInput, Feedback, Hebb, NoClosedForm, Rule, alpha, dphi, h, rho, sqrt, z
from derive.expansion import small_feature_expansion
from numerics import Problem, jaxify, solve_dmft
from numerics.linear import solve_linear

MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))
NO_SLOPE = Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2)))
X = np.array([[0.9, -0.3, 0.5], [0.2, 0.8, -0.6]])
Y, ETA, STEPS = np.array([1.0, -0.7]), 0.4, 6
KX = X @ X.T / 3
NAMES = ("f", "Phi", "G_tilde", "entk")


def quadrature(gamma, phi, slope, pull, correlation, share, nodes=(36, 36, 6, 6)):
    """f, Φ, G̃ and K(t, t) of the discrete mean-field equations with fields on a Gauss–Hermite grid over (u₁, u₂, w(0), q).

    phi, slope: φ and φ̇; pull: p in g̃ = p(h) z̃ with z̃ = correlation·w(0) + √(1 − correlation²)·q + share·(w(t) − w(0)). Fields depend on
    w(0) and q through γ0 only, hence the fewer nodes there.
    """
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in nodes]
    spread = lambda arrays: np.stack(np.meshgrid(*arrays, indexing="ij")).reshape(4, -1)
    grid, weight = spread([points for points, _ in rules]), np.prod(spread([w / w.sum() for _, w in rules]), axis=0)
    field, w0 = np.linalg.cholesky(KX) @ grid[:2], grid[2]
    back = correlation * w0 + np.sqrt(1 - correlation**2) * grid[3]
    w, rate, outputs, features, gradients, own = w0.copy(), ETA * gamma / 2, [], [], [], []
    for _ in range(STEPS):
        active = phi(field)
        outputs.append((active * w) @ weight / gamma)
        error = Y - (outputs[-1] - outputs[0])
        feedback = back + share * (w - w0)
        features.append(active)
        gradients.append(slope(field) * w)
        own.append(pull(field) * feedback)
        field = field + rate * KX @ (error[:, None] * own[-1])
        w = w + rate * error @ active
    pair = lambda a, b: np.einsum("tpi,sqi,i->tpsq", np.array(a), np.array(b), weight, optimize=True)
    Phi, G = pair(features, features), pair(gradients, own)
    equal = lambda array: np.einsum("tmtn->tmn", array)
    return {"f": np.array(outputs) - outputs[0], "Phi": Phi, "G_tilde": G, "entk": equal(Phi) + KX * equal(G)}


def remainders(reference, found, gammas, drop=()):
    """Largest remainder of each quantity at each γ0, and the slopes in log₂."""
    zero = {"f": found["f0"], "Phi": found["Phi0"][None, :, None, :], "G_tilde": found["G_tilde0"][None, :, None, :], "entk": found["entk0"]}
    rest = {name: [] for name in NAMES}
    for gamma in gammas:
        exact = reference(gamma)
        for name in NAMES:
            second = 0.0 if name in drop else gamma**2 * np.asarray(found[name + "2"])
            rest[name].append(np.max(np.abs(exact[name] - np.asarray(zero[name]) - second)))
    return {name: np.log2(np.array(values[:-1]) / values[1:]) for name, values in rest.items()}


def assert_fourth_order(slopes):
    for name, values in slopes.items():
        assert np.all(np.abs(values - 4) < 0.3), (name, values)  # the next order, γ0⁶, is still felt at the larger γ0


@cache
def generated(rule, activation):
    return jaxify(small_feature_expansion(rule, MLP(1, activation)))


def solved(rule, activation, **values):
    return generated(rule, activation).solve(KX, Y, ETA, STEPS, **values)


@pytest.mark.parametrize(("rule", "values"), [(GD(), {}), (FA(rho), {"rho": 0.4}), (DFA(), {}), (MIXTURE, {"alpha": 0.6})], ids=str)
def test_linear_units_against_the_exact_solver(rule, values):
    def reference(gamma):
        s = solve_linear(Problem(X, Y, gamma0=gamma, eta=ETA, steps=STEPS), rule, MLP(1, "linear"), parameters=values)
        return {"f": s.f, "Phi": s.Phi[1].dense(), "G_tilde": s.G_tilde[1].dense(), "entk": s.entk}

    assert_fourth_order(remainders(reference, solved(rule, "linear", **values), (0.4, 0.2, 0.1)))


erf_prime = lambda q: 2 / np.sqrt(np.pi) * np.exp(-(q**2))
FUNCTIONS = {
    "erf": (erf, erf_prime),
    "square": (np.square, lambda q: 2 * q),
    "cube": (lambda q: q**3, lambda q: 3 * q**2),
    "sin": (np.sin, np.cos),
    "gaussian": (lambda q: np.exp(-(q**2)), lambda q: -2 * q * np.exp(-(q**2))),
}
GAMMAS = {"cube": (0.04, 0.02, 0.01), "square": (0.08, 0.04, 0.02)}


@pytest.mark.parametrize(
    ("activation", "rule", "correlation", "share"),
    [
        ("erf", FA(rho), 0.4, 0.0),
        ("square", GD(), 1.0, 1.0),
        ("cube", FA(rho), 0.7, 0.0),
        ("sin", NO_SLOPE, 0.4, 0.0),
        pytest.param("erf", GD(), 1.0, 1.0, marks=pytest.mark.slow),
        pytest.param("sin", GD(), 1.0, 1.0, marks=pytest.mark.slow),
        pytest.param("gaussian", FA(rho), 0.4, 0.0, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_smooth_units_against_quadrature(activation, rule, correlation, share):
    phi, slope = FUNCTIONS[activation]
    pull = np.ones_like if rule is NO_SLOPE else slope
    reference = lambda gamma: quadrature(gamma, phi, slope, pull, correlation, share)
    found = solved(rule, activation, **({"rho": correlation} if rho in rule.parameters else {}))
    assert_fourth_order(remainders(reference, found, GAMMAS.get(activation, (0.2, 0.1, 0.05))))


def test_without_the_second_order_the_slope_is_two():
    """Negative control: the lazy part alone leaves a remainder of order γ0²; so does another rule's second order."""
    reference = lambda gamma: quadrature(gamma, erf, erf_prime, erf_prime, 0.4, 0.0)
    found = solved(FA(rho), "erf", rho=0.4)
    for name, values in remainders(reference, found, (0.1, 0.05, 0.025), drop=NAMES).items():
        assert np.all(np.abs(values - 2) < 0.1), (name, values)
    shifted = {**found, **{name: solved(FA(rho), "erf", rho=0.5)[name] for name in ("f2", "Phi2", "G_tilde2", "entk2")}}
    for name in ("f", "G_tilde", "entk"):
        assert np.all(remainders(reference, shifted, (0.05, 0.025))[name] < 2.5), name


@pytest.mark.slow
def test_sampling_solver_agrees_to_fourth_order():
    """Φ(T, T) of `solve_dmft` at γ0 = 0.8 and 0.4: slope 4, less what γ0⁶ takes at such strengths; sampling errors are 1% of the remainder."""
    found = solved(FA(rho), "erf", rho=0.4)
    rest = []
    for gamma in (0.8, 0.4):
        p = Problem(X, Y, gamma0=gamma, eta=ETA, steps=STEPS)
        s = solve_dmft(p, FA(0.4), MLP(1, "erf"), samples=16384, replicas=8)
        second = gamma**2 * np.asarray(found["Phi2"])[-1, :, -1]
        rest.append(s.Phi[1].block(-1, -1) - np.asarray(found["Phi0"]) - second)
        assert np.max(np.abs(rest[-1])) > 20 * np.max(s.Phi[1].block_se(-1, -1))
    assert 3.4 < np.log2(np.linalg.norm(rest[0]) / np.linalg.norm(rest[1])) < 4.1


def test_lazy_part_is_the_lazy_kernel():
    lazy = jaxify(FA(rho).lazy_kernel(MLP(1, "erf")))
    assert np.allclose(solved(FA(rho), "erf", rho=0.3)["entk0"], lazy(X, rho=0.3), atol=1e-14)


def test_what_it_refuses():
    with pytest.raises(BadInput, match="δ function"):
        small_feature_expansion(GD(), MLP(1, "relu"))
    with pytest.raises(BadInput, match="one hidden layer"):
        small_feature_expansion(GD(), MLP(2, "erf"))
    with pytest.raises(BadInput, match="odd orders"):
        small_feature_expansion(Hebb(), MLP(1, "erf"))
    with pytest.raises(BadInput, match="sigma_b=1/2"):
        small_feature_expansion(GD(), MLP(1, "erf", sigma_b=0.5))
    with pytest.raises(NoClosedForm, match="tanh"):
        small_feature_expansion(GD(), MLP(1, "tanh")).source()


def test_derivation_and_latex():
    expansion = small_feature_expansion(GD(), MLP(1, "erf"))
    assert r"\ddot\varphi" in expansion.latex() and "odd orders of averages vanish" in str(expansion.derivation())
    assert len(expansion.averages["f2"]) > 10 and sp.Integer(1) == expansion.share
    assert expansion.source() == small_feature_expansion(GD(), MLP(1, "erf")).source()
