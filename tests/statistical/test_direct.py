"""Direct feedback in deep classifiers: the step against autodiff, shared weights against JAX's convolution, and what alignment is bounded by."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numerics import Classes, train_direct
from numerics.convolution import convolution_alignment, convolution_matrix
from numerics.direct import direct_feedback
from numerics.networks import Layer, NetworkTraining, Setup, Weights, _cross_entropy, _forward, _update

SIZES = (6, 5, 4, 3)


def data(seed=0, inputs=6) -> Classes:
    """Three Gaussian clouds."""
    random = np.random.default_rng(seed)
    centres, labels = 2 * random.normal(size=(3, inputs)), random.integers(0, 3, 240)
    X = centres[labels] + random.normal(size=(240, inputs))
    return Classes(X[:160], labels[:160], X[160:], labels[160:])


def updated(layers, *, direct=True, shared=()):
    zero = tuple((jnp.zeros_like(layer.W), jnp.zeros_like(layer.b)) for layer in layers)
    setup = Setup(None, "tanh", NetworkTraining(rate=1.0, momentum=0.0), direct, False, shared)
    examples = data(inputs=layers[0].W.shape[1])
    return _update(Weights(layers, zero, (None,) * len(layers)), examples.X[:8].T, examples.labels[:8], jax.random.key(0), setup=setup, parameters={})


def layers_of(sizes, feedback):
    random = np.random.default_rng(1)
    Ws = [jnp.asarray(random.normal(size=(m, n)) / np.sqrt(n)) for n, m in pairwise(sizes)]
    return tuple(Layer(W, jnp.zeros((len(W), 1)), None if l == 0 or feedback is None else jnp.asarray(feedback[l - 1])) for l, W in enumerate(Ws))


def test_the_step_carries_the_outputs_error_to_every_layer():
    """Against the formula written out, with another layer's feedback as control; biases stay."""
    F = direct_feedback(SIZES, 0)
    layers, examples = layers_of(SIZES, F), data()
    after = updated(layers)
    hs, inputs = _forward(layers, examples.X[:8].T, "tanh")
    e = np.asarray(jax.nn.softmax(hs[-1], axis=0)) - np.eye(3)[examples.labels[:8]].T
    for l in range(2):
        moved = np.asarray(layers[l].W - after.layers[l].W)
        np.testing.assert_allclose(moved, ((1 - np.tanh(hs[l]) ** 2) * (F[l] @ e)) @ np.asarray(inputs[l]).T / 8, atol=1e-14)
    chained = updated(tuple(layer._replace(B=None) if l == 2 else layer for l, layer in enumerate(layers)))
    assert np.max(np.abs(chained.layers[1].W - after.layers[1].W)) > 1e-3
    assert all(np.all(np.asarray(layer.b) == 0) for layer in after.layers)


def test_without_feedback_matrices_the_step_is_that_of_autodiff():
    layers, examples = layers_of(SIZES, None), data()
    build = lambda Ws: tuple(layer._replace(W=W) for layer, W in zip(layers, Ws, strict=True))
    loss = lambda Ws: _cross_entropy(_forward(build(Ws), examples.X[:8].T, "tanh")[0][-1], examples.labels[:8])
    gradients = jax.grad(loss)([layer.W for layer in layers])
    for old, new, gradient in zip(layers, updated(layers, direct=False).layers, gradients, strict=True):
        np.testing.assert_allclose(old.W - new.W, gradient, atol=1e-14)


def places(c_out, c_in, side, k):
    return convolution_matrix(np.arange(1, c_out * c_in * k * k + 1).reshape(c_out, c_in, k, k), side).astype(int)


def test_shared_weights_move_like_the_kernel_of_a_convolution():
    """JAX's convolution and its gradient by the kernel."""
    random = np.random.default_rng(3)
    kernel, side = random.normal(size=(2, 1, 2, 2)), 3
    where = places(2, 1, side, 2)
    layers = (Layer(jnp.asarray(convolution_matrix(kernel, side)), jnp.zeros((8, 1)), None), *layers_of((9, 8, 3), None)[1:])
    examples = data(inputs=9)

    def loss(kernel):
        maps = jax.lax.conv_general_dilated(examples.X[:8].reshape(8, 1, 3, 3), kernel, (1, 1), "VALID")
        return _cross_entropy(layers[1].W @ jnp.tanh(maps.reshape(8, -1).T), examples.labels[:8])

    after = updated(layers, direct=False, shared=(where, None))
    expected = convolution_matrix(kernel - np.asarray(jax.grad(loss)(jnp.asarray(kernel))), side)
    np.testing.assert_allclose(after.layers[0].W, expected, atol=1e-13)
    assert np.max(np.abs(updated(layers, direct=False).layers[0].W - expected)) > 1e-3


def test_runs_align_from_bottom_to_top_and_backpropagation_does_not():
    times = (0, 8, 400)
    train = lambda start, direct: train_direct(data(), (40, 40, 40), "tanh", times, rate=0.1, start=start, direct=direct)
    run, plain = train(0.01, True), train(1.0, False)
    assert run.weight_alignment.shape == (2, 3, 3) and run.gradient_alignment.shape == (2, 3, 3)
    assert np.all(run.accuracy[:, -1] > 0.9) and np.all(run.test[:, -1] > 0.8)
    early = run.weight_alignment[:, :, 1]
    assert np.all(early[:, 0] > 0.3) and np.all(early[:, 0] > early[:, 1] + 0.1)
    # the readout has 120 entries: a cosine by chance is of size 0.09
    assert np.all(run.weight_alignment[:, :, -1] > 0.6) and np.max(np.abs(plain.weight_alignment)) < 0.4
    assert np.all(run.gradient_alignment[:, :, -1] > 0.4)
    again = train_direct(data(), (40, 40, 40), "tanh", (400,), rate=0.1, start=0.01)
    np.testing.assert_allclose(again.loss[:, -1], run.loss[:, -1], rtol=1e-6)  # records leave no trace
    logits = run.outputs(data().X_test)[-1]
    np.testing.assert_allclose((logits.argmax(1) == data().labels_test).mean(1), run.test[:, -1])


def test_convolutions_stay_below_their_bound():
    where = (places(2, 1, 5, 2), places(2, 2, 4, 2), None)
    run = train_direct(data(inputs=25), (32, 18), "tanh", (0, 30, 200), rate=0.1, start=0.1, shared=where)
    bound = convolution_alignment(run.F[1], run.F[0], (2, 2), 4, 2)
    assert np.all(np.abs(run.weight_alignment[:, 0]) <= bound + 1e-12) and 0.05 < bound < 0.6
    assert np.all((run.weights[1] != 0).sum((1, 2)) == np.count_nonzero(where[1]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activation": "sofmax"}, "activation='sofmax' is not known"),
        ({"times": (5, 5)}, "must be increasing"),
        ({"shared": (None,)}, "the layers need"),
        ({"feedback": [np.ones((4, 2))]}, "the hidden layers need"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        train_direct(data(), **({"widths": (4,), "times": (1,)} | change))
