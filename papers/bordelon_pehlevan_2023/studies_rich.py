"""The rich regime: gradients and pseudo-gradients line up, and the less they do at first, the further features move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from derive import FA, MLP, rho, scalar_reduction
from derive.scalar import theta_end
from numerics import Problem, entk_layers, solve_dmft, sweep, train_finite

from .setting import Arrays, Case, Size, cases, record

CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAMMAS = (1.0, 2.0)
DEPTHS = (2, 3, 4, 5)
ACTIVATIONS = ("relu", "tanh")
TARGET = 1.0  # |y| of the linear network's one example


def size(full: bool) -> Size:
    """Of the study of depth."""
    return Size(20, 100, 60, 4096, 8, 2048, 8) if full else Size(8, 40, 30, 512, 4, 512, 4)


def depths(full: bool) -> Arrays:
    """Alignment of gradients and kernels over time, layer by layer, for FA and DFA, two activations and several depths."""
    chosen = size(full)
    arrays: Arrays = {}
    for label, case in depth_cases(full).items():
        # the deepest networks' kernels grow most: at η = 0.3 they lose stability after twelve steps
        p = chosen.problem(X_test=None, y_test=None, eta=0.3 if case.net.depth < 5 else 0.15)
        given: dict[str, Any] = {"parameters": case.parameters}
        theory = solve_dmft(p, case.rule, case.net, **given, **chosen.theory)
        finite = train_finite(p, case.rule, case.net, **given, **chosen.networks)
        arrays |= record(f"{label}.dmft", theory) | record(f"{label}.network", finite)
        for solver, solution in (("dmft", theory), ("network", finite)):
            arrays[f"{label}.{solver}.terms"], arrays[f"{label}.{solver}.terms_se"] = (part[:, [0, -1]] for part in entk_layers(solution))
    return arrays


def depth_cases(full: bool) -> dict[str, Case]:
    """FA with ρ = 0 ("fa0") and ½ and DFA; every depth and activation with --full, some otherwise."""
    found = {}
    for activation in ACTIVATIONS:
        for depth in DEPTHS if full else {"relu": (2, 3, 5), "tanh": (3,)}[activation]:
            on = lambda case, activation=activation: case.with_activation(activation)
            found[f"fa.{activation}.{depth}"] = on(cases(depth)["fa"])
            found[f"fa0.{activation}.{depth}"] = on(cases(depth, 0.0)["fa"])
            if depth == 3 or full:
                found[f"dfa.{activation}.{depth}"] = on(cases(depth)["dfa"])
    return found


def correlations(full: bool) -> Arrays:
    """FA at several ρ and γ0, trained until the loss is small."""
    chosen = replace(size(full), steps=120 if full else 60, samples=4096 if full else 1024, width=2048 if full else 1024)
    net = MLP(2, "erf")
    arrays: Arrays = {"rho": np.array(CORRELATIONS), "gamma0": np.array(GAMMAS)}
    p = chosen.problem()
    given: dict[str, Any] = {"rho": list(CORRELATIONS)}
    solved = {"dmft": sweep(p, FA(rho), net, gamma0=list(GAMMAS), **given, **chosen.theory)}
    solved["network"] = sweep(p, FA(rho), net, solver="finite", gamma0=list(GAMMAS), **given, **chosen.networks)
    for solver, solutions in solved.items():
        for gamma0, value in solutions:
            arrays |= record(f"{value:g}.{gamma0:g}.{solver}", solutions[gamma0, value])
    return arrays


def linear(full: bool) -> Arrays:
    """A two-layer linear network on one example: the derived closed form, the exact solver at small steps, and networks.

    `closed` is Φ(∞) − Φ(0) where m(θ_∞) = γ0 y, `slope` its derived derivative by ρ at fixed target.
    """
    p = Problem(np.ones((1, 1)), np.array([TARGET]), gamma0=2.0, eta=0.005 if full else 0.02, steps=2000 if full else 500)
    net, arrays = MLP(1, "linear"), {"rho": np.array(CORRELATIONS)}
    arrays["closed"], arrays["slope"] = np.array([linear_movement(value, p.gamma0) for value in CORRELATIONS]).T
    changes: dict[str, list[float]] = {"exact": [], "network": [], "network_se": []}
    for value in CORRELATIONS:
        Phi = solve_dmft(p, FA(value), net, method="exact").Phi[1]
        changes["exact"].append(Phi.block(-1, -1).item() - Phi.block(0, 0).item())
        network = train_finite(p, FA(value), net, width=4096, seeds=32 if full else 8, two_time=False).Phi[1].equal_time_replicas()
        change = network[:, -1, 0, 0] - network[:, 0, 0, 0]
        changes["network"].append(change.mean())
        changes["network_se"].append(change.std(ddof=1) / np.sqrt(len(change)))
    return arrays | {name: np.array(values) for name, values in changes.items()}


def linear_movement(value: float, gamma0: float) -> tuple[float, float]:
    """The derived Φ(∞) − Φ(0) and its derivative by ρ, with the clock's end from m(θ_∞) = γ0 y."""
    reduction = scalar_reduction(FA(rho))
    names = {"rho": value, "gamma_0": gamma0, "y": TARGET}
    put = lambda expr: expr.subs({symbol: names[symbol.name] for symbol in expr.free_symbols if symbol.name in names})
    missing = put(reduction.end.lhs - reduction.end.rhs)
    # m grows without bound and starts at zero
    end = brentq(lambda clock: float(missing.subs(theta_end, clock)), 0.0, 1e3)
    moved, sensitivity = (put(expr).subs(theta_end, end) for expr in (reduction.movement, reduction.sensitivity(rho)[1]))
    return float(moved), float(sensitivity)
