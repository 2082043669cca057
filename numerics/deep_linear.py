"""Deep linear networks under direct feedback alignment: the reduced dynamics of small matrices, and the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .jaxify import load_source


@dataclass(frozen=True)
class DeepLinearSolution:
    """Alignment matrices and loss before each step.

    Attributes:
        A: the alignment matrices A_1…A_L; entry t is before step t, the last after all steps.
        loss: half the mean squared error of the batch, before each step.
        F: feedback matrices F_1…F_{L−1}.

    Shapes:
        A_1 (T + 1, n_L, D), other A_l (T + 1, n_L, n_L), loss (T,), F_l (n_l, n_L).
    """

    A: tuple[np.ndarray, ...]
    loss: np.ndarray
    F: tuple[np.ndarray, ...]

    def weights(self, t: int = -1) -> list[np.ndarray]:
        """W_l = F_l A_l F_{l−1}ᵀ at step t."""
        top = np.eye(self.A[0].shape[1])
        left, right = [*self.F, top], [np.eye(self.A[0].shape[2]), *self.F]
        return [f @ A[t] @ g.T for f, A, g in zip(left, self.A, right, strict=True)]

    def carried(self, l: int, t: int = -1) -> np.ndarray:
        """M = A_{l+1}ᵀ G_{l+1} A_{l+2}ᵀ ⋯ A_Lᵀ: backpropagation's error at layer l is F_l M e where DFA's is F_l e."""
        found = self.A[-1][t].T
        for upper in range(len(self.A) - 1, l, -1):
            found = self.A[upper - 1][t].T @ self.F[upper - 1].T @ self.F[upper - 1] @ found
        return found

    @property
    def alignment(self) -> np.ndarray:
        """tr A_l/(√n_L ‖A_l‖) for l = 2…L: the cosine of W_l and F_l F_{l−1}ᵀ for orthonormal feedback; 0 where A_l = 0. Shape (L − 1, T + 1)."""
        found = []
        for A in self.A[1:]:
            norm = np.sqrt(A.shape[-1]) * np.linalg.norm(A, axis=(1, 2))
            found.append(np.divide(np.trace(A, axis1=1, axis2=2), norm, out=np.zeros_like(norm), where=norm > 0))
        return np.array(found)

    @property
    def condition(self) -> np.ndarray:
        """κ(A_l) for l = 2…L; infinite where A_l is singular. Shape (L − 1, T + 1)."""
        return np.array([np.linalg.cond(A) for A in self.A[1:]])

    def __repr__(self) -> str:
        ends = ", ".join(f"{value:.3f}" for value in self.alignment[:, -1])
        return f"DeepLinearSolution: {len(self.A)} layers, {len(self.loss)} steps, loss {self.loss[0]:.3g} → {self.loss[-1]:.3g}, alignment of layers 2… {ends}"


def solve_deep_linear(net: Any, X: Any, Y: Any, F: Sequence[Any], eta: float, batches: Any) -> DeepLinearSolution:
    """Run the reduced dynamics.

    Args:
        net: what `derive.deep_linear` returned.
        X, Y: inputs (P, D) and targets (P, n_L).
        F: feedback matrices of the hidden layers, (n_l, n_L).
        eta: learning rate; a step adds −η F_l Σ e h_{l−1}ᵀ/B over the batch.
        batches: indices of the examples of each step, (T, B) or (T,).

    Raises:
        ValueError: shapes that do not fit.
    """
    X, Y, F, batches = _checked(net, X, Y, F, batches)
    C, D = Y.shape[1], X.shape[1]
    start = tuple(np.zeros((C, D if l == 0 else C)) for l in range(net.layers))
    A, loss = _runner(net.source())(start, X, Y, [f.T @ f for f in F], eta, batches)
    return DeepLinearSolution(tuple(map(np.asarray, A)), np.asarray(loss), tuple(F))


@cache
def _runner(source: str) -> Any:
    module = load_source(source, "deep_linear")

    def run(start: tuple, X: jax.Array, Y: jax.Array, G: list[jax.Array], eta: jax.Array, batches: jax.Array) -> tuple:
        def advance(A: tuple, batch: jax.Array) -> tuple:
            x, y = X[batch].T, Y[batch].T
            after, output = module.step(A, x, y, G, eta / batch.size)
            return after, (after, jnp.sum((output - y) ** 2) / (2 * batch.size))

        records: tuple[tuple[jax.Array, ...], jax.Array] = jax.lax.scan(advance, start, batches)[1]
        return tuple(jnp.concatenate([first[None], rest]) for first, rest in zip(start, records[0], strict=True)), records[1]

    return jax.jit(run)


def train_deep_linear(net: Any, X: Any, Y: Any, F: Sequence[Any], eta: float, batches: Any) -> list[np.ndarray]:
    """The network itself, from zero weights: W_1…W_L after all steps. Arguments as for `solve_deep_linear`."""
    X, Y, F, batches = _checked(net, X, Y, F, batches)
    sizes = [X.shape[1], *(f.shape[0] for f in F), Y.shape[1]]
    feedback = [*F, np.eye(Y.shape[1])]

    def step(W: list[jax.Array], batch: jax.Array) -> tuple[list[jax.Array], None]:
        h = [jnp.asarray(X)[batch].T]
        for w in W:
            h.append(w @ h[-1])
        e = h[-1] - jnp.asarray(Y)[batch].T
        return [w - eta / batch.size * f @ e @ below.T for w, f, below in zip(W, feedback, h[:-1], strict=True)], None

    start = [jnp.zeros((above, below)) for below, above in pairwise(sizes)]
    W, _ = jax.jit(lambda start: jax.lax.scan(step, start, batches))(start)
    return list(map(np.asarray, W))


def _checked(net: Any, X: Any, Y: Any, F: Sequence[Any], batches: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    X, Y, F, batches = np.asarray(X, float), np.asarray(Y, float), [np.asarray(f, float) for f in F], np.asarray(batches)
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise ValueError(f"X {X.shape} and Y {Y.shape} must have one row for each example")
    if len(F) != net.layers - 1 or any(f.ndim != 2 or f.shape[1] != Y.shape[1] for f in F):
        raise ValueError(f"feedback of shapes {[f.shape for f in F]}: {net.layers} layers need {net.layers - 1} matrices with {Y.shape[1]} columns")
    batches = batches[:, None] if batches.ndim == 1 else batches
    if batches.ndim != 2 or not np.issubdtype(batches.dtype, np.integer) or batches.min() < 0 or batches.max() >= len(X):
        raise ValueError(f"batches must be indices of the {len(X)} examples, one row for each step")
    return X, Y, F, batches
