"""Random numbers of JAX, asked for so that they compile fast.

XLA's time to compile a random generator grows out of proportion with what it is compiled with: other generators, as of the keys, and shapes
of more than one dimension. In a function of its own, from keys that are there, and in one dimension, it takes half of it down to a tenth; the
numbers are the same.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float


def normal(key: Any, shape: tuple[int, ...], kind: Any = float) -> Float[Array, "..."]:
    """Standard normals, those of `jax.random.normal`."""
    return jax.random.normal(key, (math.prod(shape),), kind).reshape(shape)


@partial(jax.jit, static_argnums=(1, 2))
def normals(keys: Any, shape: tuple[int, ...], kind: Any = float) -> Float[Array, "n ..."]:
    """The same for each key."""
    return jax.vmap(lambda key: normal(key, shape, kind))(keys)


def integer(key: Any, shape: tuple[int, ...], first: int, last: int) -> Any:
    """Numbers from first…last − 1, those of `jax.random.randint`."""
    return jax.random.randint(key, (math.prod(shape),), first, last).reshape(shape)


@partial(jax.jit, static_argnums=(1, 2, 3))
def integers(keys: Any, shape: tuple[int, ...], first: int, last: int) -> Any:
    """The same for each key."""
    return jax.vmap(lambda key: integer(key, shape, first, last))(keys)


@partial(jax.jit, static_argnums=1)
def split(keys: Any, shape: int | tuple[int, ...] = 2) -> Any:
    """For each key so many others."""
    shape = (shape,) if isinstance(shape, int) else shape
    return jax.vmap(lambda key: jax.random.split(key, math.prod(shape)).reshape(shape))(keys)


@jax.jit
def folded(keys: Any, *numbers: int) -> Any:
    """For each key one of its own for these numbers."""

    def own(key: Any) -> Any:
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key

    return jax.vmap(own)(keys)
