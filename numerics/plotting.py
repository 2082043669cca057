"""Figures of solutions. Matplotlib is imported when a figure is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from .solution import SOLVERS, Solution

# Distinguishable in grey and for colour-blind readers (Okabe & Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plot(solution: Solution):
    """Loss, alignment, target alignment, and the last layer's kernel before and after training.

    Args:
        solution: what to draw.

    Returns:
        The matplotlib figure.
    """
    figure, axes = _canvas(2, 3)
    title = f"{solution.rule}, L = {solution.depth}, {SOLVERS[solution.solver]}, γ0 = {solution.problem.gamma0:g}"
    figure.suptitle(title)
    _losses(axes[0, 0], [(solution, "train", COLOURS[0], "-")])
    if solution.test_loss is not None:
        _band(axes[0, 0], solution.t, solution.test_loss, solution.test_loss_se, COLOURS[1], "test", "--")
    axes[0, 0].legend(frameon=False)
    for l in range(solution.depth):
        colour = COLOURS[l % len(COLOURS)]
        _band(axes[0, 1], solution.t, solution.alignment[l], solution.alignment_se[l], colour, f"layer {l + 1}")
        _band(axes[0, 2], solution.t, solution.cka[l], solution.cka_se[l], colour, f"layer {l + 1}")
    _label(axes[0, 1], "step", "cos(g, g̃)", "gradient alignment")
    _label(axes[0, 2], "step", "CKA(Φ, yyᵀ)", "target alignment")
    axes[0, 2].legend(frameon=False)
    flat = lambda array: array.reshape(len(solution.t), -1)
    y = solution.problem.y
    # labels of other losses are not what outputs go to
    reached = np.allclose(solution.problem.objective.error(y, y), 0)
    for k, target in enumerate(y.ravel()[: len(COLOURS)]):
        _band(axes[1, 0], solution.t, flat(solution.f)[:, k], flat(solution.f_se)[:, k], COLOURS[k], None)
        if reached:
            axes[1, 0].axhline(target, color=COLOURS[k], lw=0.6, ls=":")
    _label(axes[1, 0], "step", "f", "outputs (dotted: targets)" if reached else "outputs")
    _kernels(figure, axes[1, 1:], solution)
    return figure


def plot_compare(solution: Solution, simulation: Solution):
    """Theory against simulation: loss, outputs at the end, and the last layer's kernel entry by entry.

    Args:
        solution: drawn as lines.
        simulation: drawn as dots, with bars of one standard error; of the same problem.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: the two do not have the same numbers of examples and steps.
    """
    if solution.f.shape != simulation.f.shape:
        raise ValueError(f"outputs have shapes {solution.f.shape} and {simulation.f.shape}: compare solutions of one problem")
    figure, axes = _canvas(1, 3)
    figure.suptitle(f"{solution.rule}: {SOLVERS[solution.solver]} (lines) and {SOLVERS[simulation.solver]} (dots)")
    every = max(1, len(simulation.loss) // 20)
    _band(axes[0, 0], solution.t, solution.loss, solution.loss_se, COLOURS[0], None)
    dots = {"fmt": "o", "ms": 3.5, "color": COLOURS[1], "lw": 1}
    axes[0, 0].errorbar(simulation.t[::every], simulation.loss[::every], simulation.loss_se[::every], **dots)
    # after the bars: on a logarithmic axis their limits are rounded, and a single one has none
    _log_scale(axes[0, 0], solution.loss, simulation.loss)
    _label(axes[0, 0], "step", "loss", "loss")
    x, y, x_se, y_se = (each[-1].ravel() for each in (solution.f, simulation.f, solution.f_se, simulation.f_se))
    _identity(axes[0, 1], x, y, x_se, y_se, dots)
    _label(axes[0, 1], SOLVERS[solution.solver], SOLVERS[simulation.solver], "outputs at the end")
    a, b = solution.Phi[solution.depth], simulation.Phi[simulation.depth]
    triangle = np.triu_indices(solution.problem.P)
    x, y, x_se, y_se = (block(-1, -1)[triangle] for block in (a.block, b.block, a.block_se, b.block_se))
    _identity(axes[0, 2], x, y, x_se, y_se, dots)
    _label(axes[0, 2], SOLVERS[solution.solver], SOLVERS[simulation.solver], f"Φ{_superscript(solution.depth)} at the end")
    return figure


def _canvas(rows: int, columns: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _log_scale(ax: Any, *losses: np.ndarray) -> None:
    """A logarithmic axis for losses, where any is positive; one without positive values cannot be drawn."""
    if any(np.any(np.asarray(loss) > 0) for loss in losses):
        ax.set_yscale("log")


def _losses(ax: Any, entries: list[tuple[Solution, str, str, str]]) -> None:
    _log_scale(ax, *(solution.loss for solution, *_ in entries))
    for solution, label, colour, style in entries:
        _band(ax, solution.t, solution.loss, solution.loss_se, colour, label, style)
    _label(ax, "step", "loss", "loss")


def _band(ax: Any, t, mean, se, colour: str, label: str | None, style: str = "-") -> None:
    known = np.isfinite(mean)  # all but what was recorded at chosen times only
    t, mean, se = (np.asarray(values)[known] for values in (t, mean, se))
    ax.plot(t, mean, style, color=colour, label=label, lw=1.6, marker="o" if len(t) == 1 else None)
    if np.all(np.isfinite(se)):
        ax.fill_between(t, mean - 2 * se, mean + 2 * se, color=colour, alpha=0.25, lw=0)


def _label(ax: Any, x: str, y: str, title: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, fontsize="medium")


def _identity(ax: Any, x, y, x_se, y_se, dots: dict[str, Any]) -> None:
    known = lambda se: se if np.all(np.isfinite(se)) else None
    low, high = min(np.min(x), np.min(y)), max(np.max(x), np.max(y))
    ax.plot([low, high], [low, high], color=COLOURS[0], lw=1)
    ax.errorbar(x, y, yerr=known(y_se), xerr=known(x_se), **dots)


def _kernels(figure: Any, axes: Any, solution: Solution) -> None:
    last = solution.Phi[solution.depth]
    known = np.flatnonzero(np.isfinite(last.equal_time_replicas()).all(axis=(0, 2, 3))).tolist()
    times = sorted({*known[:1], *known[-1:]})
    for ax in axes[len(times) :]:
        ax.set_axis_off()
    if not times:
        return
    order = np.lexsort(solution.problem.y.reshape(solution.problem.P, -1).T)
    kernels = [last.block(t, t)[np.ix_(order, order)] for t in times]
    names = {solution.problem.steps - 1: "after", 0: "before"}
    top = max(np.abs(kernel).max() for kernel in kernels)
    for ax, kernel, t in zip(axes, kernels, times, strict=False):
        image = ax.imshow(kernel, vmin=-top, vmax=top, cmap="RdBu_r")
        _label(ax, "example", "example", f"Φ{_superscript(solution.depth)} {names.get(t, f'at step {t}')}")
    figure.colorbar(image, ax=list(axes), shrink=0.8)


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
