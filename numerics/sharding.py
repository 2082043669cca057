"""Where the samples live: all on one device, or spread over a one-dimensional mesh of several.

Every field has the samples along its last axis, so spreading that axis is all there is to do: averages over samples become sums across
devices under `jit`, small matrices are the same everywhere. Numbers agree with those of one device up to the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .errors import positive_integer

AXIS = "samples"
Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Placement:
    """Which devices hold which samples. Hashable: compiled code is kept per placement.

    Attributes:
        mesh: the devices; None for JAX's default device.
        samples: S.
    """

    mesh: Mesh | None
    samples: int

    @staticmethod
    def of(devices: int | Sequence[Any] | None, samples: int) -> Placement:
        """Equal shares of the samples for every device.

        Args:
            devices: devices, or how many of the local ones; None for all local ones, or, when `jax.distributed` is initialised,
                those of all processes.
            samples: S.

        Raises:
            ValueError: so many devices are not there, or S is no multiple of their number.
        """
        chosen = _devices(devices)
        count = len(chosen)
        if samples % count:
            below, above = samples // count * count, -(-samples // count) * count
            fitting = f"samples={above}" + (f" (or {below})" if below else "")
            raise ValueError(
                f"samples={samples} cannot be spread over {count} devices in equal shares: give {fitting}, or devices= a divisor of "
                f"{samples} (devices=1 for a single one)"
            )
        mesh = None if chosen == jax.local_devices()[:1] else Mesh(np.array(chosen), (AXIS,))
        return Placement(mesh, samples)

    @property
    def count(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.devices.size

    def spread(self, tree: Tree) -> Tree:
        """Arrays that JAX or numpy hold, to their places; with one device compiled code takes either, and puts what numpy holds itself."""
        if self.mesh is None:
            return tree

        def place(leaf):
            target = self._sharding(leaf.shape)
            if isinstance(leaf, jax.Array) and leaf.sharding.device_set == target.device_set:
                return jax.device_put(leaf, target)
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, target, lambda part: np.array(host[part]))

        return jax.tree.map(place, tree)

    def keep(self, tree: Tree) -> Tree:
        """The same layout for what a compiled step computed."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self._sharding(leaf.shape)), tree)

    def gather(self, tree: Any) -> Any:
        """Whole arrays in the memory of every process, as numpy arrays."""
        return jax.tree.map(lambda leaf: np.asarray(leaf if _readable(leaf) else self._everywhere(leaf)), tree)

    def change(self, change: Callable[[Tree], Tree], tree: Tree) -> Tree:
        """Arrays of other shapes. With several devices this happens in the host's memory, which no single device may have."""
        if self.mesh is None:
            return change(tree)
        whole = self.gather(tree)
        with self.host():
            return self.spread(change(whole))

    @contextmanager
    def host(self) -> Iterator[None]:
        """Where arrays are made before they are spread: the host's memory, or the default device when it is the only one."""
        if self.mesh is None or self.mesh.devices.flat[0].platform == "cpu":
            yield
            return
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield

    def _sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        assert self.mesh is not None
        spread = bool(shape) and shape[-1] == self.samples
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * (len(shape) - 1), AXIS) if spread else PartitionSpec())

    def _everywhere(self, leaf: jax.Array) -> jax.Array:
        assert self.mesh is not None
        return jax.jit(lambda array: array, out_shardings=NamedSharding(self.mesh, PartitionSpec()))(leaf)


def _readable(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _devices(devices: int | Sequence[Any] | None) -> list[Any]:
    if devices is None:
        # with several processes everyone must take part in every sum
        return jax.devices() if jax.process_count() > 1 else jax.local_devices()
    if not isinstance(devices, int):
        chosen = list(devices)
        if not chosen:
            raise ValueError("devices=[] is empty: give at least one device, or None for all")
        return chosen
    wanted, there = positive_integer("devices", devices, "a number of devices"), jax.local_devices()
    if wanted > len(there):
        raise ValueError(f"devices={wanted} but JAX sees {len(there)} here ({there[0].platform}): give at most {len(there)}")
    return there[:wanted]
