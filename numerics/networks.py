"""Small classifiers whose feedback weights descend a local regulariser at every step, batch by batch.

The network is dense, in the standard parametrisation (W ~ N(0, gain/fan-in), biases from zero), trained on the cross-entropy with errors
that come down through B,

    h_l = W_l x_{l−1} + b_l,   x_l = φ(h_l),   δ_l = φ̇(h_l) ∘ B_{l+1} δ_{l+1}.

The regulariser enters through its generated gradients (`derive.Regulariser.source`), one layer at a time; compositions without an
infinite-width limit run here too. All seeds, and all values of the parameters, are trained side by side.

Source: Kunin et al. 2020; Akrout et al. 2019 (noise as input of the weight mirror).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .draws import integers, normal, normals, split
from .dynamics import settle
from .errors import positive_integer, seed_number
from .jaxify import jaxify

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": jax.nn.relu, "linear": lambda q: q}
GAINS = {"relu": 2.0}
OPTIMISERS = ("sgd", "adam")
# What of `NetworkTraining` may be swept.
NUMBERS = ("rate", "momentum", "weight_decay", "align_rate", "align_momentum", "input_noise", "update_noise", "forward_noise")


@dataclass(frozen=True, eq=False)
class Classes:
    """Examples and labels, split.

    Shapes:
        X (P, D), X_test (P_test, D); labels are integers from 0.
    """

    X: Float[np.ndarray, "P D"]
    labels: np.ndarray
    X_test: Float[np.ndarray, "P_test D"]
    labels_test: np.ndarray

    @staticmethod
    def standardised(X: Float[np.ndarray, "P *D"], labels: np.ndarray, X_test: Float[np.ndarray, "P_test *D"], labels_test: np.ndarray) -> Classes:
        """Centred with the mean of the training examples, whose entries get unit mean square; images become rows."""
        mean = X.mean(axis=0)
        scale = (X - mean).std()
        rows = lambda x: ((x - mean) / scale).reshape(len(x), -1)
        return Classes(rows(X), labels, rows(X_test), labels_test)

    @property
    def count(self) -> int:
        """Of classes."""
        return int(max(self.labels.max(), self.labels_test.max())) + 1


@dataclass(frozen=True)
class NetworkTraining:
    """How networks are trained.

    Args:
        steps, batch: updates, and examples in each.
        rate, momentum: of the forward weights' SGD.
        weight_decay: share of the forward weights that every step forgets.
        align_rate, align_momentum: of the feedback weights.
        optimiser: of the feedback weights, "sgd" or "adam".
        input_noise: standard deviation of fresh Gaussian inputs that regularisers see in place of activities; None for activities.
        update_noise: variance v; after every step B gets rate · ξ with E[ξ²] = v.
        forward_noise: the same for W.
        records: how often angles and accuracy are measured, as evenly over the run as whole steps are.
    """

    steps: int = 1600
    batch: int = 64
    rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    align_rate: float = 0.02
    align_momentum: float = 0.0
    optimiser: str = "sgd"
    input_noise: float | None = None
    update_noise: float = 0.0
    forward_noise: float = 0.0
    records: int = 20

    def __post_init__(self) -> None:
        for name, what in (("steps", "a number of updates"), ("batch", "a number of examples"), ("records", "a number of measurements")):
            positive_integer(name, getattr(self, name), what)
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser={self.optimiser!r} is not known: give one of {', '.join(map(repr, OPTIMISERS))}")
        if self.records > self.steps:
            raise ValueError(f"records={self.records} measurements do not fit into steps={self.steps}: give at most as many")

    @property
    def times(self) -> np.ndarray:
        """Updates after which is measured, the last after all of them."""
        return self.steps * np.arange(1, self.records + 1) // self.records


@dataclass(frozen=True, eq=False)
class NetworkRun:
    """What came out, one entry a network.

    Attributes:
        times: steps at which was measured.
        loss, accuracy: cross-entropy of the training set, share of right answers on the test set.
        angles: between B_l and W_lᵀ in degrees, layers from the second; 0 with backpropagation.
        gains: |B_l|/|W_l|.
        sizes: root mean square of the entries of W_l; empty where it was not asked for.

    Shapes:
        loss, accuracy (R, T); angles, gains, sizes (R, L, T), R being parameters × seeds in this order.
    """

    times: np.ndarray
    loss: Float[np.ndarray, "R T"]
    accuracy: Float[np.ndarray, "R T"]
    angles: Float[np.ndarray, "R L T"]
    gains: Float[np.ndarray, "R L T"]
    sizes: Float[np.ndarray, "R L T"] = field(default_factory=lambda: np.zeros((0, 0, 0)))

    @property
    def diverged(self) -> np.ndarray:
        """Which networks have no finite loss at the end."""
        return ~np.isfinite(self.loss[:, -1])


class Layer(NamedTuple):
    """Weights of one layer; B is None for the first, and with backpropagation."""

    W: Float[Array, "m n"]
    b: Float[Array, "m 1"]
    B: Float[Array, "n m"] | None


class Weights(NamedTuple):
    """A network with its optimisers' memories."""

    layers: tuple[Layer, ...]
    velocities: tuple[Any, ...]
    moments: tuple[Any, ...]


def train_network(
    data: Classes,
    regulariser: Any,
    widths: tuple[int, ...] = (96, 96, 96),
    activation: str = "tanh",
    training: NetworkTraining | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    seeds: int = 2,
    seed: int = 0,
) -> NetworkRun:
    """Train classifiers with one composition of primitives.

    Args:
        data: examples.
        regulariser: what the feedback weights descend; None for backpropagation.
        widths: of the hidden layers.
        activation: "tanh", "relu" or "linear".
        training: how; `NetworkTraining()` by default.
        parameters: values of the regulariser's symbols, and of numbers in `training` by name (rate, momentum, weight_decay, align_rate,
            align_momentum, input_noise, update_noise, forward_noise) that replace its own; sequences of equal length are trained side by side.
        seeds: networks for each value.
        seed: of all random numbers.

    Raises:
        ValueError: an unknown activation, or parameters that do not match.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is not known here: give one of {', '.join(map(repr, ACTIVATIONS))}")
    setup = Setup(jaxify(regulariser) if regulariser is not None else None, activation, training or NetworkTraining())
    values = _swept(setup, parameters)
    keys = jax.random.split(jax.random.key(seed_number("seed", seed)), positive_integer("seeds", seeds, "a number of networks"))
    arrays = tuple(jnp.asarray(each) for each in (data.X, data.labels, data.X_test, data.labels_test))
    sizes = (data.X.shape[1], *widths, data.count)
    how = setup.training
    drawn = _drawn(keys, sizes, activation, setup.module is not None, how.steps, how.batch, len(data.X))
    one = lambda given, random: _train(arrays, setup, given, *random)
    found = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))(values, drawn)
    flat = [np.asarray(each).reshape(-1, *each.shape[2:]) for each in found]
    loss, accuracy, *layers = flat
    return NetworkRun(how.times, loss, accuracy, *(each.transpose(0, 2, 1) for each in layers))


class Setup(NamedTuple):
    """What all networks of a run share.

    Attributes:
        module: of the regulariser; None where feedback weights stay.
        activation, training: as for `train_network`.
        direct: whether B carries the output's error, not the next layer's.
        biased: whether biases learn.
        shared: for each layer which parameter an entry of W is, counted from 1, 0 for none; None for a dense layer. Empty if all are dense.
    """

    module: ModuleType | None
    activation: str
    training: NetworkTraining
    direct: bool = False
    biased: bool = True
    shared: tuple[Any, ...] = ()


def _swept(setup: Setup, parameters: Mapping[str, Any] | None) -> dict[str, Array]:
    """Parameters as arrays of one common length."""
    module = setup.module
    given = {str(name): np.atleast_1d(np.asarray(value, float)) for name, value in (parameters or {}).items()}
    length = max((len(value) for value in given.values()), default=1)
    for name, value in given.items():
        if len(value) not in (1, length):
            raise ValueError(f"parameters[{name!r}] has {len(value)} values, others {length}: give sequences of one length")
    if module is not None:
        if clash := set(module.PARAMETERS) & set(NUMBERS):
            raise ValueError(f"the symbol {min(clash)} of {module.NAME} has the name of a number in NetworkTraining: rename the symbol")
        settle(module.NAME, module.PARAMETERS, {name: value[0] for name, value in given.items() if name not in NUMBERS})
    return {name: jnp.broadcast_to(value, (length,)) for name, value in given.items()} or {"": jnp.zeros(1)}


def _drawn(keys, sizes: tuple[int, ...], activation: str, learns: bool, steps: int, batch: int, P: int):
    """Start, rows of all batches and keys for noise, for every network; apart from training, so that it compiles once for all rules."""
    start, course = split(keys).T
    pick, noise = split(course).T
    count = 2 * sum(n * m for n, m in pairwise(sizes))
    return _starts(normals(start, (count,)), sizes, activation, learns), integers(pick, (steps, batch), 0, P), split(noise, steps)


def _train(data, setup: Setup, parameters, start: Weights, rows, keys):
    """One network from start to end: loss, accuracy, angles, gains and sizes at the recorded times."""
    X, labels, X_test, labels_test = data
    training = replace(setup.training, **{name: value for name, value in parameters.items() if name in NUMBERS})
    symbols = {name: value for name, value in parameters.items() if name and name not in NUMBERS}
    update = partial(_update, setup=setup._replace(training=training), parameters=symbols)

    def step(weights: Weights, given):
        rows, key = given
        return update(weights, X[rows].T, labels[rows], key)

    def measured(weights: Weights):
        outputs = lambda inputs: _forward(weights.layers, inputs.T, setup.activation)[0][-1]
        pairs = [(layer.W.T if layer.B is None else layer.B, layer.W.T) for layer in weights.layers[1:]]
        angles = [_angle(*pair) for pair in pairs]
        gains = [jnp.linalg.norm(B) / jnp.linalg.norm(W) for B, W in pairs]
        found = outputs(X_test)
        # a network that has left the finite numbers answers nothing
        right = jnp.mean((jnp.argmax(found, axis=0) == labels_test) & jnp.all(jnp.isfinite(found), axis=0))
        sizes = [jnp.linalg.norm(W) / jnp.sqrt(W.size) for _, W in pairs]
        return _cross_entropy(outputs(X), labels), right, jnp.array(angles), jnp.array(gains), jnp.array(sizes)

    return followed(step, measured, start, (rows, keys), training.times)


def followed(step: Callable, measured: Callable, start: Any, given: Any, times: np.ndarray) -> Any:
    """Measurements after so many steps, each with its entry of the arrays in `given`; one compilation for however many lie between two."""

    def further(state: Any, ends: tuple[Array, Array]) -> tuple[Any, Any]:
        state = jax.lax.fori_loop(*ends, lambda k, state: step(state, jax.tree.map(lambda each: each[k], given)), state)
        return state, measured(state)

    return jax.lax.scan(further, start, (jnp.asarray([0, *times[:-1]]), jnp.asarray(times)))[1]


def parted(drawn: Float[Array, "_"], counts: Sequence[int]) -> list[Float[Array, "2 _"]]:
    """Numbers that were drawn in one go, parted: so many for forward, and as many for feedback weights."""
    return [part.reshape(2, -1) for part in jnp.split(drawn, 2 * np.cumsum(counts)[:-1])]


@partial(jax.jit, static_argnums=(1, 2, 3))
def _starts(drawn, sizes: tuple[int, ...], activation: str, learning: bool) -> Weights:
    return jax.vmap(lambda own: _initial(own, sizes, activation, learning))(drawn)


def _initial(drawn, sizes: tuple[int, ...], activation: str, learning: bool) -> Weights:
    shapes, layers = list(pairwise(sizes)), []
    for index, ((n, m), pair) in enumerate(zip(shapes, parted(drawn, [n * m for n, m in shapes]), strict=True)):
        W, B = jnp.sqrt(GAINS.get(activation, 1.0) / n) * pair
        learns = index > 0 and learning
        layers.append(Layer(W.reshape(m, n), jnp.zeros((m, 1)), B.reshape(n, m) if learns else None))
    rest = lambda layer: jax.tree.map(jnp.zeros_like, (layer.W, layer.b))
    moment = lambda layer: None if layer.B is None else (jnp.zeros_like(layer.B), jnp.zeros_like(layer.B), jnp.zeros(()))
    return Weights(tuple(layers), tuple(map(rest, layers)), tuple(map(moment, layers)))


def _forward(layers: tuple[Layer, ...], x, activation: str):
    """Preactivations of all layers and inputs of all layers, examples as columns; the last layer is linear."""
    hs, inputs = [], [x]
    for layer in layers:
        hs.append(layer.W @ inputs[-1] + layer.b)
        inputs.append(ACTIVATIONS[activation](hs[-1]))
    return hs, inputs[:-1]


def _cross_entropy(outputs: Float[Array, "C P"], labels) -> Float[Array, ""]:
    return -jnp.mean(jax.nn.log_softmax(outputs, axis=0)[labels, jnp.arange(labels.shape[0])])


def _update(weights: Weights, x, labels, key, *, setup: Setup, parameters) -> Weights:
    """One step on one batch: the task's for W and b, the regulariser's for B (and W, where it takes part)."""
    training, layers = setup.training, weights.layers
    hs, inputs = _forward(layers, x, setup.activation)
    error = delta = (jax.nn.softmax(hs[-1], axis=0) - jax.nn.one_hot(labels, hs[-1].shape[0], dtype=hs[-1].dtype).T) / labels.shape[0]
    found = []
    for l in reversed(range(len(layers))):
        layer, (v_W, v_b) = layers[l], weights.velocities[l]
        gradient = delta @ inputs[l].T
        v_W = training.momentum * v_W + (_tied(gradient, setup.shared[l]) if setup.shared else gradient)
        v_b = training.momentum * v_b + jnp.sum(delta, axis=1, keepdims=True) * setup.biased
        task = -training.rate * v_W
        own, other = jax.random.split(jax.random.fold_in(key, l))
        W = (1 - training.weight_decay) * layer.W + task + _noise(other, layer.W, training.rate, training.forward_noise)
        learnt = Layer(W, layer.b - training.rate * v_b, layer.B)
        aligned, moment = _align(layer, learnt, task, inputs[l], weights.moments[l], own, setup, parameters)
        found.append((aligned, (v_W, v_b), moment))
        if l:
            slope = jax.jvp(ACTIVATIONS[setup.activation], (hs[l - 1],), (jnp.ones_like(hs[l - 1]),))[1]
            delta = slope * (layer.W.T @ delta if layer.B is None else layer.B @ (error if setup.direct else delta))
    return Weights(*(tuple(part) for part in zip(*reversed(found), strict=True)))


def _tied(gradient: Float[Array, "m n"], shared: Any) -> Float[Array, "m n"]:
    """The gradient by shared weights, at all of their places; 0 where there is none."""
    if shared is None:
        return gradient
    total = jnp.zeros(int(np.max(shared)) + 1, gradient.dtype).at[shared].add(gradient)
    return total.at[0].set(0)[shared]


def _align(before: Layer, after: Layer, task, x, moment, key, setup: Setup, parameters) -> tuple[Layer, Any]:
    """B's own step from the weights before the update, the task's part of the forward update that it copies, and noise."""
    if before.B is None or setup.module is None:
        return after, moment
    training, module = setup.training, setup.module
    inner, outer = jax.random.split(key)
    seen = x if training.input_noise is None else training.input_noise * normal(inner, x.shape)
    given = {"W": before.W, "B": before.B, "X": seen}
    if "b" in module.ARGUMENTS:
        given["b"] = before.b
    gradient, copied = copied_gradient(module, given | parameters, task)
    change, moment = _descent(gradient, moment, training)
    noise = _noise(outer, before.B, training.rate, training.update_noise)
    nothing = {"task_gradient": jnp.zeros_like(before.W)} if "task_gradient" in module.ARGUMENTS else {}
    W = after.W - training.align_rate * module.forward_gradient(**given, **nothing, **parameters)
    return Layer(W, after.b, before.B + change + copied + noise), moment


def _noise(key, like, rate, variance):
    """rate · ξ with E[ξ²] = variance; nothing where there is none, as random numbers cost more than the step."""
    return 0.0 if isinstance(variance, float) and variance == 0 else rate * jnp.sqrt(variance) * normal(key, like.shape, like.dtype)


def copied_gradient(module: ModuleType, given: Mapping[str, Any], task: Float[Array, "m n"]) -> tuple[Any, Any]:
    """∂R/∂B without tied gradients, and what B copies of the task's step `task` for W, which comes at the task's own rate."""
    if "task_gradient" not in module.ARGUMENTS:
        return module.feedback_gradient(**given), 0.0
    # the tied gradient enters linearly
    local = module.feedback_gradient(**given, task_gradient=jnp.zeros_like(task))
    return local, module.feedback_gradient(**given, task_gradient=task) - local


def _descent(gradient, moment, training: NetworkTraining):
    """The step of SGD with momentum, or of Adam (0.9, 0.999, 1e-8)."""
    first, second, count = moment
    if training.optimiser == "sgd":
        first = training.align_momentum * first + gradient
        return -training.align_rate * first, (first, second, count)
    first, second, count = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, count + 1.0
    corrected = first / (1 - 0.9**count), second / (1 - 0.999**count)
    return -training.align_rate * corrected[0] / (jnp.sqrt(corrected[1]) + 1e-8), (first, second, count)


def _angle(B, C) -> Float[Array, ""]:
    """In degrees."""
    B, C = B / jnp.linalg.norm(B), C / jnp.linalg.norm(C)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(B - C), jnp.linalg.norm(B + C)))
