"""Primitives whose values and gradients stay finite and right where the plain ones do not.

Generated kernels call these at coincident, opposite and zero inputs, where √, arctan2 and ab − c² lose digits or have
0·∞ slopes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """√x, with slope 0 at x = 0.

    In a kernel √(ab − c²) only ever multiplies or sits in an arctan2; its infinite slope at 0 meets a factor 0 there.
    """
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root == 0, 0, dx / (2 * jnp.where(root == 0, 1, root)))


@jax.custom_jvp
def arctan2(y: jax.Array, x: jax.Array) -> jax.Array:
    """The angle of (x, y), with slope 0 at the origin."""
    return jnp.arctan2(y, x)


@arctan2.defjvp
def _arctan2_jvp(primals, tangents):
    (y, x), (dy, dx) = primals, tangents
    square = x * x + y * y
    return arctan2(y, x), (x * dy - y * dx) / jnp.where(square == 0, 1, square)
