"""Figures from the studies' saved arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from numerics.plotting import COLOURS

Arrays = dict[str, np.ndarray]
DPI = 110


def draw(data: dict[str, Arrays], folder: Path) -> None:
    """All figures."""
    for name, figure in (
        ("drift", drift(data["drift"], data["broken"])),
        ("identity", identity(data["identity"])),
        ("alignment", alignment(data["alignment"])),
        ("two_layers", two_layers(data["minimum_norm"], data["modes"])),
        ("infinite", infinite(data["infinite"])),
    ):
        figure.savefig(folder / f"{name}.png", dpi=DPI)


def _canvas(width: float, height: float, columns: int):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def drift(laws: Arrays, wrong: Arrays):
    """Drift against the step: laws on the left, what is no law on the right; over what ½‖W‖² does."""
    figure, axes = _canvas(12, 4.6, 2)
    for ax, found, title in zip(axes, (laws, wrong), ("conserved quantities", "laws in networks that break them"), strict=True):
        for k, name in enumerate(map(str, found["names"])):
            style = ("-", "--", ":")[k // len(COLOURS)]
            ax.loglog(found["steps"], found["drift"][k] / found["moved"][k], f"o{style}", ms=3.5, lw=1.3, color=COLOURS[k % len(COLOURS)], label=name)
        ax.set(xlabel="Euler step η", ylabel="|Q(T) − Q(0)| / max |½‖W‖² − ½‖W(0)‖²|", title=title)
        ax.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[0].loglog(laws["steps"], 5 * laws["steps"], color="0.6", lw=1)
    axes[0].annotate("slope 1", (laws["steps"][2], 6.5 * laws["steps"][2]), fontsize=8, color="0.4", ha="right")
    axes[1].set_ylim(bottom=0.1)
    for ax in axes:
        _steps(ax, laws["steps"])
    return figure


def _steps(ax, steps: np.ndarray) -> None:
    """Ticks at the steps."""
    ax.set_xticks(steps, [f"{step:g}" for step in steps])
    ax.set_xticks([], minor=True)


def identity(found: Arrays):
    """What finite steps add, and momentum."""
    figure, axes = _canvas(9, 3.6, 2)
    for name, label, colour in (("full", "full batches", COLOURS[0]), ("batches", "batches of three", COLOURS[1])):
        values, predicted = found[f"{name} values"], found[f"{name} predicted"]
        k = np.arange(len(values))
        axes[0].plot(k, values - values[0], color=colour, lw=1.6, label=label)
        axes[0].plot(k[::25], (predicted - values[0])[::25], "o", ms=4, mfc="none", color=colour, label="½η² Σ‖G‖²")
    axes[0].set(xlabel="step k", ylabel="Q(k) − Q(0)", title="exact in every step")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].loglog(found["steps"], found["momentum"], "o-", color=COLOURS[2], label="momentum 0.9")
    axes[1].loglog(found["steps"], found["momentum"][-1] * found["steps"] / found["steps"][-1], color="0.6", lw=1, label="slope 1")
    axes[1].set(xlabel="step η", ylabel="|Q(T) − Q(0)|", title="heavy ball: conserved to O(η)")
    _steps(axes[1], found["steps"])
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def alignment(found: Arrays):
    """Angles between forward and feedback weights over time."""
    figure, axes = _canvas(12, 3.8, 3)
    labels = {"small": "ρ = 0, small start"}
    for l, ax in enumerate(axes):
        for colour, name in zip(COLOURS, ("0", "0.25", "0.5", "0.75", "1", "small"), strict=True):
            ax.semilogx(found["time"] + 0.1, found[f"{name} cosine"][:, l], color=colour, lw=1.6, label=labels.get(name, f"ρ = {name}"))
            ax.semilogx((found["time"] + 0.1)[::4], found[f"{name} predicted"][::4, l], "o", ms=3.5, mfc="none", color=colour)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(xlabel="time η k (+ 0.1)", ylabel=f"cos(W{l + 1}, B{l + 1})", title=f"layer {l + 1}", ylim=(-0.15, 1.05))
    axes[2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title="lines: networks\ncircles: the law", title_fontsize=8)
    return figure


def two_layers(least: Arrays, modes: Arrays):
    """Minimum norm, modes and the angle of the readout."""
    figure, axes = _canvas(12.5, 3.8, 3)
    positive = least["scale"] > 0
    axes[0].loglog(least["scale"][positive], least["excess"][positive], "o", color=COLOURS[0], label="‖F − F_min‖")
    axes[0].loglog(least["scale"][positive], least["predicted"][positive], "-", color=COLOURS[1], label="‖W1 W0(0) P⊥‖")
    axes[0].set(xlabel="scale of the start", ylabel="relative to ‖F_min‖", title="distance from minimum norm")
    axes[0].legend(frameon=False, fontsize=8)
    for k, value in enumerate(modes["s"]):
        times, strengths = np.append(modes["theory_t"][:, k], 20), np.append(modes["theory_strength"][:, k], value)
        axes[1].plot(times, strengths, color=COLOURS[k], lw=1.4, label=f"s = {value:g}")
        axes[1].plot(modes["t"][::4], modes["strength"][::4, k], "o", ms=3.5, mfc="none", color=COLOURS[k])
    axes[1].set(xlabel="time", ylabel="strength f", title="modes from zero weights", xlim=(-0.1, modes["t"][-1]))
    axes[1].legend(frameon=False, fontsize=8, title="lines: closed form", title_fontsize=8, loc="center right", bbox_to_anchor=(1, 0.72))
    axes[2].plot(modes["t"], modes["cosine"], color=COLOURS[0], lw=1.6, label="network")
    axes[2].axhline(float(modes["final_cosine"]), color=COLOURS[1], lw=1, ls="--", label="limit, closed form")
    axes[2].set(xlabel="time", ylabel="cos(W1, B)", title="angle of readout and feedback")
    axes[2].legend(frameon=False, fontsize=8)
    return figure


def infinite(found: Arrays):
    """The law at infinite width: neuron by neuron, and the layers' drift."""
    figure, axes = _canvas(12.5, 3.8, 3)
    q, half = found["q"], found["half"]
    shown = slice(0, 400)
    axes[0].plot(half[0, shown], half[-1, shown], ".", ms=3, color=COLOURS[1], label="½‖W_i‖²")
    axes[0].plot(q[0, shown], q[-1, shown], ".", ms=3, color=COLOURS[0], label="q_i")
    ends = [min(q[0].min(), half[0].min()), max(q[0, shown].max(), half[0, shown].max())]
    axes[0].plot(ends, ends, color="0.6", lw=0.8)
    axes[0].set(xlabel="at t = 0", ylabel="at t = T", title="single neurons at infinite width")
    axes[0].legend(frameon=False, fontsize=8, markerscale=3)
    axes[1].plot(found["predicted"][-1, shown], (q[-1] - q[0])[shown], ".", ms=3, color=COLOURS[0])
    top = found["predicted"][-1, shown].max()
    axes[1].plot([0, top], [0, top], color="0.6", lw=0.8)
    axes[1].set(xlabel="½c0² Σ ΔΔ g̃g̃ K^x", ylabel="q_i(T) − q_i(0)", title="what finite steps add")
    widths = found["widths"]
    for l, theory in enumerate(found["theory"]):
        axes[2].plot(theory, color=COLOURS[l], lw=1.6, label=f"layer {l + 1}, order parameters")
        runs = found["networks"][-1, :, l]
        se = runs.std(0, ddof=1) / np.sqrt(len(runs))
        k = np.arange(runs.shape[1])[::4]
        axes[2].errorbar(k, runs.mean(0)[::4], se[::4], fmt="o", ms=3.5, mfc="none", color=COLOURS[l], label=f"networks, N = {widths[-1]}")
    axes[2].set(xlabel="step", ylabel="(Q(t) − Q(0))/N", title="drift of the layers' laws")
    axes[2].legend(frameon=False, fontsize=8)
    return figure
