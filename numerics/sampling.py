"""Standard normal innovations: one scrambled Sobol sequence, moment-matched or plain draws.

Every column (dimension) is a function of (seed, replica, population, dimension) alone, so that results depend neither on how a run is cut into
chunks nor on how much capacity was set aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

KINDS = ("sobol", "moments", "plain")
# Dimensions are made in blocks; samples are shuffled between blocks. High dimensions of a Sobol sequence are badly correlated in pairs at
# practical S, and two scramblings of one dimension share their leading digits: shuffling makes blocks independent of each other.
BLOCK = 64
# Dimensions of a Sobol block that are made at a time: one shape, so that code is compiled once for each number of samples.
PORTION = 16
_BITS = 30
# Of binary digits, the first one first.
_PLACES = np.arange(_BITS - 1, -1, -1, dtype=np.uint32)
_BELOW, _DIAGONAL = np.tril(np.ones((_BITS, _BITS), np.uint8), -1), np.eye(_BITS, dtype=np.uint8)


@dataclass(frozen=True)
class Innovations:
    """Columns of standard normals, one for each dimension.

    Args:
        samples: S.
        seed, replica: replicas of one seed are independent.
        population: of sites; the sequences of different populations are independent.
        kind: "sobol" (scrambled, shuffled between blocks), "moments" (plain draws, each block of dimensions with exact zero mean and
            unit covariance) or "plain".

    Raises:
        ValueError: unknown kind.

    Source: Owen 1998 (scrambling); THEORY section 5.
    """

    samples: int
    seed: int = 0
    replica: int = 0
    kind: str = "sobol"
    population: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"sampling={self.kind!r} is not known: give one of {', '.join(map(repr, KINDS))}")

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n S"]:
        """Dimensions start…stop−1, one a row.

        Args:
            start, stop: range of dimensions.

        Returns:
            Standard normals. Sobol points are mapped to them in single precision, relative to the nearer end of the unit interval.
        """
        found = []
        for block in range(start // BLOCK, -(-stop // BLOCK)) if start < stop else ():
            first = block * BLOCK
            found.append(self._block(block, max(start - first, 0), min(stop - first, BLOCK)))
        return found[0] if len(found) == 1 else np.concatenate([np.empty((0, self.samples), np.float32), *found])

    def _block(self, block: int, start: int, stop: int) -> np.ndarray:
        """Dimensions start…stop−1 of a block."""
        key = (self.seed, self.replica, self.population, block)
        if self.kind == "sobol":
            first, last = start // PORTION * PORTION, -(-stop // PORTION) * PORTION
            lower, shift, index = _randomness(key, self.samples)
            directions = _scrambled(_directions(max(self.samples - 1, 1).bit_length())[:, first:last], lower[first:last])
            portions = [slice(at, at + PORTION) for at in range(0, last - first, PORTION)]
            parts = [_normals(directions[some], shift[first:last][some], index) for some in portions]
            return (parts[0] if len(parts) == 1 else np.concatenate(parts))[start - first : stop - first]
        normals = np.random.default_rng(key).standard_normal((BLOCK, self.samples))
        return (_match_moments(normals) if self.kind == "moments" else normals)[start:stop]


@lru_cache(maxsize=32)
def _directions(power: int) -> UInt32[np.ndarray, "k B"]:
    """Direction numbers of the first `power` binary digits of a point's number, for the dimensions of one block."""
    from scipy.stats import qmc  # here, because it takes as long to import as all of JAX

    engine, found, at = qmc.Sobol(BLOCK, scramble=False, bits=_BITS), np.empty((power, BLOCK), np.uint32), 0
    for k in range(power):
        # points come in the order of the Gray code, which is 2^k for the number 2^(k+1) − 1
        engine.fast_forward(2 ** (k + 1) - 1 - at)
        found[k] = np.rint(engine.random(1)[0] * 2.0**_BITS)
        at = 2 ** (k + 1)
    return found


# Of a block, dimensions are wanted in several calls: the single vectors first, directions as they are met.
@lru_cache(maxsize=8)
def _randomness(key: tuple[int, ...], samples: int) -> tuple[UInt8[np.ndarray, "B b b"], UInt32[np.ndarray, "B"], UInt32[np.ndarray, "S"]]:
    """What is random about a block: digits of a linear map for each dimension, a shift, and the order of points: shuffled, but for the first block.

    Args:
        key: seed, replica, population and block.
        samples: S.
    """
    random = np.random.default_rng(key)
    lower = random.integers(0, 2, (BLOCK, _BITS, _BITS), dtype=np.uint8)
    shift = random.integers(0, 2**_BITS, BLOCK, dtype=np.uint32)
    return lower, shift, (random.permutation(samples) if key[-1] > 0 else np.arange(samples)).astype(np.uint32)


def _scrambled(directions: UInt32[np.ndarray, "k n"], lower: UInt8[np.ndarray, "n b b"]) -> UInt32[np.ndarray, "n k"]:
    """Direction numbers after a linear map of their binary digits, lower triangular with ones on the diagonal.

    Source: Matoušek 1998.
    """
    # what each digit of a number becomes, as a number
    columns = (((lower & _BELOW) | _DIAGONAL) * (np.uint32(1) << _PLACES)[:, None]).sum(axis=1, dtype=np.uint32)
    digits = (directions.T[:, :, None] >> _PLACES) & 1
    return np.bitwise_xor.reduce(digits * columns[:, None], axis=2)


@jax.jit
def _points(directions: UInt32[Array, "n k"], shift: UInt32[Array, "n"], index: UInt32[Array, "S"]) -> Float[Array, "n S"]:
    x = jnp.broadcast_to(shift[:, None], (len(shift), len(index)))
    for k in range(directions.shape[1]):
        x = x ^ (directions[:, k, None] * ((index >> k) & 1))
    # from the nearer end, where single precision is relative; centre of the cell of side 2^-bits: keeps 0 out of the inverse
    upper = x >= 2 ** (_BITS - 1)
    tail = (jnp.where(upper, 2**_BITS - 1 - x, x).astype(jnp.float32) + 0.5) * 2.0**-_BITS
    normal = jax.scipy.special.ndtri(tail)
    return jnp.where(upper, -normal, normal)


def _normals(directions: np.ndarray, shift: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.asarray(_points(directions, shift, index))


def _match_moments(normals: np.ndarray) -> np.ndarray:
    """Linear map of the rows to zero mean and unit covariance; too few samples for that stay as they are."""
    count, samples = normals.shape
    if samples <= 2 * count:
        return normals
    centred = normals - normals.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred @ centred.T / samples)
    return (vectors / np.sqrt(values)) @ vectors.T @ centred
