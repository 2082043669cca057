"""Standard normal innovations: one scrambled Sobol sequence, moment-matched or plain draws.

Every column (dimension) is a function of (seed, replica, dimension) alone, so that results depend neither on how a run is cut into
chunks nor on how much capacity was set aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import qmc

KINDS = ("sobol", "moments", "plain")
# Dimensions are made in blocks; samples are shuffled between blocks. High dimensions of a Sobol sequence are badly correlated in pairs at
# practical S, and two scramblings of one dimension share their leading digits: shuffling makes blocks independent of each other.
BLOCK = 64
_BITS = 30


@dataclass(frozen=True)
class Innovations:
    """Columns of standard normals, one for each dimension.

    Args:
        samples: S.
        seed, replica: replicas of one seed are independent.
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"sampling={self.kind!r} is not known: give one of {', '.join(map(repr, KINDS))}")

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n S"]:
        """Dimensions start…stop−1, one a row.

        Args:
            start, stop: range of dimensions.

        Returns:
            Standard normals.
        """
        found = [np.empty((0, self.samples))]
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            found.append(self._block(block)[max(start - first, 0) : min(stop - first, BLOCK)])
        return np.concatenate(found)

    def _block(self, block: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, self.replica, block])
        if self.kind == "sobol":
            return self._sobol(random, shuffle=block > 0)
        normals = random.standard_normal((BLOCK, self.samples))
        return _match_moments(normals) if self.kind == "moments" else normals

    def _sobol(self, random: np.random.Generator, shuffle: bool) -> np.ndarray:
        power = max(self.samples - 1, 1).bit_length()
        points = qmc.Sobol(BLOCK, scramble=True, bits=_BITS, seed=random).random_base2(power)[: self.samples]
        if shuffle:
            points = points[random.permutation(self.samples)]
        # centre of the cell of side 2^-bits: keeps 0 out of the inverse distribution function
        return ndtri(np.ascontiguousarray(points.T) + 2.0 ** -(_BITS + 1))


def _match_moments(normals: np.ndarray) -> np.ndarray:
    """Linear map of the rows to zero mean and unit covariance; too few samples for that stay as they are."""
    count, samples = normals.shape
    if samples <= 2 * count:
        return normals
    centred = normals - normals.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred @ centred.T / samples)
    return (vectors / np.sqrt(values)) @ vectors.T @ centred
