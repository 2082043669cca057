"""Weak weight alignment of deep linear networks: proved form, reduced dynamics, frozen weights, first instants."""

from pathlib import Path

import numpy as np
import pytest

from derive import deep_linear
from derive.deep_linear import C, P, alignment_of_targets, alpha, beta, gradient_alignment_bound, kappa_M, label_noise, p, tau
from derive.errors import BadInput
from numerics import solve_deep_linear, train_deep_linear

DATA = np.load(Path(__file__).parent / "data" / "deep_linear.npz")


def test_frozen_weights_have_the_form_and_the_reduced_dynamics_finds_them():
    F = [DATA[f"F{l}"] for l in (1, 2, 3)]
    out = solve_deep_linear(deep_linear(4), DATA["X"], DATA["Y"], F, float(DATA["eta"]), DATA["order"])
    for l, W in enumerate(out.weights(), 1):
        # 2500 steps of rounding
        assert np.max(np.abs(W - DATA[f"W{l}"])) < 1e-12 * max(1, np.max(np.abs(W)))
        assert np.max(np.abs(out.A[l - 1][-1] - DATA[f"A{l}"])) < 1e-11


def problem(seed: int = 0, P_: int = 30, D: int = 12, C: int = 3, widths: tuple[int, ...] = (20, 15, 18)):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(P_, D)), rng.normal(size=(P_, C))
    F = [np.linalg.qr(rng.normal(size=(n, C)))[0] for n in widths]
    return X, Y, F


def test_the_network_keeps_the_form_to_rounding_in_batches_and_other_feedback_is_seen():
    X, Y, F = problem()
    batches = np.random.default_rng(1).integers(0, len(X), size=(300, 8))
    reduced = solve_deep_linear(deep_linear(4), X, Y, F, 0.01, batches).weights()
    full = train_deep_linear(deep_linear(4), X, Y, F, 0.01, batches)
    assert max(np.max(np.abs(a - b)) for a, b in zip(reduced, full, strict=True)) < 1e-13
    other = train_deep_linear(deep_linear(4), X, Y, [F[0][:, ::-1], *F[1:]], 0.01, batches)
    assert np.max(np.abs(reduced[1] - other[1])) > 1e-2 * np.max(np.abs(reduced[1]))


def test_backpropagated_errors_are_those_of_the_weights():
    """δ_l = F_l A_{l+1}ᵀ G_{l+1} ⋯ A_Lᵀ e, as derived, against products of the trained weights."""
    X, Y, F = problem(2)
    out = solve_deep_linear(deep_linear(4), X, Y, F, 0.05, np.tile(np.arange(len(X)), (200, 1)))
    W, A, G = out.weights(), [a[-1] for a in out.A], [f.T @ f for f in F]
    e = np.random.default_rng(3).normal(size=3)
    derived = F[0] @ A[1].T @ G[1] @ A[2].T @ G[2] @ A[3].T @ e
    assert str(deep_linear(4).backpropagated(1)) == "F_1*A_2.T*G_2*A_3.T*G_3*A_4.T*e"
    assert np.allclose(derived, W[1].T @ W[2].T @ W[3].T @ e, rtol=1e-12)


def test_first_instants():
    """A_l against the derived powers of P; the relative error falls with τ, and a wrong power does not fit."""
    X, Y, F = problem(4)
    S = Y.T @ X / len(X)
    matrix = S @ S.T
    eta, steps = 1e-3, 200
    out = solve_deep_linear(deep_linear(4), X, Y, F, eta, np.tile(np.arange(len(X)), (steps, 1)))
    early = deep_linear(4).early
    for l in (2, 3, 4):
        scale, power = early[l].as_coeff_Mul()[0], int(early[l].as_powers_dict()[P])
        law = float(scale) * (eta * steps) ** int(early[l].as_powers_dict()[tau]) * np.linalg.matrix_power(matrix, power)
        error = np.linalg.norm(out.A[l - 1][-1] - law) / np.linalg.norm(law)
        # e = −y up to η·steps, and sums for integrals up to 1/steps, both grow with the number of factors
        assert error < 0.06 * 2 ** (l - 1), (l, error)
        wrong = float(scale) * (eta * steps) ** int(early[l].as_powers_dict()[tau]) * np.linalg.matrix_power(matrix, power + 1)
        assert np.linalg.norm(out.A[l - 1][-1] - wrong) / np.linalg.norm(law) > 0.2
    assert deep_linear(4).conditioning(4).exp == 4


def test_targets_shape_the_alignment():
    """tr P/(√2 ‖P‖) for targets with covariance [[1, α(1−β)], [·, α²]], against a large sample."""
    formula = alignment_of_targets()
    assert formula.subs({alpha: 1, beta: 1}) == 1
    for a, b in ((0.2, 0.2), (0.6, 1.0), (1.0, 0.4)):
        covariance = np.array([[1, a * (1 - b)], [a * (1 - b), a**2]])
        expected = np.trace(covariance) / np.sqrt(2) / np.linalg.norm(covariance)
        assert float(formula.subs({alpha: a, beta: b})) == pytest.approx(expected, rel=1e-12)


def test_label_noise_is_that_of_labels_drawn():
    """100 000 labels a class; entries are known to 3e-3 at worst."""
    share, classes = 0.3, 4
    rng, total = np.random.default_rng(0), np.zeros((classes, classes))
    for c in range(classes):
        labels = np.where(rng.random(100_000) < share, rng.integers(0, classes, 100_000), c)
        total += np.cov(np.eye(classes)[labels].T, bias=True) / classes
    diagonal, other = (float(value.subs({p: share, C: classes})) for value in label_noise())
    expected = other + (diagonal - other) * np.eye(classes)
    np.testing.assert_allclose(total, expected, atol=3e-3)
    assert np.max(np.abs(total - (diagonal * np.eye(classes)))) > 0.02


def test_worst_gradient_alignment_is_attained_and_never_undercut():
    rng, bound = np.random.default_rng(1), lambda value: float(gradient_alignment_bound().subs(kappa_M, value))
    for kappa in (1.0, 3.0, 40.0):
        basis, values = np.linalg.qr(rng.normal(size=(4, 4)))[0], np.array([1.0, kappa, *rng.uniform(1, kappa, 2)])
        M = basis * values @ basis.T
        e = rng.normal(size=(4, 4000))
        cosine = np.sum(e * (M @ e), 0) / np.linalg.norm(e, axis=0) / np.linalg.norm(M @ e, axis=0)
        assert cosine.min() >= bound(kappa) - 1e-12
        worst = basis[:, 0] * np.sqrt(kappa) + basis[:, 1]  # shares κ/(1 + κ) and 1/(1 + κ)
        assert worst @ M @ worst / np.linalg.norm(worst) / np.linalg.norm(M @ worst) == pytest.approx(bound(kappa), rel=1e-12)


def test_backpropagated_errors_are_carried_by_the_alignment_matrices():
    X, Y, F = problem()
    F = [f * np.array([1.0, 0.6, 1.4]) for f in F]  # G ≠ 1
    batches = np.tile(np.arange(30), (60, 1))
    out, W = (run(deep_linear(4), X, Y, F, 0.05, batches) for run in (solve_deep_linear, train_deep_linear))
    e = W[3] @ W[2] @ W[1] @ W[0] @ X.T - Y.T
    delta = e
    for l in (3, 2, 1):
        delta = W[l].T @ delta
        np.testing.assert_allclose(F[l - 1] @ out.carried(l) @ e, delta, atol=1e-12 * np.max(np.abs(delta)))
    assert np.max(np.abs(F[0] @ out.carried(2) @ e - delta)) > 0.1 * np.max(np.abs(delta))


def test_bad_arguments():
    with pytest.raises(BadInput, match="at least 2"):
        deep_linear(1)
    X, Y, F = problem()
    with pytest.raises(ValueError, match="feedback of shapes"):
        solve_deep_linear(deep_linear(4), X, Y, F[:2], 0.1, np.arange(3))
    with pytest.raises(ValueError, match="indices"):
        solve_deep_linear(deep_linear(4), X, Y, F, 0.1, np.array([99]))
