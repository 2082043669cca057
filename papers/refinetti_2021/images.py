"""Deep networks on images: layers align from bottom to top, labels that are noise are memorised, starts that differ meet, convolutions cannot align."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from lazyrich.data import ten_classes
from numerics import Classes, DirectRun, train_direct
from numerics.convolution import convolution_alignment, convolution_matrix
from papers.harness import Measured

Arrays = dict[str, np.ndarray]
WIDTHS, RATE = (100, 100, 100), 0.032
SMALL, STANDARD = 0.006, 3**-0.5  # × 1/√fan-in; a hundredth of the common start, and the common start (uniform on ±1/√fan-in)
NOISE = 0.5
CHANNELS, KERNEL, LARGEST = 4, 3, 14
_source = ["digits"]


def use(source: str) -> None:
    """Take images from elsewhere: mnist:FOLDER or cifar10:FOLDER.

    Raises:
        BadInput: there are no such files, or too few images in them.
    """
    _images(source, None)
    _source.append(source)


@lru_cache(maxsize=4)
def _images(source: str, side: int | None) -> tuple[Classes, int]:
    """1200 images to learn and 597 to test, centred, of unit mean square; pooled to at most `side` rows, colours joined, if that is given."""
    (X, labels), (X_test, labels_test) = ten_classes(source, 1200, 597)
    X, X_test = (images.astype(float) for images in (X, X_test))
    if side is not None:
        rows = X.shape[1]
        factor = next(f for f in range(1, rows + 1) if rows % f == 0 and rows // f <= side)
        pooled = lambda x: x.mean(-1).reshape(len(x), rows // factor, factor, rows // factor, factor).mean((2, 4))
        X, X_test = pooled(X), pooled(X_test)
    return Classes.standardised(X, labels, X_test, labels_test), X.shape[1]


def noisy(data: Classes, count: int, share: float, seed: int = 5) -> Classes:
    """The first images, a share of whose labels is replaced by uniform classes; test labels stay."""
    rng = np.random.default_rng(seed)
    replaced = np.where(rng.random(count) < share, rng.integers(0, data.count, count), data.labels[:count])
    return Classes(data.X[:count], replaced, data.X_test, data.labels_test)


def record(name: str, run: DirectRun) -> Arrays:
    """A run's curves under a name."""
    kept = ("times", "loss", "accuracy", "test", "weight_alignment", "gradient_alignment")
    return {f"{name}_{what}": getattr(run, what) for what in kept}


# ---- studies ----------------------------------------------------------------------------------------------------------


def images(full: bool) -> Arrays:
    """Dense networks: clean labels, half of the labels noise, and backpropagation."""
    data, _ = _images(_source[-1], None)
    times = lambda last: np.unique(np.concatenate([[0], np.geomspace(6, last, 30).astype(int)]))
    common: dict[str, Any] = {"rate": RATE, "seeds": 10 if full else 3, "dtype": "float32"}
    last = 50_000 if full else 10_000
    wrong = noisy(data, 600, NOISE)
    found = record("clean", train_direct(data, WIDTHS, "tanh", times(last), start=SMALL, **common))
    found |= record("noise", train_direct(wrong, WIDTHS, "tanh", times(last), start=SMALL, **common))
    found |= record("standard", train_direct(wrong, WIDTHS, "tanh", times(last), start=STANDARD, **common))
    found |= record("relu", train_direct(data, WIDTHS, "relu", times(last // 5), start=SMALL, **common))
    return found | record("bp", train_direct(data, WIDTHS, "tanh", times(last // 5), start=STANDARD, direct=False, **common))


def seeds(full: bool) -> Arrays:
    """How alike networks from different starts become: DFA, BP, and DFA with feedback of their own."""
    data, _ = _images(_source[-1], None)
    common: dict[str, Any] = {"rate": RATE, "start": STANDARD, "dtype": "float32"}
    count, times = (10, (10_000,)) if full else (4, (3_000,))
    runs = {name: [train_direct(data, WIDTHS, "tanh", times, seeds=count, direct=name == "dfa", **common)] for name in ("dfa", "bp")}
    runs["own"] = [train_direct(data, WIDTHS, "tanh", times, seeds=1, seed=7 + one, feedback_seed=7 + one, **common) for one in range(2)]
    found: Arrays = {}
    for name, several in runs.items():
        stack = lambda parts: [np.concatenate(layer) for layer in zip(*parts, strict=True)]
        found[f"{name}_weights"] = _pairwise(stack([run.weights for run in several]))
        found[f"{name}_hidden"] = _pairwise(stack([run.outputs(data.X_test) for run in several]))
        found[f"{name}_test"] = np.concatenate([run.test[:, -1] for run in several])
    return found


def _pairwise(layers: list[np.ndarray]) -> np.ndarray:
    """Cosines between the networks, (layers, pairs)."""
    cosine = lambda a, b: np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    return np.array([[cosine(layer[a], layer[b]) for a, b in combinations(range(len(layer)), 2)] for layer in layers])


def convolutional(full: bool) -> Arrays:
    """Two convolutions and a readout, feedback of independent entries and constant over positions; dense layers of equal size."""
    data, side = _images(_source[-1], LARGEST)
    sizes = [side, side - KERNEL + 1, side - 2 * KERNEL + 2]
    shared = (_places(1, sizes[0]), _places(CHANNELS, sizes[1]), None)
    widths = tuple(CHANNELS * size**2 for size in sizes[1:])
    rng = np.random.default_rng(0)
    constant = [np.repeat(rng.uniform(-1, 1, (CHANNELS, data.count)), size**2, axis=0) / np.sqrt(CHANNELS * size**2) for size in sizes[1:]]
    times = np.unique(np.concatenate([[0], np.geomspace(6, 20_000 if full else 3_000, 24).astype(int)]))
    common: dict[str, Any] = {"rate": RATE, "start": 0.01, "seeds": 10 if full else 4, "dtype": "float32"}
    cases: dict[str, dict[str, Any]] = {
        "independent": {"shared": shared}, "constant": {"shared": shared, "feedback": constant}, "dense": {},
        "bp": {"shared": shared, "direct": False, "start": STANDARD},
    }  # fmt: skip
    found: Arrays = {"shape": np.array([side, sizes[1], sizes[2], KERNEL])}
    for name, changes in cases.items():
        run = train_direct(data, widths, "tanh", times, **{**common, **changes})
        bound = convolution_alignment(run.F[1], run.F[0], (CHANNELS, CHANNELS), sizes[1], KERNEL)
        found |= record(name, run) | {f"{name}_bound": np.array(bound)}
    return found


def _places(channels: int, side: int) -> np.ndarray:
    """Which entry of its kernels, counted from 1, sits where in a convolution's matrix."""
    numbered = np.arange(1, CHANNELS * channels * KERNEL**2 + 1).reshape(CHANNELS, channels, KERNEL, KERNEL)
    return convolution_matrix(numbered, side).astype(int)


# ---- measures ---------------------------------------------------------------------------------------------------------


def spread(values: np.ndarray, note: str = "") -> Measured:
    """Mean over networks, with its standard error."""
    return Measured(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))), note)


def plateau_end(d: Arrays, name: str) -> int:
    """The last record with a mean loss above 0.99 of the first."""
    loss = d[f"{name}_loss"].mean(0)
    return int(np.flatnonzero(loss > 0.99 * loss[0])[-1])


def onsets(d: Arrays, name: str, level: float = 0.3) -> np.ndarray:
    """When the mean weight alignment of each layer first exceeds a level, interpolated in log time."""
    times, mean = np.log(np.maximum(d[f"{name}_times"], 1)), d[f"{name}_weight_alignment"].mean(0)
    found = []
    for values in mean:
        after = int(np.argmax(values > level))
        found.append(np.interp(level, values[after - 1 : after + 1], times[after - 1 : after + 1]))
    return np.exp(found)


def falls(d: Arrays, name: str) -> np.ndarray:
    """Largest less final weight alignment, layers × networks."""
    alignment = d[f"{name}_weight_alignment"]
    return (alignment.max(-1) - alignment[..., -1]).T


def measure_images(d: Arrays) -> dict[str, Measured]:
    """Claims of the dense networks."""
    end, noise_end = plateau_end(d, "clean"), plateau_end(d, "noise")
    order, relu = onsets(d, "clean"), onsets(d, "relu")
    fall, usual = falls(d, "noise"), falls(d, "standard")
    words = lambda values, digits=0: ", ".join(f"{value:.{digits}f}" for value in values)
    test, noisy_end = d["noise_test"], d["noise_weight_alignment"][:, 0, noise_end].mean()
    best = d["noise_accuracy"][np.arange(len(test)), test.argmax(1)].mean()
    deltas = d["clean_gradient_alignment"][..., -1]
    return {
        "images-first": spread(d["clean_weight_alignment"][:, 0, end], f"at step {d['clean_times'][end]}; with noisy labels {noisy_end:.2f}"),
        "images-order": Measured(float(np.min(order[1:] / order[:-1])), note=f"layers 2, 3, 4 at steps {words(order)}; ReLU at {words(relu)}"),
        "images-bp": Measured(float(np.abs(d["bp_weight_alignment"]).max())),
        "images-gradient": spread(deltas.min(1), f"layers 1, 2, 3: {words(deltas.mean(0), 2)}"),
        "noise-memorised": spread(d["noise_accuracy"][:, -1], f"at the best test accuracy: {best:.2f}"),
        "noise-test": spread(test.max(1) - test[:, -1], f"from {test.max(1).mean():.2f} to {test[:, -1].mean():.2f}"),
        "noise-fall": spread(fall[0]),
        "noise-fall-top": spread(fall[1:].min(0), f"layers 3, 4: {words(fall[1:].mean(1), 3)}"),
        "noise-standard": spread(usual[0], f"layers 3, 4: {words(usual[1:].mean(1), 3)}"),
    }  # fmt: skip


def measure_seeds(d: Arrays) -> dict[str, Measured]:
    """Claims about different starts."""
    inner = lambda name: d[f"{name}_weights"][1:].mean(0)
    hidden = lambda name: d[f"{name}_hidden"][:-1].mean(0)
    layers = lambda name: "layers " + ", ".join(f"{value:.2f}" for value in d[name].mean(1))
    return {
        "seeds-weights": spread(inner("dfa"), layers("dfa_weights")),
        "seeds-hidden": spread(hidden("dfa"), f"{layers('dfa_hidden')}, the last the outputs, which are alike for BP too: {d['bp_hidden'][-1].mean():.2f}"),
        "seeds-bp": Measured(float(np.abs(hidden("bp")).mean()), note=layers("bp_weights")),
        "seeds-own": Measured(float(np.abs(hidden("own")).mean())),
    }


def measure_convolutional(d: Arrays) -> dict[str, Measured]:
    """Claims about convolutions."""
    reached = {name: d[f"{name}_weight_alignment"][:, 0].max(-1) for name in ("independent", "constant", "dense")}
    share = lambda name: spread(reached[name] / float(d["independent_bound" if name == "dense" else f"{name}_bound"]), f"cosine {reached[name].mean():.3f}")
    test = {name: d[f"{name}_test"][:, -1] for name in ("independent", "bp", "dense")}
    words = ", ".join(f"{label} {test[name].mean():.3f}" for label, name in (("DFA", "independent"), ("BP", "bp"), ("dense DFA", "dense")))
    return {
        "conv-trained": share("independent"), "conv-trained-constant": share("constant"), "conv-dense": share("dense"),
        "conv-lag": spread(test["bp"].mean() - test["independent"], words),
    }  # fmt: skip
