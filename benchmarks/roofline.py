"""What this machine could do at best: measured rates, and the bytes and operations that a solution needs.

Model, per step, in units of S numbers, with r_ℓ the rank of the features φ(h^ℓ) and q_ℓ that of the gradient fields g^ℓ so far (read off the
solution), P examples, b bytes a number:

    hidden matrix ℓ = 1…L−1 (bases Q, P and innovations Ξ, Υ, each read once):  bytes 2 (r_ℓ + q_{ℓ+1}) b,
        operations 6 P (r_ℓ + q_{ℓ+1}): coefficients, and images along innovations and along the other basis, both ways
    bases kept for kernels only, r_L and q_1:                                      bytes (r_L + q_1) b, operations 2 P (r_L + q_1)

The least time of a step is the larger of bytes/bandwidth and operations/rate. Fields themselves (P rows), eigendecompositions of P × P
matrices, forming and conditioning new directions, drawing of normals, compilation and assembly of the result count as nothing: the solver pays
for them. Second readings of a basis, which a larger cache would save, count as nothing too.

`products_made` counts what this method's own products do, those with n new directions a step included:

    hidden matrix, each way: residuals of P vectors, 2 P r; new directions with the rows, 2 n r, and with the other innovations, 2 n q.

Their time at the measured rate, as a share of the time taken, tells how well the machine is used; the model tells what a better method could do.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numerics import Solution
from numerics.order_parameters import FactoredKernel


class Machine(NamedTuple):
    """Measured rates.

    Attributes:
        bandwidth: bytes per CPU second of a ← b + s a on arrays that no cache holds.
        rate: operations per CPU second of a square matrix product.
    """

    bandwidth: float
    rate: float


def measure(dtype: str = "float64", rounds: int = 3, seconds: float = 0.4, length: int = 8_000_000, order: int = 1536) -> Machine:
    """Rates of this machine now, per second of CPU time, which other programs disturb least; the best of several rounds, as a limit should be.

    Args:
        dtype: of the numbers.
        rounds: how often each.
        seconds: of a round. The clock of CPU time is coarse: a single call may seem to take half its time.
        length: of the vectors.
        order: of the matrices.
    """
    b = jnp.ones(length, dtype)
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(order, order)) / np.sqrt(order), dtype)
    # in place: a result in new memory would time the operating system's handing out of pages
    triad = jax.jit(lambda a, b: b + 0.5 * a, donate_argnums=0)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    least = lambda function, argument: min(_seconds(function, seconds, argument) for _ in range(rounds))
    return Machine(3 * b.nbytes / least(triad, b), 2 * order**3 / least(product, matrix))


def _seconds(function, least: float, argument) -> float:
    """CPU seconds of a call on what the last one returned and the argument, from as many as take `least`."""
    value = function(jnp.copy(argument), argument).block_until_ready()
    began, calls = time.process_time(), 0
    while (used := time.process_time() - began) < least:
        value = function(value, argument).block_until_ready()
        calls += 1
    return used / calls


def ranks(sol: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of features and of gradient fields after each time, by layer; zero where a field has no basis.

    Shapes:
        (L, T) each.
    """

    def of(kernel) -> np.ndarray:
        if not isinstance(kernel, FactoredKernel):
            return np.zeros(sol.problem.steps, int)
        present = np.any(kernel.left[0] != 0, axis=1)
        last = np.where(present.any(axis=1), present.shape[1] - np.argmax(present[:, ::-1], axis=1), 0)
        return np.maximum.accumulate(last)

    layers = range(1, sol.depth + 1)
    return np.stack([of(sol.Phi[l]) for l in layers]), np.stack([of(sol.G[l]) for l in layers])


def products_made(sol: Solution) -> float:
    """Operations of a run's products: the model's, and those that find new directions and condition them. One replica."""
    (r, q), P = ranks(sol), sol.problem.P
    fresh = lambda rank: np.diff(rank, axis=1, prepend=0)
    new_forward, new_backward = fresh(r)[:-1], fresh(q)[1:]
    finding = 2.0 * P * (r[:-1] * (new_forward > 0) + q[1:] * (new_backward > 0))
    conditioning = 2.0 * (new_forward + new_backward) * (r[:-1] + q[1:])
    return float(sol.settings["samples"] * np.sum(_needed(r, q, P)[1] + (finding + conditioning).sum(axis=0)))


def _needed(r: np.ndarray, q: np.ndarray, P: int) -> tuple[np.ndarray, np.ndarray]:
    """The model: numbers to read and operations to do at each time, for one sample."""
    hidden, recorded = r[:-1].sum(axis=0) + q[1:].sum(axis=0), r[-1] + q[0]
    return 2.0 * hidden + recorded, P * (6.0 * hidden + 2.0 * recorded)


def least_seconds(sol: Solution, machine: Machine) -> tuple[float, float, float]:
    """The model's least time for a run of `solve_dmft` with one replica.

    Returns:
        Seconds, and total bytes and operations.
    """
    samples, width = sol.settings["samples"], np.dtype(sol.settings["dtype"]).itemsize
    read, operations = (samples * each for each in _needed(*ranks(sol), sol.problem.P))
    moved = width * read
    return float(np.sum(np.maximum(moved / machine.bandwidth, operations / machine.rate))), float(moved.sum()), float(operations.sum())
