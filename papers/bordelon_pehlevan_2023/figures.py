"""Figures from saved arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from numerics.plotting import COLOURS

from .densities import excess, standardised
from .measures import RULES, networks_by_width, stable_gammas
from .setting import RHO, cases
from .statistics import Data, descent, relative_errors, time_to

NAMES = {name: case.label for name, case in cases().items()}
COLOUR = dict(zip(RULES, COLOURS, strict=False))
NET = {"fmt": "o", "ms": 3.5, "lw": 1}


def draw(data: dict[str, Data], folder: Path) -> None:
    """All figures, as PNG."""
    for name, (figure, studies) in FIGURES.items():
        figure(*(data[study] for study in studies)).savefig(folder / f"{name}.png", dpi=110)


def canvas(rows: int, columns: int, width: float = 3.3, height: float = 2.8):
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label(ax, x: str, y: str, title: str = "") -> None:
    """Axis labels and a title."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, fontsize="medium")


def legend(ax, **options) -> None:
    """Without a frame, small."""
    ax.legend(frameon=False, fontsize="small", **options)


def widths(data: Data):
    """Outputs' errors against width, with wrong theories beside the right one."""
    figure, axes = canvas(1, 3, 3.7, 3.2)
    right, wrong, frozen = axes[0]
    for name in RULES:
        by_width = networks_by_width(data, name)
        x = np.array(list(by_width))
        rms = lambda theory, by_width=by_width: np.array([np.sqrt(np.mean(relative_errors(f, theory) ** 2)) for f in by_width.values()])
        right.loglog(x, rms(data[f"{name}.dmft"]), "o-", color=COLOUR[name], label=NAMES[name])
        frozen.loglog(x, rms(data[f"{name}.lazy"]), "o--", color=COLOUR[name], label=NAMES[name])
        if f"{name}.wrong" in data:
            why = {"gd": "GD without responses", "fa": f"FA with ρ = {RHO + 0.25:g} for {RHO:g}"}[name]
            wrong.loglog(x, rms(data[f"{name}.wrong"]), "o--", color=COLOUR[name], label=why)
            wrong.loglog(x, rms(data[f"{name}.dmft"]), "o-", color=COLOUR[name], label=f"{NAMES[name]}, right")
    right.loglog(x, 1.2 * np.sqrt(1.0 / x), ":", color="0.4", label=r"$\propto N^{-1/2}$")
    for ax, title in ((right, "rich theory"), (wrong, "wrong rich theories"), (frozen, "lazy theory")):
        label(ax, "width N", "relative error of f(t)", title)
        ax.set_ylim(0.005, 2.0)
        ax.set_xticks(x, [str(n) for n in x])
        ax.minorticks_off()
        legend(ax, loc="lower left" if ax is frozen else "upper right", ncols=1 if ax is frozen else 2 if ax is right else 1)
    return figure


def losses(data: Data):
    """Losses of the five rules, lazy, rich, and of networks."""
    figure, axes = canvas(2, 5, 2.6, 2.4)
    for row, what in enumerate(("loss", "test_loss")):
        for ax, name in zip(axes[row], RULES, strict=True):
            t = np.arange(len(data[f"{name}.dmft.{what}"]))
            ax.semilogy(t, data[f"{name}.lazy.{what}"], "--", color="0.5", label="lazy theory")
            ax.semilogy(t, data[f"{name}.dmft.{what}"], color=COLOUR[name], label="rich theory")
            mean, se = data[f"{name}.network.{what}"], data[f"{name}.network.{what}_se"]
            ax.errorbar(t[::4], mean[::4], se[::4], color="k", label="networks", **{**NET, "ms": 2.5})
            label(ax, "step", "training loss" if row == 0 else "test loss", NAMES[name])
            ax.set_ylim((2e-4, 0.7) if row == 0 else (0.08, 0.6))
        legend(axes[row, 0])
    return figure


def layers(data: Data):
    """The lazy eNTK's terms, theory and networks."""
    figure, axes = canvas(1, 5, 2.5, 2.5)
    trace = lambda key: np.trace(data[key], axis1=1, axis2=2)
    for ax, name in zip(axes[0], RULES, strict=True):
        scale = trace("gd.lazy" if name != "gln" else "gln.lazy")
        x = np.arange(len(scale))
        ax.bar(x, trace(f"{name}.lazy") / scale, color=COLOUR[name], alpha=0.35, label="derived")
        se = np.trace(data[f"{name}.network_se"], axis1=1, axis2=2)
        ax.errorbar(x, trace(f"{name}.network") / scale, se / scale, color="k", label="networks", **NET)
        if name == "fa":
            ax.plot(x, RHO ** x[::-1], "_", ms=18, color=COLOURS[1], label=r"$\rho^{L-\ell}$")
        label(ax, r"weights $W^\ell$", "term of the eNTK, GD = 1" if name == "gd" else "", NAMES[name])
        ax.set_ylim(-0.15, 1.4)
        ax.set_xticks(x)
        legend(ax, loc="upper left")
    return figure


def generalisation(data: Data):
    """Test loss of lazy FA against ρ and depth."""
    figure, axes = canvas(1, 1, 4.6, 3.2)
    for k, depth in enumerate(data["depths"]):
        colour = COLOURS[k]
        axes[0, 0].plot(data["rho"], data[f"{depth}.lazy"], color=colour, label=f"L = {depth}")
        axes[0, 0].errorbar(data["sampled"], data[f"{depth}.network"], data[f"{depth}.network_se"], color=colour, **NET)
        axes[0, 0].errorbar(data["sampled"] + 0.015, data[f"{depth}.dmft"], data[f"{depth}.dmft_se"], color=colour, **{**NET, "fmt": "x"})
    label(axes[0, 0], "ρ", "test loss", "lines: closed form, ×: rich theory, •: networks")
    legend(axes[0, 0])
    return figure


def hebb(data: Data):
    """Who learns and what lines up, rule by rule."""
    figure, axes = canvas(1, 3, 4.0, 3.0)
    x = np.arange(len(RULES))
    for name, place in zip(RULES, x, strict=True):
        bottom = 0.0
        share = descent(data[f"{name}.dmft.shares"], data[f"{name}.dmft.loss"])
        measured = descent(data[f"{name}.network.shares"], data[f"{name}.network.loss"])
        for l, part in enumerate(share):
            axes[0, 0].bar(place, part, bottom=bottom, color=COLOURS[l], label=rf"$W^{l}$" if place == 0 else None)
            bottom += part
            axes[0, 0].plot(place, measured[: l + 1].sum(), "k_", ms=16)
        for ax, what in zip(axes[0, 1:], ("cka", "gradient_cka"), strict=True):
            mean = data[f"{name}.dmft.{what}"].mean(axis=0)
            ax.plot(mean, color=COLOUR[name], label=NAMES[name])
            network = data[f"{name}.network.{what}"].mean(axis=0)
            ax.plot(np.arange(len(mean))[::4], network[::4], "o", ms=3, color=COLOUR[name])
    axes[0, 0].set_xticks(x, [NAMES[name].split(",")[0] for name in RULES])
    label(axes[0, 0], "", "share of the loss's descent", "bars: theory, ticks: networks")
    axes[0, 0].set_ylim(0, 1.25)
    legend(axes[0, 0], loc="upper center", ncols=3)
    label(axes[0, 1], "step", r"CKA($\Phi$, y yᵀ), mean over layers", "features")
    label(axes[0, 2], "step", r"CKA($\tilde G$, y yᵀ), mean over layers", "gradient kernels")
    legend(axes[0, 1])
    return figure


def gammas(data: Data):
    """Time to fit, movement and test loss against γ0."""
    figure, axes = canvas(1, 3, 3.9, 3.0)
    read = lambda where, what: data[f"{where}.{what}"]
    reads: list[Callable] = [
        lambda where: time_to(read(where, "loss"), 0.1), lambda where: read(where, "moved")[-1, -1], lambda where: read(where, "test_loss")[-1],
    ]  # fmt: skip
    for name in RULES:
        stable = stable_gammas(data, name)
        for ax, value in zip(axes[0], reads, strict=True):
            ax.loglog(stable, [value(f"{name}.{g:g}.dmft") for g in stable], color=COLOUR[name], label=NAMES[name])
            ax.loglog(stable, [value(f"{name}.{g:g}.network") for g in stable], "o", ms=3.5, color=COLOUR[name])
    for ax, y in zip(axes[0], ("steps to a tenth of the loss", "movement of the last Φ", "test loss at the end"), strict=True):
        label(ax, "γ0", y, "lines: theory, •: networks")
        ax.set_xticks(stable_gammas(data, "gd"), [f"{g:g}" for g in stable_gammas(data, "gd")])
        ax.minorticks_off()
    axes[0, 2].set_yticks([0.1, 0.15, 0.2], ["0.1", "0.15", "0.2"])
    axes[0, 0].set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    legend(axes[0, 1])
    return figure


def cosines(data: Data):
    """Gradient–pseudo-gradient cosine over time, per layer."""
    columns = [f"{kind}.{activation}.3" for activation in ("relu", "tanh") for kind in ("fa", "fa0", "dfa")]
    columns = [*columns[:3], "fa.relu.5", *columns[3:], "fa0.relu.5"]
    figure, axes = canvas(2, 4, 3.0, 2.5)
    names = {"fa": f"FA, ρ = {RHO:g}", "fa0": "FA, ρ = 0", "dfa": "DFA"}
    for ax, key in zip(axes.flat, columns, strict=False):
        kind, activation, depth = key.split(".")
        for l in range(int(depth)):
            mean, network, se = (data[f"{key}.{part}"][l] for part in ("dmft.alignment", "network.alignment", "network.alignment_se"))
            ax.plot(mean, color=COLOURS[l], label=rf"$\ell$ = {l + 1}")
            t = np.arange(len(mean))[::4]
            ax.errorbar(t, network[::4], se[::4], color=COLOURS[l], **{**NET, "ms": 2.5})
            if kind == "fa":
                ax.axhline(RHO ** (int(depth) - l), color=COLOURS[l], lw=0.7, ls=":")
        label(ax, "step", "cos(g, g̃)", f"{names[kind]}, {activation}, L = {depth}")
    for ax, columns_ in ((axes[0, 0], 3), (axes[0, 3], 3)):
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.3 * (high - low))
        legend(ax, ncols=columns_, loc="upper left", columnspacing=0.8, handlelength=1.2)
    return figure


def snapshots(data: Data):
    """The eNTK's terms before and after training."""
    figure, axes = canvas(2, 4, 2.7, 1.6)
    key = "fa0.relu.3"
    for row, solver in enumerate(("dmft", "network")):
        for l, ax in enumerate(axes[row]):
            start, end = data[f"{key}.{solver}.terms"][l]
            top = np.abs(data[f"{key}.dmft.terms"][:, 1]).max()
            image = ax.imshow(np.concatenate([start, np.full((len(start), 1), np.nan), end], axis=1), vmin=-top, vmax=top, cmap="RdBu_r")
            ax.set_xticks([3.5, 12.5], ["start", "end"])
            ax.set_yticks([])
            ax.set_title(rf"$W^{l}$, {'theory' if solver == 'dmft' else 'networks'}", fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.7)
    figure.suptitle("terms of the eNTK, FA with ρ = 0, relu, L = 3")
    return figure


def correlations(data: Data, linear: Data):
    """Feature learning against ρ."""
    figure, axes = canvas(1, 4, 3.1, 3.0)
    for k, gamma0 in enumerate(data["gamma0"]):
        for ax, (what, layer) in zip(axes[0], (("moved", 0), ("moved", 1), ("cka", 0)), strict=False):
            for solver, style in (("dmft", "-"), ("network", "o")):
                keys = [f"{value:g}.{gamma0:g}.{solver}.{what}" for value in data["rho"]]
                if keys[0] not in data:
                    continue
                values = [data[each][layer, -1] - data[each][layer, 0] for each in keys]
                ax.plot(data["rho"], values, style, ms=4, color=COLOURS[k], label=f"γ0 = {gamma0:g}" if solver == "dmft" else None)
    label(axes[0, 0], "ρ", "movement of Φ¹", "lines: theory, •: networks")
    label(axes[0, 1], "ρ", "movement of Φ²")
    label(axes[0, 2], "ρ", "rise of CKA(Φ¹, yyᵀ)")
    legend(axes[0, 0])
    ax = axes[0, 3]
    ax.plot(linear["rho"], linear["closed"], color=COLOURS[0], label="closed form")
    ax.plot(linear["rho"], linear["exact"], "x", color=COLOURS[1], label="exact solver")
    ax.errorbar(linear["rho"], linear["network"], linear["network_se"], color="k", label="networks", **NET)
    label(ax, "ρ", "Φ(∞) − Φ(0)", "two-layer linear network")
    legend(ax)
    return figure


def gated(kernels: Data, data: Data):
    """The gated network's kernel, and its fields given the gates beside those of a ReLU network."""
    figure, axes = canvas(1, 3, 3.7, 3.0)
    ax = axes[0, 0]
    for k, depth in enumerate(kernels["depths"]):
        upper = np.triu_indices(len(kernels[f"{depth}.formula"]))
        x, y, se = (kernels[f"{depth}.{part}"][upper] for part in ("formula", "network", "network_se"))
        ax.errorbar(x, y, se, color=COLOURS[k], label=f"L = {depth}", **{**NET, "ms": 2.5})
    ax.plot(ax.get_xlim(), ax.get_xlim(), color="0.5", lw=0.8)
    label(ax, r"$(L+1)\,K^x\circ\Gamma^L$", "networks", "gated network, lazy kernel")
    legend(ax)
    for ax, (name, title) in zip(axes[0, 1:], (("gln", "gated, given the gates"), ("relu", "ReLU, given who is on")), strict=True):
        _normal_plot(ax, standardised(data, name, "network", "h2")[0][0], COLOURS[1], "h², networks")
        if name == "gln":
            whole = data["gln.network.end.h2"][:, 0].ravel().astype(float)
            _normal_plot(ax, (whole - whole.mean()) / whole.std(), "0.6", "all gates together")
        label(ax, "normal quantile", "quantile of h²", title)
        ax.set_ylim(-7, 7)
        legend(ax)
    return figure


def _normal_plot(ax, values: np.ndarray, colour: str, name: str) -> None:
    from scipy.stats import norm

    ordered = np.sort(values)
    x = norm.ppf((np.arange(len(ordered)) + 0.5) / len(ordered))
    ax.plot(x, ordered, ".", ms=2, color=colour, label=name)
    ax.plot(x[[0, -1]], x[[0, -1]], color="k", lw=0.7)


def densities(data: Data):
    """Marginal densities of the second layer's fields, theory and networks."""
    figure, axes = canvas(2, 4, 3.0, 2.4)
    for column, name in enumerate(("linear", "relu", "tanh", "gln")):
        for row, letter in enumerate(("h2", "z1")):
            ax = axes[row, column]
            for when, colour in (("start", "0.55"), ("end", COLOURS[1])):
                theory, network = (data[f"{name}.{solver}.{when}.{letter}"][:, 0].ravel() for solver in ("dmft", "network"))
                reach = np.quantile(np.abs(data[f"{name}.dmft.end.{letter}"][:, 0]), 0.995)
                bins = np.linspace(-reach, reach, 41)
                ax.hist(theory, bins, density=True, histtype="step", color=colour, label=f"{when}, theory")
                heights, edges = np.histogram(network, bins)
                ax.plot((edges[1:] + edges[:-1]) / 2, heights / len(network) / np.diff(edges), ".", ms=4, color=colour, label=f"{when}, networks")
            kurtosis = excess(data[f"{name}.dmft.end.{letter}"])[0]
            label(ax, {"h2": "h²", "z1": "z¹"}[letter], "density" if column == 0 else "", f"{name}: excess kurtosis {kurtosis:.2f}")
    top = axes[0, 0].get_ylim()[1]
    axes[0, 0].set_ylim(0, 1.7 * top)
    legend(axes[0, 0], loc="upper left")
    return figure


FIGURES: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "widths": (widths, ("widths",)), "losses": (losses, ("rules",)), "layers": (layers, ("contributions",)),
    "generalisation": (generalisation, ("generalisation",)), "hebb": (hebb, ("rules",)), "gammas": (gammas, ("gammas",)),
    "cosines": (cosines, ("depths",)), "snapshots": (snapshots, ("depths",)), "correlations": (correlations, ("correlations", "linear")),
    "gated": (gated, ("gated_kernel", "fields")), "densities": (densities, ("fields",)),
}  # fmt: skip
