"""Losses, momentum, weight decay and mini-batches: the solvers' step against training loops written out, and the solvers against each other."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from derive import FA, GD, MLP, Abs, Loss, Piecewise, Rational, f, kolen_pollack, y
from derive.loss import LOSSES
from numerics import Problem, Solution, load_checkpoint, solve_dmft, solve_lazy, solve_linear, train_finite
from numerics.dynamics import dynamics
from numerics.finite import draw

ALL = {"loss": "logistic", "momentum": 0.6, "weight_decay": 0.3, "batches": [[0, 1], [2], [1, 2]]}
BIASED = MLP(depth=2, activation="tanh", sigma_w=1.2, sigma_b=0.4)


def problem(**training) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 6)), random.normal(size=(2, 6))
    return Problem(X, np.array([1.0, -1.0, 1.0]), gamma0=1.5, eta=0.4, steps=8, X_test=X_test, **training)


def written_out(p: Problem, weights: dict, slope_of_loss, forget: float | None = None, sw: float = 1.2, sb: float = 0.4) -> np.ndarray:
    """f(t) of FA(0.6) on a network with two hidden tanh layers: θ ← θ + v, v ← β v + u − ηλθ for each array, nothing of the toolkit.

    With `forget` the feedback weights learn from there: B ← (1 − forget) B + v, the whole step of the forward weights.
    """
    N, D = weights["input"].shape
    theta = {"W0": weights["input"], "W1": weights["hidden"], "w": weights["readout"][0], "b0": weights["biases"][0][0],
             "b1": weights["biases"][1][0], "b2": 0.0}  # fmt: skip
    back, top = 0.6 * theta["W1"] + 0.8 * weights["feedback"], 0.6 * theta["w"] + 0.8 * weights["readout_feedback"][0]
    v = {name: np.zeros_like(value) for name, value in theta.items()}
    record, first = [], None
    for t in range(p.steps):
        h1 = sw * p.X @ theta["W0"].T / np.sqrt(D) + sb * theta["b0"]
        h2 = sw * np.tanh(h1) @ theta["W1"].T / np.sqrt(N) + sb * theta["b1"]
        raw = sw * np.tanh(h2) @ theta["w"] / (p.gamma0 * N)
        first = raw if first is None else first
        record.append(raw - first + theta["b2"])
        batch = p.batches[t % len(p.batches)]
        error = np.array([-slope_of_loss(record[-1][k], p.y[k]) if k in batch else 0.0 for k in range(p.P)]) / len(batch)
        g2 = sw * (1 - np.tanh(h2) ** 2) * top
        g1 = sw * (1 - np.tanh(h1) ** 2) * (g2 @ back) / np.sqrt(N)
        rate = p.eta * p.gamma0
        u = {
            "W0": rate * sw * (g1 * error[:, None]).T @ p.X / np.sqrt(D), "W1": rate * sw * (g2 * error[:, None]).T @ np.tanh(h1) / np.sqrt(N),
            "w": rate * sw * error @ np.tanh(h2), "b0": rate * sb * error @ g1, "b1": rate * sb * error @ g2,
            "b2": p.eta * sb**2 * error.sum(),
        }  # fmt: skip
        v = {name: p.momentum * v[name] + u[name] - p.eta * p.weight_decay * theta[name] for name in theta}
        theta = {name: theta[name] + v[name] for name in theta}
        if forget is not None:
            back, top = (1 - forget) * back + v["W1"], (1 - forget) * top + v["w"]
    return np.array(record)


@pytest.mark.parametrize("rule, forget", [(FA(0.6), None), (kolen_pollack(0.1, rho=0.6), 0.1)], ids=lambda value: getattr(value, "name", ""))
def test_the_step_is_that_of_a_loop_written_out(rule, forget):
    p, width = problem(**ALL), 20
    bound, _ = dynamics(rule, BIASED)
    drawn = draw(jax.random.split(jax.random.key(3), 1), p.D, bound, width, np.dtype(float))
    weights = {name: np.asarray(arrays[0][0]) for name, arrays in drawn.items() if arrays and arrays[0] is not None and name != "biases"}
    weights["biases"] = [np.asarray(array[0]) for array in drawn["biases"]]
    logistic = lambda output, target: -target / (1 + np.exp(target * output))
    ours = train_finite(p, rule, BIASED, width=width, seeds=1, seed=3)
    np.testing.assert_allclose(ours.f, written_out(p, weights, logistic, forget), rtol=1e-11, atol=1e-13)
    squared = written_out(p, weights, lambda output, target: output - target, forget)
    other = written_out(p, weights, logistic, 0.1 if forget is None else None)
    assert min(np.max(np.abs(ours.f - wrong)) for wrong in (squared, other)) > 0.01


def test_copied_steps_bring_in_the_initial_weights_that_decay():
    """From B(0) = V the step's −ηλ W(0) comes into B as it does into V + 1e-9 W(0)ᵀ: the solution depends on ρ continuously."""
    p = replace(problem(momentum=0.6, weight_decay=0.3), steps=6, X_test=None)
    at_zero, near = (solve_dmft(p, kolen_pollack(0.1, rho=rho), MLP(2, "tanh"), samples=128, replicas=1) for rho in (0, Rational(1, 10**9)))
    np.testing.assert_allclose(at_zero.f, near.f, atol=1e-7)  # without that part they are 7e-3 apart


@pytest.mark.parametrize("rule", [pytest.param(GD(), marks=pytest.mark.slow), FA(0.6)], ids=lambda r: r.name)
def test_exact_linear_solution_agrees_with_sampling(rule):
    """Momentum, batches and a loss that is not quadratic, on linear units, where there is an exact answer."""
    p, net = problem(loss="logistic", momentum=0.6, batches=[[0, 1], [2]]), MLP(depth=2, activation="linear", sigma_b=0.3)
    p = replace(p, eta=0.2)  # squares would diverge at twice that
    exact, sampled = solve_linear(p, rule, net), solve_dmft(p, rule, net, samples=2048, replicas=6, method="sampling")
    # the largest of 24 t-distributed numbers with 5 degrees of freedom
    assert np.max(np.abs(exact.f - sampled.f)[1:] / sampled.f_se[1:]) < 6
    np.testing.assert_allclose(sampled.f_test, exact.f_test, atol=6 * np.max(sampled.f_test_se))
    for name in ("loss", "momentum", "batches"):
        plain = replace(p, **{name: {"loss": "squared", "momentum": 0.0, "batches": None}[name]})
        wrong = solve_linear(plain, rule, net)
        assert np.max(np.abs(wrong.f - sampled.f)[1:] / sampled.f_se[1:]) > 20, name


def test_lazy_limit_is_the_rich_solution_at_small_gamma0():
    p = replace(problem(loss="logistic", momentum=0.6, batches=[[0, 1], [2]]), gamma0=0.02)
    lazy, rich = solve_lazy(p, GD(), MLP(1, "erf")), solve_dmft(p, GD(), MLP(1, "erf"), samples=2048, replicas=4)
    # O(γ0²), and the sampling error of the kernels
    assert np.max(np.abs(lazy.f - rich.f)) < 0.01 and np.max(np.abs(lazy.f_test - rich.f_test)) < 0.02
    assert np.max(np.abs(solve_lazy(replace(p, momentum=0.0), GD(), MLP(1, "erf")).f - rich.f)) > 0.1


def test_spelled_out_defaults_are_the_defaults_to_the_bit():
    plain = solve_dmft(problem(), GD(), BIASED, samples=64, replicas=1)
    spelled = solve_dmft(problem(loss=LOSSES["squared"], momentum=0, batches=[[0, 1, 2]]), GD(), BIASED, samples=64, replicas=1)
    np.testing.assert_array_equal(plain.f, spelled.f)
    assert "loss" not in plain.problem.arrays()


def test_a_loss_of_ones_own_goes_through_all_solvers():
    cubic = Loss("cubic", (y - f) ** 2 / 2 + (y - f) ** 4 / 4)
    assert problem(loss=cubic).loss(np.zeros(3)) == pytest.approx(3 / 4)
    huber = Loss("Huber", Piecewise(((f - y) ** 2 / 2, Abs(f - y) < 0.5), (Abs(f - y) / 2 - Rational(1, 8), True)))
    assert problem(loss=huber).loss(np.array([0.0, -0.75, 1.0])) == pytest.approx((3 / 8 + 1 / 32) / 3)
    for p in (problem(loss=cubic), problem(loss=huber)):
        _goes_through_all_solvers(p)


def _goes_through_all_solvers(p: Problem) -> None:
    net = MLP(1, "erf")
    found = [solve_lazy(p, GD(), net), solve_dmft(p, GD(), net, samples=64, replicas=1), train_finite(p, GD(), net, width=64, seeds=1)]
    assert all(solution.loss[-1] < solution.loss[0] for solution in found)


@pytest.mark.parametrize("loss, error", [(Loss("correlation", -y * f), [1.0, -1.0, 1.0]), (Loss("outputs", f), -1.0)], ids=lambda e: getattr(e, "name", ""))
def test_a_loss_that_is_linear_in_the_output(loss, error):
    """Its error signal does not depend on f: the lazy limit is a straight line."""
    p = replace(problem(), loss=loss)
    lazy = solve_lazy(p, GD(), MLP(1, "erf"))
    np.testing.assert_allclose(lazy.f, np.arange(8)[:, None] * (p.eta / 3 * lazy.entk[0] @ np.broadcast_to(error, 3)), rtol=1e-12, atol=1e-14)
    assert lazy.loss[0] == 0 and lazy.loss[-1] < 0
    exact = solve_linear(replace(p, gamma0=1e-3), GD(), MLP(1, "linear"))
    np.testing.assert_allclose(exact.f, solve_lazy(p, GD(), MLP(1, "linear")).f, rtol=1e-4, atol=1e-9)


def test_files_remember_how_training_went(tmp_path):
    p = problem(**ALL)
    solution = solve_dmft(p, GD(), BIASED, samples=64, replicas=1, checkpoint=tmp_path / "run.ckpt", every=3)
    solution.save(tmp_path / "solution.npz")
    for again in (Solution.load(tmp_path / "solution.npz").problem, load_checkpoint(tmp_path / "run.ckpt").problem):
        assert (again.loss.objective, again.momentum, again.weight_decay, again.batches) == (p.objective, 0.6, 0.3, p.batches)
    with pytest.raises(ValueError, match=r"momentum is 0\.6 there and 0\.5 here"):
        solve_dmft(replace(p, momentum=0.5), GD(), BIASED, samples=64, replicas=1, checkpoint=tmp_path / "run.ckpt")


def test_growing_bases_keep_what_momentum_carries():
    """A small capacity forces them to grow; the result is the one without growth, up to rounding."""
    p, net = replace(problem(momentum=0.6, weight_decay=0.3), steps=6, X_test=None), MLP(2, "tanh")
    grown, roomy = (solve_dmft(p, GD(), net, samples=128, replicas=1, capacity=capacity) for capacity in (8, None))
    assert grown.stats["capacity"] > 8
    np.testing.assert_allclose(grown.f, roomy.f, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2])
def test_with_decay_too_errors_of_outputs_do_not_grow_at_small_gamma0(depth):
    """Linear units at γ0 → 0: f(t) = (η/P) Σ_s (L + 1) (k(t) k(s))^L k(t,s) K^x Δ(s), K^x alone being a kernel without training's scales."""
    p = replace(problem(weight_decay=0.3), gamma0=0.001)
    inputs, kept = np.concatenate([p.X, p.X_test]), (1 - p.eta * p.weight_decay) ** np.arange(p.steps)
    f = np.zeros((p.steps, 5))
    for t in range(1, p.steps):
        weights = (depth + 1) * (kept[t] * kept[:t]) ** depth * kept[t - 1 :: -1][:t]
        f[t] = p.eta / p.P * (inputs @ p.X.T / p.D) @ ((p.y - f[:t, :3]).T @ weights)
    rich = solve_dmft(p, GD(), MLP(depth, "linear"), samples=256, replicas=4)
    assert np.all(rich.f[0] == 0) and np.max(np.abs(f)) > 0.1
    # errors of the sampled kernels; those of the untrained outputs would be 1/(γ0 √S) = 60
    assert np.max(np.abs(rich.f - f[:, :3])) < 0.01 and np.max(np.abs(rich.f_test - f[:, 3:])) < 0.01
    assert np.max(rich.f_se) < 0.01 and np.max(rich.f_test_se) < 0.01


@pytest.mark.parametrize(
    "training, message",
    [
        ({"loss": "hinge"}, "loss='hinge' is not known"),
        ({"loss": "NAME = 'x'\n"}, "lacks COUPLED, loss, error"),
        ({"momentum": 1.0}, "momentum=1.0 is out of range"),
        ({"momentum": "fast"}, "momentum='fast' is not a number"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is out of range"),
        ({"weight_decay": 3.0}, "weights lose the share"),
        ({"batches": [[0], []]}, "an empty one"),
        ({"batches": [[0, 3]]}, "does not name examples 0…2"),
        ({"batches": [[1, 1]]}, "each at most once"),
        ({"batches": 3}, "not lists of example indices"),
        ({"batches": [[0.9], [1.5, 2.2]]}, "which are integers"),
        ({"batches": [[False, True]]}, "which are integers"),
    ],
)
def test_bad_training_is_refused(training, message):
    with pytest.raises(ValueError, match=message):
        problem(**training)


@pytest.mark.parametrize("solve, options", [(solve_lazy, {}), (solve_linear, {}), (solve_dmft, {"method": "exact"})])
def test_solvers_without_weight_decay_say_so(solve, options):
    with pytest.raises(ValueError, match=r"weight_decay=0\.1"):
        solve(problem(weight_decay=0.1), GD(), MLP(1, "linear"), **options)
