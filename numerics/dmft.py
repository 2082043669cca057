"""The rich regime at infinite width: one causal pass over time.

The step is `training.step`, on matrices that are realised on the span of what they have met (`random_matrix.py`). Only the bases' growth
and the record of order parameters are handled here. Cost per step O(S P r), memory O(S r), r being the rank of the fields' history.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .dynamics import Dynamics, dynamics
from .errors import positive_integer
from .infinite import Layout, grow, start
from .order_parameters import FactoredKernel, Layers
from .problem import Problem
from .progress import Progress
from .sampling import Innovations
from .solution import Solution, assemble
from .training import Probe, Scales, State, step, with_feedback


def solve_dmft(
    p: Problem,
    rule: Any,
    net: Any,
    samples: int = 4096,
    replicas: int = 4,
    seed: int = 0,
    *,
    parameters: Mapping[str, float] | None = None,
    sampling: str = "sobol",
    tol: float | None = None,
    dtype: Any = None,
    capacity: int | None = None,
    chunk: int | None = None,
    responses: bool = True,
    throw: bool = True,
    progress: bool = False,
) -> Solution:
    """Solve the dynamical mean-field theory of a learning rule.

    Args:
        p: the problem.
        rule, net: learning rule and network (`derive.Rule`, `derive.MLP`).
        samples: S, the number of single-site samples.
        replicas: independent repetitions; every standard error is taken over them (NaN for one replica).
        seed: of all random numbers.
        parameters: values of symbolic parameters of rule and network, by name.
        sampling: "sobol", "moments" or "plain".
        tol: energy of a new direction, relative to the field's, below which it is not followed. Default 1e-7 (float32: 1e-5).
        dtype: "float64" or "float32"; by default float32 on a GPU, elsewhere float64 where JAX has it enabled.
        capacity: directions to set room aside for at first; it doubles when needed (and compiles again).
        chunk: steps between returns to Python (for progress); the result does not depend on it.
        responses: False drops the response terms A and B: not the theory, but shows what they do.
        throw: raise when the solution is not finite.
        progress: show a bar.

    Returns:
        Order parameters, outputs and losses, with standard errors.

    Raises:
        ValueError: bad arguments, or a symbolic parameter without a value.
        SolveFailed: training diverged (unless `throw=False`).

    Source: Bordelon & Pehlevan 2022, 2023 (the theory); THEORY sections 4 and 5 (equations and method).
    """
    samples = positive_integer("samples", samples, "a number of single-site samples")
    replicas = positive_integer("replicas", replicas, "a number of independent replicas")
    for name, value in (("capacity", capacity), ("chunk", chunk)):
        if value is not None:
            positive_integer(name, value, "a number of directions" if name == "capacity" else "a number of steps")
    bound, values = dynamics(rule, net, parameters)
    kind = real_type(dtype)
    tolerance = _tolerance(tol, kind)
    runs = []
    with Progress(progress, f"{bound.name}, S = {samples}", replicas * p.steps) as bar:
        for replica in range(replicas):
            innovations = Innovations(samples, seed, replica, sampling)
            layout = Layout.of(p, bound, responses)
            runs.append(_replica(p, bound, values, innovations, layout, kind, tolerance, capacity, chunk, bar))
    settings = {
        "samples": samples, "replicas": replicas, "seed": seed, "sampling": sampling, "tol": tolerance, "dtype": str(kind),
        "responses": responses,
    }  # fmt: skip
    return _solution(p, bound, values, runs, settings, throw)


def x64_enabled() -> bool:
    """Whether JAX has double precision."""
    return jnp.zeros(()).dtype == jnp.float64


def real_type(dtype: Any) -> jnp.dtype:
    """The floating-point type of a run.

    Raises:
        ValueError: not float32 or float64, or float64 while JAX has it disabled.
    """
    if dtype is None:
        wide = x64_enabled() and jax.default_backend() == "cpu"
        return jnp.dtype("float64" if wide else "float32")
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        kind = None
    if kind not in (jnp.dtype("float32"), jnp.dtype("float64")):
        raise ValueError(f"dtype={dtype!r} is not supported: give 'float32' or 'float64'")
    if kind == jnp.dtype("float64") and not x64_enabled():
        raise ValueError("dtype='float64' needs JAX's x64 mode, which is off: unset JAX_ENABLE_X64 or set it to 1")
    return kind


def _tolerance(tol: float | None, kind: jnp.dtype) -> float:
    floor = 100 * float(jnp.finfo(kind).eps)
    if tol is None:
        return 1e-7 if kind == jnp.dtype("float64") else 1e-5
    if not floor <= tol < 1:
        raise ValueError(f"tol={tol!r} cannot be a relative energy in {kind}: give {floor:.0e} <= tol < 1")
    return float(tol)


def _replica(p, bound, values, innovations, layout, kind, tolerance, capacity, chunk, bar) -> dict[str, Any]:
    """One replica from start to end, growing the bases' capacity as they fill."""
    limit = min(p.steps * layout.block, innovations.samples) + layout.block
    room = min(capacity or max(64, 4 * layout.block), limit)
    room = max(room, layout.block)
    state, probe = start(p, bound, innovations, layout, room, kind, tolerance)
    number = lambda value: jnp.asarray(value, kind)
    scales = Scales(jnp.asarray(p.y, kind), number(p.gamma0), number(p.eta), {name: number(v) for name, v in values.items()})
    state = with_feedback(state, bound, scales)
    history = _history(p, bound, room, kind)
    done = 0
    while done < p.steps:
        stop = min(p.steps, done + (chunk or (max(1, p.steps // 20) if bar.shown else p.steps)))
        state, history = _advance(state, history, scales, probe, jnp.int32(stop), bound, layout.block)
        now = int(state.t)
        bar.advance(now - done)
        done = now
        if done < stop:
            larger = min(2 * room, limit)
            state, history = grow(state, innovations, layout, room, larger), _widen(history, larger)
            room = larger
    found = jax.tree.map(np.asarray, history)
    ranks = {"forward": [int(b.size) for b in _forward_bases(state)], "backward": [int(b.size) for b in _backward_bases(state)]}
    dropped = max(float(b.dropped) for b in (*_forward_bases(state), *_backward_bases(state)))
    return {"history": found, "ranks": ranks, "dropped": dropped, "capacity": room}


def _forward_bases(state: State):
    return [matrix.basis for matrix in state.matrices[1:]]


def _backward_bases(state: State):
    return [matrix.span.basis for matrix in state.matrices[:-1]]


def _history(p: Problem, bound: Dynamics, room: int, kind: jnp.dtype) -> dict[str, Any]:
    empty = lambda *shape: jnp.zeros((p.steps, *shape), kind)
    layers = lambda: tuple(empty(p.P, room) for _ in range(bound.depth))
    history = {"f": empty(p.P), "a": layers(), "g": layers()}
    if not bound.gradient:
        history["g_tilde"] = layers()
    if p.X_test is not None:
        history["f_test"] = empty(len(p.X_test))
    return history


def _widen(history: dict[str, Any], room: int) -> dict[str, Any]:
    wide = lambda array: jnp.pad(array, ((0, 0), (0, 0), (0, room - array.shape[2])))
    return {name: tuple(map(wide, entry)) if isinstance(entry, tuple) else entry for name, entry in history.items()}


@partial(jax.jit, static_argnames=("rule", "block"), donate_argnames=("state", "history"))
def _advance(state: State, history, scales: Scales, probe: Probe | None, stop, rule: Dynamics, block: int):
    """Steps until `stop`, or until a basis might overflow in the next one."""

    def fits(carry):
        bases = (*_forward_bases(carry[0]), *_backward_bases(carry[0]))
        room = [basis.size + block <= basis.rows.shape[0] for basis in bases]
        return (carry[0].t < stop) & jnp.all(jnp.stack(room))

    def body(carry):
        state, history = carry
        t = state.t
        state, fields = step(state, rule, scales, probe)
        record: dict[str, Any] = {"f": fields.f, "f_test": fields.f_test}
        record["a"] = tuple(matrix.a for matrix in state.matrices[1:])
        record["g"] = tuple(matrix.span.g for matrix in state.matrices[:-1])
        record["g_tilde"] = tuple(matrix.span.g_tilde for matrix in state.matrices[:-1])
        put = lambda kept, new: jax.lax.dynamic_update_index_in_dim(kept, new.astype(kept.dtype), t, 0)
        return state, {name: jax.tree.map(put, kept, record[name]) for name, kept in history.items()}

    return jax.lax.while_loop(fits, body, (state, history))


def _solution(p: Problem, bound: Dynamics, values, runs, settings, throw: bool) -> Solution:
    """Order parameters from coefficients: Φ(t,s) = a(t) a(s)ᵀ, G = g gᵀ, G̃ = g g̃ᵀ, H = g̃ g̃ᵀ."""
    histories = [run["history"] for run in runs]
    layers = lambda name: [[h[name if name in h else "g"][l] for h in histories] for l in range(bound.depth)]
    a, g, g_tilde = layers("a"), layers("g"), layers("g_tilde")
    pair = lambda lefts, rights: [FactoredKernel(left, right) for left, right in zip(lefts, rights, strict=True)]
    f_test = np.stack([h["f_test"] - h["f_test"][:1] for h in histories]) if p.X_test is not None else None
    stats = {
        "rank_forward": [run["ranks"]["forward"] for run in runs],
        "rank_backward": [run["ranks"]["backward"] for run in runs],
        "dropped_energy": max(run["dropped"] for run in runs),
        "capacity": max(run["capacity"] for run in runs),
    }
    return assemble(
        p, bound, values, "dmft", np.stack([h["f"] for h in histories]), f_test,
        Layers(pair(a, a), 1), Layers(pair(g, g), 1), Layers(pair(g, g_tilde), 1), Layers(pair(g_tilde, g_tilde), 1),
        settings, stats, throw,
    )  # fmt: skip
