"""Every claim's number, from the studies' arrays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from papers.claims import Measured

from .densities import FIELDS, excess, given_gates, kolmogorov, normality
from .setting import RHO, kernel_distance
from .statistics import Data, descent, largest, log_slope, relative_errors, time_to, width_slope, worst

RULES = ("gd", "fa", "dfa", "hebb", "gln")
Results = dict[str, Measured]


def networks_by_width(data: Data, name: str) -> dict[int, np.ndarray]:
    """Outputs of single networks of a rule."""
    return {int(key.split(".")[1]): data[key] for key in data if key.startswith(f"{name}.") and key.split(".")[1].isdigit()}


def widths(data: Data) -> Results:
    """Errors against width."""

    def slope(name: str, theory: str) -> Measured:
        errors = {width: relative_errors(f, data[f"{name}.{theory}"]) for width, f in networks_by_width(data, name).items()}
        shown = ", ".join(f"{100 * np.sqrt(np.mean(each**2)):.1f} % at {width}" for width, each in errors.items())
        return Measured(*width_slope(errors), f"errors {shown}")

    lazy = {name: slope(name, "lazy") for name in RULES}
    steepest = min(lazy, key=lambda name: lazy[name].value)
    return {
        **{f"width-{name}": slope(name, "dmft") for name in RULES},
        "width-no-responses": slope("gd", "wrong"),
        "width-other-rho": slope("fa", "wrong"),
        "width-frozen-kernel": Measured(lazy[steepest].value, lazy[steepest].se, f"{steepest}; {lazy[steepest].note}"),
    }


def contributions(data: Data) -> Results:
    """Which layers the lazy eNTK is made of."""
    found = {}
    trace = lambda key: np.trace(data[key], axis1=1, axis2=2)
    # diagonal entries of one network fluctuate together: their errors add up
    error = lambda key: np.trace(data[f"{key}_se"], axis1=1, axis2=2)
    for solver in ("dmft", "network"):
        fa, gd = trace(f"fa.{solver}"), trace(f"gd.{solver}")
        ratio = fa / gd
        se = ratio * np.hypot(error(f"fa.{solver}") / fa, error(f"gd.{solver}") / gd)
        slope, slope_se = log_slope(np.arange(len(ratio))[::-1], ratio, se)
        found[f"lazy-weights-{solver}"] = Measured(np.exp(slope), np.exp(slope) * slope_se)
        below = []
        for name in ("dfa", "hebb"):
            total = trace(f"{name}.{solver}").sum()
            below.append((trace(f"{name}.{solver}")[:-1].sum() / total, np.linalg.norm(error(f"{name}.{solver}")[:-1]) / total))
        found[f"lazy-last-layer-{solver}"] = Measured(*worst(*np.array(below).T))
    # the terms of GD, weighed as FA would weigh them if each hidden layer's weight were that of the next one
    gd, network = data["gd.lazy"], data["fa.network"].sum(axis=0)
    steps = np.arange(len(gd))[::-1]
    weigh = lambda exponents: np.tensordot(RHO**exponents, gd, axes=1)
    found["lazy-weights-shifted"] = Measured(
        float(kernel_distance(network, weigh(np.maximum(steps - 1.0, 0.0)))), None,
        f"{float(kernel_distance(network, weigh(1.0 * steps))):.3f} from the right kernel",
    )  # fmt: skip
    return found


def generalisation(data: Data) -> Results:
    """Test losses of lazy FA against its closed form."""
    at = np.searchsorted(data["rho"], data["sampled"])
    relative: dict[str, list] = {"dmft": [], "network": [], "swapped": []}
    for depth in data["depths"]:
        closed = data[f"{depth}.lazy"][at]
        for solver in ("dmft", "network"):
            relative[solver] += [(m / c - 1, se / c) for m, se, c in zip(data[f"{depth}.{solver}"], data[f"{depth}.{solver}_se"], closed, strict=True)]
        # the closed form for gradient descent, for feedback that is uncorrelated
        relative["swapped"].append((data[f"{depth}.network"][0] / closed[-1] - 1, data[f"{depth}.network_se"][0] / closed[-1]))
    found = {f"lazy-test-{solver}": Measured(*worst(*np.array(relative[solver]).T)) for solver in ("dmft", "network")}
    found["lazy-test-swapped"] = Measured(*worst(*np.array(relative["swapped"]).T))
    # beyond one hidden layer, where the features of the layers below count
    gain = lambda solver: [
        (data[f"{depth}.{solver}"][0] - data[f"{depth}.{solver}"][-1], np.hypot(*data[f"{depth}.{solver}_se"][[0, -1]]))
        for depth in data["depths"] if depth > 1
    ]  # fmt: skip
    closed = min(data[f"{depth}.lazy"][0] - data[f"{depth}.lazy"][-1] for depth in data["depths"] if depth > 1)
    found["lazy-test-rho"] = Measured(*min(gain("network")), f"closed form {closed:.3f}")
    return found


def rules(data: Data) -> Results:
    """Hebb beside the others: who learns, and with what alignment."""
    found = {}
    for solver in ("dmft", "network"):
        pick = lambda name, what, solver=solver: data[f"{name}.{solver}.{what}"]
        error = lambda name, what, solver=solver: data[f"{name}.{solver}.{what}_se"]
        # of the readout, over training
        share = {name: descent(pick(name, "shares"), pick(name, "loss"))[-1] for name in RULES}
        share_se = {name: descent(error(name, "shares"), pick(name, "loss"))[-1] for name in RULES}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in share.items())
        found[f"hebb-last-layer-{solver}"] = Measured(share["hebb"], share_se["hebb"], shown)
        found[f"hebb-last-layer-gd-{solver}"] = Measured(share["gd"], share_se["gd"])
        for claim, what in (("features", "cka"), ("gradients", "gradient_cka")):
            # means over layers: of features what they gained, of gradients what they have while the loss falls
            if claim == "features":
                value = {name: (pick(name, what)[:, -1] - pick(name, what)[:, 0]).mean() for name in RULES}
                se = {name: np.hypot(error(name, what)[:, -1], error(name, what)[:, 0]).mean() for name in RULES}
            else:
                value = {name: descent(pick(name, what), pick(name, "loss")).mean() for name in RULES}
                se = {name: descent(error(name, what), pick(name, "loss")).mean() for name in RULES}
            rival = min((name for name in RULES if name != "hebb"), key=value.__getitem__)
            shown = ", ".join(f"{name} {each:.2f}" for name, each in value.items())
            found[f"hebb-{claim}-{solver}"] = Measured(value["hebb"] - value[rival], np.hypot(se["hebb"], se[rival]), shown)
            found[f"hebb-{claim}-gd-{solver}"] = Measured(value["gd"] - min(value.values()), np.hypot(se["gd"], se["hebb"]))
    # the controls once, in theory
    return {name: each for name, each in found.items() if "-gd-" not in name or name.endswith("dmft")}


def correlations(data: Data) -> Results:
    """Feature learning against ρ."""
    rho, found = data["rho"], {}
    # the last layer lines up with the targets all but perfectly at any ρ: CKA saturates there
    for what, chosen in (("moved", slice(None)), ("cka", slice(0, 1))):
        for solver in ("dmft", "network"):
            values, errors = [], []
            for gamma0 in data["gamma0"]:
                keys = [f"{value:g}.{gamma0:g}.{solver}.{what}" for value in rho]
                if keys[0] not in data:
                    continue
                gained = np.array([(data[key][chosen, -1] - data[key][chosen, 0]) for key in keys])
                se = np.array([np.hypot(data[f"{key}_se"][chosen, -1], data[f"{key}_se"][chosen, 0]) for key in keys])
                values.append(np.diff(gained, axis=0))
                errors.append(np.hypot(se[1:], se[:-1]))
            found[f"rho-{what}-{solver}"] = Measured(*largest(np.array(values), np.array(errors)))
    return found


def linear(data: Data) -> Results:
    """The closed form of the two-layer linear network."""
    relative, se = data["network"] / data["closed"] - 1, data["network_se"] / data["closed"]
    shifted = data["network"][:-1] / data["closed"][1:] - 1
    return {
        "linear-derived": Measured(float(data["slope"].max()), None, "largest over ρ"),
        "linear-exact": Measured(float(np.abs(data["exact"] / data["closed"] - 1).max()), 0.0),
        "linear-network": Measured(*worst(relative, se)),
        "linear-shifted": Measured(float(np.abs(shifted).min()), float(se.max())),
    }


def gammas(data: Data) -> Results:
    """The effect of γ0 on losses, features and generalisation."""
    key = lambda name, gamma0, solver, what: data[f"{name}.{gamma0:g}.{solver}.{what}"]
    final = lambda name, gamma0, solver: (key(name, gamma0, solver, "test_loss")[-1], key(name, gamma0, solver, "test_loss_se")[-1])
    curve = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
    distances: dict[tuple[str, float], float] = {}
    off, steps, gains, fitted = [], [], [], 0
    for name in RULES:
        stable = stable_gammas(data, name)
        losses = {g: {s: key(name, g, s, "loss") for s in ("dmft", "network")} for g in stable}
        distances |= {(name, g): curve(losses[g]["network"], losses[g]["dmft"]) for g in stable}
        off += [curve(losses[g]["network"], losses[other]["dmft"]) for g, other in pairwise(stable)]
        for solver in ("dmft", "network"):
            # infinitely late if it never gets there
            times = [np.nan_to_num(time_to(losses[g][solver], 0.1), nan=np.inf) for g in stable]
            fitted += int(np.isfinite(times).sum())
            steps += [later - time for time, later in pairwise(times) if np.isfinite(time)]
            (lazy, lazy_se), (rich, rich_se) = final(name, stable[0], solver), final(name, 2.0, solver)
            gains.append((rich - lazy, np.hypot(rich_se, lazy_se)))
    far = max(distances, key=distances.__getitem__)
    exponent = {name: np.log(_moved(data, name, 0.5) / _moved(data, name, 0.1)) / np.log(5.0) for name in RULES}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in exponent.items())
    cosine = {g: key("dfa", g, "network", "alignment") for g in (0.1, 1.0)}
    left_out = [f"{name} at γ0 = {g:g}" for name in RULES for g in _gammas(data, name) if (name, g) not in distances]
    every, without = len(distances) + len(left_out), f", without {', '.join(left_out)}" if left_out else ""
    return {
        "cosine-lazy": Measured(float((cosine[0.1][:, -1] - cosine[0.1][:, 0]).max()), None, f"{(cosine[1.0][:, -1] - cosine[1.0][:, 0]).max():.2f} at γ0 = 1"),
        "gamma-curves": Measured(distances[far], None, f"{far[0]} at γ0 = {far[1]:g}; {len(distances)} of {every} curves{without}"),
        "gamma-curves-shifted": Measured(min(off)),
        "gamma-time": Measured(float(max(steps)), None, f"{fitted} of {2 * every} curves{without}"),
        "gamma-test": Measured(*largest(*np.array(gains).T)),
        "gamma-order-gd": Measured(exponent["gd"], None, shown),
        "gamma-order-hebb": Measured(exponent["hebb"]),
    }


def stable_gammas(data: Data, name: str) -> list[float]:
    """Values of γ0 at which the theory's loss falls to the end: beyond, η is too large for the grown kernel."""
    return [g for g in _gammas(data, name) if np.all(np.diff(data[f"{name}.{g:g}.dmft.loss"]) < 1e-3)]


def _gammas(data: Data, name: str) -> list[float]:
    return sorted({float(k.split(".dmft")[0].split(".", 1)[1]) for k in data if k.startswith(f"{name}.") and k.endswith(".dmft.loss")})


def _moved(data: Data, name: str, gamma0: float) -> float:
    return float(np.linalg.norm(data[f"{name}.{gamma0:g}.Phi_change"]))


def depths(data: Data) -> Results:
    """Alignment of gradients and pseudo-gradients, layer by layer."""
    labels = sorted(k.removesuffix(".dmft.loss") for k in data if k.endswith(".dmft.loss"))
    found: Results = {}
    for solver in ("dmft", "network"):
        cos = lambda label, solver=solver: data[f"{label}.{solver}.alignment"]
        se = lambda label, solver=solver: data[f"{label}.{solver}.alignment_se"]
        expected = {label: _initial_cosine(label, len(cos(label))) for label in labels}
        first = [(c[0] - e, s[0]) for label in labels for c, e, s in zip(cos(label), expected[label], se(label), strict=True)]
        found[f"cosine-start-{solver}"] = Measured(*worst(*np.array(first).T))
        for kind in ("dfa", "fa0"):
            chosen = [label for label in labels if label.startswith(f"{kind}.")]
            grown = [(c[-1] - c[0], np.hypot(s[-1], s[0])) for label in chosen for c, s in zip(cos(label), se(label), strict=True)]
            value, error = largest(-np.array(grown)[:, 0], np.array(grown)[:, 1])
            found[f"cosine-grows-{kind}-{solver}"] = Measured(-value, error, f"largest {np.array(grown)[:, 0].max():.2f}")
        early = [data[f"{label}.{solver}.shares"][:-1, -1].sum() for label in labels if label.split(".")[0] in ("dfa", "fa0")]
        found[f"earlier-layers-{solver}"] = Measured(float(min(early)), None, f"largest {max(early):.2f}")
    shift = []
    for label in labels:
        if label.startswith("fa."):
            start = data[f"{label}.network.alignment"][:, 0]
            shift.append(np.abs(start - _initial_cosine(label, len(start)) / RHO).max())
    found["cosine-start-shifted"] = Measured(float(min(shift)))
    return found


def _initial_cosine(label: str, depth: int) -> np.ndarray:
    """ρ^{L+1−ℓ}: each layer that the signal passes on its way down costs a factor ρ; none is left with direct or uncorrelated feedback."""
    rho = RHO if label.startswith("fa.") else 0.0
    return rho ** np.arange(depth, 0, -1.0)


def gated_kernel(data: Data) -> Results:
    """(L+1) K^x ∘ Γ^L."""
    distance = lambda depth, other: float(kernel_distance(data[f"{depth}.network"], data[f"{depth}.{other}"]))
    scatter = lambda depth: float(np.linalg.norm(data[f"{depth}.network_se"]) / np.linalg.norm(data[f"{depth}.formula"]))
    far = max(data["depths"], key=lambda depth: distance(depth, "formula"))
    return {
        "gln-kernel": Measured(distance(far, "formula"), scatter(far), f"L = {far}"),
        "gln-kernel-shifted": Measured(min(distance(depth, "shifted") for depth in data["depths"])),
    }


def fields(data: Data) -> Results:
    """Densities, and Gaussianity given the gates."""
    found: Results = {}
    same, moved = [], []
    for name in ("linear", "relu", "tanh", "gln"):
        for letter in FIELDS:
            for when in ("start", "end"):
                same.append(kolmogorov(data, name, letter, when, when))
            moved.append(kolmogorov(data, name, letter, "start", "end"))
    found["density-networks"] = Measured(max(same), None, f"of {len(same)} comparisons")
    found["density-start-end"] = Measured(max(moved))
    kurtosis = lambda name, solver, when, letters=FIELDS: np.array([excess(data[f"{name}.{solver}.{when}.{letter}"]) for letter in letters]).T
    for solver in ("dmft", "network"):
        start = np.concatenate([kurtosis(name, solver, "start", ("h1",)) for name in ("linear", "relu", "tanh")], axis=1)
        found[f"density-linear-{solver}"] = Measured(*worst(*kurtosis("linear", solver, "end")))
        found[f"density-start-{solver}"] = Measured(*worst(*start))
        for name in ("relu", "tanh"):
            found[f"density-{name}-{solver}"] = Measured(*worst(*kurtosis(name, solver, "end", ("h1", "h2"))))
        given = [given_gates(data, "gln", solver, letter) for letter in FIELDS]
        p = np.concatenate([normality(data, "gln", solver, letter) for letter in FIELDS])
        found[f"gln-normality-{solver}"] = Measured(float(p.min()), None, f"of {len(p)}")
        found[f"gln-given-gates-{solver}"] = Measured(*worst(*np.array(given).T))
    found["gln-without-gates"] = Measured(*worst(*kurtosis("gln", "network", "end")))
    p = np.concatenate([normality(data, "relu", "network", letter) for letter in ("h1", "h2")])
    found["gln-normality-relu"] = Measured(float(p.max()), None, f"of {len(p)}")
    found["gln-relu"] = Measured(*worst(*np.array([given_gates(data, "relu", "network", letter) for letter in ("h1", "h2")]).T))
    return found


MEASURES: dict[str, Callable[[Data], Results]] = {
    "widths": widths, "contributions": contributions, "generalisation": generalisation, "rules": rules, "gammas": gammas,
    "depths": depths, "correlations": correlations, "linear": linear, "gated_kernel": gated_kernel, "fields": fields,
}  # fmt: skip


def measure(data: dict[str, Data]) -> Results:
    """All claims."""
    return {name: value for study, of in MEASURES.items() for name, value in of(data[study]).items()}
