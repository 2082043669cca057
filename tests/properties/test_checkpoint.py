"""A killed run loses nothing: it goes on to the same bits, and refuses to go on as another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from derive import FA, GD, MLP, Evolution, Feedback, Rational, Rule, dphi, h, rho, z
from numerics import Problem, Solution, finite, load_checkpoint, rows, solve_dmft, train_finite

NET = MLP(depth=2, activation="tanh")
OPTIONS = {"samples": 64, "replicas": 2}
ROOT = Path(__file__).parents[2]


def problem(steps=9, **options) -> Problem:
    random = np.random.default_rng(5)
    X, y, X_test = random.normal(size=(3, 7)), random.normal(size=3), random.normal(size=(2, 7))
    return Problem(X, y, **{"gamma0": 1.2, "eta": 0.3, "steps": steps, "X_test": X_test, **options})


def solve(p=None, rule=None, **options) -> Solution:
    return solve_dmft(p or problem(), rule or FA(0.5), NET, **{**OPTIONS, **options})


def assert_same_bits(a: Solution, b: Solution) -> None:
    for name in ("f", "f_se", "loss", "loss_se", "f_test", "entk", "alignment"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("Phi", "G", "G_tilde", "H"):
        for one, other in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_array_equal(one.dense(), other.dense(), err_msg=name)


@pytest.fixture(scope="module")
def whole() -> Solution:
    return solve()


class Stop(Exception):
    """Stands for whatever ends a run."""


def interrupt(monkeypatch, path, writes: int, run=solve, **options) -> None:
    """Run until so many checkpoints are written, then fail."""
    from interrupted import stopping  # here, because the process of `test_sigkill` imports this file without it

    with stopping(monkeypatch, writes, Stop), pytest.raises(Stop):
        run(checkpoint=path, **options)


# with every=2 and nine steps a replica writes at 2, 4, 6, 8 and at its end
@pytest.mark.parametrize("writes", [1, 3, 5, 7])
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(monkeypatch, tmp_path, whole, writes):
    path = tmp_path / "run.ckpt"
    interrupt(monkeypatch, path, writes, every=2)
    before = load_checkpoint(path)
    assert before.t == {1: [2], 3: [6], 5: [9], 7: [9, 4]}[writes]
    assert_same_bits(solve(checkpoint=path, every=3), whole)
    assert load_checkpoint(path).finished == 2


@pytest.mark.parametrize("numbers", [pytest.param(2**17, marks=pytest.mark.slow, id="undivided"), pytest.param(1, id="segments")])
def test_resumes_before_and_after_its_capacity_grew(monkeypatch, tmp_path, numbers):
    monkeypatch.setattr(rows, "NUMBERS", numbers)
    grown = solve(capacity=30)
    for writes in (1, 4):
        path = tmp_path / f"{writes}.ckpt"
        interrupt(monkeypatch, path, writes, every=2, capacity=30)
        assert_same_bits(solve(checkpoint=path, capacity=30), grown)
    assert grown.stats["capacity"] > 30


def test_rules_with_more_state_resume_too(monkeypatch, tmp_path):
    feedback = Feedback(independent=1, evolution=Evolution(decay=Rational(1, 20), outer=h))
    rule, path = Rule("mirror", dphi(h) * z, feedback), tmp_path / "run.ckpt"
    interrupt(monkeypatch, path, 2, every=3, rule=rule)
    assert_same_bits(solve(rule=rule, checkpoint=path), solve(rule=rule))


CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from numerics import checkpoint
write = checkpoint.write
def slowly(*arguments):
    write(*arguments)
    print("written", flush=True)
    time.sleep(0.2)  # room for the signal
checkpoint.write = slowly
sys.path.insert(0, {here!r})
from test_checkpoint import solve
solve(checkpoint={path!r}, every=1)
"""


def test_sigkill(tmp_path, whole):
    writes, path = 12, tmp_path / "run.ckpt"
    code = CHILD.format(root=str(ROOT), here=str(Path(__file__).parent), path=str(path))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as child:
        assert child.stdout is not None
        for _ in range(writes):
            assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    partial = load_checkpoint(path)
    assert sum(partial.t) >= writes - 1
    assert sum(partial.t) < 18
    np.testing.assert_array_equal(partial.loss[0], partial.problem.loss(partial.f[0]))
    assert_same_bits(solve(checkpoint=path, every=1), whole)


def test_finished_part_is_a_solution(monkeypatch, tmp_path):
    path = tmp_path / "run.ckpt"
    interrupt(monkeypatch, path, 5, every=2)
    partial = load_checkpoint(path)
    assert_same_bits(partial.solution(), solve(replicas=1))
    assert "1 of 2 replicas finished" in repr(partial)
    interrupt(monkeypatch, tmp_path / "early.ckpt", 2, every=2)
    with pytest.raises(ValueError, match=r"no replica is finished .the first is at t=4 of 9"):
        load_checkpoint(tmp_path / "early.ckpt").solution()


def train(**options) -> Solution:
    return train_finite(problem(momentum=0.5), FA(0.5), NET, **{"width": 12, "seeds": 3, "snapshots": (1, 6), **options})


# two networks a batch; with every=4 and nine steps a batch writes at 4, 8 and at its end
@pytest.mark.parametrize(("writes", "times", "two_time"), [(1, [4, 4], True), (2, [8, 8], False), (3, [9, 9], True), (4, [9, 9, 4], True)])
def test_networks_resume_with_the_bits_of_uninterrupted_ones(monkeypatch, tmp_path, writes, times, two_time):
    monkeypatch.setattr(finite, "_batch", lambda *arguments: 2)
    whole, path = train(two_time=two_time), tmp_path / "run.ckpt"
    interrupt(monkeypatch, path, writes, run=train, every=4, two_time=two_time)
    partial = load_checkpoint(path)
    assert partial.t == times and partial.finished == 2 * (writes > 2) and f"{partial.finished} of 3 networks finished" in repr(partial)
    resumed = train(checkpoint=path, two_time=two_time)
    for name in ("f", "f_se", "f_test", "entk"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    for t in (1, 6):
        np.testing.assert_array_equal(resumed.snapshots[t].z[1], whole.snapshots[t].z[1])
    for name in ("Phi", "G_tilde"):
        for one, other in zip(getattr(resumed, name), getattr(whole, name), strict=True):
            np.testing.assert_array_equal(one.equal_time_replicas(), other.equal_time_replicas())
            if two_time:
                np.testing.assert_array_equal(one.dense(), other.dense())
    if writes > 2:
        first = partial.solution()
        np.testing.assert_array_equal(first.G[1].equal_time_replicas(), whole.G[1].equal_time_replicas()[:2])
        np.testing.assert_allclose(first.f, np.mean(partial.f[:2], axis=0), rtol=1e-12)
        assert first.settings["seeds"] == 2 and first.snapshots[6].h[1].shape == (2, 3, 12)
    else:
        with pytest.raises(ValueError, match=f"no network is finished .the first is at t={times[0]} of 9"):
            partial.solution()


def test_checkpoints_of_theory_and_of_networks_are_not_mixed(tmp_path):
    path = tmp_path / "run.ckpt"
    train(checkpoint=path)
    with pytest.raises(ValueError, match="width is 12 there and 13 here"):
        train(checkpoint=path, width=13)
    with pytest.raises(ValueError, match="the solver is finite there and dmft here"):
        solve(checkpoint=path)


def test_file_left_by_a_writer_that_was_killed_goes_away(tmp_path):
    leftover = tmp_path / ".run.ckpt.x1y2.part"
    leftover.write_bytes(b"half")
    solve(problem(2), checkpoint=tmp_path / "run.ckpt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": problem(gamma0=0.7)}, "gamma0 is 1.2 there and 0.7 here"),
        ({"p": problem(X_test=None)}, "X_test is given only there"),
        ({"rule": GD()}, "the rule is FA.* there and GD"),
        ({"rule": FA(rho), "parameters": {"rho": 0.5}}, "the rule is"),
        ({"seed": 3}, "seed is 0 there and 3 here"),
        ({"samples": 128}, "samples is 64 there and 128 here"),
        ({"capacity": 40}, "capacity is None there and 40 here"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, options, message):
    path = tmp_path / "run.ckpt"
    solve(checkpoint=path)
    with pytest.raises(ValueError, match=f"checkpoint of another run.*{message}.*delete the file"):
        solve(checkpoint=path, **options)


def test_checkpoint_of_other_versions_is_refused(monkeypatch, tmp_path):
    from numerics import checkpoint

    path = tmp_path / "run.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "versions", lambda: {"lazyrich": "0.0", "jax": "0.0", "numpy": "0.0", "python": "3"})
        solve(problem(2), checkpoint=path)
    with pytest.raises(ValueError, match=r"written by other versions .*jax 0.0 there"):
        solve(problem(2), checkpoint=path)


def test_damaged_and_foreign_files_are_refused(tmp_path, whole):
    path = tmp_path / "run.ckpt"
    solve(checkpoint=path)
    content = path.read_bytes()
    for name, damaged in (("truncated", content[: len(content) // 2]), ("empty", b""), ("text", b"not an archive")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"truncated or of another kind.*delete the file"):
            solve(checkpoint=path)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            load_checkpoint(path)
        assert path.read_bytes() == damaged, name
    whole.save(path)
    with pytest.raises(ValueError, match="not a checkpoint written by lazyrich"):
        solve(checkpoint=path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.ckpt")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="every=5 without checkpoint="):
        solve(every=5)
    with pytest.raises(ValueError, match="every=0 is not a number of steps"):
        solve(checkpoint=tmp_path / "x", every=0)
    with pytest.raises(ValueError, match="folder that does not exist"):
        solve(checkpoint=tmp_path / "no" / "x")
