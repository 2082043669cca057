"""Studies of what trained networks bear: depth, another optimiser of the alignment step, noise in every update."""

from __future__ import annotations

from typing import Any

import numpy as np

from derive import alignment_theory
from numerics import jaxify, train_network

from .layers import RULES as LAYER_RULES
from .networks import RULES, data, training

RATES = np.geomspace(1e-4, 0.1, 7)
OPTIMISERS: dict[str, dict[str, Any]] = {"SGD": {}, "momentum": {"align_momentum": 0.9}, "Adam": {"optimiser": "adam"}}
NOISY = {"feedback": ("SA", "KP", "IA", "WM, noise"), "all": ("BP", "SA", "KP")}


def depths(full: bool) -> dict[str, object]:
    """Accuracy and angles of tanh networks of several depths; an angle for every layer but the first."""
    found: dict[str, object] = {"depths": np.array([1, 2, 4, 8, 12] if full else [2, 4, 8])}
    for depth in found["depths"]:  # type: ignore[attr-defined]
        for name in ("BP", "FA", "SA", "AA", "KP", "IA", "WM"):
            regulariser, changes = RULES[name]
            run = train_network(
                data(), regulariser, (64,) * int(depth), "tanh", training(full, "tanh", records=2, **changes), seeds=4 if full else 2
            )
            found |= {f"{name} {depth} {what}": getattr(run, what)[..., -1] for what in ("loss", "accuracy", "angles", "gains")}
    return found


def optimisers(full: bool) -> dict[str, object]:
    """Accuracy of ReLU networks against the rate of the alignment step: SGD, SGD with momentum, Adam; the task's step stays what it is."""
    found: dict[str, object] = {"rates": RATES}
    for name in ("SA", "AA", "IA") if full else ("AA", "IA"):
        for optimiser, changes in OPTIMISERS.items():
            run = train_network(
                data(), RULES[name][0], (64,) * 3, "relu", training(full, "relu", records=1, **changes), parameters={"align_rate": RATES}, seeds=2
            )
            shape = (len(RATES), 2)
            found[f"{name} {optimiser} accuracy"] = np.where(run.diverged, 0.1, run.accuracy[:, -1]).reshape(shape)
            found[f"{name} {optimiser} angle"] = run.angles[:, :, -1].mean(axis=1).reshape(shape)
    return found


def noise(full: bool) -> dict[str, object]:
    """Noise of variance v in every update, of the feedback weights alone or of all weights."""
    variances = np.array([0.0, 0.01, 0.1, 1.0, 10.0])
    found: dict[str, object] = {"variances": variances}
    for where, names in NOISY.items():
        for name in names:
            regulariser, changes = RULES[name]
            spread = {"update_noise": variances} | ({"forward_noise": variances} if where == "all" else {})
            settings = training(full, "tanh", records=1, **changes)
            run = train_network(data(), regulariser, (64,) * 3, "tanh", settings, parameters=spread, seeds=2)
            each = lambda values: values.reshape(len(variances), 2, *values.shape[1:])
            found |= {f"{where} {name} {what}": each(getattr(run, what)[..., -1]) for what in ("accuracy", "angles", "gains", "sizes")}
    return found | _derived(full, variances)


def _derived(full: bool, variances: np.ndarray) -> dict[str, object]:
    """What noise leaves of B − Wᵀ: the stationary variance of a mode of SA; for KP, which is slower than the run, the share that has come up."""
    theory = jaxify(alignment_theory(LAYER_RULES["SA"]))
    found: dict[str, object] = {}
    for name in ("SA", "KP"):
        settings = training(full, "tanh", **RULES[name][1])
        rate = settings.align_rate / settings.rate  # of alignment, in units of the step that the noise comes with
        stationary = np.array([float(theory.weight_noise_variance(settings.rate, v, 0.0, 0.0, d=rate, t_=rate)) for v in variances])
        found[f"{name} derived"] = stationary * (1 - (1 - settings.align_rate) ** (2 * settings.steps))
    return found
