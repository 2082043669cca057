"""Numbers with standard errors from what the studies saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Data = dict[str, np.ndarray]


def relative_errors(f: Float[np.ndarray, "n T P"], theory: Float[np.ndarray, "T P"]) -> Float[np.ndarray, "n"]:
    """‖f − f_theory‖/‖f_theory‖ of each network, over times and examples."""
    return np.linalg.norm(f - theory, axis=(1, 2)) / np.linalg.norm(theory)


def width_slope(errors: dict[int, np.ndarray]) -> tuple[float, float]:
    """d log(rms error)/d log N, least squares, with its standard error.

    Networks of all widths are taken to scatter alike, relative to their mean squared error: the widest are too few to tell.

    Args:
        errors: of single networks, by width.
    """
    squares = {width: each**2 for width, each in errors.items()}
    scatter = np.mean([np.var(each, ddof=1) / np.mean(each) ** 2 for each in squares.values()])
    x = np.log(list(squares))
    values = np.array([0.5 * np.log(np.mean(each)) for each in squares.values()])
    variances = np.array([scatter / (4 * len(each)) for each in squares.values()])
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    return float(weights @ values), float(np.sqrt(weights**2 @ variances))


def descent(shares: Float[np.ndarray, "L+1 T"], loss: Float[np.ndarray, "T"]) -> Float[np.ndarray, "L+1"]:
    """Shares averaged over training, each step weighed with what the loss falls in it."""
    falls = loss[:-1] - loss[1:]
    return shares[:, :-1] @ falls / falls.sum()


def time_to(loss: Float[np.ndarray, "T"], fraction: float) -> float:
    """When the loss first is below a fraction of its start, between steps linearly; NaN if it never is."""
    below = np.flatnonzero(loss < fraction * loss[0])
    if not below.size:
        return float("nan")
    t = int(below[0])
    return t - 1 + (loss[t - 1] - fraction * loss[0]) / (loss[t - 1] - loss[t])


def log_slope(x: Sequence[float] | np.ndarray, y: Float[np.ndarray, "n"], se: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """d log y/dx, least squares, and its standard error from those of y."""
    centred = np.asarray(x, float) - np.mean(x)
    weights = centred / np.sum(centred**2)
    return float(weights @ np.log(y)), float(np.sqrt(weights**2 @ (se / y) ** 2))


def worst(values: Float[np.ndarray, "*shape"], errors: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The largest absolute value and the error of that entry."""
    k = int(np.argmax(np.abs(values)))
    return float(np.abs(values).flat[k]), float(np.broadcast_to(errors, np.shape(values)).flat[k])


def largest(values: Float[np.ndarray, "*shape"], errors: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The largest value and the error of that entry."""
    k = int(np.argmax(values))
    return float(values.flat[k]), float(np.broadcast_to(errors, np.shape(values)).flat[k])
