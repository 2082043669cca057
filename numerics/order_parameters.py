"""Two-time order parameters such as Φ^ℓ_μν(t, s), in the forms in which solvers find them.

All kinds have `block(t, s)`, `block_se(t, s)`, `dense()`, `dense_se()`, `equal_time()` and `equal_time_replicas()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float


def mean_and_error(values: Float[np.ndarray, "R *shape"]) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Mean over replicas and its standard error; the error of a single replica is unknown: NaN."""
    values = np.asarray(values)
    count = values.shape[0]
    if count == 1:
        mean = np.array(values[0], float)
        return mean, np.full(mean.shape, np.nan)
    mean = values.mean(axis=0)
    return mean, values.std(axis=0, ddof=1) / np.sqrt(count)


def twice(exact: np.ndarray) -> Float[np.ndarray, "R *shape"]:
    """What has no sampling error, as replicas: two that agree have standard error zero."""
    return np.stack([exact, exact])


@dataclass(frozen=True, eq=False)
class FactoredKernel:
    """K(t, s) = left(t) right(s)ᵀ, one pair of factors for each replica. Memory O(R T P r), not (T P)².

    Args:
        left, right: for each replica coefficients on an orthonormal basis; ranks may differ.

    Shapes:
        Each (T, P, r).
    """

    left: Sequence[Float[np.ndarray, "T P _"]]
    right: Sequence[Float[np.ndarray, "T P _"]]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, T, P)."""
        T, P, _ = self.left[0].shape
        return T, P, T, P

    def block_replicas(self, t: int, s: int) -> Float[np.ndarray, "R P P"]:
        """K(t, s) of every replica."""
        t, s = _time(t, self.shape[0]), _time(s, self.shape[0])
        return np.stack([a[t] @ b[s].T for a, b in zip(self.left, self.right, strict=True)])

    def block(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """K(t, s), rows at time t, columns at time s."""
        return mean_and_error(self.block_replicas(t, s))[0]

    def block_se(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """Its standard error."""
        return mean_and_error(self.block_replicas(t, s))[1]

    def dense_replicas(self) -> Float[np.ndarray, "R T P T P"]:
        """All blocks of every replica."""
        T, P, _, _ = self.shape
        flat = [a.reshape(T * P, -1) @ b.reshape(T * P, -1).T for a, b in zip(self.left, self.right, strict=True)]
        return np.stack(flat).reshape(-1, T, P, T, P)

    def dense(self) -> Float[np.ndarray, "T P T P"]:
        """All blocks. Memory (T P)² for each replica."""
        return mean_and_error(self.dense_replicas())[0]

    def dense_se(self) -> Float[np.ndarray, "T P T P"]:
        """Standard errors of all blocks."""
        return mean_and_error(self.dense_replicas())[1]

    def equal_time_replicas(self) -> Float[np.ndarray, "R T P P"]:
        """K(t, t) of every replica."""
        return np.stack([a @ b.transpose(0, 2, 1) for a, b in zip(self.left, self.right, strict=True)])

    def equal_time(self) -> Float[np.ndarray, "T P P"]:
        """K(t, t)."""
        return self.equal_time_replicas().mean(axis=0)

    def plus(self, other: FactoredKernel) -> FactoredKernel:
        """The sum of two."""
        join = lambda one, two: [np.concatenate(pair, axis=2) for pair in zip(one, two, strict=True)]
        return FactoredKernel(join(self.left, other.left), join(self.right, other.right))

    def arrays(self) -> dict[str, np.ndarray]:
        """For saving."""
        ends = np.cumsum([[a.shape[2], b.shape[2]] for a, b in zip(self.left, self.right, strict=True)], axis=0)
        return {"left": np.concatenate(self.left, axis=2), "right": np.concatenate(self.right, axis=2), "ends": ends}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> FactoredKernel:
        """From what `arrays` gave."""
        cut = lambda array, ends: np.split(array, ends[:-1], axis=2)
        return FactoredKernel(cut(arrays["left"], arrays["ends"][:, 0]), cut(arrays["right"], arrays["ends"][:, 1]))


@dataclass(frozen=True, eq=False)
class DenseKernel:
    """Blocks that were averaged over replicas as a whole, or equal times only where (T P)² numbers were too many.

    Args:
        diagonal: K(t, t) of every replica.
        mean, se: all blocks and their standard errors, or None.
        remedy: what to do to get the blocks that are missing.
        diagonal_se: standard error of K(t, t), where it is not that of the replicas' mean.
        times: at which K(t, t) is known; None for all. It is NaN elsewhere.

    Shapes:
        diagonal (R, T, P, P); mean, se (T, P, T, P); diagonal_se (T, P, P).
    """

    diagonal: Float[np.ndarray, "R T P P"]
    mean: Float[np.ndarray, "T P T P"] | None = None
    se: Float[np.ndarray, "T P T P"] | None = None
    remedy: str = "give two_time=True"
    diagonal_se: Float[np.ndarray, "T P P"] | None = None
    times: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, T, P)."""
        _, T, P, _ = self.diagonal.shape
        return T, P, T, P

    def block(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """K(t, s), rows at time t, columns at time s.

        Raises:
            ValueError: t ≠ s and only equal times were recorded, or not even those at t.
        """
        t, s = self._known(t), self._known(s)
        return self.diagonal[:, t].mean(axis=0) if t == s else self._whole(self.mean)[t, :, s]

    def block_se(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """Its standard error."""
        t, s = self._known(t), self._known(s)
        if t != s:
            return self._whole(self.se)[t, :, s]
        return mean_and_error(self.diagonal[:, t])[1] if self.diagonal_se is None else self.diagonal_se[t]

    def _known(self, t: int) -> int:
        t = _time(t, self.shape[0])
        if self.times is not None and t not in self.times:
            there = ", ".join(map(str, self.times[:8])) + (", …" if len(self.times) > 8 else "")
            raise ValueError(f"this kernel was averaged at times {there or '(none)'}, not at {t}: give kernels_at= with {t}, or without it for all")
        return t

    def dense(self) -> Float[np.ndarray, "T P T P"]:
        """All blocks."""
        return self._whole(self.mean)

    def dense_se(self) -> Float[np.ndarray, "T P T P"]:
        """Standard errors of all blocks."""
        return self._whole(self.se)

    def _whole(self, array: np.ndarray | None) -> np.ndarray:
        if array is None:
            T, P, _, _ = self.shape
            raise ValueError(f"only equal times were recorded, ({T}·{P})² numbers a kernel being many: {self.remedy}")
        return array

    def equal_time_replicas(self) -> Float[np.ndarray, "R T P P"]:
        """K(t, t) of every replica."""
        return self.diagonal

    def equal_time(self) -> Float[np.ndarray, "T P P"]:
        """K(t, t)."""
        return self.diagonal.mean(axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """For saving."""
        found = {"diagonal": self.diagonal, "mean": self.mean, "se": self.se, "remedy": np.array(self.remedy), "diagonal_se": self.diagonal_se}
        found["times"] = None if self.times is None else np.array(self.times, int)
        return {name: array for name, array in found.items() if array is not None}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> DenseKernel:
        """From what `arrays` gave."""
        whole = arrays["diagonal"], arrays.get("mean"), arrays.get("se"), str(arrays["remedy"]), arrays.get("diagonal_se")
        return DenseKernel(*whole, times=tuple(map(int, arrays["times"])) if "times" in arrays else None)


@dataclass(frozen=True, eq=False)
class FieldKernel:
    """K(t, s) = ⟨left(t) right(s)⟩ from the fields at all S samples; blocks are averaged when asked for. Memory O(R S T P).

    Args:
        left, right: for each replica fields at all times.
        diagonal: K(t, t) of every replica.
        correction: what is added to the averages; the diagonal contains it.

    Shapes:
        Fields (T, P, S), diagonal (R, T, P, P).
    """

    left: Sequence[Float[np.ndarray, "T P S"]]
    right: Sequence[Float[np.ndarray, "T P S"]]
    diagonal: Float[np.ndarray, "R T P P"]
    correction: FactoredKernel | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, T, P)."""
        _, T, P, _ = self.diagonal.shape
        return T, P, T, P

    def block_replicas(self, t: int, s: int) -> Float[np.ndarray, "R P P"]:
        """K(t, s) of every replica."""
        t, s = _time(t, self.shape[0]), _time(s, self.shape[0])
        if t == s:
            return self.diagonal[:, t]
        found = np.stack([_averages(a[t], b[s]) for a, b in zip(self.left, self.right, strict=True)])
        return found if self.correction is None else found + self.correction.block_replicas(t, s)

    def block(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """K(t, s), rows at time t, columns at time s."""
        return mean_and_error(self.block_replicas(t, s))[0]

    def block_se(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """Its standard error."""
        return mean_and_error(self.block_replicas(t, s))[1]

    @cached_property
    def whole(self) -> DenseKernel:
        """All blocks. Memory (T P)² for each replica while they are averaged."""
        T, P, _, _ = self.shape
        flat = [_averages(a.reshape(T * P, -1), b.reshape(T * P, -1)) for a, b in zip(self.left, self.right, strict=True)]
        found = np.stack(flat).reshape(-1, T, P, T, P)
        return DenseKernel(self.diagonal, *mean_and_error(found if self.correction is None else found + self.correction.dense_replicas()))

    def dense(self) -> Float[np.ndarray, "T P T P"]:
        """All blocks."""
        return self.whole.dense()

    def dense_se(self) -> Float[np.ndarray, "T P T P"]:
        """Standard errors of all blocks."""
        return self.whole.dense_se()

    def equal_time_replicas(self) -> Float[np.ndarray, "R T P P"]:
        """K(t, t) of every replica."""
        return self.diagonal

    def equal_time(self) -> Float[np.ndarray, "T P P"]:
        """K(t, t)."""
        return self.diagonal.mean(axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """For saving: blocks, not fields."""
        return self.whole.arrays()

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> DenseKernel:
        """From what `arrays` gave."""
        return DenseKernel.from_arrays(arrays)


def _averages(a: Float[np.ndarray, "n S"], b: Float[np.ndarray, "k S"]) -> Float[np.ndarray, "n k"]:
    """⟨a bᵀ⟩, in double precision whatever the fields have; a few thousand samples at a time."""
    S = a.shape[1]
    part = lambda x, start: x[:, start : start + 4096].astype(float, copy=False)
    return sum((part(a, start) @ part(b, start).T for start in range(0, S, 4096)), np.zeros((len(a), len(b)))) / S


@dataclass(frozen=True, eq=False)
class ConstantKernel:
    """K(t, s) = K: exact, and the same at all times."""

    value: Float[np.ndarray, "P P"]
    steps: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, T, P)."""
        return self.steps, len(self.value), self.steps, len(self.value)

    def block(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """K."""
        _time(t, self.steps), _time(s, self.steps)
        return self.value

    def block_se(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """Zero."""
        return np.zeros_like(self.block(t, s))

    def dense(self) -> Float[np.ndarray, "T P T P"]:
        """K at all pairs of times (a view)."""
        return np.broadcast_to(self.value[None, :, None, :], self.shape)

    def dense_se(self) -> Float[np.ndarray, "T P T P"]:
        """Zeros."""
        return np.zeros(self.shape)

    def equal_time_replicas(self) -> Float[np.ndarray, "R T P P"]:
        """K at all times, as of one replica."""
        return self.equal_time()[None]

    def equal_time(self) -> Float[np.ndarray, "T P P"]:
        """K at all times (a view)."""
        return np.broadcast_to(self.value, (self.steps, *self.value.shape))

    def arrays(self) -> dict[str, np.ndarray]:
        """For saving."""
        return {"value": self.value, "steps": np.array(self.steps)}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> ConstantKernel:
        """From what `arrays` gave."""
        return ConstantKernel(arrays["value"], int(arrays["steps"]))


@dataclass(frozen=True, eq=False)
class AbsentKernel:
    """A kernel that the solver does not compute: NaN in summaries, an error when asked for.

    Args:
        T, P: its shape, had it been computed.
        reason: why it is not there and where to get it.
    """

    T: int
    P: int
    reason: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, P, T, P)."""
        return self.T, self.P, self.T, self.P

    def _refuse(self) -> np.ndarray:
        raise ValueError(self.reason)

    def block(self, t: int, s: int) -> Float[np.ndarray, "P P"]:
        """Raises ValueError."""
        return self._refuse()

    block_se = block

    def dense(self) -> Float[np.ndarray, "T P T P"]:
        """Raises ValueError."""
        return self._refuse()

    dense_se = dense

    def equal_time_replicas(self) -> Float[np.ndarray, "R T P P"]:
        """NaN."""
        return np.full((1, self.T, self.P, self.P), np.nan)

    def equal_time(self) -> Float[np.ndarray, "T P P"]:
        """Raises ValueError."""
        return self._refuse()

    def arrays(self) -> dict[str, np.ndarray]:
        """For saving."""
        return {"shape": np.array([self.T, self.P]), "reason": np.array(self.reason)}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> AbsentKernel:
        """From what `arrays` gave."""
        T, P = map(int, arrays["shape"])
        return AbsentKernel(T, P, str(arrays["reason"]))


Kernel = FactoredKernel | DenseKernel | FieldKernel | ConstantKernel | AbsentKernel
KINDS: dict[str, type[Kernel]] = {kind.__name__: kind for kind in (FactoredKernel, DenseKernel, FieldKernel, ConstantKernel, AbsentKernel)}


class Layers:
    """Kernels by layer, indexed as in the papers: Φ⁰…Φ^L, G¹…G^{L+1}.

    Args:
        kernels: in order.
        first: index of the first.
    """

    def __init__(self, kernels: Sequence[Kernel], first: int) -> None:
        self._kernels = tuple(kernels)
        self.first = first

    def __getitem__(self, l: int) -> Kernel:
        if not self.first <= l < self.first + len(self._kernels):
            raise IndexError(f"layer {l} is not there: layers {self.first} to {self.first + len(self._kernels) - 1} are")
        return self._kernels[l - self.first]

    def __len__(self) -> int:
        return len(self._kernels)

    def __iter__(self):
        return iter(self._kernels)

    def items(self):
        """(index, kernel) pairs."""
        return enumerate(self._kernels, self.first)

    def __repr__(self) -> str:
        return f"Layers({self.first}…{self.first + len(self) - 1})"


def _time(t: int, steps: int) -> int:
    if not -steps <= t < steps:
        raise IndexError(f"time {t} was not recorded: times 0 to {steps - 1} are (entry t is the state before the t-th update)")
    return t % steps


