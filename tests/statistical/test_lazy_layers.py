"""Φ, G, G̃ and H of every layer at initialisation against wide random networks, and what they must add up to."""

from __future__ import annotations

import numpy as np
import pytest

from derive import DFA, FA, GD, GLN, MLP, Delta, Feedback, Hebb, Rule, dphi, erf, h, phi, rho, sqrt, symmetric_alignment, z
from numerics import Problem, solve_lazy, train_finite

NAMES = ("Phi", "G", "G_tilde", "H")
# g̃ is not linear in the feedback field: its variance must be carried down the layers
BOUNDED = Rule("bounded feedback", erf(z) * dphi(h), Feedback(initial=rho, independent=sqrt(1 - rho**2)))
CASES = [
    (GD(), "relu", {}), (FA(rho), "erf", {"rho": 0.5}), (DFA(), "relu", {}), (Hebb(), "relu", {}), (GLN(), "relu", {}),
    (BOUNDED, "relu", {"rho": 0.6}),
]  # fmt: skip
# 32 seeds: a t distribution with 31 degrees of freedom; 24 numbers, correlated, a rule
LIMIT = 4.5


def problem(steps: int = 3) -> Problem:
    random = np.random.default_rng(3)
    return Problem(random.normal(size=(3, 5)), [1.0, -1.0, 0.5], eta=0.4, steps=steps)


def net(activation: str) -> MLP:
    return MLP(depth=2, activation=activation, sigma_w=1.2, sigma_b=0.3)


def scores(theory, networks, shift: int = 0) -> np.ndarray:
    """Largest |z| of each order parameter at t = 0; `shift` compares layer ℓ with ℓ + shift."""
    value = lambda name, l: np.abs(getattr(theory, name)[l + shift].block(0, 0) - getattr(networks, name)[l].block(0, 0))
    error = lambda name, l: getattr(networks, name)[l].block_se(0, 0)
    upper = np.triu_indices(3)
    layers = (1,) if shift else (1, 2)
    return np.array([max((value(name, l) / error(name, l))[upper].max() for l in layers) for name in NAMES])


@pytest.mark.parametrize(("rule", "activation", "parameters"), CASES, ids=lambda case: getattr(case, "name", ""))
def test_networks_start_at_the_lazy_order_parameters(rule, activation, parameters):
    lazy = solve_lazy(problem(), rule, net(activation), parameters=parameters)
    networks = train_finite(problem(steps=1), rule, net(activation), width=600, seeds=32, parameters=parameters)
    assert np.all(scores(lazy, networks) < LIMIT)
    # one layer up is another kernel
    assert scores(lazy, networks, shift=1)[0] > 2 * LIMIT
    if "rho" in parameters:
        other = solve_lazy(problem(), rule, net(activation), parameters={"rho": 0.3})
        assert scores(other, networks)[2] > 2 * LIMIT


@pytest.mark.parametrize(("rule", "activation", "parameters"), [*CASES, (symmetric_alignment(), "erf", {"lambda_": 0.1})])
def test_layers_add_up_to_the_kernel(rule, activation, parameters):
    lazy = solve_lazy(problem(), rule, net(activation), parameters=parameters)
    terms = [lazy.G_tilde[l + 1].equal_time() * (1.2**2 * lazy.Phi[l].equal_time() + 0.3**2) for l in range(3)]
    np.testing.assert_allclose(sum(terms), lazy.entk, rtol=1e-13, atol=1e-14)
    assert np.all(lazy.loss_se == 0) and np.all(lazy.alignment_se == 0) and np.all(lazy.Phi[1].block_se(0, 1) == 0)


def test_hebbian_fields_shrink_with_the_errors():
    """H_μν(t, s) = Δ_μ(t) Δ_ν(s) Φ_μν, between all times."""
    lazy, p = solve_lazy(problem(), Hebb(), net("relu")), problem()
    Delta = p.y - lazy.f
    for t, s in ((0, 0), (2, 1)):
        expected = Delta[t][:, None] * Delta[s][None, :] * lazy.Phi[1].block(0, 0)
        np.testing.assert_allclose(lazy.H[1].block(t, s), expected, atol=1e-13)


def test_alignment_grows_where_feedback_learns():
    lazy = solve_lazy(problem(), symmetric_alignment(), net("erf"), parameters={"lambda_": 0.2})
    assert np.all(np.diff(lazy.alignment, axis=1) > 0.05) and np.all(lazy.alignment[:, 0] == 0)
    with pytest.raises(ValueError, match="solve_dmft a small gamma0"):
        lazy.G_tilde[1].block(0, 1)


def test_mixed_error_signals_are_refused_where_they_matter():
    mixed = Rule("mixed", Delta * phi(h) + z * dphi(h), Feedback(initial=0, direct=1))
    lazy = solve_lazy(problem(), mixed, net("relu"))
    assert np.all(np.isfinite(lazy.loss))
    with pytest.raises(ValueError, match="H of mixed is not known here, as g̃ contains the error signal"):
        lazy.H[1].block(0, 0)
