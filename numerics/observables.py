"""What a solution says about single layers: who learns, how far kernels moved, how they line up with the targets.

Everything is computed for every replica (seed) and returned as mean and standard error over them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from .jaxify import jaxify
from .order_parameters import Kernel, mean_and_error
from .solution import Solution, entk_terms, target_alignment

Estimate: TypeAlias = tuple[np.ndarray, np.ndarray]


def entk_layers(solution: Solution) -> tuple[Float[np.ndarray, "L+1 T P P"], Float[np.ndarray, "L+1 T P P"]]:
    """The eNTK's terms G̃^{ℓ+1} (σ_w² Φ^ℓ + σ_b²), ℓ = 0…L: what training W^ℓ and its bias contributes. They add up to `solution.entk`.

    Args:
        solution: of any solver that knows the kernels of all layers.

    Returns:
        Mean and standard error.
    """
    return _stacked([mean_and_error(term) for term in _terms(solution)])


def learning_shares(solution: Solution) -> tuple[Float[np.ndarray, "L+1 T"], Float[np.ndarray, "L+1 T"]]:
    """The share of each weight matrix in the descent of the loss, Δᵀ K^ℓ Δ/Δᵀ K Δ for the terms K^ℓ of the eNTK, ℓ = 0…L.

    Shares add up to one; a negative one belongs to a layer that works against the others.

    Args:
        solution: as for `entk_layers`; Δ is that of its mean outputs.

    Returns:
        Mean and standard error; NaN once Δ vanishes.
    """
    p = solution.problem
    Delta = np.asarray(p.objective.error(solution.f, p.y)).reshape(len(solution.f), -1)
    descent = [np.einsum("tm,rtmn,tn->rt", Delta, term, Delta) for term in _terms(solution)]
    total = np.sum(np.broadcast_arrays(*descent), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.where(total != 0, each / total, np.nan) for each in descent]
    return _stacked([mean_and_error(each) for each in shares])


def movement(kernel: Kernel) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """‖K(t,t) − K(0,0)‖/‖K(0,0)‖ in Frobenius norm.

    Args:
        kernel: a layer's, such as `solution.Phi[1]`.

    Returns:
        Mean and standard error.
    """
    K = kernel.equal_time_replicas()
    size = lambda matrices: np.linalg.norm(matrices, axis=(-1, -2))
    return mean_and_error(size(K - K[:, :1]) / size(K[:, :1]))


def alignment_with(kernel: Kernel, y: Float[np.ndarray, "P *C"], centred: bool = True) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """yᵀKy/(‖K‖ yᵀy) of any kernel at equal times, as `solution.cka` (and, not centred, `solution.kta`) are for Φ.

    Args:
        kernel: a layer's, such as `solution.G_tilde[1]`.
        y: targets; several outputs are one vector for kernels that have an index for each.
        centred: whether kernel and targets are centred first.

    Returns:
        Mean and standard error.
    """
    y = np.asarray(y)
    return mean_and_error(target_alignment(kernel.equal_time_replicas(), y if len(y) == kernel.shape[1] else y.ravel(), centred))


def _terms(solution: Solution) -> list[Float[np.ndarray, "R T P P"]]:
    scales = jaxify(solution.source).scales(**solution.parameters)
    return entk_terms(solution.Phi, solution.G_tilde, *map(float, scales))


def _stacked(estimates: list[Estimate]) -> Estimate:
    mean, se = zip(*estimates, strict=True)
    return np.stack(np.broadcast_arrays(*mean)), np.stack(np.broadcast_arrays(*se))
