"""Studies of classifiers on handwritten digits: the rules side by side, and how much their coefficients matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp

from derive import Regulariser, amp, decay, null, self_feedback, sparse, tied_gradient
from derive.errors import BadInput
from lazyrich.data import Images, ten_classes
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
SWEEPS |= {f"{name}, centred": SWEEPS[name].configure(centred=True) for name in ("WM", "IA")}


_source = ["digits"]


def use(source: str) -> None:
    """Take the images of another source from here on: mnist:FOLDER.

    Raises:
        BadInput: images of several channels, no such files, or too few images in them.
    """
    if source.partition(":")[0] not in ("digits", "mnist"):
        raise BadInput(f"--data {source}: these networks take images of one channel; give mnist:FOLDER")
    _images(source)
    _source.append(source)


def _images(source: str) -> tuple[Images, Images]:
    return ten_classes(source, *((1200, 597) if source == "digits" else (4000, 2000)))


def data() -> Classes:
    """1200 digits to learn, 597 to test (MNIST: 4000 and 2000), centred, with unit mean square."""
    learn, test = _images(_source[-1])
    return Classes.standardised(learn[0].astype(float), learn[1], test[0].astype(float), test[1])


def training(full: bool, activation: str, **changes) -> NetworkTraining:
    """500 steps (full: 3000) on batches of 32, unless changed."""
    return NetworkTraining(**({"steps": 3000 if full else 500, "batch": 32, "rate": 0.02 if activation == "tanh" else 0.01, "records": 10} | changes))


def networks(full: bool) -> dict[str, object]:
    """Accuracy, loss, and the angle and relative size of feedback weights, layer by layer."""
    found: dict[str, object] = {}
    width = 96 if full else 64
    for name, (regulariser, changes) in RULES.items():
        run = train_network(data(), regulariser, (width,) * 3, "tanh", training(full, "tanh", **changes), seeds=4 if full else 2)
        found |= {"steps": run.times} | {f"{name} {what}": getattr(run, what) for what in ("loss", "accuracy", "angles", "gains")}
    return found


def sweep(full: bool) -> dict[str, object]:
    """Accuracy against the strength of the amplifying term, all strengths side by side; tanh in the full run only."""
    strengths = np.geomspace(0.03, 3, 9 if full else 7)
    found: dict[str, object] = {"strengths": strengths}
    for activation in ("relu", "tanh") if full else ("relu",):
        for name, regulariser in SWEEPS.items():
            run = train_network(
                data(), regulariser, (64,) * 3, activation, training(full, activation, records=1), parameters={"strength": strengths}, seeds=2
            )
            shape = (len(strengths), 2)
            found |= {
                f"{activation} {name} accuracy": np.where(run.diverged, 0.1, run.accuracy[:, -1]).reshape(shape),
                f"{activation} {name} diverged": run.diverged.reshape(shape),
                f"{activation} {name} angle": run.angles[:, :, -1].mean(axis=1).reshape(shape),
            }
    return found


def residual(full: bool) -> dict[str, object]:
    """Residual networks with batch normalisation: two blocks (full: four), every convolution and the readout fed back through B."""
    stages = (Stage(16, 1), Stage(16, 1), Stage(32, 2), Stage(32, 1)) if full else (Stage(8, 1), Stage(16, 2))
    settings = NetworkTraining(steps=2000 if full else 150, batch=32, rate=0.05, align_rate=0.05, records=5)
    found: dict[str, object] = {}
    examples = data()
    side = int(np.sqrt(examples.X.shape[1]))
    for name, changes in RESIDUAL.items():
        run = train_residual(examples, RULES[name.split(",")[0]][0], side, stages, replace(settings, **changes), seeds=4 if full else 2)
        found |= {"steps": run.times} | {f"{name} {what}": getattr(run, what) for what in ("loss", "accuracy", "angles", "gains")}
    return found


# Patches of rectified images have one large eigenvalue: explicit steps of AA and IA must be small, Adam's need not.
RESIDUAL: dict[str, dict[str, Any]] = {
    "BP": {}, "FA": {}, "SA": {}, "AA": {"optimiser": "adam", "align_rate": 0.02}, "IA": {"align_rate": 0.01}, "AA, SGD": {"align_rate": 0.01},
}  # fmt: skip
