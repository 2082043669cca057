"""Exact kernels at t = 0 as control variates of sampled solutions."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from compare import LIMIT, record, z_scores

from derive import DFA, FA, GD, MLP, Delta, Feedback, Hebb, Rule, dphi, h, weight_mirror, z
from numerics import Problem, Solution, load_checkpoint, solve_dmft, solve_lazy, sweep
from numerics import control as module
from numerics.dynamics import dynamics
from numerics.order_parameters import ConstantKernel

NET = MLP(depth=2, activation="erf")
MODULATED = Rule("modulated", z * dphi(h) * (1 + Delta**2), Feedback(initial=1))
NAMES = ("Phi", "G", "G_tilde", "H")


def problem(gamma0: float = 0.2, **more) -> Problem:
    random = np.random.default_rng(4)
    return Problem(random.normal(size=(4, 12)), np.array([1.0, -1.0, -1.0, 1.0]), gamma0, 0.4, 12, **more)


def solve(p: Problem, rule=None, net=NET, samples: int = 128, replicas: int = 4, **more) -> Solution:
    return solve_dmft(p, rule or GD(), net, samples, replicas, method="sampling", **more)


@pytest.fixture(scope="module")
def plain() -> Solution:
    return solve(problem(), control=False)


@pytest.fixture(scope="module")
def better() -> Solution:
    return solve(problem())


@pytest.fixture(scope="module")
def reference() -> Solution:
    return solve(problem(), samples=16384, replicas=4, seed=9, two_time=False, control=False)


def _miss(solution: Solution, exact: Solution) -> float:
    """The largest deviation of a kernel at t = 0."""
    kernels = [(getattr(solution, name)[l].block(0, 0), getattr(exact, name)[l].block(0, 0)) for name in NAMES for l in (1, 2)]
    return max(float(np.max(np.abs(a - b))) for a, b in [*kernels, (solution.entk[0], exact.entk[0])])


@pytest.mark.parametrize("rule", [pytest.param(GD(), marks=pytest.mark.slow), FA(sp.Rational(1, 2)), Hebb()], ids=lambda rule: rule.name)
def test_kernels_at_the_start_are_exact(rule):
    exact = solve_lazy(problem(), rule, NET)
    found = solve(problem(), rule)
    assert found.settings["control"]
    assert _miss(found, exact) < 1e-12 and np.max(found.entk_se[0]) < 1e-12
    assert _miss(solve(problem(), rule, control=False), exact) > 1e-3


def test_several_outputs_and_other_losses():
    random = np.random.default_rng(1)
    p = Problem(random.normal(size=(3, 6)), np.eye(3)[[0, 1, 2]], 0.02, 0.4, 6, loss="cross-entropy", momentum=0.5)
    exact, found = solve_lazy(p, GD(), NET), solve(p, samples=512)
    assert _miss(found, exact) < 1e-12
    # nearly lazy: nothing is left but what features have learned
    assert np.max(np.abs(found.f - exact.f)) < 0.2 * np.max(np.abs(solve(p, samples=512, control=False).f - exact.f))


def _error(solution: Solution, reference: Solution) -> float:
    return float(np.linalg.norm(solution.loss - reference.loss))


def test_errors_are_smaller_and_say_so(plain, better, reference):
    assert _error(better, reference) < 0.5 * _error(plain, reference)
    assert np.linalg.norm(better.loss_se) < 0.5 * np.linalg.norm(plain.loss_se)
    for layer in (1, 2):
        late = [np.linalg.norm(sol.Phi[layer].block(-1, -1) - reference.Phi[layer].block(-1, -1)) for sol in (better, plain)]
        assert late[0] < late[1]


def test_gradients_that_carry_nothing_back_do_not_blur_it():
    """Of direct feedback, ⟨g g̃⟩ below the top is zero, and its sampling error none of the outputs'."""
    p = problem(0.05)
    lazy = solve_lazy(p, DFA(), NET)
    plain, found = (solve(p, DFA(), samples=1024, replicas=12, control=chosen) for chosen in (False, True))
    assert np.linalg.norm(found.f_se) < 0.7 * np.linalg.norm(plain.f_se)
    assert np.linalg.norm(found.f - lazy.f) < 2 * np.linalg.norm(found.f_se)


def test_standard_errors_are_those_of_repeated_runs():
    """One example and four replicas, where a coefficient fitted to the replicas that it corrects would make errors seem 1.4 to 1.6 times smaller."""
    p = Problem(np.random.default_rng(4).normal(size=(1, 3)), np.ones(1), 0.5, 0.4, 10)
    runs = [solve(p, net=MLP(1, activation="erf"), samples=256, seed=seed, control=True) for seed in range(40)]
    for mean, se in (("f", "f_se"), ("entk", "entk_se")):
        scatter = np.std([getattr(run, mean)[-1] for run in runs], axis=0, ddof=1)
        said = np.sqrt(np.mean([getattr(run, se)[-1] ** 2 for run in runs], axis=0))
        # the ratio of two such spreads has an error of 15 %
        assert np.all(scatter < 1.3 * said)


def test_an_input_that_is_zero_has_no_control_variate():
    """Closed forms have the limit of small inputs there, E[sign²] → 1, and the samples sign(0)² = 0."""
    X = np.random.default_rng(2).normal(size=(3, 3))
    X[2] = 0.0
    p, net = Problem(X, np.array([1.0, -1.0, 1.0]), 0.1, 0.8, 10), MLP(1, activation="sign")
    found = solve(p, DFA(), net, samples=512)
    assert not found.settings["control"] and np.all(found.f[:, 2] == 0.0) and np.all(found.Phi[1].block(0, 0)[2] == 0.0)
    with pytest.raises(ValueError, match="an input is zero"):
        solve(p, DFA(), net, control=True)
    with pytest.warns(UserWarning, match=r"X\[2\] is zero, where units of DFA jump"):
        solve_lazy(p, DFA(), net)


def test_means_are_those_of_the_samples(reference, monkeypatch):
    """Against samples of other seeds; with a wrong kernel at t = 0 they are not."""
    known = {name: pair for name, pair in record(solve(problem(), samples=256, replicas=12, seed=5)).items() if "across" not in name}
    theory = record(solve(problem(), samples=4096, replicas=12, seed=9, control=False))
    assert max(z_scores(theory[name], value).max(initial=0.0) for name, value in known.items()) < LIMIT
    right = module.order_parameters
    scaled = lambda kernels: {name: [ConstantKernel(1.1 * k.block(0, 0), 1) for k in layers] for name, layers in kernels.items()}
    monkeypatch.setattr(module, "order_parameters", lambda *given: scaled(right(*given)))
    wrong = record(solve(problem(), samples=256, replicas=12, seed=5))
    assert z_scores(theory["loss"], wrong["loss"]).max() > 2 * LIMIT


def test_blocks_agree_with_each_other_and_survive_the_disk(better, tmp_path):
    better.save(tmp_path / "found.npz")
    back = Solution.load(tmp_path / "found.npz")
    for name in NAMES:
        for l in (1, 2):
            kernel, loaded = getattr(better, name)[l], getattr(back, name)[l]
            np.testing.assert_allclose(kernel.block(5, 5), kernel.equal_time()[5], atol=1e-12)
            np.testing.assert_allclose(kernel.dense()[3, :, 7], kernel.block(3, 7), atol=1e-12)
            np.testing.assert_allclose(kernel.dense_se()[3, :, 7], kernel.block_se(3, 7), atol=1e-12)
            np.testing.assert_allclose(loaded.block(3, 7), kernel.block(3, 7), atol=1e-12)
    # K(t, s) = K(s, t)ᵀ stays
    np.testing.assert_allclose(better.Phi[1].block(2, 9), better.Phi[1].block(9, 2).T, atol=1e-12)


def test_kernels_at_chosen_times_and_other_records(better):
    chosen = solve(problem(), kernels_at=(0, -1))
    np.testing.assert_allclose(chosen.loss, better.loss, rtol=1e-9)
    np.testing.assert_allclose(chosen.Phi[2].block(-1, -1), better.Phi[2].block(-1, -1), atol=1e-9)
    assert np.isnan(chosen.Phi[2].equal_time()[3]).all()


def test_who_decides():
    def used(p: Problem, rule=None, control=None, replicas=3, times=None) -> bool:
        chosen = rule or GD()
        return module.lazy_limit(control, p, chosen, NET, *dynamics(chosen, NET, None), replicas, times) is not None

    p = problem()
    assert used(p) and used(p, times=(0, 11)) and used(problem(1.0), control=True)
    assert not used(problem(1.0)) and not used(p, control=False)
    assert not used(p, replicas=2) and not used(p, times=(11,)) and not used(problem(weight_decay=0.1))
    assert not used(p, weight_mirror(0.5, 0.05)) and not used(p, MODULATED)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"replicas": 2}, "at least 3 replicas, and replicas=2"),
        ({"kernels_at": (-1,)}, r"kernels_at=\(11,\) has no t = 0"),
        ({"rule": weight_mirror(0.5, 0.05)}, "learn"),
        ({"p": problem(weight_decay=0.1)}, "weight_decay=0.1"),
        ({"rule": MODULATED}, "depends on the error signal"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve(**{"p": problem(), **arguments}, control=True)


def test_sweeps_and_checkpoints(better, tmp_path):
    runs = sweep(problem(), GD(), NET, gamma0=[0.2, 1.0], samples=128, replicas=4, method="sampling", control=True)
    np.testing.assert_allclose(runs[0.2].loss, better.loss, rtol=1e-12)
    assert _miss(runs[1.0], solve_lazy(problem(), GD(), NET)) < 1e-12
    twice = [solve(problem(), checkpoint=tmp_path / "run.ckpt").loss for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    # what a file holds has no rule to derive from: it is as sampled
    assert not load_checkpoint(tmp_path / "run.ckpt").solution().settings.get("control")


def test_divergence_is_told_apart():
    p = Problem(problem().X, problem().y, 0.5, 50.0, 12)
    found = solve(p, throw=False)
    assert found.status != "ok"


@pytest.mark.parametrize(("rule", "net"), [(GD(), MLP(2, "tanh")), pytest.param(FA(0.5), MLP(3, "relu"), marks=pytest.mark.slow)])
def test_errors_of_test_outputs_do_not_grow_as_features_move_less(rule, net):
    """Test points are realised anew in every step, with errors that 1/γ0 would multiply: at γ0 = 0.01 they were a hundred times those at γ0 = 1."""
    random = np.random.default_rng(1)
    X, X_test, y = random.normal(size=(3, 6)), random.normal(size=(5, 6)), np.array([1.0, -1.0, 1.0])
    solve = lambda gamma0: solve_dmft(Problem(X, y, gamma0, 0.3, 6, X_test=X_test), rule, net, samples=256, replicas=4, control=False)
    rich, lazy = solve(1.0), solve(0.01)
    assert lazy.f_test_se.max() < 2 * rich.f_test_se.max()
    truth = solve_lazy(Problem(X, y, 0.01, 0.3, 6, X_test=X_test), rule, net).f_test
    # with four replicas of t distributions, at 25 entries that go together
    assert np.sqrt(np.mean((lazy.f_test - truth)[1:] ** 2)) < 3 * np.sqrt(np.mean(lazy.f_test_se[1:] ** 2))
    assert np.abs(lazy.f_test - truth).max() < 0.02 < np.abs(truth).max()
