"""The five rules side by side: outputs against networks of growing width, losses, layers' shares, and the effect of γ0."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from numerics import Solution, solve_dmft, solve_lazy, train_finite

from .setting import Arrays, Size, cases, record

GAMMAS = (0.1, 0.5, 1.0, 2.0, 4.0)


def size(full: bool) -> Size:
    """Of all studies here."""
    return Size(40, 200, 100, 8192, 8, 2048, 8) if full else Size(12, 100, 40, 1024, 4, 1024, 4)


def ensemble(full: bool) -> dict[int, int]:
    """Widths, and how many networks of each."""
    return {256: 64, 1024: 32, 4096: 16} if full else {256: 16, 1024: 6, 4096: 2}


def steps_with_widths(full: bool) -> int:
    """The first steps, in which losses fall most; the widest networks cost the most time of all."""
    return 40 if full else 20


@lru_cache(maxsize=5)
def theory(name: str, full: bool) -> Solution:
    """The rich theory at γ0 = 1, shared by the studies of one process."""
    case, chosen = cases()[name], size(full)
    return solve_dmft(chosen.problem(), case.rule, case.net, parameters=case.parameters, **chosen.theory)


def rules(full: bool) -> Arrays:
    """Lazy theory, rich theory and networks at γ0 = 1."""
    chosen = size(full)
    arrays: Arrays = {}
    for name, case in cases().items():
        p = chosen.problem()
        arrays |= record(f"{name}.lazy", solve_lazy(p, case.rule, case.net, parameters=case.parameters))
        arrays |= record(f"{name}.dmft", theory(name, full))
        arrays |= record(f"{name}.network", train_finite(p, case.rule, case.net, parameters=case.parameters, **chosen.networks))
    return arrays


def widths(full: bool) -> Arrays:
    """Outputs of single networks of several widths, and of theories: the right one, the lazy one, and wrong ones."""
    chosen, steps = size(full), steps_with_widths(full)
    arrays: Arrays = {}
    p = replace(chosen.problem(), steps=steps, X_test=None, y_test=None)
    for name, case in cases().items():
        arrays[f"{name}.dmft"], arrays[f"{name}.dmft_se"] = theory(name, full).f[:steps], theory(name, full).f_se[:steps]
        arrays[f"{name}.lazy"] = solve_lazy(p, case.rule, case.net, parameters=case.parameters).f
        for width, count in ensemble(full).items():
            options: dict[str, Any] = {"width": width, "seeds": 1, "dtype": "float32", "two_time": False, "parameters": case.parameters}
            arrays[f"{name}.{width}"] = np.stack([train_finite(p, case.rule, case.net, seed=seed, **options).f for seed in range(count)])
    theory.cache_clear()  # gigabytes, and the last study that needs them
    return arrays | _wrong_theories(full, steps)


def _wrong_theories(full: bool, steps: int) -> Arrays:
    """Gradient descent without responses, and feedback alignment with a correlation that is not the networks'."""
    chosen, five = size(full), cases()
    gd, fa = five["gd"], five["fa"]
    p = chosen.problem()
    deaf = solve_dmft(p, gd.rule, gd.net, responses=False, **chosen.theory)
    shifted = solve_dmft(p, fa.rule, fa.net, parameters={"rho": fa.parameters["rho"] + 0.25}, **chosen.theory)
    return {"gd.wrong": deaf.f[:steps], "fa.wrong": shifted.f[:steps]}


def gammas(full: bool) -> Arrays:
    """Theory and networks at several γ0."""
    chosen = size(full)
    arrays: Arrays = {}
    for name, case in cases().items():
        for gamma0 in GAMMAS:  # a solution of the full size takes a gigabyte: one at a time
            p = chosen.problem(gamma0=gamma0)
            rich = solve_dmft(p, case.rule, case.net, parameters=case.parameters, **chosen.theory)
            finite = train_finite(p, case.rule, case.net, parameters=case.parameters, **{**chosen.networks, "width": chosen.width // 2})
            arrays |= record(f"{name}.{gamma0:g}.dmft", rich) | record(f"{name}.{gamma0:g}.network", finite)
            last = rich.Phi[case.net.depth]
            arrays[f"{name}.{gamma0:g}.Phi_change"] = last.block(-1, -1) - last.block(0, 0)
    return arrays
