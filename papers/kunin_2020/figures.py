"""Figures from the saved studies."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

Arrays = dict[str, np.ndarray]
COLOURS = {
    "BP": "0.2", "FA": "0.6", "SA": "C0", "AA": "C1", "WM": "C3", "IA": "C2", "KP": "C4", "WM, noise": "C5", "AA, SGD": "C8",
}  # fmt: skip


def draw(data: dict[str, Arrays], folder: Path) -> None:
    """Write all figures."""
    for name, figure in {
        "layers": _layers(data["angles"], data["floors"]),
        "stability": _stability(data["cotraining"], data["depth"]),
        "width": _width(data["cosines"], data["weights"]),
        "networks": _networks(data["networks"], data["sweep"]),
        "residual": _residual(data["residual"]),
        "depths": _depths(data["depths"]),
        "optimisers": _optimisers(data["optimisers"], data["sweep"]),
        "noise": _noise(data["noise"]),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
        plt.close(figure)


def _panels(count: int, height: float = 3.6):
    figure, axes = plt.subplots(1, count, figsize=(4.4 * count, height), layout="constrained")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _layers(angles: Arrays, floors: Arrays):
    figure, (left, right) = _panels(2)
    for name in ("SA", "AA", "WM", "IA"):
        left.plot(angles["fine"], angles[f"{name} theory"], color=COLOURS[name], label=name)
        left.plot(angles["marks"], angles[f"{name} simulated"], "o", color=COLOURS[name])
    left.set(xlabel="time (unit rates)", ylabel="angle of B and Wᵀ (degrees)", title="W fixed, correlated inputs")
    left.legend(title="lines: closed form\ndots: simulation", frameon=False)
    kind = np.array([name.split(",")[0] for name in floors["cases"]])
    for name in ("WM", "IA", "AA"):
        right.plot(floors["predicted"][kind == name], floors["measured"][kind == name], "o", color=COLOURS[name], label=name)
    top = 1.1 * floors["predicted"].max()
    right.plot([0, top], [0, top], color="0.7", lw=1, zorder=0)
    right.set(xlabel="derived angle (degrees)", ylabel="measured angle (degrees)", title="what batches of fresh inputs leave")
    right.legend(frameon=False)
    return figure


def _stability(system: Arrays, depth: Arrays):
    figure, (left, middle, right) = _panels(3)
    for forgetting, style in zip(system["forgetting"], ("-", "--", ":"), strict=True):
        left.semilogy(system["times"], system[f"even {forgetting:g}"], style, color=COLOURS["WM"], label=f"d = {forgetting:g}")
    left.set(xlabel="time", ylabel="|W + Bᵀ|", title="weight mirror, W trained too, aσ² = 1.5")
    left.legend(frameon=False)
    middle.semilogy(system["times"], system["IA angle"], color=COLOURS["IA"], label="angle of B and Wᵀ (degrees)")
    middle.semilogy(system["times"], system["IA balance"], "o", ms=3, color="0.3", label="|WWᵀ − BᵀB|, relative")
    middle.semilogy(system["times"], np.exp(-0.4 * system["times"]), color="0.7", lw=1, label="exp(−2dt)", zorder=0)
    middle.set(xlabel="time", title="information alignment, W trained too")
    middle.legend(frameon=False)
    levels = np.arange(1, depth["WM measured"].shape[1] + 1)
    for name in ("WM", "IA"):
        for gain, measured, predicted, mark in zip(depth["gains"], depth[f"{name} measured"], depth[f"{name} predicted"], "v.^", strict=True):
            right.semilogy(levels, predicted, color=COLOURS[name], lw=1)
            right.semilogy(levels, measured, mark, color=COLOURS[name], label=f"{name}, g = {gain:g}")
    right.set(xlabel="layer", ylabel="∏ |B|/|W| up to it", title="depth: gain of the feedback path")
    right.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def _width(cosines: Arrays, weights: Arrays):
    figure, (left, middle, right) = _panels(3, 4.0)
    for name in ("FA", "AA", "KP", "WM", "IA", "SA"):
        colour = COLOURS[name]
        mean, error = cosines[f"{name} theory alignment"][0], cosines[f"{name} theory alignment_se"][0]
        left.fill_between(cosines["steps"], mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, lw=0)
        left.plot(cosines["steps"], mean, color=colour, label=name)
        some = slice(None, None, 3)
        left.errorbar(
            cosines["steps"][some], cosines[f"{name} networks alignment"][0][some], 2 * cosines[f"{name} networks alignment_se"][0][some],
            fmt="o", ms=3, lw=1, color=colour,
        )  # fmt: skip
        for axis, what in ((middle, "fields"), (right, "weights")):
            axis.errorbar(weights["widths"], weights[f"{name} {what}"], weights[f"{name} {what}_se"], fmt="o-", ms=4, lw=1, color=colour)
    left.set(xlabel="step", ylabel="cosine of gradient and pseudo-gradient", title=f"layer 1; dots: networks of width {int(cosines['width'])}")
    left.legend(title="lines: infinite width", frameon=False, ncols=2, fontsize=8)
    middle.set(xscale="log", xlabel="width N", ylabel="cosine of the fields, last step", title="fields: a limit of order one")
    right.set(xscale="log", yscale="log", xlabel="width N", ylabel="cosine of B and Wᵀ, last step", title="matrices: no limit but 0 where rank is low")
    guide = weights["widths"].astype(float)
    right.plot(guide, 0.3 * (guide / guide[0]) ** -0.5, color="0.7", lw=1, zorder=0)
    right.text(guide[-1], 0.3 * (guide[-1] / guide[0]) ** -0.5 * 1.25, "1/√N", color="0.5", ha="right")
    right.plot(guide, 0.1 * guide[0] / guide, color="0.7", lw=1, zorder=0)
    right.text(guide[-1], 0.1 * guide[0] / guide[-1] * 0.75, "1/N", color="0.5", ha="right")
    right.set_ylim(bottom=3e-3)
    for axis in (middle, right):
        axis.set_xticks(weights["widths"], [str(width) for width in weights["widths"]], minor=False)
        axis.minorticks_off()
    return figure


def _networks(runs: Arrays, sweep: Arrays):
    figure, (left, middle, right) = _panels(3)
    names = [name for name in COLOURS if f"{name} loss" in runs]
    for name in names:
        left.semilogy(runs["steps"], runs[f"{name} loss"].mean(axis=0), color=COLOURS[name], label=name)
    left.set(xlabel="step", ylabel="training loss", title="digits, tanh, three hidden layers")
    left.legend(frameon=False, fontsize=8, ncols=2)
    learning = [name for name in names if name != "BP"]
    for place, name in enumerate(learning):
        angles = runs[f"{name} angles"][:, :, -1].mean(axis=0)
        middle.bar(np.arange(len(angles)) + 0.11 * (place - len(learning) / 2), angles, 0.1, color=COLOURS[name])
    middle.set(ylabel="angle of B and Wᵀ (degrees), last step", title="layer by layer (colours as left)")
    middle.set_xticks(range(3), ["layer 2", "layer 3", "readout"])
    for activation, style in (("tanh", "--"), ("relu", "-")):
        for name in ("WM", "IA", "AA") if f"{activation} WM accuracy" in sweep else ():
            right.semilogx(
                sweep["strengths"], 100 * sweep[f"{activation} {name} accuracy"].mean(axis=1), "o" + style, ms=4, color=COLOURS[name],
                label=f"{name}, {activation}",
            )  # fmt: skip
    right.set(xlabel="strength of amp (AA: rate)", ylabel="test accuracy (%)", title="how much the coefficient matters")
    right.legend(frameon=False, fontsize=8)
    return figure


def _residual(runs: Arrays):
    figure, (left, right) = _panels(2)
    names = [name for name in COLOURS if f"{name} loss" in runs]
    for name in names:
        left.plot(runs["steps"], runs[f"{name} loss"].mean(axis=0), "o-", ms=3, color=COLOURS[name], label=name)
        if name != "BP":
            angles = runs[f"{name} angles"][:, :, -1].mean(axis=0)
            right.plot(np.arange(1, len(angles) + 1), angles, "o-", color=COLOURS[name], label=name)
    left.set(xlabel="step", ylabel="training loss", title="residual network on digits", yscale="log")
    right.set(xlabel="convolutions in order, last: readout", ylabel="angle of B and Wᵀ (degrees)", title="last step", ylim=(0, 95))
    left.legend(frameon=False)
    return figure


def _depths(runs: Arrays):
    figure, (left, right) = _panels(2)
    depths = runs["depths"]
    for name in ("BP", "FA", "SA", "AA", "KP", "IA", "WM"):
        accuracy = np.array([100 * runs[f"{name} {depth} accuracy"].mean() for depth in depths])
        left.plot(depths, accuracy, "o-", ms=4, color=COLOURS[name], label=name)
        if name != "BP":
            angles = np.array([runs[f"{name} {depth} angles"].mean() for depth in depths])
            right.plot(depths, angles, "o-", ms=4, color=COLOURS[name])
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(depths, [str(depth) for depth in depths])
        axis.minorticks_off()
    left.set(xlabel="hidden layers", ylabel="test accuracy (%)", title="digits, tanh, same steps at every depth")
    right.set(xlabel="hidden layers", ylabel="angle of B and Wᵀ (degrees)", title="last step, mean over layers", ylim=(0, 95))
    left.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _optimisers(runs: Arrays, sweep: Arrays):
    figure, (left, middle, right) = _panels(3)
    for axis, name in ((left, "AA"), (middle, "IA")):
        for optimiser, style in (("SGD", "o-"), ("momentum", "s--"), ("Adam", "^:")):
            axis.semilogx(runs["rates"], 100 * runs[f"{name} {optimiser} accuracy"].mean(axis=1), style, ms=4, color=COLOURS[name], label=optimiser)
        axis.set(xlabel="rate of the alignment step", ylabel="test accuracy (%)", title=f"{name}, ReLU, three hidden layers", ylim=(0, 102))
        axis.legend(frameon=False, loc="lower left")
    for name in ("WM", "IA"):
        for suffix, style in (("", "o-"), (", centred", "s--")):
            accuracy = 100 * sweep[f"relu {name}{suffix} accuracy"].mean(axis=1)
            right.semilogx(sweep["strengths"], accuracy, style, ms=4, color=COLOURS[name], label=name + suffix)
    right.set(xlabel="strength of amp", ylabel="test accuracy (%), two networks", title="with and without centring, ReLU", ylim=(0, 102))
    right.legend(frameon=False, fontsize=8)
    return figure


def _noise(runs: Arrays):
    figure, (left, middle, right) = _panels(3)
    variances = runs["variances"]
    shown = np.where(variances == 0, variances[1] / 10, variances)
    for where, names, style in (("feedback", ("SA", "KP", "IA", "WM, noise"), "o-"), ("all", ("BP", "SA", "KP"), "s--")):
        for name in names:
            said = name if where == "feedback" else f"{name}, all weights"
            accuracy = 100 * runs[f"{where} {name} accuracy"].mean(axis=1)
            left.semilogx(shown, accuracy, style, ms=4, color=COLOURS[name], label=said)
            if where == "feedback":
                middle.semilogx(shown, runs[f"{where} {name} angles"].mean(axis=(1, 2)), style, ms=4, color=COLOURS[name])
    for name in ("SA", "KP"):
        right.loglog(variances[1:], np.sqrt(runs[f"{name} derived"][1:]), color=COLOURS[name], lw=1)
        right.loglog(variances[1:], noise_of(runs, name)[1:], "o", ms=4, color=COLOURS[name], label=name)
    left.set(xlabel="variance of noise (leftmost: none)", ylabel="test accuracy (%)", title="noise in every update, tanh")
    middle.set(xlabel="variance of noise in B", ylabel="angle of B and Wᵀ (degrees)", title="mean over layers", ylim=(0, 95))
    right.set(xlabel="variance of noise in B", ylabel="what it leaves of B − Wᵀ, r.m.s.", title="lines: derived")
    left.legend(frameon=False, fontsize=7)
    right.legend(frameon=False)
    return figure


def noise_of(runs: Arrays, name: str) -> np.ndarray:
    """Root mean square of the entries of B − Wᵀ that noise in B alone adds, over layers and networks; negative where it takes away."""
    gains, cosine = runs[f"feedback {name} gains"], np.cos(np.radians(runs[f"feedback {name} angles"]))
    square = runs[f"feedback {name} sizes"] ** 2 * (1 + gains**2 - 2 * gains * cosine)
    added = np.mean(square - square[:1], axis=(1, 2))
    return np.sign(added) * np.sqrt(np.abs(added))
