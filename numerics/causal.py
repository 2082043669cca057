"""One causal pass over time at infinite width: one replica, from initialisation to the last step.

The step is `training.step`, on matrices that are realised on the span of what they have met (`random_matrix.py`). Only the bases' growth
and the record of order parameters are handled here. Cost per step O(S P r), memory O(S r), r being the capacity for the fields' history.

Compiled code belongs to shapes. So innovations are supplied in portions, as directions are met, into arrays that keep their shape; only
capacity that was set too low costs a compilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .checkpoint import Keeper, replica_name
from .dynamics import Dynamics
from .infinite import Layout, Room, grow, start, supply
from .problem import Problem
from .progress import Progress
from .rows import bracket, segment_for, wide
from .sampling import Innovations
from .sharding import Placement
from .snapshots import empty_snapshots, recorded, taken
from .training import Probe, Scales, State, prepared, step

# Directions for which innovations are supplied at a time, at least; and as many as have so many numbers: each time costs as much as drawing those.
PORTION, NUMBERS = 32, 2**16


@dataclass(frozen=True)
class Plan:
    """What all replicas of a solution share.

    Attributes:
        problem, rule, values: what to solve.
        layout: dimensions of the innovations.
        kind: floating-point type.
        rank_tol: tolerance of the bases.
        record: how kernels of φ(h^L) and g¹ are kept: "spans", "fields" or "equal times".
        capacity: room in every basis at the start, or None.
        chunk: steps between returns to Python, or None.
        devices: what `Placement.of` takes.
        times: of snapshots.
        kernels_at: with "equal times" the times at which these kernels are averaged; None for all.
    """

    problem: Problem
    rule: Dynamics
    values: dict[str, float]
    layout: Layout
    kind: Any
    rank_tol: float
    record: str
    capacity: int | None = None
    chunk: int | None = None
    devices: Any = None
    times: tuple[int, ...] = ()
    kernels_at: tuple[int, ...] | None = None

    @property
    def due(self) -> np.ndarray | None:
        """For every time whether kernels are averaged; None where they always are."""
        return None if self.kernels_at is None else np.isin(np.arange(self.problem.steps), self.kernels_at)

    @property
    def blocks(self) -> Room:
        """Rows that must be free before a step."""
        return self.layout.free

    def limits(self, samples: int) -> Room:
        """Capacities that no run can exceed."""
        forward, backward = (min(self.problem.steps * block, samples) + block for block in self.blocks)
        return Room(forward, backward)

    def first_room(self, samples: int) -> Room:
        """Capacities at the start. Unused room costs time in every step, room that is too small a compilation."""
        limits = self.limits(samples)
        if self.capacity is None:
            # ranks grow with the digits that are followed, in single precision faster, as round-off is followed too, and with every kind of
            # field: measured on tanh and ReLU problems, with some reserve
            digits = -np.log10(self.rank_tol)
            reserve = round(8 * digits) - 8 + (round(12 * max(digits - 5, 0)) if self.kind == np.float32 else 0)
            met = (self.layout.forward_block * self.layout.meetings, self.layout.block)
            kinds = (1, self.layout.block // (self.problem.P * self.problem.outputs))
            # where nearly all may be needed: all
            likely = lambda size, limit: size if size < 0.9 * limit else limit
            wanted = [likely(kind * reserve + 6 * block + limit // 16, limit) for kind, block, limit in zip(kinds, met, limits, strict=True)]
        else:
            wanted = [self.capacity, self.capacity]
        pick = lambda wish, block, limit: max(min(wish, limit), block)
        return Room(*(pick(*each) for each in zip(wanted, self.blocks, limits, strict=True)))


class Seconds:
    """Wall time by part; what runs while the clock is elsewhere is not counted."""

    def __init__(self) -> None:
        self.parts = {"sampling": 0.0, "compile": 0.0, "run": 0.0}

    def spend(self, part: str, work: Any) -> Any:
        """Do the work, note its time, return its result."""
        began = perf_counter()
        found = jax.block_until_ready(work())
        self.parts[part] += perf_counter() - began
        return found


def run(plan: Plan, innovations: Innovations, bar: Progress, seconds: Seconds, keeper: Keeper) -> dict[str, Any]:
    """One replica from start to end, growing the bases' capacity as they fill.

    Args:
        plan: what to do.
        innovations: its random numbers.
        bar: shown progress.
        seconds: the account of time.
        keeper: of checkpoints.

    Returns:
        history: records by name, time first; ranks: of the "forward" and "backward" bases at the end; dropped: the largest share of a
        field's energy that a basis left out; gram_error: the largest deviation of ⟨Q Qᵀ⟩ from unity; capacity: room at the end.
    """
    name = replica_name(innovations)
    if (known := keeper.finished(name)) is not None:
        bar.advance(plan.problem.steps)
        return known
    p, (room, supplied) = plan.problem, keeper.room(name) or (plan.first_room(innovations.samples), 0)
    room = Room(*room)
    placement = Placement.of(plan.devices, innovations.samples)
    with placement.host():
        state, history, scales, probe = seconds.spend("sampling", partial(_begin, plan, innovations, room))
        state, history = keeper.resume(name, state, history)
        # one that is resumed is numpy's
        history = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf), history)
        state, history, scales, probe = placement.spread((state, history, scales, probe))
    done = int(state.t)
    bar.advance(done)
    while done < p.steps:
        state, supplied = _supplied(plan, state, innovations, room, supplied, seconds)
        stop = keeper.next_stop(done, min(p.steps, done + (plan.chunk or (max(1, p.steps // 20) if bar.shown else p.steps))))
        within = jax.tree.map(np.int32, Room(*(min(each, supplied) if plan.rule.depth > 1 else each for each in room)))
        arguments = placement.spread((state, history, scales, probe, plan.due, np.int32(stop), within))
        advance = seconds.spend("compile", partial(_compiled, plan.rule, plan.blocks, plan.record, plan.times, placement, *_signature(arguments)))
        state, history = seconds.spend("run", partial(advance, *arguments))
        bar.advance(int(state.t) - done)
        done = int(state.t)
        larger = _enough(plan, state, room, innovations.samples)
        if done < p.steps and larger != room:
            enlarge = lambda both, larger=larger: (grow(both[0], larger), _widen(both[1], larger))
            state, history = placement.change(enlarge, (state, history))
            # innovations beyond the smaller of the old capacities did not fit: they are supplied again
            room, supplied = larger, min(supplied, *room)
        if stop == done < p.steps and keeper.due(done):
            whole_state, whole_history = placement.gather((state, history))
            keeper.write_state(name, done, whole_state, whole_history, (tuple(room), supplied))
    found = _finished(state, placement.gather(history), room)
    keeper.finish(name, found)
    return found


def _begin(plan: Plan, innovations: Innovations, room: Room):
    """State, history, scales and test points at t = 0."""
    p = plan.problem
    # from the first room, also where a run goes on with more
    each = segment_for(max(plan.first_room(innovations.samples)), innovations.samples)
    state, probe = start(p, plan.rule, innovations, plan.layout, room, plan.kind, plan.rank_tol, each)
    scales = Scales.of(p, plan.values, plan.kind)
    return prepared(state, plan.rule, scales), _history(plan, innovations.samples, room), scales, probe


def _supplied(plan: Plan, state: State, innovations: Innovations, room: Room, supplied: int, seconds: Seconds) -> tuple[State, int]:
    """Innovations for at least one more step."""
    needed = max(used + block for used, block in zip(_sizes(state), plan.blocks, strict=True))
    if plan.rule.depth == 1 or min(needed, max(room)) <= supplied:
        return state, supplied
    portion = max(PORTION, NUMBERS // innovations.samples)
    last = min(max(supplied + portion, -(-needed // portion) * portion), max(max(room), needed))
    return seconds.spend("sampling", lambda: supply(state, innovations, plan.layout, supplied, last)), last


def _enough(plan: Plan, state: State, room: Room, samples: int) -> Room:
    """Capacity for at least one more step: bases that are full, or nearly, get twice theirs."""
    sizes, limits = _sizes(state), plan.limits(samples)
    full = any(size + block > each for size, block, each in zip(sizes, plan.blocks, room, strict=True))
    if not full:
        return room
    crowded = [size + block > 0.7 * each for size, block, each in zip(sizes, plan.blocks, room, strict=True)]
    return Room(*(min(2 * each, limit) if tight else each for each, limit, tight in zip(room, limits, crowded, strict=True)))


def forward_bases(state: State):
    """Bases of features."""
    return [matrix.basis for matrix in state.matrices[1:] if matrix.basis is not None]


def backward_bases(state: State):
    """Bases of gradient fields."""
    return [matrix.span.basis for matrix in state.matrices[:-1] if matrix.span is not None]


def _sizes(state: State) -> Room:
    largest = lambda bases: max((int(basis.size) for basis in bases), default=0)
    return Room(largest(forward_bases(state)), largest(backward_bases(state)))


def _history(plan: Plan, samples: int, room: Room) -> dict[str, Any]:
    p, rule = plan.problem, plan.rule
    double = wide()
    empty = lambda *shape, kind=double: jax.ShapeDtypeStruct((p.steps, *shape), kind)
    spans = plan.record == "spans"
    back = p.P * p.outputs
    layers = lambda rows, width: tuple(empty(rows, width) for _ in range(rule.depth if spans else rule.depth - 1))
    history: dict[str, Any] = {"f": empty(*p.y.shape), "a": layers(p.P, room.forward), "g": layers(back, room.backward)}
    if not rule.gradient:
        history["g_tilde"] = layers(back, room.backward)
    if p.X_test is not None:
        history["f_test"] = empty(len(p.X_test), *p.y.shape[1:])
    if not spans:
        history["equal"] = {name: empty(*(2 * (p.P if name == "Phi" else back,))) for name in _EQUAL[: 2 if rule.gradient else 4]}
    if plan.times:
        # a checkpoint keeps the first t entries: the k-th time is at least k
        history["snapshots"] = jax.eval_shape(lambda: empty_snapshots(rule, len(plan.times), p.y.shape, samples, plan.kind))
    if plan.record == "fields":
        names = ("top", "bottom") if rule.gradient else ("top", "bottom", "bottom_tilde")
        # rounded to single precision, 1e-7, far below what averages over samples resolve
        history["fields"] = {name: empty(p.P if name == "top" else back, samples, kind=jnp.float32) for name in names}
    leaves, structure = jax.tree.flatten(history)
    return jax.tree.unflatten(structure, _zeros(tuple((leaf.shape, leaf.dtype) for leaf in leaves)))


@partial(jax.jit, static_argnums=0)
def _zeros(shapes):
    return [jnp.zeros(*each) for each in shapes]


# The last two are G where g̃ = g.
_EQUAL = ("Phi", "G", "G_tilde", "H")


def _widen(history: dict[str, Any], room: Room) -> dict[str, Any]:
    widths = {"a": room.forward, "g": room.backward, "g_tilde": room.backward}
    wide = lambda array, width: jnp.pad(array, ((0, 0), (0, 0), (0, width - array.shape[2])))
    return {name: tuple(wide(each, widths[name]) for each in entry) if name in widths else entry for name, entry in history.items()}


def _record(state: State, fields, record: str, due: Any) -> dict[str, Any]:
    """What is kept of one time; kernels NaN where they are not due."""
    found: dict[str, Any] = {"f": fields.f, "f_test": fields.f_test}
    spanned = [matrix.span for matrix in state.matrices[:-1] if matrix.span is not None]
    found["a"] = tuple(matrix.a for matrix in state.matrices[1:] if matrix.basis is not None)
    found["g"], found["g_tilde"] = tuple(span.g for span in spanned), tuple(span.g_tilde for span in spanned)
    if record != "spans":
        top, g, g_tilde = fields.a[-1], fields.g[0], fields.g_tilde[0]
        pairs = ((top, top), (g, g)) if g is g_tilde else ((top, top), (g, g), (g, g_tilde), (g_tilde, g_tilde))
        averages = lambda: {name: bracket(*pair) for name, pair in zip(_EQUAL, pairs, strict=False)}
        nothing = lambda: jax.tree.map(lambda known: jnp.full(known.shape, jnp.nan, known.dtype), jax.eval_shape(averages))
        found["equal"] = averages() if due is None else jax.lax.cond(due, averages, nothing)
        found["fields"] = {"top": top, "bottom": g, "bottom_tilde": g_tilde}
    return found


def _advance(
    rule: Dynamics, blocks: Room, record: str, times: tuple[int, ...], placement: Placement,
    state: State, history, scales: Scales, probe: Probe | None, due: Any, stop, within: Room,
):  # fmt: skip
    """Steps until `stop`, or until a basis might overflow in the next one."""

    def fits(carry):
        state = carry[0]
        going = state.t < stop
        for bases, block, room in zip((forward_bases(state), backward_bases(state)), blocks, within, strict=True):
            for basis in bases:
                going = going & (basis.size + block <= room)
        return going

    def body(carry):
        before, history = carry
        state, fields = step(before, rule, scales, probe)
        now = _record(state, fields, record, None if due is None else due[before.t])
        return placement.keep((state, recorded(history, now, taken(before, fields), times, before.t)))

    return jax.lax.while_loop(fits, body, (state, history))


def _signature(arguments) -> tuple[Any, tuple]:
    leaves, structure = jax.tree.flatten(arguments)
    # what numpy still holds goes to the others, of which the history is one
    there = next(leaf.sharding for leaf in leaves if isinstance(leaf, jax.Array))
    return structure, tuple((leaf.shape, leaf.dtype, getattr(leaf, "sharding", there)) for leaf in leaves)


@lru_cache(maxsize=64)
def _compiled(rule: Dynamics, blocks: Room, record: str, times: tuple[int, ...], placement: Placement, structure, leaves):
    """`_advance` compiled for such arguments; ahead of time, so that the time it takes is known."""
    arguments = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype, sharding=at) for shape, dtype, at in leaves])
    return jax.jit(partial(_advance, rule, blocks, record, times, placement), donate_argnums=(0, 1)).lower(*arguments).compile()


def _finished(state: State, history, room: Room) -> dict[str, Any]:
    bases = {"forward": forward_bases(state), "backward": backward_bases(state)}
    every = [*bases["forward"], *bases["backward"]]
    ranks = {name: [int(basis.size) for basis in group] for name, group in bases.items()}
    return {
        "history": _cut(jax.tree.map(np.asarray, history), ranks),
        "ranks": ranks,
        "dropped": max((float(basis.dropped) for basis in every), default=0.0),
        "gram_error": max((basis.deviation() for basis in every), default=0.0),
        "capacity": max(room),
    }


def _cut(history: dict[str, Any], ranks: Mapping[str, list[int]]) -> dict[str, Any]:
    """Coefficients of the directions that were met, without the room for more, which may be as much again."""
    met = {"a": ranks["forward"], "g": ranks["backward"], "g_tilde": ranks["backward"]}
    cut = lambda entry, sizes: tuple(np.ascontiguousarray(each[:, :, :rank]) for each, rank in zip(entry, sizes, strict=True))
    return {name: cut(entry, met[name]) if name in met else entry for name, entry in history.items()}
