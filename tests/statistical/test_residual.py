"""Residual networks of convolutions: against JAX's own convolution and autodiff, and the alignment step of backward kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from derive import alpha, amp, decay, null, tied_gradient
from numerics import Classes, NetworkTraining, Stage, jaxify, residual, train_residual
from numerics.networks import Setup

STAGES = (Stage(3, 1), Stage(4, 2))
SIZES = residual.shapes(1, STAGES, 3)


def network(transported: bool):
    return residual.start(jax.random.key(0), SIZES, transported, jnp.float64)


def images():
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(5, 4, 4, 1))), jnp.asarray(random.integers(0, 3, 5))


def moved(start, regulariser, training):
    setup = Setup(jaxify(regulariser), "relu", training)
    velocity = jax.tree.map(jnp.zeros_like, (start.W, start.norms))
    moments = {name: (jnp.zeros_like(B), jnp.zeros_like(B), jnp.zeros(())) for name, B in start.B.items()}
    step = jax.jit(residual.update, static_argnames=("stages", "setup"))
    return step(start, velocity, moments, *images(), stages=STAGES, setup=setup)[0]


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_make_a_convolution(stride):
    random = np.random.default_rng(1)
    x, kernel = random.normal(size=(2, 5, 5, 3)), random.normal(size=(4, 27))
    X, place = residual.patches(jnp.asarray(x), 3, stride)
    ours = (kernel @ X).T.reshape(*place, 4)
    # patches count channels first
    as_kernel = kernel.reshape(4, 3, 3, 3).transpose(2, 3, 1, 0)
    theirs = jax.lax.conv_general_dilated(x, as_kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("transported", [True, False])
def test_with_transposed_kernels_gradients_are_those_of_autodiff(transported, monkeypatch):
    start, (x, labels) = network(transported), images()

    def gradients():
        loss = lambda W: residual._cross_entropy(residual.outputs(start._replace(W=W), x, STAGES, learning=True)[0], labels)
        return jax.jit(jax.grad(loss))(start.W)

    ours = gradients()
    monkeypatch.setattr(residual, "through", lambda W, B, X: W @ X)
    theirs = gradients()
    gaps = {name: float(jnp.max(jnp.abs(ours[name] - theirs[name]))) for name in SIZES}
    assert gaps["readout"] < 1e-12
    assert (max(gaps.values()) < 1e-12) if transported else (min(gap for name, gap in gaps.items() if name != "readout") > 1e-5)


def test_the_alignment_step_is_the_generated_gradient_on_patches():
    start, regulariser = network(False), decay / 2 + amp + null / 2
    after = moved(start, regulariser, NetworkTraining(align_rate=0.1))
    inputs = jax.jit(lambda start: residual.outputs(start, images()[0], STAGES, learning=True)[1])(start)
    gradient = jax.jit(jaxify(regulariser).feedback_gradient)
    for name in SIZES:
        expected = start.B[name] - 0.1 * gradient(start.W[name], start.B[name], inputs[name])
        np.testing.assert_allclose(after.B[name], expected, atol=1e-12)


def test_regularisers_move_kernels_where_they_are_asked_to():
    start, regulariser = network(False), (decay / 2 + amp).configure(update_forward=True)
    held, after = moved(start, decay / 2 + amp, NetworkTraining(align_rate=0.1)), moved(start, regulariser, NetworkTraining(align_rate=0.1))
    inputs = jax.jit(lambda start: residual.outputs(start, images()[0], STAGES, learning=True)[1])(start)
    gradient = jax.jit(jaxify(regulariser).forward_gradient)
    for name in SIZES:
        pushed = 0.0 if name == "stem" else 0.1 * gradient(start.W[name], start.B[name], inputs[name])
        np.testing.assert_allclose(after.W[name], held.W[name] - pushed, atol=1e-12)


def test_kolen_pollack_forgets_the_difference_at_its_decay():
    start = network(False)
    after = moved(start, decay / 2 + tied_gradient, NetworkTraining(weight_decay=0.1, align_rate=0.1))
    for name in SIZES:
        np.testing.assert_allclose(after.B[name] - after.W[name].T, 0.9 * (start.B[name] - start.W[name].T), atol=1e-12)


def test_normalisation_remembers_averages():
    start = network(True)
    assert all(np.allclose(mean, 0) and np.allclose(variance, 1) for mean, variance in start.running.values())
    after = moved(start, decay, NetworkTraining())
    x = residual.patches(images()[0], 3, 1)[0]
    np.testing.assert_allclose(after.running["stem"][0], 0.1 * (start.W["stem"] @ x).mean(axis=1, keepdims=True), atol=1e-12)


def clouds() -> Classes:
    """Two classes of images."""
    random = np.random.default_rng(2)
    labels = np.arange(60) % 2
    X = 0.3 * random.normal(size=(60, 16)) + np.where(labels[:, None] == 1, 1.0, -1.0) * np.sign(np.arange(16) % 4 - 1.5)
    return Classes(X[:40], labels[:40], X[40:], labels[40:])


def test_every_step_is_made_and_measured_where_it_says():
    run = lambda records: train_residual(clouds(), decay, 4, (Stage(2, 1),), NetworkTraining(steps=7, batch=8, records=records), seeds=1)
    some, all_of_them = run(4), run(7)
    assert some.times.tolist() == [1, 3, 5, 7] and all_of_them.times.tolist() == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(some.loss, all_of_them.loss[:, some.times - 1], rtol=1e-5)


def test_a_short_run_learns():
    classes = clouds()
    run = train_residual(classes, None, 4, (Stage(2, 1),), NetworkTraining(steps=60, batch=8, records=2, rate=0.05), seeds=1)
    assert run.accuracy[0, -1] == 1 and run.loss[0, -1] < run.loss[0, 0] and np.all(run.angles < 1e-3)
    with pytest.raises(ValueError, match="side=5 does not fit images of 16"):
        train_residual(classes, None, 5)


@pytest.mark.parametrize(
    "regulariser, options, message",
    [
        (decay, {"input_noise": 1.0}, "input_noise=1.0: residual networks are trained without noise"),
        (decay, {"update_noise": 2.0}, "leave update_noise out, or use train_network"),
        (None, {"forward_noise": 2.0}, "forward_noise=2.0"),
        (amp.configure(biased=True), {}, "give configure.biased=False."),
        (alpha * amp, {}, "alpha is symbolic in alpha.amp"),
    ],
)
def test_what_residual_networks_do_not_have_is_refused(regulariser, options, message):
    with pytest.raises(ValueError, match=message):
        train_residual(clouds(), regulariser, 4, (Stage(2, 1),), NetworkTraining(**options))
