"""Networks of finite width, trained with the same step: the judge of the theory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .checkpoint import Keeper, open_checkpoint
from .dense import DenseInput, DenseMatrix, DenseReadout
from .dmft import real_type
from .draws import folded, normals
from .dynamics import Dynamics, dynamics, refuse_outputs
from .errors import positive_integer, seed_number
from .order_parameters import DenseKernel, Layers, mean_and_error
from .problem import Problem
from .progress import Progress
from .snapshots import collect, recorded, taken, times_of
from .solution import Solution, assemble
from .training import Probe, Scales, State, prepared, step

# Order parameters between all times are kept up to this many entries a kernel, by default.
TWO_TIME_LIMIT = 2_000**2
# Bytes that one batch of seeds may take.
MEMORY = 2 * 2**30


def train_finite(
    p: Problem,
    rule: Any,
    net: Any,
    width: int = 1024,
    seeds: int = 8,
    seed: int = 0,
    *,
    parameters: Mapping[str, float] | None = None,
    two_time: bool | None = None,
    snapshots: Iterable[int] = (),
    dtype: Any = None,
    throw: bool = True,
    progress: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
) -> Solution:
    """Train an ensemble of dense networks by full-batch updates of a learning rule.

    Args:
        p: the problem.
        rule, net: learning rule and network.
        width: N, of every hidden layer.
        seeds: networks in the ensemble; standard errors are over them.
        seed: of all random numbers.
        parameters: values of symbolic parameters, by name.
        two_time: whether kernels between different times are recorded, (T P)² numbers each; by default if that is at most 2000².
        snapshots: times at which the fields of all neurons are kept: `solution.snapshots[t].h[l]`.
        dtype: "float64" or "float32".
        throw: raise when training diverges.
        progress: show a bar.
        checkpoint: file to which the networks in training go every `every` steps, and what was recorded with them. If it is there, training goes on
            from it and gives the same bits as without an interruption.
        every: steps between checkpoints; by default a twentieth of all, and ten seconds at least.

    Returns:
        The same record as `solve_dmft`.

    Raises:
        ValueError: bad arguments, or a symbolic parameter without a value.
        SolveFailed: training diverged (unless `throw=False`).

    Source: THEORY sections 1 and 2.
    """
    width = positive_integer("width", width, "a number of neurons in a hidden layer")
    seeds, seed = positive_integer("seeds", seeds, "a number of networks"), seed_number("seed", seed)
    bound, values = dynamics(rule, net, parameters)
    refuse_outputs(p, bound)
    kind = real_type(dtype)
    times = times_of("snapshots", snapshots, p.steps)
    history = (p.steps * p.P * p.outputs) ** 2 <= TWO_TIME_LIMIT if two_time is None else bool(two_time)
    settings = {"width": width, "seeds": seeds, "seed": seed, "dtype": str(kind), **({"snapshots": list(times)} if times else {})}
    task = _Task(p, bound, values, width, kind, history, times)
    keeper = open_checkpoint(checkpoint, every, "finite", p, bound, values, {**settings, "two_time": history})
    keys, batch = jax.random.split(jax.random.key(seed), seeds), _batch(p, bound, width, history, kind, seeds)
    with Progress(progress, f"{bound.name}, N = {width}", seeds * p.steps) as bar:
        records = [_train(task, keys[first : first + batch], f"networks from {first}", bar, keeper) for first in range(0, seeds, batch)]
    return solution_of(p, bound, values, records, settings, throw)


@dataclass(frozen=True)
class _Task:
    """What all batches of an ensemble share: what is trained, and which kernels and fields are kept."""

    problem: Problem
    rule: Dynamics
    values: Mapping[str, float]
    width: int
    kind: Any
    two_time: bool
    times: tuple[int, ...]


def _batch(p: Problem, rule: Dynamics, width: int, history: bool, kind, seeds: int) -> int:
    """How many seeds fit into the memory set aside for a batch."""
    matrices = (rule.depth - 1) * width**2 * 4
    fields = 3 * rule.depth * p.P * p.outputs * width * (p.steps if history else 4)
    kernels = 3 * rule.depth * (p.steps * p.P * p.outputs) ** 2 if history else 0
    return int(np.clip(MEMORY // (kind.itemsize * (matrices + fields + kernels + 1)), 1, seeds))


def draw(keys, D: int, rule: Dynamics, width: int, kind, outputs: int = 1) -> dict[str, list[Any]]:
    """I.i.d. standard normal weights for one network a key, and whatever else the rule needs; every array has keys of its own.

    Args:
        keys: of the networks.
        D: input dimension.
        rule: what else, besides the weights, it needs (feedback matrices, gates).
        width: N.
        kind: floating-point type.
        outputs: C.

    Returns:
        Arrays by name and layer (None where the rule needs none), with a leading axis for networks.
    """
    L, N = rule.depth, width
    shapes: dict[str, list[tuple[int, ...] | None]] = {
        "hidden": [(N, N) for _ in range(1, L)],
        "input": [(N, D)],
        "readout": [(outputs, N)],
        "feedback": [(N, N) if rule.uses(l, "independent") else None for l in range(1, L)],
        "readout_feedback": [(outputs, N) if rule.uses(L, "independent") else None],
        "direct": [(outputs, N) if rule.uses(l + 1, "direct") else None for l in range(L)],
        "biases": [(1, N)] * L if rule.biased else [],
        "gates": [(N, D)] * L if rule.gated else [],
    }
    return {
        name: [None if shape is None else normals(folded(keys, which, layer), shape, kind) for layer, shape in enumerate(layers)]
        for which, (name, layers) in enumerate(shapes.items())
    }


def initialise(drawn: dict[str, list[Any]], inputs, tests, rule: Dynamics, shape: tuple[int, ...]) -> tuple[State, Probe | None]:
    """One network from its random arrays.

    Args:
        drawn: what `draw` gave, for one network.
        inputs, tests: examples.
        rule: the rule on the network.
        shape: of the outputs.
    """
    L = rule.depth
    see = lambda examples: tuple(jnp.matmul(examples, m.T, precision="highest") / jnp.sqrt(m.shape[1]) for m in drawn["gates"])
    hidden = [
        DenseMatrix(W, W if rule.uses(l, "initial") else None, V)
        for l, (W, V) in enumerate(zip(drawn["hidden"], drawn["feedback"], strict=True), 1)
    ]
    w = drawn["readout"][0]
    v = rule.readout_feedback(w, drawn["readout_feedback"][0])
    state = State(
        matrices=(DenseInput(drawn["input"][0], inputs), *hidden, DenseReadout(w, w, v)),
        biases=tuple(drawn["biases"]),
        readout_bias=jnp.zeros(shape[1:], inputs.dtype),
        direct=tuple(drawn["direct"]),
        gates=see(inputs),
        f0=jnp.zeros(shape, inputs.dtype),
        t=jnp.zeros((), jnp.int32),
    )
    return state, None if tests is None else Probe((tests,), tuple(() for _ in range(L)), see(tests))


def _train(task: _Task, keys, name: str, bar: Progress, keeper: Keeper) -> dict[str, Any]:
    """Outputs and kernels of a batch of networks, over all times, and fields at some; every array has a leading axis for networks."""
    if (known := keeper.finished(name)) is not None:
        bar.advance(len(keys) * task.problem.steps)
        return known
    p, rule = task.problem, task.rule
    scales = Scales.of(p, task.values, task.kind)
    examples = (jnp.asarray(p.X, task.kind), None if p.X_test is None else jnp.asarray(p.X_test, task.kind))
    # drawn weights are not kept beside the copies of them that training changes
    state, probe, record = _begin(
        draw(keys, p.D, rule, task.width, task.kind, p.outputs), *examples, scales, rule, p.steps, task.two_time, task.times
    )
    state, record = keeper.resume(name, state, record)
    done = int(state.t[0])
    bar.advance(len(keys) * done)
    while done < p.steps:
        stop = keeper.next_stop(done, min(p.steps, done + max(1, p.steps // 20)) if bar.shown else p.steps)
        state, record = _advance(state, record, probe, scales, np.int32(stop), rule, task.two_time, task.times)
        bar.advance(len(keys) * (int(state.t[0]) - done))
        done = stop
        if done < p.steps and keeper.due(done):
            keeper.write_state(name, done, *jax.tree.map(np.asarray, (state, record)))
    whole = _whole(record.pop("fields")) if task.two_time else None
    found = jax.tree.map(lambda array: np.moveaxis(np.asarray(array), 1, 0), record)
    if whole is not None:
        found["whole"] = jax.tree.map(np.asarray, whole)
    keeper.finish(name, found)
    return found


@partial(jax.jit, static_argnames=("rule", "steps", "two_time", "times"))
def _begin(drawn, inputs, tests, scales: Scales, rule: Dynamics, steps: int, two_time: bool, times: tuple[int, ...]):
    """A batch of networks, their test points, and room for what is recorded of them, time first."""

    def one(arrays):
        state, probe = initialise(arrays, inputs, tests, rule, scales.y.shape)
        return prepared(state, rule, scales), probe

    state, probe = jax.vmap(one)(drawn)
    entries = jax.eval_shape(lambda state, probe: _step(state, probe, scales, rule, two_time)[1:], state, probe)
    room = lambda count: lambda entry: jnp.zeros((count, *entry.shape), entry.dtype)
    kept, fields = entries
    record = jax.tree.map(room(steps), kept)
    if times:
        record["snapshots"] = jax.tree.map(room(len(times)), fields)
    # buffers of their own: the state is donated
    return jax.tree.map(jnp.copy, state), probe, record


@partial(jax.jit, static_argnames=("rule", "two_time", "times"), donate_argnums=(0, 1))
def _advance(state, record, probe, scales: Scales, stop, rule: Dynamics, two_time: bool, times: tuple[int, ...]):
    """Steps until `stop`."""

    def body(carried):
        t, state, record = carried
        state, now, fields = _step(state, probe, scales, rule, two_time)
        return t + 1, state, recorded(record, now, fields, times, t)

    return jax.lax.while_loop(lambda carried: carried[0] < stop, body, (state.t[0], state, record))[1:]


def _step(state, probe, scales: Scales, rule: Dynamics, two_time: bool):
    """The networks after a step, what is recorded before it, and what a snapshot takes."""

    def one(before, probe):
        state, now = step(before, rule, scales, probe)
        fields = {"a": now.a, "g": now.g, **({} if rule.gradient else {"g_tilde": now.g_tilde})}
        equal = {name: [_gram(x[None], y[None])[0, :, 0] for x, y in zip(*pair, strict=True)] for name, pair in _pairs(fields)}
        return state, {"f": now.f, "f_test": now.f_test, "equal": equal, **({"fields": fields} if two_time else {})}, taken(before, now)

    return jax.vmap(one)(state, probe)


@jax.jit
def _whole(fields):
    """Kernels between all times, of every network, from fields of all times."""
    of_networks = jax.vmap(_gram, in_axes=1)
    return {name: [of_networks(x, y) for x, y in zip(*pair, strict=True)] for name, pair in _pairs(fields)}


def _pairs(fields):
    """Which fields are multiplied for Φ, G, G̃, H; where g̃ = g one product is all three."""
    a, g = fields["a"], fields["g"]
    if "g_tilde" not in fields:
        return [("Phi", (a, a)), ("G", (g, g))]
    return [("Phi", (a, a)), ("G", (g, g)), ("G_tilde", (g, fields["g_tilde"])), ("H", (fields["g_tilde"], fields["g_tilde"]))]


def _gram(x, y):
    """(1/N) Σ_i x_i y_i between all times and examples: (T, P, T, P)."""
    return jnp.einsum("tpi,sqi->tpsq", x, y, precision="highest") / x.shape[-1]


def solution_of(
    p: Problem, bound: Dynamics, values: Mapping[str, float], records: list[dict[str, Any]], settings: Mapping[str, Any], throw: bool
) -> Solution:
    """Order parameters of all networks.

    Args:
        p, bound, values, settings: what was trained and how.
        records: of all batches.
        throw: whether a failure is raised.
    """
    join = lambda pick: np.concatenate([pick(record) for record in records])

    def kernels(name: str) -> Layers:
        found = []
        for l in range(bound.depth):
            key = name if name in records[0]["equal"] else "G"
            equal = join(lambda record, key=key, l=l: record["equal"][key][l])
            whole: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
            if "whole" in records[0]:
                whole = mean_and_error(join(lambda record, key=key, l=l: record["whole"][key][l]))
            found.append(DenseKernel(equal, *whole, remedy="give train_finite(..., two_time=True)"))
        return Layers(found, 1)

    f_test = None
    if p.X_test is not None:
        f_test = join(lambda record: record["f_test"])
        f_test = f_test - f_test[:, :1]
    solution = assemble(
        p, bound, dict(values), "finite", join(lambda record: record["f"]), f_test,
        kernels("Phi"), kernels("G"), kernels("G_tilde"), kernels("H"), dict(settings), {}, throw,
    )  # fmt: skip
    times = tuple(settings.get("snapshots", ()))
    pick = lambda record, k: jax.tree.map(lambda leaf: leaf[k], record["snapshots"])
    networks = [pick(record, k) for record in records for k in range(len(record["f"]))] if times else []
    return replace(solution, snapshots=collect(times, networks)) if times else solution
