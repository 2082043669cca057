"""Derived lazy kernels against wide random networks: K = Σ_ℓ ⟨g^{ℓ+1} g̃^{ℓ+1}⟩ ⟨φ^ℓ φ^ℓ⟩ at t = 0, averaged over networks.

At width N the mean has a bias of order 1/N, here a tenth of the standard error of 300 networks, so that z-scores are standard
normal. The network below is written out by hand: nothing of the generated single-site functions is used.
"""

import numpy as np
import pytest
from scipy import special

from derive import DFA, FA, GD, GLN, MLP, Hebb, lazy_kernel, rho
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
