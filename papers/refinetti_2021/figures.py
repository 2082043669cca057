"""Figures of Refinetti et al. 2021, from saved arrays."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .figures_deep import axes_of, convolutional, corruption, gradient, images, learnable, seeds
from .starts import converged

Data = dict[str, dict[str, np.ndarray]]
COLOURS = {"dfa": "tab:red", "bp": "tab:blue"}
NAMES = {"dfa": "DFA", "bp": "BP"}


def draw(data: Data, folder: Path) -> None:
    """All figures as PNG files."""
    for name, figure in (
        ("two_phases", two_phases(data["phases"])), ("finite_size", finite_size(data["finite"])), ("first_instants", first_instants(data["early"])),
        ("degeneracy", degeneracy(data["degeneracy"])), ("relu", relu(data["relu"])),
        ("deep_linear", deep_linear(data["linear"])), ("convolution", convolution(data["convolution"])),
        ("learnable", learnable(data["learnable"])), ("corruption", corruption(data["corruption"])), ("gradient", gradient(data["gradient"])),
        ("images", images(data["images"])), ("seeds", seeds(data["seeds"])), ("convolutional", convolutional(data["convolutional"])),
    ):  # fmt: skip
        figure.savefig(folder / f"{name}.png", dpi=110)
        plt.close(figure)


def two_phases(d: dict[str, np.ndarray]) -> plt.Figure:
    """Error and alignment against time."""
    figure, (left, right) = axes_of(2)
    later = d["t"] > 0
    for rule in ("dfa", "bp"):
        for axis, quantity in ((left, "eg"), (right, "cos")):
            axis.plot(d["t"][later], d[f"{rule}_{quantity}"][later], color=COLOURS[rule], label=f"{NAMES[rule]}, equations")
            seen = d[f"{rule}_sim_t"] > 0
            axis.plot(d[f"{rule}_sim_t"][seen][::4], d[f"{rule}_sim_{quantity}"][seen][::4], ".", color=COLOURS[rule], label=f"{NAMES[rule]}, network")
    left.set(xscale="log", yscale="log", xlabel="steps/D", ylabel="generalisation error", title="memorise …")
    right.set(xscale="log", xlabel="steps/D", ylabel="cos ∠(v, F)", title="… after aligning", ylim=(-1.1, 1.1))
    left.legend(fontsize=8)
    return figure


def finite_size(d: dict[str, np.ndarray]) -> plt.Figure:
    """Distance from the equations by dimension."""
    figure, (left, right) = axes_of(2)
    left.plot(d["t"], d["eg"], "k", label="equations", zorder=3)
    for D, colour in zip(d["D"], ("tab:orange", "tab:green", "tab:purple"), strict=True):
        left.plot(d["t"], d[f"eg_{D}"].T, color=colour, alpha=0.25, lw=0.8)
        left.plot([], [], color=colour, label=f"networks, D = {D}")
    rms = np.sqrt([np.mean(d[f"square_{D}"]) for D in d["D"]])
    right.plot(d["D"], rms, "o-", label="networks")
    right.plot(d["D"], np.sqrt([np.mean(d[f"wrong_{D}"]) for D in d["D"]]), "s--", color="tab:red", label="against η 10 % off")
    right.plot(d["D"], rms[0] * np.sqrt(d["D"][0] / d["D"]), "k:", label="D$^{-1/2}$")
    left.set(xlabel="steps/D", ylabel="generalisation error")
    right.set(xscale="log", yscale="log", xlabel="D", ylabel="rms distance of Q, R, v")
    right.set_xticks(d["D"], [str(D) for D in d["D"]])
    right.set_xticks([], minor=True)
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    return figure


def first_instants(d: dict[str, np.ndarray]) -> plt.Figure:
    """Derived powers of t and the integrated equations."""
    figure, (left, right) = axes_of(2)
    for name, colour, label in (("R", "tab:blue", "R"), ("v", "tab:red", "v"), ("drop", "tab:green", "fall of the error")):
        shown = np.abs(d[name]) > 1e-14
        left.plot(d["t"][shown], np.abs(d[name][shown]), color=colour, label=label)
        left.plot(d["t"], np.abs(d[f"{name}_law"]), "--", color=colour)
        right.plot(d["t"][shown], (d[name] / d[f"{name}_law"])[shown], color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="steps/D", ylabel="|order parameter|", title="equations (lines), derived laws (dashed)", ylim=(1e-14, 10))
    right.set(xscale="log", xlabel="steps/D", ylabel="equations / law", ylim=(0, 1.2))
    right.axhline(1, color="k", lw=0.6)
    left.legend(fontsize=8)
    return figure


def degeneracy(d: dict[str, np.ndarray]) -> plt.Figure:
    """Final readout against feedback."""
    figure, axes = axes_of(3, 3.4)
    titles = {"dfa_small": "DFA, small start", "dfa_large": "DFA, start of order 1", "bp_small": "BP, small start"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        done = converged(d[f"{name}_eg"])
        for unit in range(2):
            axis.plot(d["F"][done][:, unit], d[f"{name}_v"][done][:, unit], ".", color=f"C{unit}", label=f"unit {unit + 1}")
        axis.axhline(0, color="k", lw=0.6)
        axis.axvline(0, color="k", lw=0.6)
        axis.set(xlabel="feedback $F_k$", ylabel="final readout $v_k$", title=title)
    axes[0].legend(fontsize=8)
    return figure


def relu(d: dict[str, np.ndarray]) -> plt.Figure:
    """Final error by the number of positive feedbacks."""
    sizes = [tuple(map(int, name.split("_")[1:])) for name in d if name.startswith("eg_")]
    figure, axes = axes_of(len(sizes), 3.6)
    rng = np.random.default_rng(0)
    for axis, (K, M) in zip(axes, sizes, strict=True):
        positive = (d[f"F_{K}_{M}"] > 0).sum(1)
        final = d[f"eg_{K}_{M}"][:, -1] / d[f"eg_{K}_{M}"][:, 0]
        axis.semilogy(positive + 0.2 * (rng.random(len(positive)) - 0.5), np.maximum(final, 1e-9), ".")
        axis.axvspan(-0.5, M - 0.5, color="tab:red", alpha=0.12, lw=0)
        axis.axhline(1e-3, color="k", lw=0.6, ls=":")
        axis.set(xlabel="positive entries of F", ylabel="final error / initial", title=f"ReLU, K = {K}, M = {M}", xticks=range(K + 1))
    return figure


def deep_linear(d: dict[str, np.ndarray]) -> plt.Figure:
    """Growth of the alignment matrices, alignment by layer, and by the shape of the targets."""
    figure, (left, middle, right) = axes_of(3, 3.6)
    for l, norms in enumerate(d["norms"], 1):
        left.loglog(np.arange(1, norms.shape[0]), norms[1:], label=f"A$_{l}$")
    for l, values in enumerate(d["alignment"], 2):
        middle.semilogx(np.arange(1, values.shape[0]), values[1:], color=f"C{l - 1}", label=f"layer {l}")
    middle.plot(np.arange(1, d["loss"].shape[0] + 1), d["loss"] / d["loss"][0], "k:", label="loss / initial")
    mean, se = d["measured"].mean(1), d["measured"].std(1, ddof=1) / np.sqrt(d["measured"].shape[1])
    right.errorbar(d["predicted"], mean, se, fmt="o", ms=4)
    right.plot([0.7, 1], [0.7, 1], "k", lw=0.6)
    left.set(xlabel="steps", ylabel="norm", ylim=(1e-12, 10), title="alignment matrices")
    middle.set(xlabel="steps", ylabel="cos ∠(W$_l$, F$_l$ F$_{l-1}^{T}$)", title="weight alignment")
    right.set(xlabel="predicted alignment of layer 2", ylabel="measured", title="targets of different shape")
    left.legend(fontsize=8)
    middle.legend(fontsize=8)
    return figure


def convolution(d: dict[str, np.ndarray]) -> plt.Figure:
    """Measured against derived largest cosines."""
    figure, (axis,) = axes_of(1, 4.4)
    for name, marker, label in (("independent", "o", "independent entries"), ("constant", "s", "constant over positions")):
        axis.loglog(d[f"{name}_bound"], np.sqrt(np.mean(d[name] ** 2, axis=1)), marker, label=label)
    axis.loglog([0.02, 1], [0.02, 1], "k", lw=0.6)
    axis.set(xlabel="derived", ylabel="measured", title="largest cosine of a convolution with F F$^T$")
    axis.legend(fontsize=8)
    return figure
