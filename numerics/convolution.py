"""The convolution whose matrix is nearest to a given one."""

from __future__ import annotations

from typing import Any

import numpy as np


def convolution_matrix(kernel: Any, side: int) -> np.ndarray:
    """The matrix of a convolution without padding, (c_out d_out², c_in d_in²), from its kernel (c_out, c_in, k, k) and d_in = side."""
    weights = np.asarray(kernel, float)
    c_out, c_in, k, _ = weights.shape
    out = side - k + 1
    matrix = np.zeros((c_out, out, out, c_in, side, side))
    for p in range(out):
        for q in range(out):
            matrix[:, p, q, :, p : p + k, q : q + k] = weights
    return matrix.reshape(c_out * out**2, c_in * side**2)


def nearest_convolution(target: Any, channels: tuple[int, int], side: int, k: int) -> np.ndarray:
    """The kernel whose matrix has the smallest distance to the target: the mean over the places of each of its entries.

    Args:
        target: (c_out d_out², c_in side²), d_out = side − k + 1.
        channels: (c_out, c_in).

    Raises:
        ValueError: a target of another shape.
    """
    (c_out, c_in), out = channels, side - k + 1
    matrix = np.asarray(target, float)
    if matrix.shape != (c_out * out**2, c_in * side**2):
        raise ValueError(f"a target of shape {matrix.shape}: {channels} channels, side {side} and kernels of {k} need {(c_out * out**2, c_in * side**2)}")
    placed = matrix.reshape(c_out, out, out, c_in, side, side)
    places = range(out)
    return np.mean([placed[:, p, q, :, p : p + k, q : q + k] for p in places for q in places], axis=0)


def convolution_alignment(F_out: Any, F_in: Any, channels: tuple[int, int], side: int, k: int) -> float:
    """The largest cosine of a convolution's matrix with F_out F_inᵀ, over all kernels."""
    target = np.asarray(F_out, float) @ np.asarray(F_in, float).T
    best = convolution_matrix(nearest_convolution(target, channels, side, k), side)
    return float(np.sum(best * target) / np.linalg.norm(best) / np.linalg.norm(target))
