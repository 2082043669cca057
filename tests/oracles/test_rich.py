"""Rich-regime trajectories against frozen ones (see data/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from derive import FA, GD, GLN, MLP
from numerics import Problem, solve_dmft

DATA = np.load(Path(__file__).parent / "data" / "rich.npz")
CASES = {
    "gd_tanh_L2_rho1.0": (GD(), MLP(2, "tanh")),
    "fa_tanh_L2_rho0.5": (FA(0.5), MLP(2, "tanh")),
    "gln_relu_L2_rho1.0": (GLN(), MLP(2, "relu")),
}
LIMIT = 4.0


def solve(case: str, **options):
    rule, net = CASES[case]
    p = Problem(DATA["X"], DATA["y"], float(DATA["gamma0"]), float(DATA["eta"]), int(DATA["T"]))
    return solve_dmft(p, rule, net, **{"samples": 1024, "replicas": 8, "rank_tol": 1e-6, **options})


def z(case, name, mean, se, shift=0):
    """Welch's t turned into a normal deviate: errors come from eight replicas here and from four runs there."""
    reference, error = (DATA[f"{case}/{key}"] for key in (name, f"{name}_se"))
    if shift:
        mean, se, reference, error = mean[1 + shift :], se[1 + shift :], reference[1:-shift], error[1:-shift]
    total = np.sqrt(se**2 + error**2)
    known = total > 0
    freedom = total[known] ** 4 / (se[known] ** 4 / 7 + error[known] ** 4 / 3)
    return norm.isf(student.sf(np.abs(mean - reference)[known] / total[known], freedom))


def compare(case, sol) -> dict[str, np.ndarray]:
    end = lambda kernel: (kernel.block(-1, -1), kernel.block_se(-1, -1))
    return {
        "f": z(case, "f", sol.f, sol.f_se),
        "PhiL_end": z(case, "PhiL_end", *end(sol.Phi[sol.depth])),
        "Phi1_end": z(case, "Phi1_end", *end(sol.Phi[1])),
        "Gt1_end": z(case, "Gt1_end", *end(sol.G_tilde[1])),
        "K_end": z(case, "K_end", sol.entk[-1], sol.entk_se[-1]),
    }


@pytest.mark.parametrize("case", CASES)
def test_frozen_trajectory_is_met(case):
    sol = solve(case)
    scores = compare(case, sol)
    assert max(s.max() for s in scores.values()) < LIMIT, {name: s.max() for name, s in scores.items()}
    loss = 0.5 * np.mean((DATA["y"] - DATA[f"{case}/f"]) ** 2, axis=1)
    assert np.linalg.norm(sol.loss - loss) < 0.02 * np.linalg.norm(loss)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_frozen_trajectory_is_met_closely(case):
    sol = solve(case, samples=8192, rank_tol=1e-7)
    f = DATA[f"{case}/f"]
    # the reference's own statistical error is 0.2 to 0.6 per cent
    assert np.linalg.norm(sol.f - f) < 0.01 * np.linalg.norm(f)


def test_a_trajectory_one_step_off_is_not():
    case = "gd_tanh_L2_rho1.0"
    sol = solve(case)
    assert z(case, "f", sol.f, sol.f_se, shift=1).max() > LIMIT
