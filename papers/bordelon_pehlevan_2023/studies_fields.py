"""Fields neuron by neuron: their densities in theory and in networks, and Gaussianity given the gates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp

from derive import GD, GLN, MLP, Rule, c, expectation, step, u, v
from numerics import Solution, entk_layers, solve_dmft, train_finite

from .setting import Arrays, Size

DEPTH = 2
GAMMA = 2.0
NETWORKS: dict[str, tuple[Rule, MLP]] = {
    "linear": (GD(), MLP(DEPTH, "linear")),
    "relu": (GD(), MLP(DEPTH, "relu")),
    "tanh": (GD(), MLP(DEPTH, "tanh")),
    "gln": (GLN(), MLP(DEPTH, "relu")),
}


def size(full: bool) -> Size:
    """Few examples, so that every gate pattern has many neurons."""
    return Size(3, 20, 40, 2**16, 2, 4096, 16) if full else Size(3, 20, 40, 4096, 2, 1024, 8)


def fields(full: bool) -> Arrays:
    """h and z of all layers, before and after training, in theory and in networks; for gated networks also the gates."""
    chosen = size(full)
    # linear units lose stability first: η = 0.5 is too large for the kernel that they grow
    p = chosen.problem(gamma0=GAMMA, eta=0.2, X_test=None, y_test=None)
    arrays: Arrays = {}
    for name, (rule, net) in NETWORKS.items():
        options: dict[str, Any] = {"snapshots": (0, -1)}
        theory = solve_dmft(p, rule, net, **options, method="sampling", **chosen.theory)
        finite = train_finite(p, rule, net, **options, **chosen.networks)
        for solver, solution in (("dmft", theory), ("network", finite)):
            arrays |= _put_down(f"{name}.{solver}", solution)
            arrays |= {f"{name}.{solver}.loss": solution.loss, f"{name}.{solver}.loss_se": solution.loss_se}
    return arrays


def _put_down(prefix: str, solution: Solution) -> Arrays:
    found: Arrays = {}
    for when, t in (("start", 0), ("end", solution.problem.steps - 1)):
        snapshot = solution.snapshots[t]
        for letter in ("h", "z", "m"):
            for l, array in getattr(snapshot, letter).items():
                found[f"{prefix}.{when}.{letter}{l}"] = array.astype(np.float32)
    return found


def gated_kernel(full: bool) -> Arrays:
    """(L+1) K^x ∘ Γ^L beside networks at initialisation, Γ from the Gaussian engine; and with one power of Γ less."""
    chosen = replace(size(full), train=12, width=2048, seeds=8)
    arrays: Arrays = {"depths": np.array([1, 2, 3])}
    p = chosen.problem(steps=1, X_test=None, y_test=None)
    open_together = sp.lambdify(c, expectation(step(u) * step(v), [[1, c], [c, 1]]).expr, "numpy")
    Gamma = np.asarray(open_together(np.clip(p.Kx, -1.0, 1.0)), float)
    for depth in arrays["depths"]:
        network = train_finite(p, GLN(), MLP(int(depth), "relu"), **chosen.networks)
        arrays[f"{depth}.network"], arrays[f"{depth}.network_se"] = network.entk[0], network.entk_se[0]
        arrays[f"{depth}.terms"] = entk_layers(network)[0][:, 0]
        arrays[f"{depth}.formula"] = (depth + 1) * p.Kx * Gamma**depth
        arrays[f"{depth}.shifted"] = (depth + 1) * p.Kx * Gamma ** (depth - 1)
    return arrays
