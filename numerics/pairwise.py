"""A function of covariances over all pairs of inputs, tile by tile.

Tiles that fit a processor's cache make the many elementwise steps of a kernel cheap, and keep memory at the result itself:
N = 20,000 inputs need one N×N array, or two where N is not a multiple of the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isqrt

import jax
import jax.numpy as jnp
from jax import lax

from . import safe

# An accelerator wants fewer, larger launches than a processor's cache.
_ACCELERATOR_TILE = 2**24

Pairs = Callable[..., jax.Array]
Single = Callable[[jax.Array], jax.Array]


def pairwise(
    pairs: Pairs, single: Single, X1: jax.Array, X2: jax.Array | None, symmetric: bool, entries: int, block: int | None = None
) -> jax.Array:
    """pairs(K_mumu, K_munu, K_nunu) for all rows of X1 and X2, with single(K) on the diagonal if X2 is None.

    Args:
        pairs: elementwise in the input kernel's entries (N1, 1), (N1, N2), (1, N2).
        single: the same at coincident inputs.
        X1, X2: (N1, D) and (N2, D); None: X1 with itself.
        symmetric: whether pairs(a, c, b) = pairs(b, c, a); halves the work if X2 is None.
        entries: of a tile, on a processor.
        block: rows at a time; chosen from `entries` if None.

    Returns:
        (N1, N2); exactly symmetric where `symmetric` and X2 is None.
    """
    entries = entries if jax.default_backend() == "cpu" else max(entries, _ACCELERATOR_TILE)
    if X2 is None and symmetric:
        return _symmetric(pairs, single, X1, block or isqrt(entries))
    values = _rows(pairs, X1, X1 if X2 is None else X2, block, entries)
    if X2 is None:
        index = jnp.arange(len(X1))
        values = values.at[index, index].set(jnp.ravel(single(safe.gram(X1[:1], X1)[2])))
    return values


def _rows(pairs: Pairs, X1: jax.Array, X2: jax.Array, block: int | None, entries: int) -> jax.Array:
    """Blocks of rows, one after the other."""
    total = len(X1)
    size = min(total, block or _even(total, max(1, entries // max(1, len(X2)))))
    if size >= total:
        return pairs(*safe.gram(X1, X2))
    count = ceil(total / size)
    padded = jnp.concatenate([X1, jnp.ones((count * size - total, X1.shape[1]), X1.dtype)]) if count * size > total else X1
    step = jax.checkpoint(lambda rows: pairs(*safe.gram(rows, X2)))
    values = lax.map(step, padded.reshape(count, size, -1)).reshape(count * size, len(X2))
    return values[:total]


def _symmetric(pairs: Pairs, single: Single, X: jax.Array, block: int) -> jax.Array:
    """Tiles on and above the diagonal, each written on both sides."""
    total = len(X)
    size = min(total, _even(total, block))
    diagonal = single(safe.gram(X[:1], X)[2]) * jnp.ones((1, total), X.dtype)
    if size >= total:
        return safe.with_diagonal(pairs(*safe.gram(X)), diagonal)
    count = ceil(total / size)
    extra = count * size - total
    padded = jnp.concatenate([X, jnp.ones((extra, X.shape[1]), X.dtype)]) if extra else X
    diagonal = jnp.pad(jnp.ravel(diagonal), (0, extra))

    rows, columns = jnp.triu_indices(count)
    part = lambda of, k: lax.dynamic_slice_in_dim(of, k * size, size)

    @jax.checkpoint
    def tile(at: tuple[jax.Array, jax.Array]) -> jax.Array:
        i, j = at
        a, c, b = safe.gram(part(padded, i), part(padded, j))
        # replaced below; as 0 they leave the off-diagonal correlations as the largest, which a series may depend on
        own = (i == j) & (jnp.arange(size)[:, None] == jnp.arange(size))
        values = pairs(a, jnp.where(own, 0, c), b)
        return lax.cond(i == j, lambda v: safe.with_diagonal(v, part(diagonal, i)), lambda v: v, values)

    def place(result: jax.Array, item: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        i, j, values = item
        result = lax.dynamic_update_slice(result, values, (i * size, j * size))
        return lax.dynamic_update_slice(result, values.T, (j * size, i * size)), None

    # computed first, placed after: placed at once, a tile would be computed twice, the second time across its columns
    tiles = lax.map(tile, (rows, columns))
    result, _ = lax.scan(place, jnp.zeros((count * size,) * 2, tiles.dtype), (rows, columns, tiles))
    return result[:total, :total]


def _even(total: int, wanted: int) -> int:
    """A size near `wanted` that divides `total`, so that nothing is padded; `wanted`-sized parts of equal length otherwise."""
    if wanted >= total:
        return total
    divisors = [size for size in range(max(1, ceil(wanted * 0.6)), int(wanted * 1.3) + 1) if total % size == 0]
    return max(divisors) if divisors else ceil(total / ceil(total / wanted))


__all__ = ["pairwise"]
