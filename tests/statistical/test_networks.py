"""Small classifiers with evolving feedback weights: the step against JAX's own gradients, exact identities between rules, and failures."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from derive import Regulariser, alpha, amp, decay, null, self_feedback, tied_gradient
from numerics import jaxify
from numerics.networks import Classes, Layer, NetworkTraining, Setup, Weights, _cross_entropy, _forward, _update, train_network

SHORT = NetworkTraining(steps=40, batch=16, records=4, rate=0.05)


def data(seed=0) -> Classes:
    """Three Gaussian clouds."""
    random = np.random.default_rng(seed)
    centres, labels = 2 * random.normal(size=(3, 6)), random.integers(0, 3, 240)
    X = centres[labels] + random.normal(size=(240, 6))
    return Classes(X[:160], labels[:160], X[160:], labels[160:])


def weights(sizes=(6, 5, 4, 3), transposed=True) -> Weights:
    random = np.random.default_rng(1)
    layers = []
    for index, (n, m) in enumerate(pairwise(sizes)):
        W = jnp.asarray(random.normal(size=(m, n)) / np.sqrt(n))
        B = None if index == 0 else W.T if transposed else jnp.asarray(random.normal(size=(n, m)))
        layers.append(Layer(W, jnp.asarray(random.normal(size=(m, 1))), B))
    zero = lambda layer: (jnp.zeros_like(layer.W), jnp.zeros_like(layer.b))
    moment = lambda layer: None if layer.B is None else (jnp.zeros_like(layer.B), jnp.zeros_like(layer.B), jnp.zeros(()))
    return Weights(tuple(layers), tuple(map(zero, layers)), tuple(map(moment, layers)))


def step(start: Weights, regulariser, training: NetworkTraining) -> Weights:
    setup, examples = Setup(jaxify(regulariser), "tanh", training), data()
    return _update(start, examples.X[:8].T, examples.labels[:8], jax.random.key(0), setup=setup, parameters={})


@pytest.mark.parametrize("transposed", [True, False])
def test_with_transposed_feedback_the_step_is_that_of_autodiff(transposed):
    start, examples = weights(transposed=transposed), data()
    loss = lambda Ws: _cross_entropy(
        _forward(tuple(layer._replace(W=W) for layer, W in zip(start.layers, Ws, strict=True)), examples.X[:8].T, "tanh")[0][-1], examples.labels[:8]
    )
    gradients = jax.grad(loss)([layer.W for layer in start.layers])
    after = step(start, Regulariser(), NetworkTraining(rate=0.1, momentum=0.0))
    gaps = [float(jnp.max(jnp.abs(new.W - (old.W - 0.1 * g)))) for new, old, g in zip(after.layers, start.layers, gradients, strict=True)]
    assert gaps[-1] < 1e-14  # no feedback reaches the readout's own gradient
    assert (max(gaps) < 1e-14) if transposed else (max(gaps[:2]) > 1e-3)


def test_the_alignment_step_is_the_generated_gradient():
    start = weights(transposed=False)
    regulariser = decay / 2 + amp + null / 2
    after = step(start, regulariser, NetworkTraining(align_rate=0.1))
    _, inputs = _forward(start.layers, data().X[:8].T, "tanh")
    for l in (1, 2):
        layer = start.layers[l]
        expected = layer.B - 0.1 * jaxify(regulariser).feedback_gradient(layer.W, layer.B, inputs[l])
        np.testing.assert_allclose(after.layers[l].B, expected, atol=1e-14)
    assert np.array_equal(step(start, Regulariser(), NetworkTraining()).layers[1].B, start.layers[1].B)


def test_kolen_pollack_forgets_the_difference_at_its_decay():
    """B − Wᵀ shrinks by 1 − λ a step exactly when both decays are λ, and not when only B's is."""
    start = weights(transposed=False)
    gap = lambda w: w.layers[1].B - w.layers[1].W.T
    equal = step(start, decay / 2 + tied_gradient, NetworkTraining(weight_decay=0.1, align_rate=0.1))
    np.testing.assert_allclose(gap(equal), 0.9 * gap(start), atol=1e-14)
    unequal = step(start, decay / 2 + tied_gradient, NetworkTraining(weight_decay=0.0, align_rate=0.1))
    assert np.max(np.abs(gap(unequal) - 0.9 * gap(start))) > 1e-3


def test_adam_takes_steps_of_its_rate_at_first():
    start = weights(transposed=False)
    after = step(start, decay / 2 + self_feedback, NetworkTraining(align_rate=0.01, optimiser="adam"))
    np.testing.assert_allclose(np.abs(after.layers[1].B - start.layers[1].B), 0.01, rtol=1e-4)


def test_noise_hits_what_it_is_said_to_hit():
    start, quiet = weights(transposed=False), NetworkTraining(rate=0.1)
    still, noisy, forward = (step(start, Regulariser(), each) for each in (quiet, replace(quiet, update_noise=4.0), replace(quiet, forward_noise=4.0)))
    moved = np.concatenate([np.ravel(a.B - b.B) for a, b in zip(noisy.layers[1:], start.layers[1:], strict=True)])
    # rate √v = 0.2; 32 entries: 12 % standard error
    assert abs(moved.std() / 0.2 - 1) < 0.5 and abs(moved.mean()) < 0.15
    assert all(np.array_equal(a.W, b.W) for a, b in zip(noisy.layers, still.layers, strict=True))
    shaken = np.concatenate([np.ravel(a.W - b.W) for a, b in zip(forward.layers, still.layers, strict=True)])
    assert abs(shaken.std() / 0.2 - 1) < 0.5
    assert all(np.array_equal(a.B, b.B) for a, b in zip(forward.layers[1:], start.layers[1:], strict=True))


def test_noise_builds_up_as_derived():
    """Kolen–Pollack: B − Wᵀ forgets at λ whatever W does, so noise in B adds η² v (1 − q^{2n})/(1 − q²) to its square, q = 1 − λ."""
    training, variances = NetworkTraining(steps=60, batch=16, records=1, rate=0.05, weight_decay=0.02, align_rate=0.02), np.array([0.0, 1.0])
    run = train_network(data(), decay / 2 + tied_gradient, (40,), "tanh", training, parameters={"update_noise": variances}, seeds=8)
    gap = run.sizes**2 * (1 + run.gains**2 - 2 * run.gains * np.cos(np.radians(run.angles)))
    added = (gap[8:] - gap[:8])[:, 0, -1]
    expected = 0.05**2 * (1 - 0.98**120) / (1 - 0.98**2)
    # 120 entries and 8 networks: 5 % standard error, and as much from the overlap with what is left of the start
    assert abs(added.mean() / expected - 1) < 0.25, added
    assert added.mean() < 0.6 * 60 * 0.05**2  # a free walk, were nothing forgotten


def test_numbers_of_training_are_swept_too():
    both = train_network(data(), decay / 2 + self_feedback, (8,), "tanh", SHORT, parameters={"align_rate": [0.001, 0.1]})
    alone = train_network(data(), decay / 2 + self_feedback, (8,), "tanh", replace(SHORT, align_rate=0.1))
    np.testing.assert_allclose(both.angles[2:], alone.angles, rtol=1e-8)
    assert np.all(both.angles[:2, 0, -1] > both.angles[2:, 0, -1] + 10)
    rate = sp.Symbol("rate")
    with pytest.raises(ValueError, match=r"the symbol rate of .* rename the symbol"):
        train_network(data(), rate * decay, (8,), "tanh", SHORT, parameters={"rate": 0.1})


def test_runs_learn_and_align():
    aligned = train_network(data(), decay / 2 + self_feedback, (12,), "tanh", SHORT)
    frozen = train_network(data(), Regulariser(), (12,), "tanh", SHORT)
    assert aligned.accuracy.shape == (2, 4) and aligned.angles.shape == (2, 1, 4)
    assert aligned.accuracy[:, -1].min() > 0.8 and np.all(aligned.loss[:, -1] < aligned.loss[:, 0])
    assert np.all(aligned.angles[:, :, -1] < aligned.angles[:, :, 0]) and frozen.angles[:, :, -1].mean() > aligned.angles[:, :, -1].mean() + 15
    assert np.all(train_network(data(), None, (12,), "relu", SHORT).angles == 0)


def test_parameters_are_trained_side_by_side():
    both = train_network(data(), alpha * decay + self_feedback, (8,), "tanh", SHORT, parameters={"alpha": [0.1, 50.0]})
    alone = train_network(data(), alpha * decay + self_feedback, (8,), "tanh", SHORT, parameters={"alpha": 50.0})
    np.testing.assert_allclose(both.gains[2:], alone.gains, rtol=1e-10)
    assert np.all(both.gains[:2, 0, -1] > 1.2 * both.gains[2:, 0, -1])  # the stronger decay, the smaller B


def test_divergence_is_reported():
    run = train_network(data(), -5 * decay, (8,), "relu", NetworkTraining(steps=3000, batch=16, records=2, align_rate=1.0))
    assert run.diverged.all() and np.all(run.accuracy[:, -1] == 0)


def test_every_step_is_made_and_measured_where_it_says():
    """However many times are measured, there are as many steps, the same ones; whole numbers of them lie between."""
    run = lambda records: train_network(data(), decay / 2 + self_feedback, (8,), "tanh", replace(SHORT, steps=7, records=records), seeds=1)
    some, all_of_them = run(4), run(7)
    assert some.times.tolist() == [1, 3, 5, 7] and all_of_them.times.tolist() == [1, 2, 3, 4, 5, 6, 7]
    for name in ("loss", "angles", "gains"):
        np.testing.assert_allclose(getattr(some, name), getattr(all_of_them, name)[..., some.times - 1], rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: train_network(data(), amp, (4,), "sofmax", SHORT), "activation='sofmax' is not known"),
        (lambda: train_network(data(), alpha * amp, (4,), "tanh", SHORT), "alpha is symbolic"),
        (lambda: train_network(data(), alpha * amp, (4,), "tanh", SHORT, parameters={"alpha": [1, 2], "beta": [1, 2, 3]}), "sequences of one length"),
        (lambda: NetworkTraining(optimiser="adamw"), "optimiser='adamw' is not known"),
        (lambda: NetworkTraining(steps=3), "do not fit into steps=3"),
        (lambda: NetworkTraining(batch=0), "batch=0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
