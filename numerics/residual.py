"""Small residual networks of convolutions whose feedback kernels descend a local regulariser.

A convolution is a dense layer on patches: X has a patch (kernel size² × channels numbers) in every column, one for each example and
position, and W, B act on it as they do in dense layers, B being the backward kernel. So the same generated gradients apply. Averages run
over examples and positions alike; the published code sums over positions, which only rescales the rate.

The task's error goes through B in every convolution and in the readout. Batch normalisation, pooling, rectification and residual sums are
differentiated as they are.

Source: Kunin et al. 2020 (what is transported through B and what is not); He et al. 2016 (residual blocks).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .draws import integer, normal
from .errors import positive_integer, seed_number
from .jaxify import jaxify
from .networks import Classes, NetworkRun, NetworkTraining, Setup, _angle, _cross_entropy, _descent, copied_gradient, followed, parted


class Stage(NamedTuple):
    """One residual block."""

    channels: int
    stride: int


class Norm(NamedTuple):
    """Batch normalisation of one map."""

    scale: Float[Array, "m 1"]
    shift: Float[Array, "m 1"]


@jax.custom_vjp
def through(W: Float[Array, "m n"], B: Float[Array, "n m"], X: Float[Array, "n K"]) -> Float[Array, "m K"]:
    """W X, whose error comes down through B: the derivative by X is B in place of Wᵀ, that by B is zero."""
    return W @ X


through.defvjp(
    lambda W, B, X: (W @ X, (B, X)),
    lambda kept, error: (error @ kept[1].T, jnp.zeros_like(kept[0]), kept[0] @ error),
)


def patches(x: Float[Array, "P H V C"], size: int, stride: int) -> tuple[Float[Array, "n K"], tuple[int, int, int]]:
    """Columns of all patches, zero-padded at the borders, and (examples, rows, columns) of the map that they make."""
    found = jax.lax.conv_general_dilated_patches(x, (size, size), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    P, rows, columns, n = found.shape
    return found.reshape(-1, n).T, (P, rows, columns)


class Network(NamedTuple):
    """Trained and remembered arrays, by name of the map.

    Attributes:
        W: kernels; norms: of batch normalisation.
        B: backward kernels, Wᵀ itself with backpropagation.
        running: means and variances for the test.
    """

    W: dict[str, Any]
    norms: dict[str, Norm]
    B: dict[str, Any]
    running: dict[str, Any]


def shapes(channels: int, stages: tuple[Stage, ...], classes: int) -> dict[str, tuple[int, int, int]]:
    """(outputs, inputs of a patch, patch size) of all maps: stem, two convolutions and a shortcut where needed a block, readout."""
    found, width = {"stem": (stages[0].channels, channels * 9, 3)}, stages[0].channels
    for place, stage in enumerate(stages, 1):
        found[f"block {place} a"] = (stage.channels, width * 9, 3)
        found[f"block {place} b"] = (stage.channels, stage.channels * 9, 3)
        if stage.stride > 1 or stage.channels != width:
            found[f"block {place} shortcut"] = (stage.channels, width, 1)
        width = stage.channels
    return found | {"readout": (classes, width, 0)}


def start(key, sizes: dict[str, tuple[int, int, int]], transported: bool, kind: Any = jnp.float32) -> Network:
    """He initialisation of W, and an independent draw for B."""
    W, B, counts = {}, {}, [m * n for m, n, _ in sizes.values()]
    for (name, (m, n, _)), drawn in zip(sizes.items(), parted(normal(key, (2 * sum(counts),)), counts), strict=True):
        scale = jnp.sqrt((1.0 if name == "readout" else 2.0) / n).astype(kind)
        own, other = scale * drawn.astype(kind)
        W[name] = own.reshape(m, n)
        B[name] = W[name].T if transported else other.reshape(n, m)
    maps = [name for name in sizes if name != "readout"]
    column = lambda name, value: jnp.full((sizes[name][0], 1), value, kind)
    norms = {name: Norm(column(name, 1.0), column(name, 0.0)) for name in maps}
    return Network(W, norms, B, {name: (column(name, 0.0), column(name, 1.0)) for name in maps})


def outputs(network: Network, images: Float[Array, "P H V C"], stages: tuple[Stage, ...], learning: bool):
    """Logits (classes, P), inputs of all maps by name, and the normalisations' new running averages."""
    inputs, running = {}, {}

    def convolve(name: str, x, size: int, stride: int):
        X, place = patches(x, size, stride)
        inputs[name] = X
        h = through(network.W[name], network.B[name], X)
        mean, variance = network.running[name]
        if learning:
            now = jnp.mean(h, axis=1, keepdims=True), jnp.var(h, axis=1, keepdims=True)
            running[name] = 0.9 * mean + 0.1 * now[0], 0.9 * variance + 0.1 * now[1]
            mean, variance = now
        norm = network.norms[name]
        h = norm.scale * (h - mean) / jnp.sqrt(variance + 1e-5) + norm.shift
        return h.T.reshape(*place, -1)

    x = jax.nn.relu(convolve("stem", images, 3, 1))
    for place, stage in enumerate(stages, 1):
        y = jax.nn.relu(convolve(f"block {place} a", x, 3, stage.stride))
        y = convolve(f"block {place} b", y, 3, 1)
        shortcut = f"block {place} shortcut"
        x = jax.nn.relu(y + (convolve(shortcut, x, 1, stage.stride) if shortcut in network.W else x))
    inputs["readout"] = jnp.mean(x, axis=(1, 2)).T
    return through(network.W["readout"], network.B["readout"], inputs["readout"]), inputs, running


def train_residual(
    data: Classes, regulariser: Any, side: int, stages: tuple[Stage, ...] = (Stage(8, 1), Stage(16, 2)),
    training: NetworkTraining | None = None, *, seeds: int = 2, seed: int = 0,
) -> NetworkRun:  # fmt: skip
    """Train residual networks on square images with one composition of primitives.

    Args:
        data: images as rows of side × side numbers, one channel.
        regulariser: without symbols and biases; None for backpropagation. With `update_forward` it moves all kernels but the stem's too.
        side: of the images.
        stages: channels and stride of every residual block.
        training: as for `train_network`, without noise; arithmetic is in single precision.
        seeds, seed: number of networks, and of their random numbers.

    Returns:
        Angles and gains of all maps but the stem, in the order of `shapes`.

    Raises:
        ValueError: images that are not side × side, noise, a regulariser with symbols or biases, or a number of networks or a seed that is none.
    """
    if data.X.shape[1] != side**2:
        raise ValueError(f"side={side} does not fit images of {data.X.shape[1]} numbers: they need side² of them")
    training = training or NetworkTraining()
    setup = Setup(jaxify(regulariser) if regulariser is not None else None, "relu", training)
    _refuse_unknown(setup)
    square = lambda X: jnp.asarray(X, jnp.float32).reshape(-1, side, side, 1)
    arrays = square(data.X), jnp.asarray(data.labels), square(data.X_test), jnp.asarray(data.labels_test)
    keys = jax.random.split(jax.random.key(seed_number("seed", seed)), positive_integer("seeds", seeds, "a number of networks"))
    sizes = shapes(1, stages, data.count)
    run = jax.jit(lambda key: _run(arrays, sizes, stages, setup, key))
    found = [np.stack(each) for each in zip(*(run(key) for key in keys), strict=True)]
    loss, accuracy, angles, gains = found
    return NetworkRun(training.times, loss, accuracy, angles.transpose(0, 2, 1), gains.transpose(0, 2, 1))


def _refuse_unknown(setup: Setup) -> None:
    """Refuse what residual networks do not have, and would leave out."""
    for name, none in (("input_noise", None), ("update_noise", 0), ("forward_noise", 0)):
        if (value := getattr(setup.training, name)) != none:
            raise ValueError(f"{name}={value!r}: residual networks are trained without noise; leave {name} out, or use train_network")
    if setup.module is None:
        return
    if "b" in setup.module.ARGUMENTS:
        raise ValueError(f"{setup.module.NAME} sees biases, which convolutions do not have here: give configure(biased=False), or use train_network")
    if symbols := setup.module.PARAMETERS:
        raise ValueError(f"{symbols[0]} is symbolic in {setup.module.NAME}: give the regulariser with a number in its place")


def _run(arrays, sizes, stages, setup: Setup, key):
    images, labels, images_test, labels_test = arrays
    training = setup.training
    begin, course = jax.random.split(key)
    network = start(begin, sizes, setup.module is None)
    rest = jax.tree.map(jnp.zeros_like, (network.W, network.norms))
    moments = {name: (jnp.zeros_like(B), jnp.zeros_like(B), jnp.zeros((), B.dtype)) for name, B in network.B.items()}

    def step(carry, rows):
        network, velocity, moments = carry
        return update(network, velocity, moments, images[rows], labels[rows], stages, setup)

    def measured(carry):
        network = carry[0]
        found = outputs(network, images_test, stages, learning=False)[0]
        right = jnp.mean((jnp.argmax(found, axis=0) == labels_test) & jnp.all(jnp.isfinite(found), axis=0))
        loss = _cross_entropy(outputs(network, images, stages, learning=False)[0], labels)
        pairs = [(network.B[name], network.W[name].T) for name in network.W if name != "stem"]
        angles = jnp.array([_angle(*pair) for pair in pairs])
        return loss, right, angles, jnp.array([jnp.linalg.norm(B) / jnp.linalg.norm(W) for B, W in pairs])

    rows = integer(course, (training.steps, training.batch), 0, images.shape[0])
    return followed(step, measured, (network, rest, moments), rows, training.times)


def update(network: Network, velocity, moments, images, labels, stages: tuple[Stage, ...], setup: Setup):
    """One step on one batch: SGD with momentum of kernels and norms, the regulariser's descent of backward kernels."""
    training = setup.training

    def loss(trained):
        found, inputs, running = outputs(network._replace(W=trained[0], norms=trained[1]), images, stages, learning=True)
        return _cross_entropy(found, labels), (inputs, running)

    gradient, (inputs, running) = jax.grad(loss, has_aux=True)((network.W, network.norms))
    velocity = jax.tree.map(lambda v, g: training.momentum * v + g, velocity, gradient)
    W = {name: (1 - training.weight_decay) * old - training.rate * velocity[0][name] for name, old in network.W.items()}
    norms = jax.tree.map(lambda old, v: old - training.rate * v, network.norms, velocity[1])
    if setup.module is None:
        return Network(W, norms, {name: kernel.T for name, kernel in W.items()}, running), velocity, moments
    B, kept = {}, {}
    for name, old in network.B.items():
        given = {"W": network.W[name], "B": old, "X": inputs[name]}
        local, copied = copied_gradient(setup.module, given, -training.rate * velocity[0][name])
        change, kept[name] = _descent(local, moments[name], training)
        B[name] = old + change + copied
        if name != "stem":  # below which nothing is sent back
            nothing = {"task_gradient": jnp.zeros_like(W[name])} if "task_gradient" in setup.module.ARGUMENTS else {}
            W[name] = W[name] - training.align_rate * setup.module.forward_gradient(**given, **nothing)
    return Network(W, norms, B, running), velocity, kept
