"""Rich-regime trajectories against frozen ones (see data/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from derive import FA, GD, GLN, MLP
from numerics import Problem, solve_dmft

DATA = np.load(Path(__file__).parent / "data" / "rich.npz")
CASES = {
    "gd_tanh_L2_rho1.0": (GD(), MLP(2, "tanh")),
    "fa_tanh_L2_rho0.5": (FA(0.5), MLP(2, "tanh")),
    "gln_relu_L2_rho1.0": (GLN(), MLP(2, "relu")),
}
# Errors come from eight replicas here and four runs there, so z follows a t distribution with about six degrees of freedom:
# its 1 - 1e-4 quantile is 6.8, and a few hundred correlated numbers are compared.
LIMIT = 6.8


def solve(case: str, **options):
    rule, net = CASES[case]
    p = Problem(DATA["X"], DATA["y"], float(DATA["gamma0"]), float(DATA["eta"]), int(DATA["T"]))
    return solve_dmft(p, rule, net, **{"samples": 1024, "replicas": 8, "tol": 1e-6, **options})


def z(case, name, mean, se):
    error = np.sqrt(se**2 + DATA[f"{case}/{name}_se"] ** 2)
    return ((mean - DATA[f"{case}/{name}"]) / np.where(error > 0, error, np.inf)).ravel()


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
    assert max(np.abs(s).max() for s in scores.values()) < LIMIT, {name: np.abs(s).max() for name, s in scores.items()}
    # standard errors are honest: over all entries z is of order one
    assert np.sqrt(np.mean(np.concatenate(list(scores.values())) ** 2)) < 2.5
    loss = 0.5 * np.mean((DATA["y"] - DATA[f"{case}/f"]) ** 2, axis=1)
    assert np.linalg.norm(sol.loss - loss) < 0.02 * np.linalg.norm(loss)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_frozen_trajectory_is_met_closely(case):
    sol = solve(case, samples=8192, tol=1e-7)
    f = DATA[f"{case}/f"]
    # the reference's own statistical error is 0.2 to 0.6 per cent
    assert np.linalg.norm(sol.f - f) < 0.01 * np.linalg.norm(f)


def test_a_trajectory_one_step_off_is_not():
    case = "gd_tanh_L2_rho1.0"
    sol = solve(case)
    error = np.sqrt(sol.f_se[1:] ** 2 + DATA[f"{case}/f_se"][:-1] ** 2)
    late = (sol.f[1:] - DATA[f"{case}/f"][:-1])[1:] / error[1:]
    assert np.abs(late).max() > LIMIT
