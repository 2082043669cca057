"""Finite students against the derived order-parameter equations; equations that are wrong must be seen to be."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from derive import DFA, GD, erf, sqrt, teacher_student, x
from numerics import SolveFailed, simulate_online, solve_online
from numerics.jaxify import load_source

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


def test_students_at_zero_weights_need_smoothing():
    """ReLU students with negative feedback under a positive teacher: their weights shrink to 0, where the equations have a kink."""
    ts = teacher_student(DFA(), "relu", small_rate=True)
    R = 0.03 * np.array([[1.0, 0.2], [-0.3, 0.5]])
    start = {"Q": 0.01 * np.eye(2), "R": R, "T": np.eye(2), "A": np.ones(2), "v": np.full(2, 0.1), "F": np.array([-1.0, -0.5]), "eta": 1.0, "t": [150.0]}
    tolerances = {"rtol": 1e-4, "atol": 1e-7, "max_steps": 3000}
    with pytest.raises(SolveFailed, match=r"stopped in 1 of 1 .* smoothing=1e-4"):
        solve_online(ts, **start, **tolerances)
    unfinished = solve_online(ts, **start, **tolerances, throw=False)
    assert not unfinished.stats["ok"] and not np.isfinite(unfinished.eg[0])
    through = [solve_online(ts, **start, **tolerances, smoothing=width) for width in (1e-2, 1e-3, 1e-4)]
    assert all(out.stats["ok"] and out.stats["steps"] < 300 and out.stats["smallest_eigenvalue"] > -1e-12 for out in through)
    # nothing is learnt: both students are gone, and what is left is the teacher's own mean square, the better the narrower
    gaps = [abs(0.5 * (1 + 1 / np.pi) - out.eg[0]) for out in through]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] and gaps[2] < 1e-4, gaps
    with pytest.raises(ValueError, match=r"smoothing=-0\.1 is no standard deviation"):
        solve_online(ts, **start, smoothing=-0.1)


@pytest.mark.parametrize("teachers", [np.array([[1.0, 0.3], [0.3, 0.8]]), np.array([[1.0, -1.0], [-1.0, 1.0]])], ids=["regular", "dependent"])
def test_components_and_overlaps_have_the_same_solution(teachers):
    """To first order in η vectors are integrated; the rates of overlaps, integrated by another method, lead to the same ones."""
    ts = teacher_student(GD(), "relu", small_rate=True)
    students = np.array([[0.5, 0.2, 0.3, 0.0], [-0.1, 0.4, 0.0, 0.2]])
    B = np.hstack([np.linalg.svd(teachers)[0] * np.sqrt(np.linalg.svd(teachers)[1]), np.zeros((2, 2))])
    start = {"Q": students @ students.T, "R": students @ B.T, "v": np.array([0.3, 0.6])}
    A, module = np.array([1.0, 0.5]), load_source(ts.source(), "online")
    rates = jax.jit(lambda Q, R, v: module.rates(Q, R, v, jnp.zeros(2), B @ B.T, A, 0.5, 0.0, 0.1))

    def flat(_, y):
        return np.concatenate([np.ravel(part) for part in rates(y[:4].reshape(2, 2), y[4:8].reshape(2, 2), y[8:])])

    y0 = np.concatenate([np.ravel(start[name]) for name in "QRv"])
    reference = solve_ivp(flat, (0.0, 4.0), y0, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    out = solve_online(ts, **start, T=B @ B.T, A=A, eta=0.5, kappa=0.1, t=[2.0, 4.0], dense=True)
    found = np.concatenate([out.Q[-1].ravel(), out.R[-1].ravel(), out.v[-1]])
    assert np.allclose(found, reference, rtol=0, atol=1e-8)
    assert np.max(np.abs(found - y0)) > 0.1
    # the interpolant, between recorded times and steps
    assert np.allclose(out.at([2.0])["Q"][0], out.Q[0], atol=1e-10)


def test_runs_that_stop_leave_the_others():
    """With an integral by quadrature too, whose error in a run that stopped is not a number."""
    ts = teacher_student(DFA(), "relu")
    given = {**START, "eta": np.array([1e-9, 0.5]), "t": [1.0], "max_steps": 6}
    out = solve_online(ts, **given, throw=False, dense=True)
    assert list(out.stats["ok"]) == [True, False] and list(np.isfinite(out.eg[:, 0])) == [True, False]
    assert list(np.isfinite(out.at([0.5])["v"]).all(axis=(1, 2))) == [True, False]
    assert np.isnan(out.stats["integral_error"][1]) and out.stats["integral_error"][0] < 1e-2
    with pytest.raises(SolveFailed, match="stopped in 1 of 2"):
        solve_online(ts, **given)
    with pytest.raises(SolveFailed, match="quadrature of 24 nodes is off"):
        solve_online(ts, **given, throw=False, integral_tol=0.0)


def test_rates_that_are_not_finite_at_the_start_are_named():
    """exp of fields of variance 400: averages overflow. Other runs go on, and no step is tried in vain."""
    ts = teacher_student(DFA(), "exp")
    given = {**START, "Q": np.stack([START["Q"], START["Q"] + 400 * np.eye(2)]), "eta": 1e-3, "t": [0.1]}
    with pytest.raises(SolveFailed, match=r"rates of DFA at t = 0 are not finite in 1 of 2 runs") as failure:
        solve_online(ts, **given)
    assert failure.value.status == "non-finite"
    out = solve_online(ts, **given, throw=False, dense=True)
    assert list(out.stats["ok"]) == [True, False] and list(np.isfinite(out.eg[:, 0])) == [True, False]
    assert list(np.isfinite(out.at(0.05)["Q"]).all(axis=(1, 2, 3))) == [True, False]
    assert np.all(np.isnan(out.Q[1])) and out.stats["rejected"][1] == 0


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
