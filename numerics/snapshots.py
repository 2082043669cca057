"""Fields of all neurons (single-site samples) at chosen times: what marginal densities are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .dynamics import Dynamics
from .training import Fields, State


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Fields of every layer at one time, before the update, by layer 1…L.

    Attributes:
        h: preactivations h^ℓ.
        z: back-propagated fields z^ℓ, before the slope: g^ℓ = slope · z^ℓ.
        m: gates m^ℓ; empty in a network without gates.

    Shapes:
        Each (R, P, N): replicas or seeds, training examples, samples or neurons (z: P C rows with C outputs). z of the last layer, the
        readout weights, is the same for all examples.
    """

    h: Mapping[int, Float[np.ndarray, "R P N"]]
    z: Mapping[int, Float[np.ndarray, "R P N"]]
    m: Mapping[int, Float[np.ndarray, "R P N"]]

    def __repr__(self) -> str:
        R, P, N = self.h[1].shape
        gates = ", m" if self.m else ""
        return f"Snapshot(h, z{gates} of layers 1…{len(self.h)}: {R} replicas, {P} examples, {N} sites)"


def listed(name: str, times: Iterable[int]) -> tuple[int, ...]:
    """What the argument `name` holds.

    Raises:
        ValueError: it is no list of times.
    """
    try:
        return tuple(times)
    except TypeError:
        raise ValueError(f"{name}={times!r} is not a list of times: give for example {name}=[0, -1]") from None


def times_of(name: str, times: Iterable[int], steps: int) -> tuple[int, ...]:
    """Times in order, each once, none negative.

    Args:
        name: of the argument, for the message.
        times: integers, negative ones from the end.
        steps: T.

    Raises:
        ValueError: there is no list of them, or one is not an integer or was not recorded.
    """
    found = set()
    for t in listed(name, times):
        if isinstance(t, bool) or not isinstance(t, int | np.integer) or not -steps <= t < steps:
            raise ValueError(f"{name} has {t!r}, which is no recorded time: give integers from 0 to {steps - 1} (or negative, from the end)")
        found.add(int(t) % steps)
    return tuple(sorted(found))


def taken(state: State, fields: Fields) -> dict[str, tuple[Array, ...]]:
    """What a snapshot keeps, by name and layer."""
    return {"h": fields.h, "z": tuple(jnp.broadcast_to(z, g.shape) for z, g in zip(fields.z, fields.g, strict=True)), "m": state.gates}


def empty_snapshots(rule: Dynamics, count: int, outputs: tuple[int, ...], N: int, kind: Any) -> dict[str, tuple[Array, ...]]:
    """Room for `count` times, in the shape of `taken`; `outputs` is the shape of f."""
    room = lambda rows: tuple(jnp.zeros((count, rows, N), kind) for _ in range(rule.depth))
    return {"h": room(outputs[0]), "z": room(math.prod(outputs)), "m": room(outputs[0]) if rule.gated else ()}


def put(kept: Float[Array, "K *R P N"], now: Float[Array, "*R P N"], times: tuple[int, ...], t: Int[Array, ""]) -> Float[Array, "K *R P N"]:
    """`now` at its place among the times, if t is one of them."""
    return jnp.where((jnp.asarray(times) == t).reshape(-1, *(1,) * now.ndim), now.astype(kept.dtype), kept)


def recorded(history: dict[str, Any], now: dict[str, Any], snapshot: dict[str, Any], times: tuple[int, ...], t: Int[Array, ""]) -> dict[str, Any]:
    """A history, time first, with entry t: what `now` has under each of its names, and under "snapshots" the snapshot, if t is one of the times."""
    kept = _written({name: entry for name, entry in history.items() if name != "snapshots"}, now, t)
    if times:
        kept["snapshots"] = jax.tree.map(lambda array, entry: put(array, entry, times, t), history["snapshots"], snapshot)
    return kept


def _written(kept: Any, now: Any, t: Int[Array, ""]) -> Any:
    """Entry t of every array that is kept."""
    if isinstance(kept, dict):
        return {name: _written(entry, now[name], t) for name, entry in kept.items()}
    return jax.tree.map(lambda array, entry: jax.lax.dynamic_update_index_in_dim(array, entry.astype(array.dtype), t, 0), kept, now)


def collect(times: tuple[int, ...], replicas: list[dict[str, Any]]) -> Mapping[int, Snapshot]:
    """Snapshots by time, from what each replica kept: (K, P, N) arrays by name and layer."""
    stacked = {name: [np.stack(each) for each in zip(*(kept[name] for kept in replicas), strict=True)] for name in ("h", "z", "m")}
    at = lambda k: {name: MappingProxyType({l: array[:, k] for l, array in enumerate(layers, 1)}) for name, layers in stacked.items()}
    return MappingProxyType({t: Snapshot(**at(k)) for k, t in enumerate(times)})
