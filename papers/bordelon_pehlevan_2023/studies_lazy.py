"""The lazy limit: which layers each rule learns with, and how well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from derive import FA, MLP, lazy_kernel, rho
from numerics import Problem, entk_layers, jaxify, solve_dmft, solve_lazy, sweep, train_finite

from .setting import Arrays, Size, cases

DEPTH = 3
CORRELATIONS = tuple(np.linspace(0.0, 1.0, 11).round(2))
SAMPLED = (0.0, 0.5, 1.0)
LABELS = {"dmft": "dmft", "finite": "network"}
LAZY = 0.01  # γ0 that stands in for zero


def size(full: bool) -> Size:
    """Of all studies here."""
    return Size(40, 300, 200, 4096, 8, 4096, 8) if full else Size(12, 200, 40, 1024, 4, 512, 6)


def contributions(full: bool) -> Arrays:
    """The eNTK's terms, layer by layer, at initialisation: derived, sampled, and of networks."""
    chosen = size(full)
    arrays: Arrays = {}
    p = chosen.problem(steps=1, X_test=None, y_test=None)
    for name, case in cases(DEPTH).items():
        given: dict[str, Any] = {"parameters": case.parameters}
        for solver, solution in {
            "lazy": solve_lazy(p, case.rule, case.net, **given),
            "dmft": solve_dmft(p, case.rule, case.net, **given, **chosen.theory),
            "network": train_finite(p, case.rule, case.net, **given, **{**chosen.networks, "width": 2 * chosen.width}),
        }.items():
            terms, errors = entk_layers(solution)
            arrays |= {f"{name}.{solver}": terms[:, 0], f"{name}.{solver}_se": errors[:, 0]}
    return arrays


def generalisation(full: bool) -> Arrays:
    """Test loss after lazy training with FA, against ρ and depth; theory at all ρ, rich theory at small γ0 and networks at a few."""
    chosen, depths = size(full), (1, 2, 3, 4) if full else (1, 2, 3)
    arrays: Arrays = {}
    p = chosen.problem()
    for depth in depths:
        net = MLP(depth, "erf")
        kernel = jaxify(lazy_kernel(FA(rho), net))
        outputs = [lazy_outputs(p, kernel, value) for value in CORRELATIONS]
        arrays[f"{depth}.lazy"] = np.array([p.test_loss(f_test) for f_test in outputs])
        for solver, arguments in (("dmft", chosen.theory), ("finite", chosen.networks)):
            found = _test_losses(replace(p, gamma0=LAZY), net, solver, arguments)
            arrays |= {f"{depth}.{LABELS[solver]}": found[0], f"{depth}.{LABELS[solver]}_se": found[1]}
    return {**arrays, "depths": np.array(depths), "rho": np.array(CORRELATIONS), "sampled": np.array(SAMPLED)}


def lazy_outputs(p: Problem, kernel: Any, value: float) -> np.ndarray:
    """f(T) = K_* K⁻¹ (1 − (1 − ηK/P)^{T−1}) y on the test inputs: the closed form of training with a kernel that stays."""
    assert p.X_test is not None
    parameters = {"rho": value} if kernel.parameters else {}
    K = np.asarray(kernel(p.X, **parameters), float)
    K_test = np.asarray(kernel(p.X_test, p.X, **parameters), float)
    rates, axes = np.linalg.eigh(K)
    gained = -np.expm1((p.steps - 1) * np.log1p(-p.eta * rates / p.P)) / rates
    return K_test @ (axes * gained) @ (axes.T @ p.y)


def _test_losses(p: Problem, net: MLP, solver: str, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    solutions = sweep(p, FA(rho), net, solver=solver, rho=list(SAMPLED), **options)
    found = [solutions.at(rho=value) for value in SAMPLED]
    final = lambda name: np.array([np.asarray(getattr(solution, name))[-1] for solution in found])
    return final("test_loss"), final("test_loss_se")
