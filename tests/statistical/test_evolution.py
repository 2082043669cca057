"""Feedback weights that learn: infinite width against wide networks whose feedback matrices are trained entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from compare import LIMIT, worst

from derive import (
    FA,
    GD,
    MLP,
    Evolution,
    Feedback,
    Rational,
    Rule,
    activation_alignment,
    backpropagation,
    dphi,
    feedback_alignment,
    h,
    information_alignment,
    rho,
    sqrt,
    weight_mirror,
    z,
)
from numerics import Problem, solve_dmft, solve_lazy, train_finite
from numerics.mirror import Mirror

FAST = Rational(1, 5)
RULES = {
    "symmetric alignment": Feedback(initial=rho, independent=sqrt(1 - rho**2), evolution=Evolution(decay=FAST, pull=FAST)),
    "weight mirror": Feedback(independent=1, evolution=Evolution(decay=Rational(1, 20), outer=h)),
    "Kolen-Pollack": Feedback(independent=1, evolution=Evolution(decay=Rational(1, 20), copy=1)),
    "information alignment": information_alignment(1, 1, Rational(1, 20)).feedback,
    "activation alignment": activation_alignment(Rational(6, 5)).feedback,
}
# test_mean_field.py compares the solver with their equations
ELSEWHERE = ("weight mirror", "information alignment")


def rule(name: str) -> Rule:
    return Rule(name, dphi(h) * z, RULES[name])


def problem() -> Problem:
    random = np.random.default_rng(7)
    X, X_test = random.normal(size=(3, 12)), random.normal(size=(2, 12))
    return Problem(X, np.array([1.0, -1.0, 0.5]), gamma0=1.5, eta=0.4, steps=10, X_test=X_test)


def pair(name: str, activation: str, depth: int, theory_of: Rule | None = None, width: int = 1024, seeds: int = 12):
    net, parameters = MLP(depth=depth, activation=activation), {"rho": 0.3} if name == "symmetric alignment" else {}
    used = {} if theory_of is not None else parameters
    solution = solve_dmft(problem(), theory_of or rule(name), net, samples=2048, replicas=8, parameters=used)
    return solution, train_finite(problem(), rule(name), net, width=width, seeds=seeds, seed=1, parameters=parameters)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ELSEWHERE)) for name in RULES])
def test_theory_agrees_with_networks(name):
    scores = worst(*pair(name, "tanh", 2))
    assert max(scores.values()) < LIMIT, scores


@pytest.mark.slow
@pytest.mark.parametrize("activation, depth", [("relu", 2), ("tanh", 3)])
@pytest.mark.parametrize("name", RULES)
def test_theory_agrees_with_networks_thoroughly(name, activation, depth):
    # wider than above: kinks make the bias of order 1/N larger
    scores = worst(*pair(name, activation, depth, width=2048, seeds=8))
    assert max(scores.values()) < LIMIT, scores


def test_frozen_feedback_is_not_the_theory_of_learning_feedback():
    scores = worst(*pair("symmetric alignment", "tanh", 2, theory_of=FA(0.3)))
    assert scores["loss"] > 1.5 * LIMIT, scores


@pytest.mark.slow
def test_the_reconstruction_is_part_of_information_alignment():
    scores = worst(*pair("information alignment", "tanh", 2, theory_of=weight_mirror(1, Rational(1, 20))))
    assert max(scores.values()) > 1.5 * LIMIT, scores


def test_responses_of_the_feedback_matrix_are_part_of_activation_alignment(monkeypatch):
    """V comes down and goes up; without conditioning the one on the other the theory is another."""
    for name in ("met_forward", "met_backward"):
        monkeypatch.setattr(Mirror, name, lambda self, small, *_: small)
    wrong = Rule("activation alignment without responses of V", dphi(h) * z, RULES["activation alignment"])
    scores = worst(*pair("activation alignment", "tanh", 2, theory_of=wrong))
    assert max(scores.values()) > LIMIT + 1, scores


@pytest.mark.slow
@pytest.mark.parametrize("ours, plain", [(backpropagation(), GD()), (feedback_alignment(0.6), FA(0.6))])
def test_the_ends_of_the_family_are_known_rules(ours, plain):
    net, options = MLP(depth=2, activation="tanh"), {"samples": 256, "replicas": 1}
    a, b = (solve_dmft(problem(), rule, net, **options) for rule in (ours, plain))
    # backpropagation meets the same vectors along other bases: the samples' own noise differs by that of dropped directions
    np.testing.assert_allclose(a.f, b.f, atol=1e-12 if ours.evolution is None else 0.02)
    one, other = (train_finite(problem(), rule, net, width=64, seeds=2) for rule in (ours, plain))
    np.testing.assert_allclose(one.f, other.f, atol=1e-10)


def test_alignment_grows_to_one_under_symmetric_alignment():
    net = MLP(depth=2, activation="tanh")
    solution = solve_dmft(problem(), rule("symmetric alignment"), net, samples=512, replicas=2, parameters={"rho": 0.0})
    assert np.all(np.abs(solution.alignment[:, 0]) < 0.1) and np.all(solution.alignment[:, -1] > 0.8)


def test_no_learning_is_feedback_alignment():
    net, still = MLP(depth=2, activation="tanh"), Rule("still", dphi(h) * z, Feedback(0, rho, sqrt(1 - rho**2), 0, Evolution()))
    options = {"samples": 256, "replicas": 1, "parameters": {"rho": 0.6}}
    ours = solve_dmft(problem(), still, net, **options)
    plain = solve_dmft(problem(), FA(rho), net, **options)
    np.testing.assert_allclose(ours.f, plain.f, rtol=1e-9, atol=1e-12)


def test_lazy_limit_follows_the_feedback_weights():
    """At γ0 = 0.02 the rich solution is the lazy one with ρ(t); the kernel frozen at its start is far off."""
    net, p = MLP(depth=2, activation="erf"), problem()
    still = Problem(p.X, p.y, gamma0=0.02, eta=p.eta, steps=p.steps)
    moving = {"parameters": {"rho": 0.0}}
    rich = solve_dmft(still, rule("symmetric alignment"), net, samples=1024, replicas=4, **moving)
    lazy, frozen = solve_lazy(still, rule("symmetric alignment"), net, **moving), solve_lazy(still, FA(0), net)
    # O(γ0²) and the sampling error of the kernels
    assert np.max(np.abs(rich.loss - lazy.loss)) < 0.005
    assert np.max(np.abs(frozen.loss - lazy.loss)) > 0.02
