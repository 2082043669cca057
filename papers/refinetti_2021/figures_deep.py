"""Figures of deep networks, and of what is derived about them, from saved arrays."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .theory import SIZES, converged, probability

Arrays = dict[str, np.ndarray]


def axes_of(count: int, width: float = 4.0) -> tuple[plt.Figure, list[plt.Axes]]:
    """A row of axes."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, 3.2), layout="constrained")
    return figure, list(np.atleast_1d(axes))


def learnable(d: Arrays) -> plt.Figure:
    """Shares of runs that fit, by K and M."""
    figure, (axis,) = axes_of(1, 5.4)
    law = np.array([probability(K, M) for K, M in SIZES])
    done = [converged(d[f"eg_{K}_{M}"]) for K, M in SIZES]
    error = np.sqrt(law * (1 - law) / [len(each) for each in done])
    axis.errorbar(range(len(SIZES)), law, 2 * error, fmt="k_", ms=16, capsize=3, label="predicted, ± 2 binomial standard errors")
    axis.plot(range(len(SIZES)), [each.mean() for each in done], "o", color="tab:red", label="runs that fit")
    axis.set_xticks(range(len(SIZES)), [f"{K}, {M}" for K, M in SIZES])
    axis.set(xlabel="K, M", ylabel="share", ylim=(-0.08, 1.25), title="ReLU teachers, positive readout")
    axis.legend(fontsize=8, loc="upper right")
    return figure


def corruption(d: Arrays) -> plt.Figure:
    """Alignment of layer 2 by the share of noisy labels, and a run to the end."""
    figure, (left, right) = axes_of(2)
    error = d["measured"].std(1, ddof=1) / np.sqrt(d["measured"].shape[1])
    left.plot(d["shares"], d["predicted"].mean(1), "k", label="derived")
    left.plot(d["shares"], d["without"].mean(1), "k:", label="derived, without the noise")
    left.errorbar(d["shares"], d["measured"].mean(1), error, fmt="o", ms=4, color="tab:red", label="measured")
    for share, style in ((0.0, "--"), (0.5, "-")):
        for l, values in enumerate(d[f"late_alignment_{share}"], 2):
            right.semilogx(np.arange(1, len(values)), values[1:], style, color=f"C{l - 1}", label=f"layer {l}" if share else None)
            right.plot(len(values), d[f"late_trained_{share}"][l - 2], "kx" if share else "k+", ms=5)
        loss = d[f"late_loss_{share}"]
        right.plot(np.arange(1, len(loss) + 1), loss / loss[0], style, color="0.6", label="loss / initial" if share else None)
    left.set(xlabel="share of labels replaced", ylabel="alignment of layer 2", title="at the start")
    right.set(xlabel="steps", ylabel="cos ∠(W$_l$, F$_l$ F$_{l-1}^{T}$)", title="p = 1/2 (lines), 0 (dashed)", ylim=(-0.05, 1.05))
    left.legend(fontsize=8)
    right.legend(fontsize=7)
    return figure


def gradient(d: Arrays) -> plt.Figure:
    """Cosines of errors against what the alignment matrices predict."""
    figure, (left, right) = axes_of(2)
    marks = {"orthonormal": ("o", "orthonormal feedback"), "skewed": ("x", "skewed feedback, G left out")}
    for kind, (mark, label) in marks.items():
        left.plot(d[f"{kind}_isotropic"].ravel(), d[f"{kind}_mean"].ravel(), mark, ms=4, alpha=0.7, label=label)
    left.plot([0.45, 1], [0.45, 1], "k", lw=0.6)
    kappa = np.geomspace(1, d["orthonormal_kappa"].max(), 200)
    order = np.argsort(d["orthonormal_kappa"].ravel())
    right.semilogx(d["orthonormal_kappa"].ravel()[order], d["bound"].ravel()[order], "k", label="2√κ/(1 + κ)")
    for place, steps in enumerate(d["steps"]):
        right.plot(d["orthonormal_kappa"][:, place].ravel(), d["orthonormal_least"][:, place].ravel(), "o", ms=4, color=f"C{place}", label=f"step {steps}")
    left.set(xlabel="tr M/(√n$_L$ ‖M‖)", ylabel="mean cosine of errors", title="DFA's and BP's errors")
    right.set(xlabel="condition number κ of M", ylabel="smallest cosine", title="worst example", xlim=(0.9, 1.5 * kappa[-1]))
    left.legend(fontsize=8, loc="lower right")
    right.legend(fontsize=7)
    return figure


def _curves(axis: plt.Axes, d: Arrays, name: str, what: str, first: int) -> None:
    """Mean over networks by layer."""
    shown = d[f"{name}_times"] > 0
    for l, values in enumerate(d[f"{name}_{what}"].mean(0), first):
        axis.plot(d[f"{name}_times"][shown], values[shown], color=f"C{l - 1}", label=f"layer {l}")
    axis.set(xscale="log", xlabel="steps", ylim=(-0.05, 1.05))


def images(d: Arrays) -> plt.Figure:
    """Alignment by layer: clean labels, noisy labels, gradients."""
    figure, axes = axes_of(4, 3.5)
    panels = (("clean", "weight_alignment", 2, "clean labels"), ("noise", "weight_alignment", 2, "half of the labels noise"),
              ("standard", "weight_alignment", 2, "the same, common start"), ("clean", "gradient_alignment", 1, "clean labels, gradients"))  # fmt: skip
    for axis, (name, what, first, title) in zip(axes, panels, strict=True):
        _curves(axis, d, name, what, first)
        shown, loss = d[f"{name}_times"] > 0, d[f"{name}_loss"].mean(0)
        axis.plot(d[f"{name}_times"][shown], (loss / loss[0])[shown], "k:", label="loss / initial")
        axis.set(title=title)
        if name == "clean":
            axis.legend(fontsize=7, loc="center right")
        else:
            (line,) = axis.plot(d[f"{name}_times"][shown], d[f"{name}_test"].mean(0)[shown], color="0.6")
            axis.legend([line], ["test accuracy"], fontsize=7, loc="lower right" if name == "noise" else (0.03, 0.7))
    axes[0].set(ylabel="cos ∠(W$_l$, F$_l$ F$_{l-1}^{T}$)")
    axes[3].set(ylabel="cos ∠ of errors, DFA and BP")
    return figure


def seeds(d: Arrays) -> plt.Figure:
    """Cosines between networks from different starts."""
    figure, axes = axes_of(2)
    names = {"dfa": ("DFA, one feedback", "tab:red"), "own": ("DFA, feedback of their own", "tab:orange"), "bp": ("BP", "tab:blue")}
    for axis, what, title in ((axes[0], "weights", "weights"), (axes[1], "hidden", "activities on test images")):
        for place, (name, (label, colour)) in enumerate(names.items()):
            values = d[f"{name}_{what}"]
            axis.bar(np.arange(len(values)) + 0.27 * (place - 1), values.mean(1), 0.25, yerr=values.std(1), color=colour, label=label)
        axis.set(xlabel="layer", ylabel="cosine between networks", title=title, ylim=(-0.1, 1.35))
        axis.set_xticks(range(len(values)), [str(l + 1) for l in range(len(values))])
        axis.axhline(0, color="k", lw=0.6)
    axes[0].legend(fontsize=8)
    return figure


def convolutional(d: Arrays) -> plt.Figure:
    """Weight alignment of the second layer and its bounds; test accuracy."""
    figure, (left, right) = axes_of(2)
    names = {"dense": "dense", "constant": "convolution, F constant over positions", "independent": "convolution, independent F", "bp": "convolution, BP"}
    for number, (name, label) in enumerate(names.items()):
        shown = d[f"{name}_times"] > 0
        mean = lambda what, name=name, shown=shown: d[f"{name}_{what}"].mean(0)[..., shown]
        left.plot(d[f"{name}_times"][shown], mean("weight_alignment")[0], color=f"C{number}", label=label)
        right.plot(d[f"{name}_times"][shown], mean("test"), color=f"C{number}")
        if name in ("constant", "independent"):
            left.axhline(float(d[f"{name}_bound"]), color=f"C{number}", ls=":", lw=1)
    left.set(xscale="log", xlabel="steps", ylabel="cos ∠(W$_2$, F$_2$ F$_1^{T}$)", ylim=(-0.05, 1.3), title="dotted: largest possible")
    right.set(xscale="log", xlabel="steps", ylabel="test accuracy")
    left.legend(fontsize=7, loc="upper left")
    return figure
