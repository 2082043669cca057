"""What solutions say about single layers."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from derive import DFA, FA, GD, MLP, Hebb, Loss, f, y
from numerics import Problem, alignment_with, entk_layers, learning_shares, movement, solve_dmft, train_finite
from numerics.dynamics import dynamics
from numerics.finite import draw

RANDOM = np.random.default_rng(3)
P = Problem(RANDOM.normal(size=(3, 5)), RANDOM.normal(size=3), gamma0=1.0, eta=0.2, steps=4)
NET = MLP(depth=2, activation="tanh", sigma_w=1.2, sigma_b=0.3)


@pytest.fixture(scope="module")
def solution():
    return solve_dmft(P, FA(0.5), NET, samples=64, replicas=2)


def test_layers_add_up(solution):
    terms, errors = entk_layers(solution)
    assert terms.shape == errors.shape == (3, 4, 3, 3)
    np.testing.assert_allclose(terms.sum(axis=0), solution.entk, atol=1e-12)  # round-off
    shares, _ = learning_shares(solution)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-12)
    Delta = P.y - solution.f
    descent = np.einsum("tm,tmn,tn->t", Delta, solution.entk, Delta)
    by_hand = np.einsum("tm,ltmn,tn->lt", Delta, terms, Delta) / descent
    assert np.abs(shares - by_hand).max() < 0.02  # ratio of means against mean of ratios of two replicas that differ by 10 %


def test_shares_of_a_loss_that_is_linear_in_the_output(solution):
    """Its error signal is the targets, at all times."""
    linear = replace(solution, problem=replace(P, loss=Loss("correlation", -y * f)))
    shares, _ = learning_shares(linear)
    terms, _ = entk_layers(solution)
    descent = np.einsum("m,ltmn,n->lt", P.y, terms, P.y)
    assert np.abs(shares - descent / descent.sum(axis=0)).max() < 0.02  # as above


def test_a_layer_is_what_its_weights_contribute():
    """Against automatic differentiation of a network with respect to one weight matrix at a time."""
    net = MLP(depth=2, activation="tanh")
    N = 40
    trained = train_finite(P, GD(), net, width=N, seeds=1)
    terms, _ = entk_layers(trained)
    drawn = draw(jax.random.split(jax.random.key(0), 1), P.D, dynamics(GD(), net)[0], N, jnp.float64)
    weights = [drawn["input"][0][0], drawn["hidden"][0][0], drawn["readout"][0][0]]

    def f(W, x):
        h = jnp.tanh(W[0] @ x / jnp.sqrt(P.D))
        return (W[2] @ jnp.tanh(W[1] @ h / jnp.sqrt(N)))[0] / N

    slopes = jax.vmap(jax.grad(f), (None, 0))(weights, jnp.asarray(P.X))
    for l, slope in enumerate(slopes):
        flat = slope.reshape(len(P.X), -1)
        # f carries 1/(γ0 N), the update γ0: what is left of both is one power of N
        np.testing.assert_allclose(terms[l, 0], N * flat @ flat.T, rtol=1e-9)


@pytest.mark.parametrize("rule", [DFA(), Hebb()], ids=["DFA", "Hebb"])
def test_at_the_start_only_the_last_layer_learns_with_dfa_and_hebb(rule):
    shares, _ = learning_shares(solve_dmft(P, rule, MLP(2, "tanh"), samples=512, replicas=4))
    # G̃ vanishes at infinite width; sampling leaves 1/√512 of correlation between feedback and gradient
    np.testing.assert_allclose(shares[:, 0], [0.0, 0.0, 1.0], atol=0.1)
    assert np.abs(learning_shares(solve_dmft(P, FA(1), MLP(2, "tanh"), samples=512))[0][:, 0] - [0.0, 0.0, 1.0]).max() > 0.2


def test_movement_and_alignment(solution):
    moved, error = movement(solution.Phi[2])
    assert moved[0] == error[0] == 0.0
    a, b = (solution.Phi[2].block_replicas(t, t) for t in (-1, 0))
    np.testing.assert_allclose(moved[-1], np.mean([np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]))
    for name, centred in (("cka", True), ("kta", False)):
        mean, se = alignment_with(solution.Phi[1], P.y, centred)
        np.testing.assert_array_equal(mean, getattr(solution, name)[0])
        np.testing.assert_array_equal(se, getattr(solution, f"{name}_se")[0])
    assert alignment_with(solution.G_tilde[1], P.y)[0].shape == (4,)


def test_alignment_of_kernels_with_an_index_for_each_output():
    p = replace(P, y=np.stack([P.y, P.y**2], axis=1), y_test=None, X_test=None)
    found = solve_dmft(p, GD(), MLP(depth=1, activation="erf"), samples=64, replicas=2)
    G = found.G_tilde[1].equal_time_replicas()
    expected = np.mean([p.y.ravel() @ K @ p.y.ravel() / np.linalg.norm(K) / np.sum(p.y**2) for K in G[:, -1]])
    np.testing.assert_allclose(alignment_with(found.G_tilde[1], p.y, centred=False)[0][-1], expected)
    assert alignment_with(found.Phi[1], p.y)[0].shape == (p.steps,)
