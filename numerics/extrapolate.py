"""From networks of several widths to infinite width: weighted least squares in 1/N."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import positive_integer
from .order_parameters import ConstantKernel, DenseKernel, Kernel, Layers
from .solution import Solution


def extrapolate(solutions: Iterable[Solution], order: int = 1) -> Solution:
    """Estimate the infinite-width limit from ensembles of networks of several widths.

    Every observable is fitted by a polynomial X(N) = X(∞) + c₁/N + … + c_order/N^order. Fluctuations of a network of width N have a variance
    of order 1/N, so that an ensemble of n networks gets the weight N n: the same for all observables, which therefore keep all linear
    relations among each other, and X(∞) is a fixed linear combination of the ensembles' means. Standard errors are propagated from theirs.

    Args:
        solutions: what `train_finite` gave for one problem and rule at more than `order` widths, each with a `seed` of its own: networks of one
            seed resemble each other at all widths.
        order: highest power of 1/N.

    Returns:
        The estimate at N = ∞, with standard errors. `stats["coefficients"]` has the combination's; `stats["chi2"]` the sum of squares of what
        the fit of the loss at the last time leaves, over its variance, and `stats["freedom"]` the number of degrees of freedom it should be
        near to: much more means that `order` is too low for these widths.

    Raises:
        ValueError: too few widths, an `order` that is none, solutions that share a seed, or solutions of different problems, rules, parameters or
            solvers.

    Source: least squares (Aitken 1935); finite-width corrections in powers of 1/N, THEORY section 5.
    """
    solutions, order = list(solutions), positive_integer("order", order, "a power of 1/N to fit")
    widths, seeds = _sizes(solutions, order)
    coefficients = combination(widths, widths * seeds, order)
    last = solutions[-1]
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(Solution)):
        if f"{name}_se" in last.__dataclass_fields__ and getattr(last, name) is not None:
            found[name], found[f"{name}_se"] = _combined([(getattr(s, name), getattr(s, f"{name}_se")) for s in solutions], coefficients)
    for name in ("Phi", "G", "G_tilde", "H"):
        layers = [getattr(s, name) for s in solutions]
        kernels = [_kernel([each[l] for each in layers], coefficients) for l, _ in layers[0].items()]
        found[name] = Layers(kernels, layers[0].first)
    chi2, freedom = _misfit(solutions, widths, order)
    settings = {"widths": widths.astype(int).tolist(), "seeds": seeds.astype(int).tolist(), "order": order}
    stats = {"coefficients": coefficients.tolist(), "chi2": chi2, "freedom": freedom}
    return replace(last, **found, settings=settings, stats=stats, snapshots={})


def combination(widths: Float[np.ndarray, "K"], weights: Float[np.ndarray, "K"], order: int) -> Float[np.ndarray, "K"]:
    """The linear combination of means at these widths that weighted least squares takes for the value at 1/N = 0."""
    powers = (widths.min() / widths)[:, None] ** np.arange(order + 1)
    return np.linalg.pinv(np.sqrt(weights)[:, None] * powers)[0] * np.sqrt(weights)


def _sizes(solutions: Sequence[Solution], order: int) -> tuple[np.ndarray, np.ndarray]:
    for sol in solutions:
        if sol.solver != "finite" or "width" not in sol.settings:
            raise ValueError(f"a solution of solver {sol.solver!r} has no width: give what train_finite returned")
        for name in ("source", "parameters"):
            if getattr(sol, name) != getattr(solutions[0], name):
                raise ValueError(f"solutions differ in {name} ({sol.rule} and {solutions[0].rule}): extrapolate one rule on one network")
        ours, first = sol.problem.arrays(), solutions[0].problem.arrays()
        if ours.keys() != first.keys() or not all(np.array_equal(ours[name], first[name]) for name in first):
            raise ValueError("solutions are of different problems: extrapolate widths of one problem")
    widths = np.array([sol.settings["width"] for sol in solutions], float)
    if len(set(widths)) <= order:
        raise ValueError(f"{len(set(widths))} different widths cannot fix {order + 1} coefficients: give at least {order + 1} widths")
    _refuse_shared_seeds(solutions)
    return widths, np.array([sol.settings["seeds"] for sol in solutions], float)


def _refuse_shared_seeds(solutions: Sequence[Solution]) -> None:
    of_seed: dict[Any, int] = {}
    for sol in solutions:
        seed, width = sol.settings.get("seed"), sol.settings["width"]
        if seed in of_seed and seed is not None:
            raise ValueError(
                f"networks of widths {of_seed[seed]} and {width} share seed={seed!r}: they are drawn from the same random numbers, and the errors of "
                "the fit are those of independent ones; train each ensemble with a seed of its own, such as seed=width"
            )
        of_seed[seed] = width


def _combined(pairs: Sequence[tuple[Any, Any]], coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ c_k x_k, and its standard error where each has its own."""
    value = sum(c * x for c, (x, _) in zip(coefficients, pairs, strict=True))
    return value, np.sqrt(sum(c**2 * se**2 for c, (_, se) in zip(coefficients, pairs, strict=True)))


def _kernel(kernels: Sequence[Kernel], coefficients: np.ndarray) -> Kernel:
    if isinstance(kernels[0], ConstantKernel):
        return kernels[0]
    T = kernels[0].shape[0]
    diagonal, error = _combined([(k.equal_time(), np.stack([k.block_se(t, t) for t in range(T)])) for k in kernels], coefficients)
    whole: tuple[Any, Any] = (None, None)
    if all(isinstance(k, DenseKernel) and k.mean is not None for k in kernels):
        whole = _combined([(k.dense(), k.dense_se()) for k in kernels], coefficients)
    return DenseKernel(diagonal[None], *whole, remedy="give train_finite(..., two_time=True) for every width", diagonal_se=error)


def _misfit(solutions: Sequence[Solution], widths: np.ndarray, order: int) -> tuple[float, int]:
    """χ² of the loss at the last time, with measured standard errors."""
    loss, se = (np.array([getattr(sol, name)[-1] for sol in solutions]) for name in ("loss", "loss_se"))
    freedom = len(solutions) - order - 1
    if freedom == 0 or not np.all(se > 0):
        return float("nan"), freedom
    powers = (widths.min() / widths)[:, None] ** np.arange(order + 1)
    fitted = powers @ (np.linalg.pinv(powers / se[:, None]) @ (loss / se))
    return float(np.sum(((loss - fitted) / se) ** 2)), freedom
