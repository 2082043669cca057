"""Rules of a user's own, ten lines each: kernel, equations, infinite width and wide networks from one object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from compare import LIMIT, worst

from derive import (
    MLP,
    BadInput,
    Delta,
    Feedback,
    Rational,
    Rule,
    dmft_equations,
    dphi,
    entrywise_feedback,
    h,
    lazy_kernel,
    phi,
    rho,
    sign_concordant,
    sqrt,
    u,
    z,
)  # fmt: skip
from numerics import Problem, solve_dmft, solve_lazy, train_finite

OWN = {
    "FA without slope": Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2))),
    "GD and DFA": Rule("GD and DFA", dphi(h) * z, Feedback(transported=Rational(3, 5), direct=Rational(4, 5))),
    # error-modulated Hebb with a steeper dependence on the activity, and a pull back of the preactivation
    "Oja-like": Rule("Oja-like", Delta * phi(h) ** 3 - h / 4),
    "squared activity": Rule("squared activity", phi(h) ** 2 * z, Feedback(transported=1)),
}
NET = MLP(depth=2, activation="tanh")


def problem() -> Problem:
    random = np.random.default_rng(11)
    return Problem(random.normal(size=(3, 12)), np.array([1.0, -1.0, 0.5]), gamma0=1.5, eta=0.4, steps=8)


def values(rule: Rule) -> dict[str, float]:
    return {str(p): 0.5 for p in rule.parameters}


@pytest.mark.parametrize("name", OWN)
def test_one_object_drives_everything(name):
    rule = OWN[name]
    assert lazy_kernel(rule, MLP(depth=2, activation="relu")).contributions[-1] != 0
    assert dmft_equations(rule, NET).lazy_limit()[-1] != 0
    theory = solve_dmft(problem(), rule, NET, samples=1024, replicas=8, parameters=values(rule))
    networks = train_finite(problem(), rule, NET, width=1024, seeds=12, seed=3, parameters=values(rule))
    scores = worst(theory, networks)
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.parametrize("pseudo_gradient", [dphi(h) * sp.Max(z, 0), dphi(h) * z + h], ids=["rectified", "linear"])
def test_feedback_that_depends_on_features_at_the_start(pseudo_gradient):
    """⟨∂g̃/∂h⟩ ≠ 0: z = ζ + B φ(h) one layer down. No closed form may stand in for samples there; before, one of independent fields did."""
    rule, net = Rule("own", pseudo_gradient, Feedback(transported=1)), MLP(depth=2, activation="relu")
    p = replace(problem(), gamma0=1e-3)
    theory = solve_dmft(p, rule, net, samples=2048, replicas=8)
    networks = train_finite(p, rule, net, width=1024, seeds=24)
    scores = worst(theory, networks)
    assert max(scores.values()) < LIMIT, scores
    squares = [K.equal_time_replicas()[:, 0, 2, 2] for K in (theory.H[1], networks.H[1])]
    error = np.hypot(*(values.std(ddof=1) / np.sqrt(len(values)) for values in squares))
    assert abs(squares[0].mean() - squares[1].mean()) < LIMIT * error
    if pseudo_gradient.has(sp.Max):
        with pytest.raises(BadInput, match="depends on its own features"):
            solve_lazy(p, rule, net)
    else:
        np.testing.assert_allclose(theory.entk[0], solve_lazy(p, rule, net).entk[0], rtol=1e-12)


def train_entrywise(p: Problem, width: int, seed: int, entry) -> np.ndarray:
    """f(t) of a 2-hidden-layer tanh network with W̃ = entry(W(0), V), written out with nothing of the toolkit."""
    random = np.random.default_rng(seed)
    P, D = p.X.shape
    W0, W1, w = random.normal(size=(width, D)), random.normal(size=(width, width)), random.normal(size=width)
    V1, v = entry(W1, random.normal(size=(width, width))), entry(w, random.normal(size=width))
    outputs, f0, rate = [], 0.0, p.eta * p.gamma0 / P
    for t in range(p.steps):
        h1 = W0 @ p.X.T / np.sqrt(D)
        a1 = np.tanh(h1)
        a2 = np.tanh(W1 @ a1 / np.sqrt(width))
        f = w @ a2 / (p.gamma0 * width)
        f0 = f if t == 0 else f0
        outputs.append(f - f0)
        driven = p.y - outputs[-1]
        g2 = (1 - a2**2) * v[:, None]
        g1 = (1 - a1**2) * (V1.T @ g2) / np.sqrt(width)
        w = w + rate * a2 @ driven
        W1 = W1 + rate / np.sqrt(width) * (g2 * driven) @ a1.T
        W0 = W0 + rate / np.sqrt(D) * (g1 * driven) @ p.X
    return np.array(outputs)


def distance_from(p: Problem, entry):
    """The largest z of the theory's outputs against ten such networks, as a function of the rule, and of other networks likewise."""
    runs = np.stack([train_entrywise(p, 1000, seed, entry) for seed in range(10)])
    mean, error = runs.mean(0)[1:], runs.std(0, ddof=1)[1:] / np.sqrt(len(runs))

    def distance(rule: Rule, solve=solve_dmft, **sizes) -> float:
        found = solve(p, rule, NET, **(sizes or {"samples": 1024, "replicas": 8}))
        return float(np.max(np.abs(found.f[1:] - mean) / np.sqrt(error**2 + found.f_se[1:] ** 2)))

    return distance


def test_feedback_of_cubes_is_no_fa_at_the_readout():
    """W̃ = W³/√15 has the correlation 3/√15 with W, in hidden layers and for lazy training; FA at that correlation is another rule."""
    path, _ = entrywise_feedback(u**3 / sqrt(15))
    cubes, gaussian = (Rule("own", dphi(h) * z, own) for own in (path, replace(path, readout=None)))
    assert lazy_kernel(cubes, NET).expr == lazy_kernel(gaussian, NET).expr
    distance = distance_from(replace(problem(), gamma0=4.0), lambda W, V: W**3 / np.sqrt(15))
    assert distance(cubes) < 5.0 and distance(cubes, train_finite, width=1000, seeds=10) < 5.0
    assert distance(gaussian) > 8.0


def test_sign_concordant_feedback_is_fa_at_its_derived_correlation():
    """Entrywise signs against the theory at ρ = 2/π; ρ = 0.2 is another rule."""
    distance = distance_from(problem(), lambda W, V: np.abs(V) * np.sign(W))
    weaker = Rule("weaker", dphi(h) * z, Feedback(initial=Rational(1, 5), independent=sqrt(1 - Rational(1, 25))))
    # the largest of 21 t-distributed numbers with 9 degrees of freedom
    assert distance(sign_concordant()) < 5.0
    assert distance(weaker) > 8.0
