"""Sweeps: the same numbers as point by point, one compilation, and files that a second run finds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from interrupted import stopping

from derive import FA, GD, MLP, Feedback, Rule, dphi, h, rho, z
from numerics import Problem, Solution, SolveFailed, solve_dmft, solve_lazy, sweep, train_finite

NET = MLP(depth=1, activation="relu")
OPTIONS = {"samples": 64, "replicas": 2, "seed": 3}


def problem(**options) -> Problem:
    random = np.random.default_rng(2)
    return Problem(random.normal(size=(3, 5)), random.normal(size=3), **{"eta": 0.3, "steps": 6, **options})


def solve(gamma0, correlation) -> Solution:
    return solve_dmft(problem(gamma0=gamma0), FA(rho), NET, parameters={"rho": correlation}, **OPTIONS)


def test_points_are_what_the_solver_gives():
    found = sweep(problem(), FA(rho), NET, gamma0=[0.5, 2], rho=(0.0, 1.0), **OPTIONS)
    assert list(found) == [(0.5, 0.0), (0.5, 1.0), (2.0, 0.0), (2.0, 1.0)]
    for (gamma0, correlation), solution in found.items():
        np.testing.assert_array_equal(solution.f, solve(gamma0, correlation).f)
        assert solution.problem.gamma0 == gamma0
        assert solution.parameters == {"rho": correlation}
    np.testing.assert_array_equal(found.at(rho=1.0, gamma0=2.0).f, found[2.0, 1.0].f)
    rows = found.table()
    assert [row["gamma0"] for row in rows] == [0.5, 0.5, 2.0, 2.0]
    assert rows[3]["loss"] == found[2.0, 1.0].loss[-1]
    assert "Sweep over gamma0, rho: 4 solutions" in repr(found)


def test_other_solvers_and_single_axes():
    lazy = sweep(problem(), FA(rho), NET, solver="lazy", rho=[0.0, 0.5])
    np.testing.assert_array_equal(lazy[0.5].f, solve_lazy(problem(), FA(0.5), NET).f)
    finite = sweep(problem(), GD(), NET, solver="finite", seed=[1, 2], width=16, seeds=2)
    np.testing.assert_array_equal(finite[2].f, train_finite(problem(), GD(), NET, width=16, seeds=2, seed=2).f)
    times = sweep(problem(), GD(), NET, gamma0=[1.0], snapshots=(0, 2), kernels_at=[0, -1], **OPTIONS)[1.0]
    assert list(times.snapshots) == [0, 2] and times.settings["kernels_at"] == [0, 5]
    single = sweep(problem(), FA(rho), NET, solver="lazy", rho=0.5)
    np.testing.assert_array_equal(single[()].f, lazy[0.5].f)


COUNT = """
import sys
sys.path.insert(0, {root!r})
import jax, numpy as np
from derive import FA, MLP, rho
from numerics import Problem, sweep
compiled = []
note = lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
jax.monitoring.register_event_duration_secs_listener(note)
random = np.random.default_rng(2)
p = Problem(random.normal(size=(3, 5)), random.normal(size=3), eta=0.3, steps=6)
run = lambda **axes: sweep(p, FA(rho), MLP(depth=2, activation="tanh"), samples=64, replicas=1, **axes)
run(gamma0=0.5, rho=0.2)
first = len(compiled)
run(gamma0=[0.7, 1.0, 2.0], rho=[0.0, 0.5, 1.0], eta=[0.1, 0.2], seed=[0, 1])
print(first, len(compiled) - first)
"""


def test_one_compilation_serves_all_points():
    code = COUNT.format(root=str(Path(__file__).parents[2]))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, others = map(int, found.stdout.split())
    assert first > 0
    assert others == 0


def test_rerun_finds_its_files(tmp_path):
    axes = {"gamma0": [0.5, 2.0], "rho": [0.0, 1.0]}
    first = sweep(problem(), FA(rho), NET, out=tmp_path, **axes, **OPTIONS)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == [f"gamma0={g},rho={r}.npz" for g in (0.5, 2.0) for r in (0.0, 1.0)]
    (tmp_path / names[1]).unlink()
    written = {entry.name: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()}
    again = sweep(problem(), FA(rho), NET, out=tmp_path, **axes, **OPTIONS)
    assert (first.skipped, again.skipped) == (0, 3)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in written} == written
    for key in first:
        np.testing.assert_array_equal(first[key].f, again[key].f)
    assert again.table() == first.table()


@pytest.mark.parametrize("solver", ["dmft", "finite"])
def test_an_interrupted_point_goes_on_from_its_checkpoint(monkeypatch, tmp_path, solver):
    options = OPTIONS if solver == "dmft" else {"solver": "finite", "width": 8, "seeds": 2}
    with stopping(monkeypatch, 2, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        sweep(problem(), FA(rho), NET, gamma0=[0.5], rho=[1.0], out=tmp_path, every=2, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == [".gamma0=0.5,rho=1.0.npz.checkpoint"]
    found = sweep(problem(), FA(rho), NET, gamma0=[0.5], rho=[1.0], out=tmp_path, every=2, **options)
    np.testing.assert_array_equal(found[0.5, 1.0].f, sweep(problem(), FA(rho), NET, gamma0=[0.5], rho=[1.0], **options)[0.5, 1.0].f)
    assert [entry.name for entry in tmp_path.iterdir()] == ["gamma0=0.5,rho=1.0.npz"]


def test_files_of_something_else_are_refused(tmp_path):
    run = lambda p=None, rule=None, **options: sweep(
        p or problem(), rule or FA(rho), NET, solver="lazy", out=tmp_path, **{"eta": [0.1, 0.2], "rho": 0.5, **options}
    )
    run()
    with pytest.raises(ValueError, match=r"eta=0.1.npz holds another solution .rho is 0.5 there and 0.7 here.*delete the file"):
        run(rho=0.7)
    others = {
        "X_test is given only here": {"X_test": np.ones((1, 5))},
        "loss is 'squared' there and 'logistic' here": {"y": [1, -1, 1], "loss": "logistic"},
        "batches is given only here": {"batches": [[0, 1], [2]]},
        "momentum is 0.0 there and 0.5 here": {"momentum": 0.5},
        "y holds other numbers": {"y": [1, -1, 1]},
    }
    for message, changed in others.items():
        with pytest.raises(ValueError, match=message):
            run(replace(problem(), **changed))
    with pytest.raises(ValueError, match=r"another solution .batches is given only here.: give"):
        run(problem(batches=[[0, 1], [2]]))
    with pytest.raises(ValueError, match=r"rule is 'FA.rho=rho.' there and 'GD' here"):
        sweep(problem(), GD(), NET, solver="lazy", out=tmp_path, eta=[0.1])
    solve_lazy(problem(), FA(0.5), NET).save(tmp_path / "eta=0.1.npz")
    with pytest.raises(ValueError, match="not saved by a sweep"):
        run()
    (tmp_path / "eta=0.1.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="truncated or of another kind"):
        run()


@pytest.mark.parametrize(
    "name, solver, meaning",
    [
        ("tol", "dmft", "an argument of solve_dmft"),
        ("momentum", "dmft", "a field of the problem"),
        ("eta", "lazy", "a field of the problem"),
        ("width", "finite", "an argument of train_finite"),
        ("out", "lazy", "an argument of sweep"),
    ],
)
def test_symbols_with_the_name_of_something_else_are_refused(name, solver, meaning):
    rule = Rule("scaled", sp.Symbol(name) * dphi(h) * z, Feedback(transported=1))
    with pytest.raises(ValueError, match=f"the symbol {name} of the rule or the network has the name of {meaning}.*rename the symbol"):
        sweep(problem(), rule, NET, solver=solver, parameters={name: 0.5})


def test_symbols_with_names_that_nobody_else_uses_here_are_swept(tmp_path):
    """Those of other solvers' arguments, and of what a sweep gives the solver itself."""
    scaled = lambda name: Rule("scaled", sp.Symbol(name) * dphi(h) * z, Feedback(transported=1))
    for name in ("width", "p"):
        found = sweep(problem(), scaled(name), NET, solver="lazy", out=tmp_path, **{name: [0.5, 1.0]})
        np.testing.assert_array_equal(found[0.5].f, solve_lazy(problem(), scaled("c"), NET, parameters={"c": 0.5}).f)


def test_files_of_earlier_versions_are_refused(tmp_path):
    run = lambda: sweep(problem(), FA(rho), NET, solver="lazy", out=tmp_path, rho=[0.5])
    solution = run()[0.5]
    asked = dict(solution.stats["request"])
    flat = {**asked, **{name: value for group in ("fields", "parameters", "settings") for name, value in asked.pop(group).items()}}
    replace(solution, stats={"request": {name: value for name, value in flat.items() if name in asked or name == "rho"}}).save(tmp_path / "rho=0.5.npz")
    with pytest.raises(ValueError, match=r"rho=0.5.npz was saved by an earlier version.*delete the file"):
        run()


def test_divergence_raises_from_files_too(tmp_path):
    run = lambda **options: sweep(problem(), GD(), NET, solver="lazy", eta=[1e200], out=tmp_path, **options)
    with pytest.raises(SolveFailed):
        run(throw=True)
    assert run()[1e200].status != "ok" and run().skipped == 1
    with pytest.raises(SolveFailed):
        run(throw=True)


def test_numbers_of_numpy_are_numbers(tmp_path):
    """A sweep accepts the files of one that was asked for the same with NumPy's types."""
    settings = {"width": 8, "seeds": 1, "seed": 3, "dtype": "float64", "two_time": True, "snapshots": (0, 2)}
    as_numpy = {"width": np.int64(8), "seeds": np.int32(1), "seed": np.uint8(3), "dtype": np.float64, "two_time": np.True_, "snapshots": np.array([0, 2])}
    for first, second in ((settings, as_numpy), (as_numpy, settings)):
        folder = tmp_path / str(first is settings)
        runs = [sweep(problem(), GD(), NET, solver="finite", out=folder, eta=[0.1], **each) for each in (first, second)]
        assert [run.skipped for run in runs] == [0, 1]
    widths = sweep(problem(), GD(), NET, solver="finite", seeds=1, width=[4], dtype=[np.float32], seed=np.array([1]), out=tmp_path)
    assert list(widths) == [(4, "float32", 1)] and (tmp_path / "width=4,dtype=float32,seed=1.npz").exists()
    with pytest.raises(ValueError, match="seed=True is not a seed"):
        sweep(problem(), GD(), NET, seed=[0, True])


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"gamma=.1.0. is neither a field of the problem"):
        sweep(problem(), GD(), NET, gamma=[1.0])
    with pytest.raises(ValueError, match="solver='exact' is not known"):
        sweep(problem(), GD(), NET, solver="exact")
    with pytest.raises(ValueError, match=r"gamma0=\[\] has no values"):
        sweep(problem(), GD(), NET, gamma0=[])
    with pytest.raises(ValueError, match="has a value twice"):
        sweep(problem(), GD(), NET, gamma0=[1, 1.0])
    with pytest.raises(ValueError, match="rho is symbolic"):
        sweep(problem(), FA(rho), NET, gamma0=[1.0], solver="lazy")
    with pytest.raises(ValueError, match="every=2 without out="):
        sweep(problem(), GD(), NET, every=2)
    found = sweep(problem(), FA(rho), NET, rho=[0.0, 1.0], solver="lazy")
    with pytest.raises(KeyError, match=r"no point of this sweep over .rho."):
        found[0.5]
    with pytest.raises(KeyError, match="give exactly rho"):
        found.at(gamma0=1.0)
