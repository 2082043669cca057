"""The lazy limit γ0 → 0: training with a kernel that stays where it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .dynamics import dynamics
from .jaxify import jaxify
from .order_parameters import AbsentKernel, ConstantKernel, Kernel, Layers
from .problem import Problem
from .solution import Solution, assemble

STEP = "t"  # the parameter by which a kernel depends on the step


def solve_lazy(
    p: Problem,
    rule: Any,
    net: Any,
    *,
    parameters: Mapping[str, float] | None = None,
    throw: bool = True,
) -> Solution:
    """Solve the lazy limit with the rule's derived kernel: f(t+1) = f(t) + (η/P) K (y − f(t)).

    Args:
        p: the problem; γ0 is not used, it is zero here.
        rule, net: learning rule and network.
        parameters: values of symbolic parameters, by name.
        throw: raise when training diverges.

    Returns:
        The same record as `solve_dmft`, with standard errors zero. Kernels of single layers that the lazy kernel does not contain
        raise when they are asked for.

    Raises:
        ValueError: a symbolic parameter without a value.
        SolveFailed: η is beyond the stability limit (unless `throw=False`).

    Source: Jacot et al. 2018; THEORY section 3.
    """
    bound, values = dynamics(rule, net, parameters)
    kernel = jaxify(rule.lazy_kernel(net))
    used = {name: values[name] for name in kernel.parameters if name != STEP}
    # feedback weights that learn change the kernel with the step, also where no feature does
    times = range(p.steps) if STEP in kernel.parameters else [0]
    settings = [{**used, STEP: t} if STEP in kernel.parameters else used for t in times]
    K = np.stack([np.asarray(kernel(p.X, **now), dtype=float) for now in settings])
    K_test = None if p.X_test is None else np.stack([np.asarray(kernel(p.X_test, p.X, **now), dtype=float) for now in settings])
    f, f_test = _train(p, K, K_test)
    sigma_w, sigma_b = map(float, bound.module.scales(**values))
    Phi_L = (np.asarray(kernel.nngp(p.X, **settings[0]), dtype=float) - sigma_b**2) / sigma_w**2
    absent = AbsentKernel(p.steps, p.P, "solve_lazy knows the eNTK and Φ^L only: for kernels of other layers use solve_dmft at small gamma0")
    L = bound.depth
    none: list[Kernel] = [absent] * L
    Phi: list[Kernel] = [*none[:-1], ConstantKernel(Phi_L, p.steps)]
    entk = np.broadcast_to(K, (p.steps, p.P, p.P))[None]
    return assemble(
        p, bound, values, "lazy", f[None], None if f_test is None else f_test[None],
        Layers(Phi, 1), Layers(none, 1), Layers(none, 1), Layers(none, 1), {}, {}, throw, entk=entk,
    )  # fmt: skip


def _train(p: Problem, K: np.ndarray, K_test: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Outputs on train and test inputs at all times, from zero; kernels at every step, or one for all."""
    f = np.zeros((p.steps, p.P))
    f_test = None if K_test is None else np.zeros((p.steps, K_test.shape[1]))
    for t in range(p.steps - 1):
        Delta = p.y - f[t]
        now = min(t, len(K) - 1)
        f[t + 1] = f[t] + p.eta / p.P * K[now] @ Delta
        if f_test is not None and K_test is not None:
            f_test[t + 1] = f_test[t] + p.eta / p.P * K_test[now] @ Delta
    return f, f_test
