"""Fields of all samples stacked along the first axis, averages over the samples of their products, and linear combinations.

These products are what a solver's time goes into, and on every device they take about as long as reading the rows. So a stack that will
fill up is kept in segments, and only those that hold something are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Samples whose products are summed in single precision before sums go on in double. On a CPU the product itself sums in blocks (error 2e-7 of
# the largest at 2^18 samples), and cutting costs two to four times the product.
PARTS = {"cpu": 2**18}
PART = 2**14
# Rows and numbers in a segment, and segments at the start: below 16 rows, sums over segments cost more than unused rows; below 2^17 numbers,
# so does starting a product.
ROWS, NUMBERS, SEGMENTS = 16, 2**17, 4


def part() -> int:
    """The largest number of samples of one part."""
    return PARTS.get(jax.default_backend(), PART)


def wide() -> jnp.dtype:
    """The floating-point type of small matrices: double precision where JAX has it, whatever the fields have."""
    return jnp.result_type(float)


def bracket(a: Float[Array, "n S"], b: Float[Array, "k S"]) -> Float[Array, "n k"]:
    """⟨a bᵀ⟩ = (1/S) Σ_i a_i b_i for all pairs of rows, in the `wide` type."""
    # The larger factor first: XLA's CPU product is several times slower the other way round.
    if a.shape[0] < b.shape[0]:
        return bracket(b, a).T
    S, parts = a.shape[-1], 1 if a.dtype == wide() else _parts(a.shape[-1])
    if parts == 1:
        return jnp.matmul(a, b.T, precision="highest").astype(wide()) / S
    cut = lambda x: x.reshape(len(x), parts, S // parts)
    return jnp.sum(jnp.einsum("npi,kpi->pnk", cut(a), cut(b), precision="highest"), axis=0, dtype=wide()) / S


def _parts(samples: int) -> int:
    """Number of equal parts with at most `part()` samples each; a multiple of eight where possible, so that devices keep their samples."""
    if samples <= part():
        return 1
    least = -(-samples // part())
    candidates = (*range(-(-least // 8) * 8, 8 * least + 8, 8), *range(least, 8 * least))
    return next((count for count in candidates if samples % count == 0), 1)


def combine(c: Float[Array, "n r"], rows: Float[Array, "r S"]) -> Float[Array, "n S"]:
    """Σ_k c_k rows_k, in the type of the rows."""
    # A transposition folded into the product would take XLA's CPU product off its fast path.
    return jnp.matmul(jax.lax.optimization_barrier(c.astype(rows.dtype)), rows, precision="highest")


def pad(array: Float[Array, "n m"], rows: int | None = None, columns: int | None = None) -> Float[Array, "n2 m2"]:
    """Zeros up to so many rows and columns; None leaves a dimension as it is."""
    n, m = array.shape
    return jnp.pad(array, ((0, (rows or n) - n), (0, (columns or m) - m)))


def segment_for(capacity: int, samples: int) -> int:
    """Rows of a segment, for a stack that starts with such a capacity."""
    return max(ROWS, -(-NUMBERS // samples), -(-capacity // SEGMENTS))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """A stack with room for so many rows, zero where none was put. `used` below is how many there are at most; the rest is not read.

    Attributes:
        segments: equally many rows each, the last one perhaps fewer.
        each: how many.
    """

    segments: tuple[Float[Array, "_ S"], ...]
    each: int = field(metadata={"static": True})

    @staticmethod
    def zeros(capacity: int, samples: int, dtype: Any, each: int | None = None) -> Rows:
        """No rows yet."""
        each = each or capacity
        return Rows(tuple(jnp.zeros((min(each, capacity - at), samples), dtype) for at in range(0, capacity, each)), each)

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    @property
    def samples(self) -> int:
        """S."""
        return self.segments[0].shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Of the fields."""
        return self.segments[0].dtype

    def _placed(self) -> Iterator[tuple[int, Float[Array, "_ S"]]]:
        return zip(range(0, len(self), self.each), self.segments, strict=True)

    def bracket(self, v: Float[Array, "n S"], used: Int[Array, ""], maybe: bool = False) -> Float[Array, "n r"]:
        """⟨v rowsᵀ⟩; `maybe` if often nothing is used."""
        found = []
        for at, segment in self._placed():
            product = partial(bracket, v, segment)
            nothing = partial(jnp.zeros, (len(v), len(segment)), wide())
            found.append(jax.lax.cond(at < used, product, nothing) if at or maybe else product())
        return jnp.concatenate(found, axis=1)

    def combine(self, c: Float[Array, "n r"], used: Int[Array, ""]) -> Float[Array, "n S"]:
        """Σ_k c_k rows_k."""
        total = combine(c[:, : self.each], self.segments[0])
        for at, segment in list(self._placed())[1:]:
            add = partial(_add, c[:, at : at + self.each], segment)
            total = jax.lax.cond(at < used, add, lambda total: total, total)
        return total

    def gram(self, used: int) -> Float[np.ndarray, "n n"]:
        """⟨rows rowsᵀ⟩ of the first rows. Not for compiled code: the number is a number."""
        there = [segment for at, segment in self._placed() if at < max(used, 1)]
        lower = [[np.asarray(_bracket(a, b)) for b in there[: k + 1]] for k, a in enumerate(there)]
        places = range(len(there))
        return np.block([[lower[k][m] if k >= m else lower[m][k].T for m in places] for k in places])[:used, :used]

    def put(self, new: Float[Array, "n S"], at: Int[Array, ""]) -> Rows:
        """The same with new rows from row `at` on, those beyond the capacity left out."""
        n = len(new)
        shifted = jnp.pad(new.astype(self.dtype), ((n, n), (0, 0)))  # so that whichever of them belong to a segment are a slice
        written = []
        for offset, segment in self._placed():
            count = min(n, len(segment))
            start = jnp.clip(at - offset, 0, len(segment) - count)
            first = start + offset - at  # the new row that belongs where writing starts
            here = (first + jnp.arange(count) >= 0) & (first + jnp.arange(count) < n)
            old = jax.lax.dynamic_slice_in_dim(segment, start, count)
            rows = jnp.where(here[:, None], jax.lax.dynamic_slice_in_dim(shifted, n + first, count), old)
            written.append(jax.lax.dynamic_update_slice_in_dim(segment, rows, start, axis=0))
        return replace(self, segments=tuple(written))

    def written(self, new: Float[np.ndarray, "n S"], at: int) -> Rows:
        """The same as `put`, not for compiled code: this stack's memory is used again."""
        segments = list(self.segments)
        for k, (offset, segment) in enumerate(self._placed()):
            first, last = max(at, offset), min(at + len(new), offset + len(segment))
            if first < last:
                segments[k] = _overwrite(segment, new[first - at : last - at], jnp.int32(first - offset))
        return replace(self, segments=tuple(segments))

    def padded(self, capacity: int) -> Rows:
        """Room for more."""
        *full, last = self.segments
        missing = capacity - len(self)
        filled = min(self.each - len(last), missing)
        more = Rows.zeros(missing - filled, self.samples, self.dtype, self.each).segments if missing > filled else ()
        return replace(self, segments=(*full, pad(last, len(last) + filled), *more))


# Compiled: called by itself, JAX would transpose a copy of one factor.
_bracket = jax.jit(bracket)


def _add(c: Float[Array, "n r"], rows: Float[Array, "r S"], total: Float[Array, "n S"]) -> Float[Array, "n S"]:
    return total + combine(c, rows)


@partial(jax.jit, donate_argnums=0)
def _overwrite(segment: Float[Array, "b S"], rows: Float[Array, "n S"], at: Int[Array, ""]) -> Float[Array, "b S"]:
    return jax.lax.dynamic_update_slice_in_dim(segment, rows.astype(segment.dtype), at, axis=0)
