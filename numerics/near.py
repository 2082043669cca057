"""Pairs of nearly parallel inputs, from the difference of the inputs.

The Gram matrix knows the angle of such a pair only to √eps. The difference of the inputs knows it to eps: with
d = y ∓ x and w = d − (x·d/x·x) x, the part of d across x, ab − c² = x·x w·w/D². Kernels with kinked activations take
s = √(ab − c²) as an argument; others are smooth in the Gram matrix and lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import safe

# sin θ below which a pair is near: above, the Gram matrix gives θ to 1e-14.
THRESHOLD = 0.03
_CHUNK = 2**22


def covariance(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(K_mumu, K_munu, K_nunu, s) of pairs of inputs, s from their difference.

    Args:
        x, y: (..., D).
    """
    dimension = x.shape[-1]
    dot = lambda p, q: jnp.sum(p * q, axis=-1)
    a, b, c = dot(x, x), dot(y, y), dot(x, y)
    side = jnp.where(c < 0, -1, 1).astype(x.dtype)[..., None]
    d = y - side * x
    across = d - safe.divide(dot(x, d), a)[..., None] * x
    s = safe.sqrt(a) * safe.sqrt(dot(across, across))
    return a / dimension, c / dimension, b / dimension, s / dimension


def all_pairs(pairs: Callable[..., jax.Array], X1: jax.Array, X2: jax.Array) -> jax.Array:
    """`pairs` with s from differences for every pair, a row at a time; under jit near pairs are not known."""

    @jax.checkpoint
    def row(x: jax.Array) -> jax.Array:
        a, c, b, s = covariance(jnp.broadcast_to(x, X2.shape), X2)
        return pairs(a, c, b, s_K=s)

    return lax.map(row, X1)


def replace_near(
    pairs: Callable[..., jax.Array], values: jax.Array, X1: jax.Array, X2: jax.Array | None
) -> tuple[jax.Array, int]:
    """Recompute the near pairs of an evaluated kernel.

    Args:
        pairs: of (K_mumu, K_munu, K_nunu, s_K).
        values: (N1, N2), as evaluated from the Gram matrix.
        X1, X2: the inputs, concrete.

    Returns:
        The matrix with near pairs replaced, and how many there were.
    """
    rows, columns = near_indices(np.asarray(X1), None if X2 is None else np.asarray(X2))
    other = X1 if X2 is None else X2
    chunk = max(1, _CHUNK // X1.shape[1])
    for start in range(0, len(rows), chunk):
        i, j = rows[start : start + chunk], columns[start : start + chunk]
        a, c, b, s = covariance(X1[i], other[j])
        found = pairs(a, c, b, s_K=s)
        values = values.at[i, j].set(found)
        if X2 is None:
            values = values.at[j, i].set(found)
    return values, len(rows)


def near_indices(X1: np.ndarray, X2: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs with |sin θ| < THRESHOLD; only i < j if X2 is None."""
    unit = lambda X: X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(X.dtype).tiny)
    left, right = unit(X1), unit(X1 if X2 is None else X2)
    limit = np.sqrt(1 - THRESHOLD**2)
    step = max(1, _CHUNK // len(right))
    found = []
    for start in range(0, len(left), step):
        i, j = np.nonzero(np.abs(left[start : start + step] @ right.T) > limit)
        keep = slice(None) if X2 is not None else i + start < j
        found.append(np.stack([i + start, j])[:, keep])
    rows, columns = np.concatenate(found, axis=1)
    return rows, columns
