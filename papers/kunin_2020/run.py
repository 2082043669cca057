"""Claims about evolving feedback weights, measured: python -m papers.kunin_2020.run --fast"""

from __future__ import annotations

import numpy as np

from papers.harness import Measured, main

from . import layers, networks, width
from .figures import draw

STUDIES = {
    "angles": layers.angles,
    "cotraining": layers.cotraining,
    "depth": layers.depth,
    "floors": layers.floors,
    "weights": width.weights,
    "networks": networks.networks,
    "cosines": width.cosines,
    "sweep": networks.sweep,
    "residual": networks.residual,
}
Data = dict[str, dict[str, np.ndarray]]


def measure(data: Data) -> dict[str, Measured]:
    """The value of every claim."""
    return {**_layers(data), **_together(data), **_noise(data["floors"]), **_width(data), **_networks(data), **_residual(data["residual"])}


def _layers(data: Data) -> dict[str, Measured]:
    angles, depth = data["angles"], data["depth"]
    at = lambda name, place: float(angles[f"{name} simulated"][place])
    averaged = max(float(np.max(np.abs(angles[f"{name} random"] - angles[f"{name} simulated"]))) for name in ("SA", "AA", "WM"))
    logs = lambda name: float(np.max(np.abs(np.log(depth[f"{name} measured"] / depth[f"{name} predicted"]))))
    slope = np.log(depth["WM measured"][:, -1]) / np.log(np.where(depth["gains"] == 1, np.nan, depth["gains"]))
    spread = lambda name: float(np.ptp(np.log10(depth[f"{name} measured"][:, -1])))
    return {
        "time-course": Measured(max(float(angles[f"{name} error"]) for name in layers.RULES)),
        "time-course-control": Measured(float(angles["control"])),
        "mirror-angle": Measured(at("WM", -1), note=f"participation ratio/n = {float(angles['participation']):.3f}"),
        "aligned-angle": Measured(max(at("SA", -1), 0.0)),
        "not-monotone": Measured(float(angles["IA theory"][-1] - np.min(angles["IA theory"]))),
        "random-average": Measured(averaged),
        "depth-mirror": Measured(float(np.nanmean(slope))),
        "depth-theory": Measured(max(logs("WM"), logs("IA"))),
        "depth-spread": Measured(spread("WM") - spread("IA"), note=f"decades: WM {spread('WM'):.1f}, IA {spread('IA'):.1f}"),
    }


def _growth(times: np.ndarray, norms: np.ndarray) -> float:
    return float(np.log(norms[-1] / norms[len(norms) // 2]) / (times[-1] - times[len(times) // 2]))


def _together(data: Data) -> dict[str, Measured]:
    system = data["cotraining"]
    times = system["times"]
    rates = {f: _growth(times, system[f"even {f:g}"]) for f in system["forgetting"]}
    worst = max(abs(rates[f] - float(system[f"rates {f:g}"].max())) for f in system["forgetting"])
    return {
        "knife-edge": Measured(rates[1.5]),
        "knife-edge-grows": Measured(rates[1.0]),
        "knife-edge-dies": Measured(rates[2.0]),
        "growth-theory": Measured(worst),
        "balance": Measured(_growth(times, system["IA balance"])),
        "stable-point": Measured(float(np.mean(system["IA singular values"])), note="the slowest modes have not quite arrived"),
        "stable-angle": Measured(float(system["IA angle"][-1])),
    }


def _noise(floors: dict[str, np.ndarray]) -> dict[str, Measured]:
    gap = np.abs(floors["measured"] - floors["predicted"])
    kind = np.array([name.split(",")[0] for name in floors["cases"]])
    ratio = floors["noise measured"] / floors["noise predicted"]
    return {
        "floor-mirror": Measured(float(gap[kind == "WM"].max())),
        "floor-information": Measured(float(gap[kind == "IA"].max())),
        "floor-activation": Measured(float(floors["measured"][kind == "AA"].max())),
        "update-noise": Measured(float(np.max(np.abs(ratio - 1)))),
        "update-noise-ratio": Measured(float(floors["noise measured"][0] / floors["noise measured"][1])),
    }


def _width(data: Data) -> dict[str, Measured]:
    cosines, weights = data["cosines"], data["weights"]
    z = {name: _z(cosines, f"{name} theory", f"{name} networks") for name in width.RULES}
    slope = lambda name: float(np.polyfit(np.log(weights["widths"]), np.log(weights[f"{name} weights"]), 1)[0])
    drift = lambda name: abs(float(weights[f"{name} fields"][-1] / weights[f"{name} fields"][0]) - 1)
    found = {f"width-{name}": Measured(value) for name, value in z.items()}
    return found | {
        "width-control": Measured(_z(cosines, "control", "IA networks")),
        "weights-slope": Measured(float(np.mean([slope(name) for name in ("WM", "IA", "AA")]))),
        "fields-stay": Measured(max(drift(name) for name in ("SA", "WM", "IA"))),
        "order": Measured(float(cosines["IA theory alignment"][0, -1] - cosines["FA theory alignment"][0, -1])),
    }


def _z(cosines: dict[str, np.ndarray], theory: str, networks: str) -> float:
    """Root mean square of z over layers and times; theory and networks share no noise."""
    first, second = (cosines[f"{kind} alignment"] for kind in (theory, networks))
    error = np.hypot(cosines[f"{theory} alignment_se"], cosines[f"{networks} alignment_se"])
    counted = error > 1e-12
    return float(np.sqrt(np.mean(((first - second)[counted] / error[counted]) ** 2)))


def _networks(data: Data) -> dict[str, Measured]:
    runs, sweep = data["networks"], data["sweep"]
    accuracy = lambda name: 100 * float(runs[f"{name} accuracy"][:, -1].mean())
    angle = lambda name: float(runs[f"{name} angles"][:, :, -1].mean())
    good = lambda name: float(np.mean(sweep[f"relu {name} accuracy"] > 0.8))
    return {
        "digits-symmetric": Measured(accuracy("BP") - accuracy("SA"), note=f"BP {accuracy('BP'):.1f}, SA {accuracy('SA'):.1f} %"),
        "digits-activation": Measured(accuracy("BP") - accuracy("AA")),
        "digits-information": Measured(accuracy("BP") - accuracy("IA")),
        "digits-mirror-noise": Measured(accuracy("WM, noise") - accuracy("WM"), note=f"{accuracy('WM, noise'):.1f} against {accuracy('WM'):.1f} %"),
        "mirror-gain": Measured(float(runs["WM gains"][:, :, -1].mean())),
        "information-gain": Measured(float(runs["IA gains"][:, :, -1].max())),
        "digits-angles": Measured(angle("FA") - angle("AA")),
        "digits-symmetric-angle": Measured(angle("SA")),
        "sweep-mirror": Measured(good("WM")),
        "sweep-information": Measured(good("IA") - good("WM"), note=f"IA {good('IA'):.2f}, WM {good('WM'):.2f} of all"),
    }


def _residual(runs: dict[str, np.ndarray]) -> dict[str, Measured]:
    loss = lambda name: float(runs[f"{name} loss"][:, -1].mean())
    return {
        "residual-aligned": Measured(float(runs["SA angles"][:, :, -1].max())),
        "residual-frozen": Measured(float(runs["FA angles"][:, 0, -1].mean())),
        "residual-learns": Measured(loss("FA") / loss("SA"), note=f"BP {loss('BP'):.3f}, SA {loss('SA'):.3f}, FA {loss('FA'):.3f}"),
    }


if __name__ == "__main__":
    main(__file__, STUDIES, measure, draw)
