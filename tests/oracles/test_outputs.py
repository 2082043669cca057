"""Several outputs: the step against a training loop written out, the lazy limit, and what one output gives."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from derive import FA, GD, MLP, Hebb, conservation_laws, weight_mirror
from numerics import Problem, Solution, solve_dmft, solve_lazy, solve_linear, track_laws, train_finite
from numerics.dynamics import dynamics
from numerics.finite import draw

CLASSES = np.eye(3)[[0, 2, 0]]


def problem(y=CLASSES, loss="cross-entropy", **settings) -> Problem:
    random = np.random.default_rng(5)
    X, X_test = random.normal(size=(3, 6)), random.normal(size=(2, 6))
    return Problem(X, y, eta=0.5, X_test=X_test, loss=loss, **{"gamma0": 1.5, "steps": 6} | settings)


def written_out(p: Problem, weights: dict) -> np.ndarray:
    """f(t) of FA(0.6) on a tanh network with two hidden layers, by loops over examples and outputs."""
    N, D = weights["input"].shape
    W0, W1, w = (np.array(weights[name]) for name in ("input", "hidden", "readout"))
    back, top = 0.6 * W1 + 0.8 * weights["feedback"], 0.6 * w + 0.8 * weights["readout_feedback"]
    record, first = [], None
    for _ in range(p.steps):
        h1 = [W0 @ x / np.sqrt(D) for x in p.X]
        h2 = [W1 @ np.tanh(h) / np.sqrt(N) for h in h1]
        raw = np.array([w @ np.tanh(h) / (p.gamma0 * N) for h in h2])
        first = raw if first is None else first
        record.append(raw - first)
        dW0, dW1, dw = np.zeros_like(W0), np.zeros_like(W1), np.zeros_like(w)
        for mu, f in enumerate(record[-1]):
            error = p.y[mu] - np.exp(f) / np.exp(f).sum()
            for c in range(p.outputs):
                g2 = (1 - np.tanh(h2[mu]) ** 2) * top[c]
                g1 = (1 - np.tanh(h1[mu]) ** 2) * (back.T @ g2) / np.sqrt(N)
                dW0 += error[c] * np.outer(g1, p.X[mu]) / np.sqrt(D)
                dW1 += error[c] * np.outer(g2, np.tanh(h1[mu])) / np.sqrt(N)
                dw[c] += error[c] * np.tanh(h2[mu])
        rate = p.eta * p.gamma0 / p.P
        W0, W1, w = W0 + rate * dW0, W1 + rate * dW1, w + rate * dw
    return np.array(record)


def test_the_step_is_that_of_a_loop_written_out():
    p, width, net = problem(), 12, MLP(2, "tanh")
    drawn = draw(jax.random.split(jax.random.key(4), 1), p.D, dynamics(FA(0.6), net)[0], width, np.dtype(float), p.outputs)
    weights = {name: np.asarray(arrays[0][0]) for name, arrays in drawn.items() if arrays and arrays[0] is not None}
    ours = train_finite(p, FA(0.6), net, width=width, seeds=1, seed=4)
    np.testing.assert_allclose(ours.f, written_out(p, weights), rtol=1e-11, atol=1e-13)
    assert np.max(np.abs(ours.f - written_out(replace(p, y=CLASSES[:, ::-1]), weights))) > 0.1


def test_lazy_limit_is_the_rich_solution_at_small_gamma0():
    p, net = problem(gamma0=0.02, momentum=0.5, batches=[[0, 1], [2]]), MLP(2, "erf")
    lazy, rich = solve_lazy(p, GD(), net), solve_dmft(p, GD(), net, samples=1024, replicas=4)
    # O(γ0²), and the sampling error of the kernels
    assert np.max(np.abs(lazy.f - rich.f)) < 0.03
    # the sampling error of a test output is divided by γ0; the largest of 30 t-distributed numbers with 3 degrees of freedom
    assert np.max(np.abs(lazy.f_test - rich.f_test)[1:] / rich.f_test_se[1:]) < 12
    for name in ("G", "G_tilde", "H"):
        assert np.max(np.abs(getattr(lazy, name)[1].block(0, 0) - getattr(rich, name)[1].block(0, 0))) < 0.05, name
    np.testing.assert_allclose(lazy.entk[0], rich.entk[0], atol=0.1)
    errorful = solve_lazy(p, Hebb(), net), solve_dmft(p, Hebb(), net, samples=1024, replicas=4)
    assert np.max(np.abs(errorful[0].H[1].block(2, 2) - errorful[1].H[1].block(2, 2))) < 0.03


def test_shapes_files_and_repr(tmp_path):
    p = problem(y_test=CLASSES[:2], weight_decay=0.1)
    solution = solve_dmft(p, FA(0.5), MLP(2, "tanh", sigma_b=0.5), samples=64, replicas=2)
    assert solution.f.shape == (6, 3, 3) and solution.f_test.shape == (6, 2, 3) and solution.test_loss.shape == (6,)
    assert solution.entk.shape == (6, 9, 9) and solution.Phi[1].shape == (6, 3, 6, 3) and solution.G_tilde[2].shape == (6, 9, 6, 9)
    np.testing.assert_array_equal(solution.G[3].block(0, 0), np.kron(np.ones((3, 3)), np.eye(3)))
    solution.save(tmp_path / "many.npz")
    np.testing.assert_array_equal(Solution.load(tmp_path / "many.npz").f, solution.f)
    assert "P=3" in repr(solution) and solution.plot() is not None


def test_spans_and_fields_keep_the_same_kernels():
    """Long runs keep kernels by coefficients on bases: force that road, and compare with the fields'."""
    from numerics import dmft

    p, options = problem(), {"samples": 64, "replicas": 1}
    fields = solve_dmft(p, FA(0.5), MLP(2, "tanh"), **options)
    limit, dmft.FIELDS_LIMIT = dmft.FIELDS_LIMIT, 1
    try:
        spans = solve_dmft(p, FA(0.5), MLP(2, "tanh"), **options)
    finally:
        dmft.FIELDS_LIMIT = limit
    for name, layer in (("Phi", 2), ("G", 1), ("G_tilde", 1), ("H", 1)):
        # what the bases drop: 1e-7 of the energy
        np.testing.assert_allclose(getattr(spans, name)[layer].block(1, 4), getattr(fields, name)[layer].block(1, 4), atol=1e-3)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="normalises over outputs, but y has one"):
        problem(y=np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="both need the same number of outputs"):
        problem(y_test=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"for one output give y\.ravel"):
        problem(y=np.ones((3, 1)))
    with pytest.raises(ValueError, match="y has 3 outputs: the exact equations"):
        solve_linear(problem(), GD(), MLP(1, "linear"))
    with pytest.raises(ValueError, match="track_laws follows networks with one"):
        track_laws(conservation_laws(GD(), MLP(1, "linear")), problem())
    with pytest.raises(ValueError, match="no output index"):
        solve_dmft(problem(), weight_mirror(0.1, 0.1), MLP(2, "tanh"))
