"""Studies of classifiers on handwritten digits: the rules side by side, and how much their coefficients matter."""

from __future__ import annotations

import numpy as np
import sympy as sp
from sklearn.datasets import load_digits

from derive import Regulariser, amp, decay, null, self_feedback, sparse, tied_gradient
from numerics import Classes, NetworkTraining, Stage, train_network, train_residual

strength = sp.Symbol("strength", positive=True)
RULES: dict[str, tuple[Regulariser | None, dict[str, float]]] = {
    "BP": (None, {}),
    "FA": (Regulariser(), {}),
    "SA": (decay / 2 + self_feedback, {}),
    "AA": (sparse / 2 + amp, {}),
    "KP": (decay / 2 + tied_gradient, {"weight_decay": 0.002, "align_rate": 0.002}),
    "IA": (decay / 2 + amp + null / 2, {}),
    "WM": (decay / 2 + amp, {}),
    "WM, noise": (decay / 2 + amp, {"input_noise": 1.0}),
}
SWEEPS = {"WM": decay / 2 + strength * amp, "IA": decay / 2 + strength * amp + null / 2, "AA": strength * (sparse / 2 + amp)}


def data() -> Classes:
    """1200 digits to learn, 597 to test, centred, with unit mean square."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(axis=0)) / images.std()
    order = np.random.default_rng(0).permutation(len(images))
    learn, test = order[:1200], order[1200:]
    return Classes(images[learn], labels[learn], images[test], labels[test])


def _training(full: bool, activation: str, **changes) -> NetworkTraining:
    return NetworkTraining(**({"steps": 3000 if full else 500, "batch": 32, "rate": 0.02 if activation == "tanh" else 0.01, "records": 10} | changes))


def networks(full: bool) -> dict[str, object]:
    """Accuracy, loss, and the angle and relative size of feedback weights, layer by layer."""
    found: dict[str, object] = {}
    width = 96 if full else 64
    for name, (regulariser, changes) in RULES.items():
        run = train_network(data(), regulariser, (width,) * 3, "tanh", _training(full, "tanh", **changes), seeds=4 if full else 2)
        found |= {"steps": run.times} | {f"{name} {what}": getattr(run, what) for what in ("loss", "accuracy", "angles", "gains")}
    return found


def sweep(full: bool) -> dict[str, object]:
    """Accuracy against the strength of the amplifying term, all strengths side by side; tanh in the full run only."""
    strengths = np.geomspace(0.03, 3, 9 if full else 7)
    found: dict[str, object] = {"strengths": strengths}
    for activation in ("relu", "tanh") if full else ("relu",):
        for name, regulariser in SWEEPS.items():
            run = train_network(
                data(), regulariser, (64,) * 3, activation, _training(full, activation, records=1), parameters={"strength": strengths}, seeds=2
            )
            shape = (len(strengths), 2)
            found |= {
                f"{activation} {name} accuracy": np.where(run.diverged, 0.1, run.accuracy[:, -1]).reshape(shape),
                f"{activation} {name} diverged": run.diverged.reshape(shape),
            }
    return found


def residual(full: bool) -> dict[str, object]:
    """Residual networks with batch normalisation: two blocks (full: four), every convolution and the readout fed back through B."""
    stages = (Stage(16, 1), Stage(16, 1), Stage(32, 2), Stage(32, 1)) if full else (Stage(8, 1), Stage(16, 2))
    training = NetworkTraining(steps=2000 if full else 150, batch=32, rate=0.05, align_rate=0.05, records=5)
    found: dict[str, object] = {}
    for name in RESIDUAL if full else ("BP", "FA", "SA"):
        run = train_residual(data(), RULES[name][0], 8, stages, training, seeds=4 if full else 2)
        found |= {"steps": run.times} | {f"{name} {what}": getattr(run, what) for what in ("loss", "accuracy", "angles", "gains")}
    return found


RESIDUAL = ("BP", "FA", "SA", "AA", "IA")
