"""Random numbers that are drawn so as to compile fast are those of JAX, to the bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numerics.draws import folded, integers, normals, split

KEYS = jax.random.split(jax.random.key(5), 3)
SHAPE = (4, 7)


def same(found, function):
    expected = jax.vmap(function)(KEYS)
    raw = jax.random.key_data if jnp.issubdtype(expected.dtype, jax.dtypes.prng_key) else np.asarray
    np.testing.assert_array_equal(raw(found), raw(expected))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_normals(kind):
    same(normals(KEYS, SHAPE, kind), lambda key: jax.random.normal(key, SHAPE, kind))


def test_integers():
    same(integers(KEYS, SHAPE, 2, 11), lambda key: jax.random.randint(key, SHAPE, 2, 11))


def test_keys():
    same(split(KEYS), jax.random.split)
    same(split(KEYS, SHAPE), lambda key: jax.random.split(key, SHAPE))
    same(folded(KEYS, 3, 1), lambda key: jax.random.fold_in(jax.random.fold_in(key, 3), 1))
