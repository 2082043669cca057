"""Deep classifiers under direct feedback: how far weights and errors align, layer by layer, while they learn.

    h_l = W_l x_{l−1},  x_l = φ(h_l),  e = softmax(h_L) − y,      ΔW_l ∝ −(φ̇(h_l) ∘ F_l e) x_{l−1}ᵀ,   F_L = 1

The step is that of `train_network`; here the networks have no biases, start from weights of a given size, and may share weights as convolutions
do. All networks of a run have the same feedback F and different starts.

Source: Refinetti et al. 2021, sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import safe
from .draws import normal
from .errors import positive_integer, seed_number
from .networks import ACTIVATIONS, Classes, Layer, NetworkTraining, Setup, Weights, _cross_entropy, _forward, _update

PROBED = 256  # training examples on which errors are compared


@dataclass(frozen=True, eq=False, repr=False)
class DirectRun:
    """What came out, one entry a network.

    Attributes:
        times: steps done at each record, 0 first.
        loss: cross-entropy of the training set, with the labels that were trained.
        accuracy, test: share of right answers on the training set and on the test set.
        weight_alignment: cos ∠(W_l, F_l F_{l−1}ᵀ) for l = 2…L, F_L = 1.
        gradient_alignment: mean over examples of cos ∠ between the errors that backpropagation and F would deliver to layers 1…L − 1.
        weights: W_1…W_L after the last step.
        F: feedback matrices of layers 1…L − 1.

    Shapes:
        loss, accuracy, test (R, T); alignments (R, L − 1, T); W_l (R, n_l, n_{l−1}); F_l (n_l, C).
    """

    times: np.ndarray
    loss: Float[np.ndarray, "R T"]
    accuracy: Float[np.ndarray, "R T"]
    test: Float[np.ndarray, "R T"]
    weight_alignment: Float[np.ndarray, "R L T"]
    gradient_alignment: Float[np.ndarray, "R L T"]
    weights: tuple[np.ndarray, ...]
    F: tuple[np.ndarray, ...]

    def __repr__(self) -> str:
        words = lambda values: ", ".join(f"{value:.2f}" for value in values[..., -1].mean(0))
        return (
            f"DirectRun: {len(self.loss)} networks, {self.times[-1]} steps; loss {self.loss[:, 0].mean():.3g} → {self.loss[:, -1].mean():.3g}, "
            f"test {self.test[:, -1].mean():.3f}; weight alignment of layers 2… {words(self.weight_alignment)}"
        )

    def outputs(self, X: Any, activation: str = "tanh") -> list[np.ndarray]:
        """φ(h_1)…φ(h_{L−1}) and h_L of all networks on some inputs, (R, n_l, P) each."""
        found, x = [], np.broadcast_to(np.asarray(X).T, (len(self.loss), *np.shape(X)[::-1]))
        for W in self.weights:
            found.append(W @ x)
            x = np.asarray(ACTIVATIONS[activation](found[-1]))
        return [np.asarray(ACTIVATIONS[activation](h)) for h in found[:-1]] + [found[-1]]


def train_direct(
    data: Classes,
    widths: Sequence[int] = (100, 100, 100),
    activation: str = "tanh",
    times: Any = (0, 10, 100, 1000),
    *,
    direct: bool = True,
    rate: float = 0.03,
    batch: int = 32,
    start: float = 1.0,
    shared: Sequence[Any] = (),
    seeds: int = 2,
    seed: int = 0,
    feedback: Sequence[Any] | None = None,
    feedback_seed: int = 0,
    dtype: Any = None,
) -> DirectRun:
    """Train classifiers by direct feedback alignment, or by backpropagation.

    Args:
        data: examples.
        widths: of the hidden layers.
        activation: "tanh", "relu" or "linear".
        times: increasing numbers of steps after which to measure.
        direct: False for backpropagation; F is then only what weights are compared with.
        rate, batch: of plain SGD on the mean cross-entropy.
        start: entries of W_l have standard deviation start/√n_{l−1}; 0 is allowed.
        shared: for each layer an array (n_l, n_{l−1}) that says which parameter an entry of W_l is, counted from 1, 0 for entries that stay 0
            (`convolution_matrix` of numbered kernels), or None for a dense layer.
        seeds, seed: number of networks, and of their starts and batches.
        feedback: F_1…F_{L−1}, (n_l, C) each; by default entries uniform on ±1/√n_l.
        feedback_seed: of these.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an unknown activation, times that do not increase, or feedback or arrays of parameters that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is not known here: give one of {', '.join(map(repr, ACTIVATIONS))}")
    kind = jnp.dtype(dtype or jnp.result_type(float))
    sizes = (data.X.shape[1], *widths, data.count)
    steps = _times(times)
    F = tuple(np.asarray(f, kind) for f in (direct_feedback(sizes, seed_number("feedback_seed", feedback_seed)) if feedback is None else feedback))
    if [f.shape for f in F] != (expected := [(n, data.count) for n in widths]):
        raise ValueError(f"feedback of shapes {[f.shape for f in F]}: the hidden layers need {expected}")
    setup = Setup(None, activation, NetworkTraining(batch=batch, rate=rate, momentum=0.0), direct, False, _sharing(shared, sizes))
    keys = jax.random.split(jax.random.key(seed_number("seed", seed)), positive_integer("seeds", seeds, "a number of networks"))
    arrays = tuple(jnp.asarray(value, kind if value.ndim == 2 else None) for value in (data.X, data.labels, data.X_test, data.labels_test))
    weights = jax.vmap(lambda key: _start(key, sizes, F if direct else None, setup, start, kind))(keys)
    advance = jax.jit(jax.vmap(partial(_advance, arrays, setup), in_axes=(0, 0, None, None)))
    look = jax.jit(jax.vmap(partial(_measured, arrays, F, setup)))
    records, done = [], 0
    for step in steps:
        weights = advance(weights, keys, done, step)
        done = step
        records.append(jax.tree.map(np.asarray, look(weights)))
    loss, accuracy, test, weight, gradient = (np.moveaxis(np.stack(values), 0, -1) for values in zip(*records, strict=True))
    return DirectRun(np.array(steps), loss, accuracy, test, weight, gradient, tuple(np.asarray(layer.W) for layer in weights.layers), F)


def direct_feedback(sizes: Sequence[int], seed: int) -> list[np.ndarray]:
    """F_1…F_{L−1}, (n_l, C) each, entries uniform on ±1/√n_l."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (n, sizes[-1])) / np.sqrt(n) for n in sizes[1:-1]]


def _times(times: Any) -> list[int]:
    steps = [int(step) for step in np.asarray(times).ravel()]
    if not steps or steps[0] < 0 or any(one >= other for one, other in pairwise(steps)):
        raise ValueError(f"times={times!r} must be increasing numbers of steps >= 0")
    return steps


def _sharing(shared: Sequence[Any], sizes: tuple[int, ...]) -> tuple[Any, ...]:
    found = tuple(None if places is None else np.asarray(places, int) for places in shared)
    expected = [(m, n) for n, m in pairwise(sizes)]
    if found and (len(found) != len(expected) or any(p is not None and p.shape != shape for p, shape in zip(found, expected, strict=True))):
        raise ValueError(f"shared has arrays of shapes {[p if p is None else p.shape for p in found]}: the layers need {expected}, or None")
    return found


def _start(key: Array, sizes: tuple[int, ...], F: tuple[np.ndarray, ...] | None, setup: Setup, size: float, kind: Any) -> Weights:
    """Weights at the start; the layers above the first hold the feedback to the layer below them, or None with backpropagation."""
    layers = []
    for l, (n, m) in enumerate(pairwise(sizes)):
        places = setup.shared[l] if setup.shared else None
        # a shared weight is drawn once, and its fan-in is the number of weights in a row
        shape, fan_in = ((m, n), n) if places is None else ((int(places.max()) + 1,), np.count_nonzero(places, axis=1).max())
        drawn = (size * normal(jax.random.fold_in(key, l), shape) / np.sqrt(fan_in)).astype(kind)
        W = drawn if places is None else drawn.at[0].set(0)[places]
        layers.append(Layer(W, jnp.zeros((m, 1), kind), None if l == 0 or F is None else jnp.asarray(F[l - 1])))
    rest = tuple((jnp.zeros_like(layer.W), jnp.zeros_like(layer.b)) for layer in layers)
    return Weights(tuple(layers), rest, (None,) * len(layers))


def _advance(arrays: tuple[Array, ...], setup: Setup, weights: Weights, key: Array, first: Array, last: Array) -> Weights:
    """Steps first…last − 1."""
    X, labels = arrays[:2]

    def step(number: Array, weights: Weights) -> Weights:
        own = jax.random.fold_in(jax.random.fold_in(key, 1_000_000), number)
        rows = jax.random.randint(own, (setup.training.batch,), 0, X.shape[0])
        return _update(weights, X[rows].T, labels[rows], own, setup=setup, parameters={})

    return jax.lax.fori_loop(first, last, step, weights)


def _measured(arrays: tuple[Array, ...], F: tuple[np.ndarray, ...], setup: Setup, weights: Weights) -> tuple[Array, ...]:
    """Loss, accuracies and alignments of one network."""
    X, labels, X_test, labels_test = arrays
    layers, above = weights.layers, (*F[1:], np.eye(F[0].shape[1], dtype=F[0].dtype))
    outputs = _forward(layers, X.T, setup.activation)[0][-1]
    right = lambda found, wanted: jnp.mean(jnp.argmax(found, axis=0) == wanted)
    weight = [_cosine(layer.W, upper @ lower.T, (0, 1)) for layer, upper, lower in zip(layers[1:], above, F, strict=True)]
    test = right(_forward(layers, X_test.T, setup.activation)[0][-1], labels_test)
    gradient = _error_alignment(layers, F, setup.activation, X[:PROBED].T, labels[:PROBED])
    return _cross_entropy(outputs, labels), right(outputs, labels), test, jnp.array(weight), gradient


def _error_alignment(layers: tuple[Layer, ...], F: tuple[np.ndarray, ...], activation: str, x: Array, labels: Array) -> Array:
    """Mean cosine of φ̇ ∘ (W_{l+1}ᵀ δ_{l+1}) and φ̇ ∘ (F_l e), layers from the first."""
    hs, _ = _forward(layers, x, activation)
    e = delta = jax.nn.softmax(hs[-1], axis=0) - jax.nn.one_hot(labels, hs[-1].shape[0], dtype=hs[-1].dtype).T
    found = []
    for l in reversed(range(len(F))):
        slope = jax.jvp(ACTIVATIONS[activation], (hs[l],), (jnp.ones_like(hs[l]),))[1]
        delta = slope * (layers[l + 1].W.T @ delta)
        found.append(jnp.mean(_cosine(delta, slope * (F[l] @ e), 0)))
    return jnp.array(found[::-1])


def _cosine(a: Array, b: Any, axis: Any) -> Array:
    """cos ∠ of arrays over some axes; 0 where one vanishes."""
    size = lambda v: jnp.sqrt(jnp.sum(v * v, axis=axis))
    return safe.divide(jnp.sum(a * b, axis=axis), size(a) * size(b))
