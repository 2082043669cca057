"""Fields kept at chosen times."""

from __future__ import annotations

import numpy as np
import pytest

from derive import FA, GLN, MLP
from numerics import Problem, Solution, solve_dmft, train_finite

RANDOM = np.random.default_rng(5)
P = Problem(RANDOM.normal(size=(3, 5)), RANDOM.normal(size=3), gamma0=1.0, eta=0.2, steps=6)
TANH, RELU = MLP(2, "tanh"), MLP(2, "relu")


def solvers(rule, net, snapshots=(0, 3, -1)):
    yield solve_dmft(P, rule, net, samples=64, replicas=2, snapshots=snapshots)
    yield train_finite(P, rule, net, width=32, seeds=3, snapshots=snapshots)


def average(a, b):
    return np.einsum("rpi,rqi->pq", a, b) / (a.shape[0] * a.shape[2])


@pytest.mark.parametrize("kind", [0, 1], ids=["infinite", "finite"])
def test_kernels_are_averages_of_snapshots(kind):
    solution = list(solvers(FA(0.5), TANH))[kind]
    assert sorted(solution.snapshots) == [0, 3, 5]
    for t, snapshot in solution.snapshots.items():
        for l in (1, 2):
            h, z = snapshot.h[l], snapshot.z[l]
            g = (1 - np.tanh(h) ** 2) * z
            # bases leave out 1e-7 of a field's energy: 3e-4 of its size, twice
            np.testing.assert_allclose(average(np.tanh(h), np.tanh(h)), solution.Phi[l].block(t, t), atol=1e-6)
            np.testing.assert_allclose(average(g, g), solution.G[l].block(t, t), atol=1e-6)
    assert np.abs(solution.snapshots[5].h[2] - solution.snapshots[0].h[2]).max() > 0.01


@pytest.mark.parametrize("kind", [0, 1], ids=["infinite", "finite"])
def test_gates_are_kept_and_stay(kind):
    snapshots = list(solvers(GLN(), RELU))[kind].snapshots
    for l in (1, 2):
        np.testing.assert_array_equal(snapshots[0].m[l], snapshots[5].m[l])
        forward = (snapshots[5].m[l] > 0) * snapshots[5].h[l]
        solution = list(solvers(GLN(), RELU))[kind]
        np.testing.assert_allclose(average(forward, forward), solution.Phi[l].block(-1, -1), atol=1e-6)


def test_snapshots_change_nothing_and_come_back_from_files(tmp_path):
    for solution, plain in zip(solvers(FA(0.5), TANH), solvers(FA(0.5), TANH, snapshots=()), strict=True):
        assert not plain.snapshots
        np.testing.assert_allclose(solution.f, plain.f, atol=1e-12)
        solution.save(tmp_path / "s.npz")
        again = Solution.load(tmp_path / "s.npz")
        for t, snapshot in solution.snapshots.items():
            np.testing.assert_array_equal(again.snapshots[t].z[2], snapshot.z[2])


def test_snapshots_survive_an_interruption(tmp_path, monkeypatch):
    from numerics.checkpoint import Keeper

    whole = solve_dmft(P, FA(0.5), TANH, samples=64, replicas=2, snapshots=(1, 5), checkpoint=tmp_path / "a", every=2)
    write, written = Keeper.write_state, []

    def killed(self, *arguments):
        write(self, *arguments)
        written.append(arguments)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "write_state", killed)
    run = lambda: solve_dmft(P, FA(0.5), TANH, samples=64, replicas=2, snapshots=(1, 5), checkpoint=tmp_path / "b", every=2)
    with pytest.raises(KeyboardInterrupt):
        run()
    resumed = run()
    for t in (1, 5):
        np.testing.assert_array_equal(resumed.snapshots[t].h[2], whole.snapshots[t].h[2])


def test_times_that_are_not_there():
    with pytest.raises(ValueError, match="snapshots has 6, which is no recorded time"):
        train_finite(P, FA(0.5), TANH, width=8, seeds=1, snapshots=(6,))
    with pytest.raises(ValueError, match="method='exact'"):
        solve_dmft(P, FA(0.5), MLP(1, "linear"), snapshots=(0,), method="exact")
    assert solve_dmft(P, FA(0.5), MLP(1, "linear"), snapshots=(0,), samples=32, replicas=1).snapshots[0].h[1].shape == (1, 3, 32)
