"""Plain networks in numpy, written without the project's derivations or solvers: what the laws are held against.

Matrices have rows for units above and columns for units below, without width factors: h^{l+1} = W^l a^l + b^l. The laws' generated code
takes the weights by name, W0, W1, …, B1, …
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Weights = dict[str, np.ndarray]
Activation = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
ACTIVATIONS: dict[str, Activation] = {
    "linear": (lambda h: h, np.ones_like),
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(float)),
    "leaky_relu": (lambda h: np.where(h > 0, h, 0.1 * h), lambda h: np.where(h > 0, 1.0, 0.1)),
    "relu2": (lambda h: np.maximum(h, 0) ** 2, lambda h: 2 * np.maximum(h, 0)),
    "tanh": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
}


@dataclass(frozen=True)
class Setup:
    """A network, a rule and an optimiser.

    Attributes:
        widths: inputs, hidden layers, outputs.
        activation: a name in `ACTIVATIONS`.
        rule: "fa", "gd", "dfa", "sign" (feedback weights sign W) or "kp" (feedback weights learn as W does).
        biased: whether hidden units have biases.
        loss: "squared" or "softmax".
        optimiser: "euler", "momentum" (0.9) or "adam".
        decay: weight decay of W and b, and of B where it learns.
        rho: correlation of B(0) with W(0).
        scale: of the forward weights, entries of standard deviation scale/√fan-in.
        feedback_scale: the same of the feedback weights; by default that of the forward weights.
        pace: factor of all times and steps in studies that compare several setups.
    """

    widths: tuple[int, ...] = (8, 10, 9, 7, 3)
    activation: str = "relu"
    rule: str = "fa"
    biased: bool = False
    loss: str = "squared"
    optimiser: str = "euler"
    decay: float = 0.0
    rho: float = 0.0
    scale: float = 1.0
    feedback_scale: float | None = None
    pace: float = 1.0

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths) - 2


def start(setup: Setup, seed: int) -> Weights:
    """Random weights; B = ρ W(0) + √(1−ρ²) W~, F and ghost readouts M for direct feedback."""
    random, n, L = np.random.default_rng(seed), setup.widths, setup.depth
    draw = lambda up, down: random.normal(size=(up, down)) / np.sqrt(down)
    found = {f"W{l}": setup.scale * draw(n[l + 1], n[l]) for l in range(L + 1)}
    if setup.biased:
        found |= {f"b{l}": 0.5 * random.normal(size=n[l + 1]) for l in range(L)}
    for l in range(1, L + 1):
        if setup.rule in ("fa", "kp"):
            alike = setup.rho * found[f"W{l}"] / setup.scale + np.sqrt(1 - setup.rho**2) * draw(n[l + 1], n[l])
            found[f"B{l}"] = (setup.feedback_scale or setup.scale) * alike
        if setup.rule == "dfa":
            found[f"F{l}"] = draw(n[-1], n[l])
            found[f"M{l}"] = np.zeros((n[-1], n[l]))
    return found


def error(setup: Setup, output: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """−∂loss/∂output, of the mean over examples (columns)."""
    if setup.loss == "squared":
        return (targets - output) / targets.shape[1]
    exp = np.exp(output - output.max(axis=0))
    return (targets - exp / exp.sum(axis=0)) / targets.shape[1]


def loss(setup: Setup, output: np.ndarray, targets: np.ndarray) -> float:
    """Mean over examples."""
    if setup.loss == "squared":
        return float(np.sum((targets - output) ** 2) / (2 * targets.shape[1]))
    shifted = output - output.max(axis=0)
    return float(-np.sum(targets * (shifted - np.log(np.exp(shifted).sum(axis=0)))) / targets.shape[1])


def forward(setup: Setup, weights: Weights, inputs: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Preactivations h^1…h^{L+1} and activities a^0…a^L."""
    phi, _ = ACTIVATIONS[setup.activation]
    hs, activities = [], [inputs]
    for l in range(setup.depth + 1):
        h = weights[f"W{l}"] @ activities[-1]
        if f"b{l}" in weights:
            h = h + weights[f"b{l}"][:, None]
        hs.append(h)
        if l < setup.depth:
            activities.append(phi(h))
    return hs, activities


def direction(setup: Setup, weights: Weights, inputs: np.ndarray, targets: np.ndarray) -> Weights:
    """The rule's velocity of every weight that moves, decay not included."""
    _, slope = ACTIVATIONS[setup.activation]
    hs, activities = forward(setup, weights, inputs)
    e = delta = error(setup, hs[-1], targets)
    found = {}
    for l in reversed(range(setup.depth + 1)):
        found[f"W{l}"] = delta @ activities[l].T
        if f"b{l}" in weights:
            found[f"b{l}"] = delta.sum(axis=1)
        if setup.rule == "kp" and l:
            found[f"B{l}"] = delta @ activities[l].T
        if f"M{l}" in weights:
            found[f"M{l}"] = e @ activities[l].T
        if l:
            delta = slope(hs[l - 1]) * _carried(setup, weights, l, delta, e)
    return found


def _carried(setup: Setup, weights: Weights, l: int, delta: np.ndarray, e: np.ndarray) -> np.ndarray:
    match setup.rule:
        case "gd":
            return weights[f"W{l}"].T @ delta
        case "dfa":
            return weights[f"F{l}"].T @ e
        case "sign":
            return np.sign(weights[f"W{l}"]).T @ delta
        case _:
            return weights[f"B{l}"].T @ delta


def train(
    setup: Setup, weights: Weights, inputs: np.ndarray, targets: np.ndarray, step: float, steps: int, batch: int | None = None, seed: int = 0
) -> Iterator[Weights]:
    """Weights before the first step and after each one."""
    random = np.random.default_rng(seed)
    speed = {name: np.zeros_like(value) for name, value in weights.items()}
    power = {name: np.zeros_like(value) for name, value in weights.items()}
    yield weights
    for t in range(1, steps + 1):
        chosen = slice(None) if batch is None else random.choice(inputs.shape[1], batch, replace=False)
        moved = direction(setup, weights, inputs[:, chosen], targets[:, chosen])
        changed = dict(weights)
        for name, change in moved.items():
            if setup.optimiser == "momentum":
                speed[name] = change = 0.9 * speed[name] + 0.1 * change
            elif setup.optimiser == "adam":
                speed[name] = 0.9 * speed[name] + 0.1 * change
                power[name] = 0.999 * power[name] + 0.001 * change**2
                change = speed[name] / (1 - 0.9**t) / (np.sqrt(power[name] / (1 - 0.999**t)) + 1e-8)
            shrink = 0.0 if name[0] == "M" else setup.decay
            changed[name] = weights[name] + step * (change - shrink * weights[name])
        weights = changed
        yield weights
