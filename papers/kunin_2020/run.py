"""Claims about evolving feedback weights, measured: python -m papers.kunin_2020.run --fast"""

from __future__ import annotations

import numpy as np

from papers.harness import Measured, main

from . import layers, networks, robustness, width
from .figures import draw, noise_of

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
    "depths": robustness.depths,
    "optimisers": robustness.optimisers,
    "noise": robustness.noise,
}
Data = dict[str, dict[str, np.ndarray]]


def measure(data: Data) -> dict[str, Measured]:
    """The value of every claim."""
    parts = (_layers(data), _together(data), _noise(data["floors"]), _width(data), _networks(data), _centring(data["sweep"]))
    trained = (_residual(data["residual"]), _depths(data["depths"]), _optimisers(data["optimisers"]), _noisy(data["noise"]))
    return {name: value for part in (*parts, *trained) for name, value in part.items()}


def _layers(data: Data) -> dict[str, Measured]:
    angles, depth = data["angles"], data["depth"]
    at = lambda name, place: float(angles[f"{name} simulated"][place])
    averaged = max(float(np.max(np.abs(angles[f"{name} random"] - angles[f"{name} simulated"]))) for name in ("SA", "AA", "WM"))
    logs = lambda name: float(np.max(np.abs(np.log(depth[f"{name} measured"] / depth[f"{name} predicted"]))))
    slope = np.log(depth["WM measured"][:, -1]) / np.log(np.where(depth["gains"] == 1, np.nan, depth["gains"]))
    spread = lambda name: float(np.ptp(np.log10(depth[f"{name} measured"][:, -1])))
    return {
        "time-course": Measured(max(float(angles[f"{name} error"]) for name in layers.RULES)),
        "time-course-control": Measured(min(float(angles[f"{name} late"]) for name in layers.RULES)),
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
    angle = lambda name: float(runs[f"{name} angles"][:, :, -1].mean())
    return {
        "residual-aligned": Measured(float(runs["SA angles"][:, :, -1].max())),
        "residual-frozen": Measured(float(runs["FA angles"][:, 0, -1].mean())),
        "residual-learns": Measured(loss("FA") / loss("SA"), note=f"BP {loss('BP'):.3f}, SA {loss('SA'):.3f}, FA {loss('FA'):.3f}"),
        "residual-activation": Measured(loss("FA") / loss("AA"), note=f"AA {loss('AA'):.3f}"),
        "residual-information-angle": Measured(angle("FA") - angle("IA"), note=f"FA {angle('FA'):.0f}, IA {angle('IA'):.0f}"),
        "residual-information": Measured(loss("FA") / loss("IA"), note=f"IA {loss('IA'):.3f}, FA {loss('FA'):.3f}: not better at this scale"),
        "residual-adam": Measured(angle("AA, SGD") - angle("AA"), note=f"SGD {angle('AA, SGD'):.0f}, Adam {angle('AA'):.0f}"),
    }


def _centring(sweep: dict[str, np.ndarray]) -> dict[str, Measured]:
    learns = lambda name: int(np.sum(sweep[f"relu {name} accuracy"] > 0.8))
    angle = lambda name: float(sweep[f"relu {name} angle"][0].mean())
    count = sweep["relu WM accuracy"].size
    return {
        "centring-angle": Measured(angle("WM") - angle("WM, centred"), note=f"{angle('WM'):.0f} and {angle('WM, centred'):.0f}"),
        "centring-learns": Measured(
            learns("WM, centred") - learns("WM"), note=f"WM {learns('WM')}, centred {learns('WM, centred')} of {count} networks above 80 %"
        ),
    }


def _depths(runs: dict[str, np.ndarray]) -> dict[str, Measured]:
    shallow, deep = runs["depths"][0], runs["depths"][-1]
    accuracy = lambda name, depth: 100 * float(runs[f"{name} {depth} accuracy"].mean())
    gap = lambda name, depth: accuracy("BP", depth) - accuracy(name, depth)
    angle = lambda name, depth: float(runs[f"{name} {depth} angles"].mean())
    both = lambda name: f"{gap(name, shallow):.1f} points below BP with {shallow} hidden layers, {gap(name, deep):.1f} with {deep}"
    return {
        **{f"depth-{name}": Measured(gap(name, deep), note=both(name)) for name in ("SA", "AA", "KP")},
        "depth-IA": Measured(gap("IA", deep) - gap("IA", shallow), note=both("IA")),
        "depth-FA": Measured(gap("FA", deep) - gap("FA", shallow), note=both("FA")),
        "depth-WM": Measured(accuracy("WM", deep), note=both("WM")),
        "depth-angles": Measured(min(angle(name, deep) - angle(name, shallow) for name in ("FA", "AA", "KP", "IA"))),
        "depth-angle-SA": Measured(max(angle("SA", depth) for depth in runs["depths"])),
        "depth-IA-FA": Measured(accuracy("IA", deep) - accuracy("FA", deep), note="not at this scale"),
    }


def _optimisers(runs: dict[str, np.ndarray]) -> dict[str, Measured]:
    good = lambda name, optimiser: runs[f"{name} {optimiser} accuracy"].min(axis=1) > 0.9
    largest = lambda name, optimiser: float(runs["rates"][good(name, optimiser)].max(initial=0.0))
    angle = lambda name, optimiser: float(np.nanmin(runs[f"{name} {optimiser} angle"].mean(axis=1)))
    said = ", ".join(f"{optimiser} {largest('AA', optimiser):.2g}" for optimiser in ("SGD", "momentum", "Adam"))
    return {
        "optimiser-range": Measured(largest("AA", "Adam") / max(largest("AA", "SGD"), 1e-9), note=f"largest rate above 90 %: {said}"),
        "optimiser-momentum": Measured(largest("AA", "momentum") / max(largest("AA", "SGD"), 1e-9)),
        "optimiser-angle": Measured(
            angle("AA", "SGD") - angle("AA", "Adam"), note=f"best angles: SGD {angle('AA', 'SGD'):.0f}, Adam {angle('AA', 'Adam'):.0f}"
        ),
        "optimiser-information": Measured(
            100 * (runs["IA Adam accuracy"].mean(axis=1).max() - runs["IA SGD accuracy"].mean(axis=1).max()), note="best rate of each"
        ),
    }


def _noisy(runs: dict[str, np.ndarray]) -> dict[str, Measured]:
    variances = runs["variances"]
    accuracy = lambda where, name, v: 100 * float(runs[f"{where} {name} accuracy"][variances == v].mean())
    angle = lambda name, v: float(runs[f"feedback {name} angles"][variances == v].mean())
    derived = {"SA": "SA", "KP": "KP", "WM, noise": "SA"}
    ratio = {name: noise_of(runs, name)[1:] / np.sqrt(runs[f"{of} derived"][1:]) for name, of in derived.items()}
    return {
        "noise-KP": Measured(float(np.max(np.abs(ratio["KP"] - 1)))),
        "noise-SA": Measured(float(np.max(np.abs(ratio["SA"] - 1)))),
        "noise-mirror": Measured(float(np.max(np.abs(ratio["WM, noise"] - 1)))),
        "noise-angle": Measured(angle("KP", 0.1) - angle("SA", 0.1), note=f"KP {angle('KP', 0.1):.0f}, SA {angle('SA', 0.1):.0f}"),
        "noise-accuracy": Measured(accuracy("feedback", "SA", 10.0) - accuracy("feedback", "KP", 10.0)),
        "noise-information": Measured(accuracy("feedback", "IA", 0.0) - accuracy("feedback", "IA", 10.0)),
        "noise-all": Measured(accuracy("all", "BP", 0.1) - accuracy("all", "SA", 0.1)),
    }


if __name__ == "__main__":
    main(__file__, STUDIES, measure, draw, networks.use)
