"""The demo's page: one column a rule, one row a question; infinite-width theory as lines, finite networks as points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

INK, MUTED, THEORY, NETWORK, LAZY = "#1b1f24", "#6b7280", "#1f4e9c", "#d9730d", "#8a94a3"
LAYERS = ("#7fb3d9", "#1f4e9c", "#0b2447", "#000000")
POINTS = 9  # networks are drawn at this many times, so that the theory's line stays visible
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": "#9aa1ab",
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "text.color": INK,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class RuleResult:
    """What the page shows of one rule.

    Attributes:
        label: short name, the column's title.
        kernel: the lazy kernel in one line of LaTeX (mathtext) for under the title.
        lazy, theory, network: solutions of one problem; `network` averages over seeds.
    """

    label: str
    kernel: str
    lazy: Any
    theory: Any
    network: Any


def page(results: Sequence[RuleResult], y: np.ndarray, y_test: np.ndarray, title: str, subtitle: str) -> Figure:
    """Draw the report.

    Args:
        results: one for each column.
        y, y_test: targets ±1; heat maps are sorted by y.
        title, subtitle: two lines at the top.

    Returns:
        A figure to be saved by `save_figure`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.72 * len(results) + 1.5, 11.6))
        grid = figure.add_gridspec(
            6, len(results), left=0.085, right=0.985, top=0.862, bottom=0.045, hspace=0.34, wspace=0.16,
            height_ratios=(1.25, 1.0, 1.25, 1.25, 1.0, 1.0),
        )  # fmt: skip
        axes = np.array([[figure.add_subplot(grid[row, column]) for column in range(len(results))] for row in range(6)])
        order = np.argsort(y, kind="stable")
        for column, result in enumerate(results):
            _loss(axes[0, column], result)
            _test_loss(axes[1, column], result, y_test)
            image = _heat_map(axes[2, column], result.theory, 0, order, y)
            _heat_map(axes[3, column], result.theory, -1, order, y)
            _per_layer(axes[4, column], result, "alignment")
            _per_layer(axes[5, column], result, "cka")
            _column_title(axes[0, column], result)
        _share(axes)
        _row_labels(figure, axes)
        _legends(figure, axes, results)
        _colour_bar(figure, axes, image)
        figure.text(0.02, 0.978, title, fontsize=15, fontweight="bold", va="top")
        figure.text(0.02, 0.953, subtitle, fontsize=9, color=MUTED, va="top")
    return figure


def save_figure(figure: Figure, folder: Path, stem: str = "report") -> list[Path]:
    """Write PNG and PDF."""
    paths = [folder / f"{stem}.png", folder / f"{stem}.pdf"]
    figure.savefig(paths[0], dpi=160, facecolor="white")
    figure.savefig(paths[1], facecolor="white")
    return paths


def one_line(kernel: Any) -> str:
    """The kernel's first line of LaTeX, K = …, in what matplotlib can set."""
    first = kernel.latex().splitlines()[1].removesuffix(r"\\").replace("&", "").replace(r"_{\mu\nu}", "")
    return f"${first.strip()}$"


# ---- panels ---------------------------------------------------------------------------------------------------------


def _loss(ax: Axes, result: RuleResult) -> None:
    theory, network = result.theory, result.network
    t = np.arange(len(theory.loss))
    ax.plot(np.arange(len(result.lazy.loss)), result.lazy.loss, color=LAZY, lw=1.1, ls=(0, (4, 2)))
    _band(ax, t, theory.loss, theory.loss_se, THEORY)
    _points(ax, t, network.loss, network.loss_se)
    ax.set_yscale("log", nonpositive="clip")


def _test_loss(ax: Axes, result: RuleResult, y_test: np.ndarray) -> None:
    curve = lambda solution: 0.5 * np.mean((np.asarray(solution.f_test) - y_test) ** 2, axis=-1)
    theory, network = curve(result.theory), curve(result.network)
    t = np.arange(len(theory))
    ax.plot(np.arange(len(curve(result.lazy))), curve(result.lazy), color=LAZY, lw=1.1, ls=(0, (4, 2)))
    ax.plot(t, theory, color=THEORY, lw=1.5)
    _points(ax, t, network, None)
    accuracy = np.mean(np.sign(np.asarray(result.theory.f_test[-1])) == y_test)
    ax.text(0.96, 0.93, f"{100 * accuracy:.0f} % correct", transform=ax.transAxes, ha="right", va="top", fontsize=7.5)


def _heat_map(ax: Axes, solution: Any, time: int, order: np.ndarray, y: np.ndarray) -> Any:
    """Cosines of the last layer's features, examples sorted by class."""
    last = len(solution.alignment)
    time = time % len(solution.loss)
    count = len(order)
    block = np.asarray(solution.Phi[last].block(time, time))[:count, :count][np.ix_(order, order)]
    scale = np.sqrt(np.diag(block))
    image = ax.imshow(block / np.outer(scale, scale), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    edge = np.count_nonzero(y[order] == y[order][0]) - 0.5
    ax.axhline(edge, color=INK, lw=0.5)
    ax.axvline(edge, color=INK, lw=0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _per_layer(ax: Axes, result: RuleResult, quantity: str) -> None:
    theory, network = (np.asarray(getattr(s, quantity)) for s in (result.theory, result.network))
    t = np.arange(theory.shape[1])
    for layer, (curve, points) in enumerate(zip(theory, network, strict=True)):
        ax.plot(t, curve, color=LAYERS[layer], lw=1.5)
        _points(ax, t, points, None, LAYERS[layer])
    ax.set_ylim(-0.08, 1.08)
    ax.set_yticks([0, 0.5, 1])


def _band(ax: Axes, t: np.ndarray, mean: np.ndarray, error: np.ndarray, colour: str) -> None:
    mean, error = np.asarray(mean), np.asarray(error)
    ax.fill_between(t, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.22, lw=0)
    ax.plot(t, mean, color=colour, lw=1.5)


def _points(ax: Axes, t: np.ndarray, mean: np.ndarray, error: np.ndarray | None, colour: str = NETWORK) -> None:
    at = np.unique(np.linspace(0, len(t) - 1, POINTS).round().astype(int))
    bars = None if error is None else 2 * np.asarray(error)[at]
    ax.errorbar(
        t[at],
        np.asarray(mean)[at],
        bars,
        fmt="o",
        ms=3.2,
        mfc="white",
        mec=colour,
        mew=1,
        ecolor=colour,
        lw=0.9,
        zorder=3,
    )


# ---- what the panels share ------------------------------------------------------------------------------------------


def _column_title(ax: Axes, result: RuleResult) -> None:
    ax.text(0.5, 1.27, result.label, transform=ax.transAxes, ha="center", va="bottom", fontsize=11, fontweight="bold")
    ax.text(0.5, 1.07, result.kernel, transform=ax.transAxes, ha="center", va="bottom", fontsize=7.5, color=MUTED)


def _share(axes: np.ndarray) -> None:
    """One scale for each row; numbers only at its left end, times only at the bottom of a block."""
    for row in (0, 1, 4, 5):
        low = min(ax.get_ylim()[0] for ax in axes[row])
        high = max(ax.get_ylim()[1] for ax in axes[row])
        for column, ax in enumerate(axes[row]):
            ax.set_ylim(low, high)
            ax.set_xmargin(0.03)
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.grid(axis="y", color="#e7e9ec", lw=0.6)
            ax.set_axisbelow(True)
            if row == 0:
                ax.yaxis.set_major_locator(LogLocator(numticks=6))
                ax.yaxis.set_minor_formatter(NullFormatter())
            if column:
                ax.tick_params(labelleft=False)
            if row in (0, 4):
                ax.tick_params(labelbottom=False)
            else:
                ax.set_xlabel("step", fontsize=7, labelpad=1.5, color=MUTED)


def _row_labels(figure: Figure, axes: np.ndarray) -> None:
    names = (
        "Training loss",
        "Test loss",
        "Features at the start",
        "Features at the end",
        "Alignment with the\ntrue gradient",
        "Kernel–target\nalignment",
    )
    for row, name in enumerate(names):
        box = axes[row, 0].get_position()
        figure.text(
            0.026, (box.y0 + box.y1) / 2, name, rotation=90, ha="center", va="center", fontsize=9, linespacing=1.3
        )


def _legends(figure: Figure, axes: np.ndarray, results: Sequence[RuleResult]) -> None:
    handles = [
        Line2D([], [], color=THEORY, lw=1.8, label="rich theory, infinite width (band: ±2 s.e.)"),
        Line2D([], [], color=NETWORK, marker="o", mfc="white", ls="", ms=4.5, label="trained networks (bars: ±2 s.e.)"),
        Line2D([], [], color=LAZY, lw=1.4, ls=(0, (4, 2)), label="lazy theory"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.012, 0.944), ncols=3, frameon=False, fontsize=9, columnspacing=2.5
    )  # fmt: skip
    layers = [
        Line2D([], [], color=LAYERS[layer], lw=1.8, label=f"layer {layer + 1}")
        for layer in range(len(results[0].theory.alignment))
    ]
    axes[4, 0].legend(handles=layers, loc="center", frameon=False, fontsize=8)


def _colour_bar(figure: Figure, axes: np.ndarray, image: Any) -> None:
    left = axes[3, 0].get_position()
    bar = figure.add_axes((left.x0, left.y0 - 0.017, left.width, 0.006))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
    bar.tick_params(labelsize=6.5, length=2, pad=1)
    figure.text(
        left.x1 + 0.006,
        left.y0 - 0.014,
        "cosine of the last layer's features, examples sorted by class",
        fontsize=7,
        va="center",
        color=MUTED,
    )
