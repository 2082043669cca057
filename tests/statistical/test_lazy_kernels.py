"""Derived lazy kernels against wide random networks: K = Σ_ℓ ⟨g^{ℓ+1} g̃^{ℓ+1}⟩ ⟨φ^ℓ φ^ℓ⟩ at t = 0, averaged over networks.

At width N the mean has a bias of order 1/N, here a tenth of the standard error of 300 networks, so that z-scores are standard
normal. The network below is written out by hand: nothing of the generated single-site functions is used.
"""

import numpy as np
import pytest
from scipy import special

from derive import DFA, FA, GD, GLN, MLP, Feedback, Hebb, Rule, alpha, beta, dphi, h, lazy_kernel, rho, sign, z
from derive.activations import hard_tanh
from numerics import jaxify

WIDTH, NETWORKS = 500, 300
RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 6))
PHI = {"relu": lambda h: np.maximum(h, 0), "erf": special.erf, "tanh": np.tanh}
SLOPE = {"relu": lambda h: (h > 0).astype(float), "erf": lambda h: 2 / np.sqrt(np.pi) * np.exp(-(h**2)), "tanh": lambda h: 1 - np.tanh(h) ** 2}  # fmt: skip


def empirical(rule: str, activation: str, depth: int, correlation: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over networks of the eNTK at initialisation."""
    rng = np.random.default_rng(seed)
    kernels = np.stack([one_network(rng, rule, PHI[activation], SLOPE[activation], depth, correlation) for _ in range(NETWORKS)])
    return kernels.mean(0), kernels.std(0, ddof=1) / np.sqrt(NETWORKS)


def one_network(rng: np.random.Generator, rule: str, phi, slope, depth: int, correlation: float) -> np.ndarray:
    inputs = X.T / np.sqrt(X.shape[1])
    first = rng.normal(size=(WIDTH, X.shape[1]))
    weights = [rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) for _ in range(depth - 1)]
    readout = rng.normal(size=(WIDTH, 1))
    features, factors, h = [inputs], [], first @ inputs
    for layer in range(depth):
        gate = slope(rng.normal(size=first.shape) @ inputs) if rule == "GLN" else slope(h)
        factors.append(gate)
        features.append(gate * h if rule == "GLN" else phi(h))
        h = weights[layer] @ features[-1] if layer < depth - 1 else h
    total = features[depth].T @ features[depth] / WIDTH
    true, pseudo = np.broadcast_to(readout, factors[-1].shape), readout * correlation
    pseudo = pseudo + np.sqrt(1 - correlation**2) * rng.normal(size=(WIDTH, 1))
    for layer in range(depth - 1, -1, -1):
        g = factors[layer] * true
        if rule in ("GD", "GLN"):
            other = g
        elif rule == "FA":
            other = factors[layer] * pseudo
        elif rule == "DFA":
            other = factors[layer] * rng.normal(size=(WIDTH, 1))
        else:
            # Hebb with unit error signal
            other = features[layer + 1]
        scale = WIDTH if layer else 1
        total = total + (g.T @ other / WIDTH) * (features[layer].T @ features[layer] / scale)
        if layer:
            mixed = correlation * weights[layer - 1]
            mixed = mixed + np.sqrt(1 - correlation**2) * rng.normal(size=mixed.shape) / np.sqrt(WIDTH)
            true, pseudo = weights[layer - 1].T @ g, mixed.T @ (factors[layer] * pseudo)
    return total


CASES = [
    ("GD", GD(), "relu", 2, 0.0),
    ("FA", FA(rho), "relu", 2, 0.6),
    ("FA", FA(rho), "tanh", 2, 0.6),
    ("DFA", DFA(), "relu", 2, 0.0),
    ("Hebb", Hebb(), "tanh", 2, 0.0),
    ("GLN", GLN(), "relu", 2, 0.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule", "activation", "depth", "correlation"), CASES)
def test_wide_networks(name: str, rule, activation: str, depth: int, correlation: float) -> None:
    kernel = jaxify(lazy_kernel(rule, MLP(depth, activation)))
    given = {"rho": correlation} if name == "FA" else {}
    mean, error = empirical(name, activation, depth, correlation)
    upper = np.triu_indices(len(X))
    z = (mean - np.asarray(kernel(X, **given)))[upper] / error[upper]
    # ten entries, correlated: 4.5 leaves one false alarm in 10^4 runs
    assert abs(z).max() < 4.5
    if name == "FA":
        shifted = (mean - np.asarray(kernel(X, rho=correlation + 0.2)))[upper] / error[upper]
        assert abs(shifted).max() > 8


def test_a_shifted_correlation_is_noticed() -> None:
    """The fast version: FA with ReLU, depth 1, and its negative control."""
    kernel = jaxify(lazy_kernel(FA(rho), MLP(1, "relu")))
    mean, error = empirical("FA", "relu", 1, 0.6)
    upper = np.triu_indices(len(X))
    z = lambda value: abs((mean - np.asarray(kernel(X, rho=value)))[upper] / error[upper]).max()
    assert z(0.6) < 4.5 and z(0.9) > 8


def nonlinear_feedback(g, initial: float, independent: float, direct: float, networks: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two ReLU layers with g̃ = φ̇(h) g(z̃): mean and standard error over networks of the eNTK at initialisation."""
    rng, inputs, found = np.random.default_rng(3), X.T / np.sqrt(X.shape[1]), []
    overlap = lambda a, b: a.T @ b / WIDTH
    for _ in range(networks):
        first, (middle, own) = rng.normal(size=(WIDTH, len(inputs))), rng.normal(size=(2, WIDTH, WIDTH)) / np.sqrt(WIDTH)
        readout, other, *noise = rng.normal(size=(4, WIDTH, 1))
        h1 = first @ inputs
        h2 = middle @ PHI["relu"](h1)
        true = SLOPE["relu"](h2) * readout
        pseudo = SLOPE["relu"](h2) * g(initial * readout + independent * other + direct * noise[0])
        below = SLOPE["relu"](h1) * g(initial * middle.T @ pseudo + independent * own.T @ pseudo + direct * noise[1])
        features = [inputs * np.sqrt(WIDTH), PHI["relu"](h1), PHI["relu"](h2)]
        factors = [overlap(SLOPE["relu"](h1) * (middle.T @ true), below), overlap(true, pseudo), 1]
        found.append(sum(factor * overlap(f, f) for factor, f in zip(factors, features, strict=True)))
    return np.mean(found, 0), np.std(found, 0, ddof=1) / np.sqrt(networks)


@pytest.mark.parametrize(
    ("own", "g"),
    [(sign(z), np.sign), (hard_tanh(z), lambda q: np.clip(q, -1, 1)), (z**3, lambda q: q**3)],
    ids=["sign", "hard_tanh", "cube"],
)
def test_rules_that_are_not_linear_in_the_feedback(own, g) -> None:
    """Jumps in z̃ bring its density, and all coefficients of the path enter through its variance."""
    rule = Rule("own", dphi(h) * own, Feedback(initial=rho, independent=beta, direct=alpha))
    kernel = jaxify(lazy_kernel(rule, MLP(2, "relu")))
    mean, error = nonlinear_feedback(g, 0.6, 0.8, 0.5)
    upper = np.triu_indices(len(X))
    score = lambda **given: abs((mean - np.asarray(kernel(X, **given)))[upper] / error[upper]).max()
    assert score(rho=0.6, beta=0.8, alpha=0.5) < 4.5
    assert score(rho=0.3, beta=0.8, alpha=0.5) > 8
