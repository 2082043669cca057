"""What must hold of every solution, whatever its numbers."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from derive import DFA, FA, GD, GLN, MLP, rho
from numerics import Problem, Solution, SolveFailed, dmft, rows, solve_dmft, solve_lazy, train_finite
from numerics.basis import Basis
from numerics.checkpoint import Keeper
from numerics.dynamics import dynamics
from numerics.infinite import Layout, Room, start, supply
from numerics.order_parameters import FactoredKernel, FieldKernel
from numerics.random_matrix import LazyMatrix
from numerics.rows import bracket
from numerics.sampling import Innovations

NET = MLP(depth=2, activation="tanh")


def problem(steps=8, order=slice(None), **options) -> Problem:
    random = np.random.default_rng(11)
    X, y = random.normal(size=(3, 7)), np.array([1.0, -0.5, 0.2])
    return Problem(X[order], y[order], **{"gamma0": 1.2, "eta": 0.3, "steps": steps, **options})


def solve(p=None, rule=None, **options) -> Solution:
    return solve_dmft(p or problem(), rule or FA(0.5), NET, **{"samples": 128, "replicas": 2, **options})


@pytest.fixture(scope="module")
def solution() -> Solution:
    return solve()


def test_same_seed_same_numbers_other_seed_others(solution):
    again, other = solve(), solve(seed=1)
    np.testing.assert_array_equal(again.f, solution.f)
    assert np.abs(other.f - solution.f).max() > 1e-4


def test_result_does_not_depend_on_chunks(solution):
    chunked = solve(chunk=3)
    np.testing.assert_array_equal(chunked.f, solution.f)
    np.testing.assert_array_equal(chunked.G_tilde[1].dense(), solution.G_tilde[1].dense())


def test_result_does_not_depend_on_capacity(solution):
    # other shapes, other order of summation: round-off
    small = solve(capacity=15)
    assert small.stats["capacity"] > 15
    np.testing.assert_allclose(small.f, solution.f, atol=1e-10)
    np.testing.assert_allclose(small.Phi[2].dense(), solution.Phi[2].dense(), atol=1e-8)


def test_features_that_hardly_move_are_followed():
    """Features move by γ0 and outputs are that movement over γ0: at a tolerance that does not know γ0 layer 1 would not learn."""
    p = problem(gamma0=1e-4)
    lazy = solve_lazy(p, GD(), NET).f
    error = lambda sol: np.max(np.abs(sol.f - lazy))
    options = {"samples": 1024, "replicas": 4, "control": False}
    usual = solve(p, GD(), **options)
    # finite S: a few standard errors, and a bias of a percent
    assert error(usual) < 5 * np.max(usual.f_se) + 0.01
    assert error(solve(p, GD(), **options, rank_tol=1e-7)) > 0.1
    # chance has no part in it with the lazy limit as control variate
    assert error(solve(p, GD(), **{**options, "control": None})) < 0.05 * error(usual)


def test_single_precision_says_when_it_cannot_follow():
    with pytest.warns(UserWarning, match=r"gamma0=0.01 in float32: .* give dtype='float64'") as said:
        solve_dmft(problem(2, gamma0=0.01), FA(0.5), NET, 32, 2, dtype="float32")
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(problem(2, gamma0=0.1), samples=32, dtype="float32")
        solve(problem(2, gamma0=0.01), samples=32, dtype="float32", rank_tol=1e-5)
        solve(problem(2, gamma0=1e-4), samples=32)


def test_single_precision_misses_less_than_samples_leave_to_chance():
    """Its tolerance falls with S; with the one of few samples it would miss several times as much as it does."""
    wanted = solve(problem(), GD(), samples=32768, replicas=1, two_time=False, rank_tol=1e-9).loss
    missed = {}
    for tol in (None, 1e-5):
        narrow = solve(problem(), GD(), samples=32768, replicas=1, two_time=False, dtype="float32", rank_tol=tol)
        missed[tol] = np.linalg.norm(narrow.loss - wanted)
    assert missed[None] < 0.4 * missed[1e-5]


def test_small_gamma0_is_not_left_to_single_precision(monkeypatch):
    kind = lambda gamma0: solve(problem(2, gamma0=gamma0), samples=32).settings["dtype"]
    assert kind(1.0) == kind(0.1) == "float64"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert (kind(1.0), kind(0.1)) == ("float32", "float64")


def test_nothing_at_a_time_needs_anything_later(solution):
    short = solve(problem(5))
    np.testing.assert_allclose(short.f, solution.f[:5], atol=1e-10)
    np.testing.assert_allclose(short.G[1].block(4, 2), solution.G[1].block(4, 2), atol=1e-8)


def test_permuting_examples_permutes_the_solution(solution):
    order = np.array([2, 0, 1])
    permuted = solve(problem(order=order))
    np.testing.assert_allclose(permuted.f, solution.f[:, order], atol=1e-7)
    np.testing.assert_allclose(permuted.entk, solution.entk[:, order][:, :, order], atol=1e-6)


def test_test_points_leave_no_trace(solution):
    X_test = np.random.default_rng(0).normal(size=(4, 7))
    seen = solve(problem(X_test=X_test, y_test=np.zeros(4)))
    np.testing.assert_allclose(seen.f, solution.f, atol=1e-12)
    assert seen.f_test.shape == (8, 4)
    assert seen.test_loss.shape == (8,)


def test_a_test_point_on_a_training_point_follows_it():
    p = problem(X_test=problem().X)
    sol = solve(p, GD())
    np.testing.assert_allclose(sol.f_test, sol.f, atol=1e-3)
    sim = train_finite(p, GD(), NET, width=64, seeds=2)
    np.testing.assert_allclose(sim.f_test, sim.f, atol=1e-12)


def test_kernels_are_symmetric_and_positive(solution):
    for kernels in (solution.Phi, solution.G, solution.H):
        for _, kernel in kernels.items():
            dense = kernel.dense().reshape(24, 24)
            np.testing.assert_allclose(dense, dense.T, atol=1e-12)
            assert np.linalg.eigvalsh(dense).min() > -1e-10 * np.abs(dense).max()
    np.testing.assert_array_equal(solution.Phi[0].block(3, 1), problem().Kx)
    np.testing.assert_array_equal(solution.G[3].block(3, 1), np.ones((3, 3)))
    with pytest.raises(IndexError, match="layer 4 is not there"):
        solution.G[4]


def test_gradient_descent_is_aligned_with_itself():
    sol = solve(rule=GD())
    np.testing.assert_allclose(sol.alignment, 1.0)
    loss = np.mean(0.5 * (problem().y - sol.f) ** 2, axis=1)
    assert np.all(np.diff(sol.loss) < 0)
    np.testing.assert_allclose(loss, sol.loss, rtol=0.05)


def test_full_feedback_correlation_is_not_gradient_descent_but_starts_as_it():
    # ρ = 1 carries errors by W(0)ᵀ, gradient descent by W(t)ᵀ
    fa, gd = solve(rule=FA(1)), solve(rule=GD())
    np.testing.assert_allclose(fa.alignment[:, 0], 1.0, atol=1e-6)
    assert np.abs(fa.f[-1] - gd.f[-1]).max() > 1e-4


def test_small_gamma_meets_the_lazy_solution_quadratically():
    net, rule = MLP(depth=2, activation="relu"), FA(0.5)
    lazy = solve_lazy(problem(eta=1.0), rule, net)
    rich = {g: solve_dmft(problem(gamma0=g, eta=1.0), rule, net, samples=4096, replicas=4) for g in (0.02, 0.5, 1.0)}
    near, far = (np.linalg.norm(rich[g].f - lazy.f) for g in (0.5, 1.0))
    # order γ0² would be a factor 4, order γ0 a factor 2; the next order, γ0⁴, adds to it
    assert 3.0 < far / near < 7.0
    # four replicas: t distribution with three degrees of freedom, 24 correlated numbers
    error = 6 * rich[0.02].f_se.max()
    assert np.abs(rich[0.02].f - lazy.f).max() < error
    other = solve_lazy(problem(eta=1.0), FA(0.9), net)
    assert np.abs(rich[0.02].f - other.f).max() > error


take, combine = jax.jit(Basis.extend), jax.jit(Basis.combine)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-10, 1e-2))
def test_bases_are_orthonormal_and_reproduce_what_they_took_in(seed, tol):
    random, count = np.random.default_rng(seed), 3
    basis = Basis.empty(24, 50, jnp.float64, count, each=7)
    directions = random.normal(size=(5, 50))
    for _ in range(4):
        v = jnp.asarray(random.normal(size=(count, 5)) @ directions + tol * random.normal(size=(count, 50)))
        basis, c, _ = take(basis, v, jnp.float64(tol))
        n, R = int(basis.size), np.concatenate(basis.rows.segments)
        assert basis.deviation() < 1e-12 and not np.any(R[n:])
        # the newest rows are settled by the next block, here by none
        settled, _, _ = take(basis, jnp.zeros_like(v), jnp.float64(tol))
        Q = (R + np.asarray(settled.E, float) @ R)[:n]
        np.testing.assert_allclose(Q @ Q.T / 50, np.eye(n), atol=1e-12)
        lost = np.mean((np.asarray(v) - np.asarray(combine(basis, c))) ** 2, axis=1)
        assert lost.max() <= count * tol * np.mean(np.asarray(v) ** 2, axis=1).max() * (1 + 1e-6)


def test_segments_change_nothing(solution, monkeypatch):
    """Rows in many segments, blocks across their borders, and growth."""
    monkeypatch.setattr(rows, "ROWS", 5)
    monkeypatch.setattr(rows, "NUMBERS", 1)
    cut = solve(capacity=14)
    assert cut.stats["rank_backward"] == solution.stats["rank_backward"] and min(solution.stats["rank_backward"][0]) > 15
    assert cut.stats["capacity"] > 14
    np.testing.assert_allclose(cut.f, solution.f, atol=1e-9)
    np.testing.assert_allclose(cut.G[1].dense(), solution.G[1].dense(), atol=1e-8)


@pytest.mark.parametrize("rule", [GD(), FA(1)])
def test_transposes_are_adjoint(rule):
    """⟨g, W v⟩ = ⟨Wᵀ g, v⟩, whatever was asked first."""
    p = problem()
    bound, _ = dynamics(rule, NET)
    state, _ = start(p, bound, Innovations(200), Layout.of(p, bound), Room(40, 40), jnp.float64, 1e-12)
    state = supply(state, Innovations(200), Layout.of(p, bound), 0, 40)
    W, forward, transpose = state.matrices[1], jax.jit(LazyMatrix.forward), jax.jit(LazyMatrix.transpose)
    keys = jax.random.split(jax.random.key(0), 6)
    fields = [jax.random.normal(key, (3, 200)) for key in keys]
    pairs = []
    for v, g in zip(fields[::2], fields[1::2], strict=True):
        W, Wv = forward(W, v)
        W, down = transpose(W, g, g)
        pairs.append((v, Wv, g, down.true))
    for v, _, _, _ in pairs:
        for _, _, g, Wg in pairs:
            _, image = forward(W, v)
            np.testing.assert_allclose(bracket(g, image), bracket(Wg, v), atol=1e-10)


def test_wrong_shapes_are_noticed():
    with pytest.raises(TypeCheckError):
        FactoredKernel([np.ones((2, 3))], [np.ones((2, 3, 4))])
    with pytest.raises(TypeCheckError):
        FieldKernel([np.ones((2, 3, 4))], [np.ones((2, 3, 4))], np.ones((2, 3, 3)))


def test_columns_of_innovations_depend_on_their_number_alone():
    for kind in ("sobol", "moments", "plain"):
        draw = Innovations(100, seed=3, replica=1, kind=kind)
        whole = draw.rows(0, 150)
        np.testing.assert_array_equal(draw.rows(60, 133), whole[60:133])
        assert np.all(np.isfinite(whole))
        assert np.abs(whole.mean(axis=1)).max() < 0.5
        assert not np.array_equal(Innovations(100, seed=3, replica=2, kind=kind).rows(0, 2), whole[:2])
    sobol = Innovations(1024).rows(0, 256)
    correlation = sobol @ sobol.T / 1024
    assert np.abs(correlation - np.eye(256)).max() < 0.2


@pytest.mark.parametrize("rule", [GD(), GLN(), FA(0.5)], ids=lambda rule: rule.name)
def test_each_layers_sites_have_a_sequence_of_their_own(rule):
    """Every dimension drives one thing; none drives two, none of those that test points use drives training."""
    p = problem()
    layout, draw = Layout.of(p, dynamics(rule, MLP(depth=3, activation="tanh"))[0]), Innovations(64)
    vectors = [layout.draw_vectors(draw, l) for l in (1, 2, 3)]
    np.testing.assert_array_equal(vectors[2]["readout"], replace(draw, population=3).rows(0, 1))
    directions = layout.draw_directions(draw, 0, 40)
    rows = [row for each in (*vectors, *directions) for block in each.values() for row in block]
    rows += [row for l in (1, 2, 3) for row in layout.draw_test(draw, l)]
    assert len({row.tobytes() for row in rows}) == len(rows) == sum(sum(layout.vectors(l).values()) + 2 for l in (1, 2, 3)) + 40 * sum(
        2 + own for own in layout.independent
    )
    for whole, first, rest in zip(directions, layout.draw_directions(draw, 0, 13), layout.draw_directions(draw, 13, 40), strict=True):
        for name, block in whole.items():
            np.testing.assert_array_equal(block, np.concatenate([first[name], rest[name]]))


def test_a_solution_survives_the_disk(solution, tmp_path):
    path = tmp_path / "solution.npz"
    solution.save(path)
    back = Solution.load(path)
    assert repr(back) == repr(solution)
    np.testing.assert_array_equal(back.G_tilde[2].dense(), solution.G_tilde[2].dense())
    np.testing.assert_array_equal(back.loss_se, solution.loss_se)
    np.testing.assert_array_equal(back.problem.X, solution.problem.X)
    assert back.parameters == solution.parameters
    assert [entry.name for entry in tmp_path.iterdir()] == ["solution.npz"]


@pytest.mark.parametrize(("rule", "own"), [(GD(), False), (DFA(), True)], ids=["GD", "DFA"])
def test_what_is_equal_is_written_once(rule, own, tmp_path):
    """Of gradient descent G̃ is G, a product of two equal factors; with feedback of its own g̃ is another."""
    solution = solve(rule=rule)
    solution.save(tmp_path / "found")
    with zipfile.ZipFile(tmp_path / "found") as file:
        factors = [name for name in file.namelist() if name.startswith("kernel/G") and name.endswith(("/2/left.npy", "/2/right.npy"))]
    assert factors == ["kernel/G/2/left.npy"] + ["kernel/G_tilde/2/right.npy"] * own
    back = Solution.load(tmp_path / "found")
    for kernel in ("Phi", "G", "G_tilde", "H"):
        for l in (1, 2):
            np.testing.assert_array_equal(getattr(back, kernel)[l].dense(), getattr(solution, kernel)[l].dense())


def test_damaged_and_foreign_files_are_named(solution, tmp_path):
    path = tmp_path / "solution.npz"
    solution.save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="truncated"):
        Solution.load(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match="not a solution saved by lazyrich"):
        Solution.load(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        Solution.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        Solution.load(tmp_path)


def test_divergence_is_reported_with_a_learning_rate():
    with pytest.raises(SolveFailed, match=r"stability limit.*try eta=") as failure:
        solve(problem(steps=40, eta=60.0), GD())
    assert failure.value.status in ("diverged", "non-finite")
    partial = solve(problem(steps=40, eta=60.0), GD(), throw=False)
    assert partial.status == partial.stats["status"] == failure.value.status


def test_single_precision_is_close():
    wide, narrow = solve(rule=GD(), samples=1024), solve(rule=GD(), samples=1024, dtype="float32")
    assert narrow.settings["dtype"] == "float32"
    np.testing.assert_allclose(narrow.f, wide.f, atol=5e-3)


def test_order_parameters_are_double_in_single_precision():
    narrow = solve(samples=256, dtype="float32")
    for kernels in (narrow.Phi, narrow.G_tilde, narrow.H):
        assert all(kernel.dense().dtype == kernel.equal_time().dtype == np.float64 for kernel in kernels)
    assert narrow.f.dtype == narrow.loss.dtype == narrow.entk.dtype == np.float64


@pytest.mark.skipif(not jax.config.jax_enable_x64, reason="there is no double precision")
def test_averages_are_summed_in_double_precision():
    ones = np.full((1, 2**22 + 1), 0.1, np.float32)
    exact = float(np.float32(0.1)) ** 2
    left = FieldKernel([ones[None]], [ones[None]], np.ones((1, 1, 1, 1)))
    assert abs(left.dense().item() - exact) < 1e-14


@pytest.mark.parametrize("rule", [pytest.param(GD(), marks=pytest.mark.slow), FA(0.5)])
def test_kernels_do_not_depend_on_how_they_are_kept(rule, monkeypatch):
    fields, equal = solve(rule=rule), solve(rule=rule, two_time=False)
    monkeypatch.setattr(dmft, "FIELDS_LIMIT", 0)
    spans = solve(rule=rule)
    for name, l in (("Phi", 2), ("G", 1), ("G_tilde", 1), ("H", 1)):
        kept, other, short = (getattr(solution, name)[l] for solution in (fields, spans, equal))
        assert isinstance(kept, FieldKernel) and not isinstance(other, FieldKernel)
        # bases drop a share of 1e-7 of the energy, hence at most its root of an amplitude
        np.testing.assert_allclose(kept.dense(), other.dense(), atol=1e-3 * np.abs(kept.dense()).max())
        np.testing.assert_allclose(kept.block_se(5, 2), other.block_se(5, 2), atol=1e-3 * np.abs(kept.dense()).max())
        np.testing.assert_allclose(kept.block(5, 2), kept.dense()[5, :, 2], atol=1e-12)
        np.testing.assert_allclose(kept.block(3, 3), kept.dense()[3, :, 3], atol=1e-12)
        np.testing.assert_array_equal(short.block(3, 3), kept.block(3, 3))
        with pytest.raises(ValueError, match="two_time=True"):
            short.block(5, 2)
    np.testing.assert_allclose(spans.f, fields.f, atol=1e-10)


@pytest.mark.parametrize(("rule", "net"), [(FA(0.5), NET), (GD(), MLP(depth=1, activation="relu"))])
def test_kernels_at_chosen_times(rule, net, tmp_path):
    options = {"samples": 128, "replicas": 2}
    whole, chosen = (solve_dmft(problem(), rule, net, kernels_at=times, **options) for times in (None, (0, 5, -1)))
    np.testing.assert_array_equal(chosen.f, whole.f)
    chosen.save(tmp_path / "chosen.npz")
    for solution in (chosen, Solution.load(tmp_path / "chosen.npz")):
        for name, l in (("Phi", net.depth), ("G", 1), ("G_tilde", 1), ("H", 1)):
            some, every = getattr(solution, name)[l], getattr(whole, name)[l]
            for t in (0, 5, 7, -1):
                np.testing.assert_allclose(some.block(t, t), every.block(t, t), atol=1e-12)
                np.testing.assert_allclose(some.block_se(t, t), every.block_se(t, t), atol=1e-12)
            with pytest.raises(ValueError, match="averaged at times 0, 5, 7, not at 3: give kernels_at= with 3"):
                some.block(3, 3)
            with pytest.raises(ValueError, match="without kernels_at"):
                some.block(0, 5)
        known = np.isin(np.arange(8), (0, 5, 7))
        np.testing.assert_allclose(solution.entk[known], whole.entk[known], atol=1e-12)
        assert np.all(np.isnan(solution.entk[~known])) and np.all(np.isnan(solution.cka[-1, ~known]))
        assert len(solution.plot().axes) == 7 and "–" in repr(solution)
    if net.depth > 1:  # whose first features have a basis
        np.testing.assert_array_equal(chosen.Phi[1].dense(), whole.Phi[1].dense())


def test_kernels_at_chosen_times_survive_an_interruption(monkeypatch, tmp_path):
    run = lambda **options: solve_dmft(problem(), FA(0.5), MLP(1, "relu"), samples=64, replicas=1, kernels_at=(0, 3, -1), **options)
    whole, write = run(), Keeper.write_state

    def killed(keeper, *state):
        write(keeper, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "run", every=5)
    monkeypatch.setattr(Keeper, "write_state", write)
    resumed = run(checkpoint=tmp_path / "run", every=5)
    np.testing.assert_array_equal(resumed.f, whole.f)
    np.testing.assert_array_equal(resumed.G_tilde[1].equal_time(), whole.G_tilde[1].equal_time())


def test_kernels_at_times_that_are_not_there():
    with pytest.raises(ValueError, match="kernels_at has 8, which is no recorded time: give integers from 0 to 7"):
        solve(kernels_at=(8,))
    nowhere = solve(kernels_at=())
    assert np.all(np.isfinite(nowhere.f)) and np.all(np.isnan(nowhere.entk)) and nowhere.plot() is not None


def test_samples_are_doubled_until_the_error_is_met():
    rough = solve(replicas=4)
    wanted = 0.5 * dmft.loss_error(rough)
    fine = solve(replicas=4, tol=wanted)
    assert dmft.loss_error(fine) <= wanted and fine.stats["status"] == "converged"
    S = fine.settings["samples"]
    assert S > 128 and S % 128 == 0 and fine.settings["tol"] == wanted
    np.testing.assert_array_equal(fine.f, solve(replicas=4, samples=S).f)
    short = solve(replicas=4, tol=1e-9, max_samples=300)
    assert short.stats["status"] == "sample limit reached" and short.settings["samples"] == 256


def test_errors_of_a_loss_without_sign_are_relative_to_its_size(solution):
    """A loss that starts at zero, or below, is no unit: before, any tolerance was met."""
    loss, se = np.array([0.0, -2.0, 1.0]), np.array([0.0, 0.2, 0.1])
    assert dmft.loss_error(replace(solution, loss=loss, loss_se=se)) == pytest.approx(0.1)
    assert dmft.loss_error(replace(solution, loss=loss + 1, loss_se=se)) == pytest.approx(0.2)
    assert dmft.loss_error(replace(solution, loss=0 * loss, loss_se=0 * se)) == 0.0


def test_training_without_targets_does_not_diverge():
    """The loss starts at zero, and what decay makes of the start of a network is tiny, but infinitely more."""
    p, net = replace(problem(40, weight_decay=1e-3), y=np.zeros(3)), MLP(1, "tanh")
    train = lambda eta: train_finite(replace(p, eta=eta), GD(), net, width=64, seeds=2, throw=False)
    found = train(0.3)
    assert found.status == "ok" and 0 < found.loss[-1] < 1
    assert train(200.0).status in ("diverged", "non-finite")


def test_numbers_of_numpy_can_be_saved(solution, tmp_path):
    capacity = solution.stats["capacity"]
    types = {"seed": np.int64(3), "capacity": np.int64(capacity), "responses": np.True_, "adjoint": np.True_, "two_time": np.True_}
    for name, options in (("a", types), ("b", {"seed": 3, "capacity": capacity})):
        solve(**options, checkpoint=tmp_path / "run").save(tmp_path / name)
    assert repr(Solution.load(tmp_path / "a")) == repr(Solution.load(tmp_path / "b"))
    sim = train_finite(problem(2), FA(0.5), NET, width=8, seeds=1, seed=np.uint8(3), two_time=np.True_, checkpoint=tmp_path / "finite")
    sim.save(tmp_path / "c")
    assert Solution.load(tmp_path / "c").settings["seed"] == 3


def test_diagnostics_are_there(solution):
    stats = solution.stats
    assert stats["status"] == "converged" and solution.status == "ok"
    assert 0 < stats["gram_error"] < 1e-10 and 0 <= stats["dropped_energy"] <= 1e-7
    assert all(0 < rank <= stats["capacity"] for ranks in (*stats["rank_forward"], *stats["rank_backward"]) for rank in ranks)
    assert set(stats["seconds"]) == {"sampling", "compile", "run"} and all(s >= 0 for s in stats["seconds"].values())
    assert solve(samples=16).stats["status"] == "rank capacity reached"


def test_symbolic_parameters_need_values():
    with pytest.raises(ValueError, match=r"rho is symbolic.*FA\(0.3\)"):
        solve(rule=FA(rho))
    given_ = solve(rule=FA(rho), parameters={"rho": 0.5})
    np.testing.assert_allclose(given_.f, solve(rule=FA(0.5)).f, atol=1e-9)
    with pytest.raises(ValueError, match="does not contain"):
        solve(rule=DFA(), parameters={"rho": 0.5})


def test_figures_can_be_drawn(solution, tmp_path):
    from numerics import plot_compare

    solution.plot().savefig(tmp_path / "a.png")
    plot_compare(solution, train_finite(problem(), FA(0.5), NET, width=32, seeds=2)).savefig(tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_several_outputs_are_compared():
    from numerics import plot_compare

    p = replace(problem(), y=np.stack([problem().y, -problem().y], axis=1))
    figure = plot_compare(solve(p, FA(0.5)), train_finite(p, FA(0.5), NET, width=16, seeds=2))
    points = figure.axes[1].containers[0].lines[0].get_xydata()
    assert points.shape == (2 * p.P, 2)


def test_the_figure_of_one_time_shows_points_and_one_kernel():
    from numerics import plot_compare

    figure = solve_lazy(problem(steps=1), GD(), MLP(1)).plot()
    titles = [ax.get_title() for ax in figure.axes]
    assert "Φ¹ before" in titles and not any("after" in title for title in titles)
    curves = [line for ax in figure.axes[:4] for line in ax.lines if len(line.get_xdata()) == 1]
    assert len(curves) == 6 and all(line.get_marker() == "o" for line in curves)
    both = plot_compare(solve(problem(steps=1)), train_finite(problem(steps=1), FA(0.5), NET, width=8, seeds=2)).axes[0]
    assert both.lines[0].get_marker() == "o" and np.ptp(both.get_xlim()) > 0.01


@pytest.mark.parametrize("loss, dotted", [("squared", 3), ("logistic", 0)])
def test_targets_are_drawn_where_outputs_go_to_them(loss, dotted):
    panel = solve_lazy(Problem(np.eye(3), np.ones(3), steps=2, loss=loss), GD(), MLP(1)).plot().axes[3]
    assert sum(line.get_linestyle() == ":" for line in panel.lines) == dotted
    assert panel.get_title() == ("outputs (dotted: targets)" if dotted else "outputs")


@pytest.mark.filterwarnings("error")
def test_losses_that_are_zero_are_drawn_without_warnings(tmp_path):
    from numerics import plot_compare

    solution = solve_lazy(Problem(np.eye(3), np.zeros(3), steps=3), GD(), MLP(1))
    for number, figure in enumerate((solution.plot(), plot_compare(solution, solution))):
        figure.savefig(tmp_path / f"{number}.png")
        assert figure.axes[0].get_yscale() == "linear"
