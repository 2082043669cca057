"""Finite students against the derived order-parameter equations; equations that are wrong must be seen to be."""

from pathlib import Path

import numpy as np
import pytest

from derive import DFA, GD, erf, sqrt, teacher_student, x
from numerics import SolveFailed, simulate_online, solve_online

DOCS = Path(__file__).parents[2] / "docs" / "online.md"
START = {
    "Q": np.array([[0.3, 0.05], [0.05, 0.2]]), "R": np.array([[0.1], [-0.1]]), "T": np.eye(1), "A": np.array([1.0]), "v": np.array([0.3, -0.2]),
    "F": np.array([1.0, -0.7]), "sigma": 0.1, "kappa": 0.02,
}  # fmt: skip
TIMES = np.linspace(1, 6, 6)


def distance(sim, out) -> np.ndarray:
    """Distance of each run's last order parameters from the equations, Q, R and v together."""
    flat = lambda s: np.concatenate([getattr(s, q)[..., -1, :, :].reshape(*np.shape(s.eg)[:-1], -1) for q in "QR"] + [s.v[..., -1, :]], -1)
    return np.linalg.norm(flat(sim) - flat(out), axis=-1)


@pytest.mark.parametrize(
    ("rule", "activation"),
    [
        (DFA(), erf(x / sqrt(2))),
        pytest.param(DFA(), "tanh", marks=pytest.mark.slow),
        pytest.param(GD(), "relu", marks=pytest.mark.slow),
        pytest.param(GD(), "gelu", marks=pytest.mark.slow),
        pytest.param(DFA(), "softplus", marks=pytest.mark.slow),
    ],
)
def test_students_fluctuate_around_the_equations(rule, activation):
    """Mean over seeds within its standard error of the equations; a teacher 25 % larger is many errors away."""
    ts = teacher_student(rule, activation)
    sim = simulate_online(ts, D=200, seeds=12, eta=0.4, t=TIMES, **START)
    score = lambda out: np.abs(sim.eg.mean(0) - out.eg) / (sim.eg.std(0, ddof=1) / np.sqrt(12))
    # six correlated z-scores of a t distribution with 11 degrees of freedom, and a bias O(1/D) below one of them
    assert score(solve_online(ts, eta=0.4, t=TIMES, **START)).max() < 4.5
    assert score(solve_online(ts, eta=0.4, t=TIMES, **{**START, "A": np.array([1.25])})).max() > 8


@pytest.mark.slow
def test_distance_falls_like_the_root_of_the_dimension():
    ts = teacher_student(DFA(), erf(x / sqrt(2)))
    out = solve_online(ts, eta=0.4, t=TIMES, **START)
    dims = np.array([100, 400, 1600])
    rms = [np.sqrt(np.mean(distance(simulate_online(ts, D=int(D), seeds=24, eta=0.4, t=TIMES, **START), out) ** 2)) for D in dims]
    slope = np.polyfit(np.log(dims), np.log(rms), 1)[0]
    # each rms of 24 runs is known to about 10 %: 0.05 in the slope
    assert slope == pytest.approx(-0.5, abs=0.15)


def test_batches_are_runs_side_by_side():
    ts = teacher_student(DFA(), erf(x / sqrt(2)))
    rates = np.array([0.2, 0.4])
    together = solve_online(ts, eta=rates, t=TIMES, dense=True, **{**START, "F": np.array([[1.0, -0.7], [-0.3, 0.5]])})
    alone = solve_online(ts, eta=0.4, t=TIMES, **{**START, "F": np.array([-0.3, 0.5])})
    # two runs with steps of their own, at rtol 1e-9
    assert np.allclose(together.eg[1], alone.eg, atol=1e-8)
    assert np.allclose(together.at(TIMES)["Q"][1], together.Q[1], atol=1e-12)
    assert np.max(np.abs(together.eg[0] - alone.eg)) > 1e-3


def test_small_rates_drop_what_is_of_second_order():
    """At η t fixed the distance from the whole equations halves with η."""
    whole, small = (teacher_student(DFA(), erf(x / sqrt(2)), small_rate=choice) for choice in (False, True))
    assert set(small.integrals) == {"I2", "I3"} and set(whole.integrals) == {"I2", "I3", "I4", "J2"}
    start = {**START, "kappa": 0.0}
    gaps = []
    for rate in (0.02, 0.01):
        one, other = (solve_online(ts, eta=rate, t=[2 / rate], **start) for ts in (whole, small))
        gaps.append(abs(float(one.eg[0] - other.eg[0])))
    # corrections to the halving are O(η) themselves
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.05) and gaps[0] > 1e-5


def test_students_that_slide_along_zero_weights_need_a_smallest_step():
    """ReLU students with negative feedback under a positive teacher: their weights shrink to 0, where the equations have a kink."""
    ts = teacher_student(DFA(), "relu", small_rate=True)
    R = 0.03 * np.array([[1.0, 0.2], [-0.3, 0.5]])
    start = {"Q": 0.01 * np.eye(2), "R": R, "T": np.eye(2), "A": np.ones(2), "v": np.full(2, 0.1), "F": np.array([-1.0, -0.5]), "eta": 1.0, "t": [150.0]}
    tolerances = {"rtol": 1e-4, "atol": 1e-7, "max_steps": 3000}
    with pytest.raises(SolveFailed, match="stopped in 1 of 1"):
        solve_online(ts, **start, **tolerances)
    unfinished = solve_online(ts, **start, **tolerances, throw=False)
    assert not unfinished.stats["ok"] and not np.isfinite(unfinished.eg[0])
    through = [solve_online(ts, **start, **tolerances, smallest_step=step) for step in (0.2, 0.1)]
    assert all(out.stats["ok"] for out in through)
    # nothing is learnt: both students are gone, and what is left is the teacher's own mean square
    assert [out.eg[0] for out in through] == pytest.approx([0.5 * (1 + 1 / np.pi)] * 2, rel=1e-4)


def test_too_few_nodes_are_refused():
    ts = teacher_student(DFA(), "tanh", nodes=8)
    start = {**START, "Q": 20 * START["Q"]}
    with pytest.raises(SolveFailed, match="nodes=16"):
        solve_online(ts, t=[0.1], rtol=1e-3, atol=1e-4, **start)
    assert solve_online(ts, t=[0.1], rtol=1e-3, atol=1e-4, integral_tol=1.0, **start).stats["integral_error"] > 1e-2


def test_bad_starts_are_refused():
    ts = teacher_student(DFA(), "linear")
    with pytest.raises(ValueError, match="no covariance"):
        solve_online(ts, t=TIMES, **{**START, "R": np.array([[2.0], [0.0]])})
    with pytest.raises(ValueError, match="give F"):
        solve_online(ts, t=TIMES, **{**START, "F": None})
    with pytest.raises(ValueError, match="increasing"):
        solve_online(ts, t=[1.0, 0.5], **START)
    with pytest.raises(ValueError, match="too small"):
        simulate_online(ts, D=2, t=TIMES, **START)


def test_the_documentation_runs():
    code = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(code, str(DOCS), "exec"), {"__name__": "docs"})
