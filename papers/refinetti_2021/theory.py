"""Studies of what is derived beside the trajectories: learnability of ReLU teachers, corrupted labels, gradient alignment of deep linear networks."""

from __future__ import annotations

from math import comb

import numpy as np

from derive import DFA, deep_linear, gradient_alignment_bound, label_noise, teacher_student
from derive.deep_linear import C, kappa_M, p
from numerics import solve_deep_linear, solve_online, train_deep_linear
from papers.harness import Measured

from .starts import converged, starts

Arrays = dict[str, np.ndarray]
SIZES = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (4, 3))
SHARES, STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0), np.array([3.0, 1.5, 0.7, 0.3])
STEPS = (20, 50, 100, 300, 1500)


# ---- studies ----------------------------------------------------------------------------------------------------------


def learnable(full: bool) -> Arrays:
    """ReLU students of many sizes in the limit of a small learning rate; time is η × steps/D."""
    seeds, ts = 400 if full else 48, teacher_student(DFA(), "relu", small_rate=True)
    found: Arrays = {}
    for K, M in SIZES:
        feedback = np.random.default_rng([13, K, M]).normal(size=(seeds, K))
        out = solve_online(
            ts, A=np.ones(M), F=feedback, eta=1.0, t=np.array([0.0, 2000.0 if full else 500.0]), rtol=1e-4, atol=1e-7, max_steps=100_000,
            smoothing=1e-4, **starts(seeds, K, M, 0.1),
        )  # fmt: skip
        found |= {f"F_{K}_{M}": feedback, f"eg_{K}_{M}": out.eg}
    return found


def corruption(full: bool) -> Arrays:
    """Four Gaussian classes of different strength, labels replaced by noise: alignment of layer 2 at the start, and a whole run."""
    classes, D, P, draws = len(STRENGTHS), 200, 1000, 40 if full else 10
    diagonal, other = label_noise()
    measured, predicted, without = (np.zeros((len(SHARES), draws)) for _ in range(3))
    for (place, share), seed in ((each, seed) for each in enumerate(SHARES) for seed in range(draws)):
        rng = np.random.default_rng([seed, 7])
        X, labels = _clouds(rng, D, P)
        S, length = np.eye(classes)[labels].T @ X / P, np.mean(np.sum(X**2, 1))
        covariance = (float(value.subs({p: share, C: classes})) for value in (diagonal, other))
        on, off = covariance
        mean = (1 - share) ** 2 * S @ S.T + length / P * ((on - off) * np.eye(classes) + off)
        feedback = [np.linalg.qr(rng.normal(size=(30, classes)))[0] for _ in range(2)]
        Y = np.eye(classes)[_replaced(labels, share, classes, rng)]
        out = solve_deep_linear(deep_linear(3), X, Y - Y.mean(0), feedback, 1e-5, np.tile(np.arange(P), (3, 1)))
        measured[place, seed], predicted[place, seed], without[place, seed] = out.alignment[0, -1], _isotropy(mean), _isotropy(S @ S.T)
    found = {"shares": np.array(SHARES), "measured": measured, "predicted": predicted, "without": without}
    return found | _memorising(full)


def _clouds(rng: np.random.Generator, D: int, P: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes around orthogonal centres, inputs centred."""
    centres = np.linalg.qr(rng.normal(size=(D, len(STRENGTHS))))[0].T * STRENGTHS[:, None]
    labels = rng.integers(0, len(STRENGTHS), P)
    X = centres[labels] + rng.normal(size=(P, D))
    return X - X.mean(0), labels


def _replaced(labels: np.ndarray, share: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(labels)) < share, rng.integers(0, classes, len(labels)), labels)


def _isotropy(P: np.ndarray) -> float:
    """tr P/(√n ‖P‖)."""
    return float(np.trace(P) / np.sqrt(len(P)) / np.linalg.norm(P))


def _memorising(full: bool) -> Arrays:
    """Fewer examples than inputs: labels are memorised in the end. Alignment of the trained network and of the reduced dynamics."""
    rng = np.random.default_rng(3)
    X, labels = _clouds(rng, 60, 50)
    feedback = [np.linalg.qr(rng.normal(size=(30, len(STRENGTHS))))[0] for _ in range(3)]
    whole = np.tile(np.arange(len(X)), (20_000 if full else 6_000, 1))
    found: Arrays = {}
    for share in (0.0, 0.5):
        Y = np.eye(len(STRENGTHS))[_replaced(labels, share, len(STRENGTHS), np.random.default_rng(4))]
        Y = Y - Y.mean(0)
        given = (deep_linear(4), X, Y, feedback, 0.03, whole)
        out, W = solve_deep_linear(*given), train_deep_linear(*given)
        sides = [*feedback, np.eye(len(STRENGTHS))]
        reached = [np.sum(w * (up @ down.T)) / np.linalg.norm(w) / np.linalg.norm(up @ down.T) for w, up, down in zip(W[1:], sides[1:], sides, strict=False)]
        found |= {f"late_loss_{share}": out.loss, f"late_alignment_{share}": out.alignment, f"late_trained_{share}": np.array(reached)}
    return found


def gradient(full: bool) -> Arrays:
    """Cosines of DFA's and BP's errors in trained deep linear networks, and what the alignment matrices say about them; feedback orthonormal, and not."""
    draws, layers = 12 if full else 4, 4
    shape = (draws, len(STEPS), layers - 1)
    names = ("mean", "least", "isotropic", "kappa", "asymmetry", "gap")
    found: Arrays = {"steps": np.array(STEPS)} | {f"{kind}_{name}": np.zeros(shape) for kind in ("orthonormal", "skewed") for name in names}
    for kind, stretch in (("orthonormal", np.ones(3)), ("skewed", np.array([1.0, 0.5, 0.2]))):
        for draw in range(draws):
            rng = np.random.default_rng([2, draw])
            X, Y = rng.normal(size=(60, 20)), rng.normal(size=(60, 3))
            F = [np.linalg.qr(rng.normal(size=(30, 3)))[0] * stretch for _ in range(layers - 1)]
            out = solve_deep_linear(deep_linear(layers), X, Y, F, 0.05, np.tile(np.arange(60), (max(STEPS), 1)))
            for place, steps in enumerate(STEPS):
                W = train_deep_linear(deep_linear(layers), X, Y, F, 0.05, np.tile(np.arange(60), (steps, 1)))
                e = delta = np.linalg.multi_dot([*W[::-1], X.T]) - Y.T
                for l in range(layers - 1, 0, -1):
                    delta, direct = W[l].T @ delta, F[l - 1] @ e
                    cosine = np.sum(delta * direct, 0) / np.linalg.norm(delta, axis=0) / np.linalg.norm(direct, axis=0)
                    # what carries errors is known without orthonormality; what its conditioning means is not
                    M = _without_gram(out.A, l, steps) if kind == "skewed" else out.carried(l, steps)
                    gap = np.max(np.abs(F[l - 1] @ out.carried(l, steps) @ e - delta)) / np.max(np.abs(delta))
                    values = (cosine.mean(), cosine.min(), _isotropy(M), np.linalg.cond(M), np.linalg.norm(M - M.T) / np.linalg.norm(M), gap)
                    for name, value in zip(names, values, strict=True):
                        found[f"{kind}_{name}"][draw, place, l - 1] = value
    bound = gradient_alignment_bound()
    return found | {"bound": np.vectorize(lambda value: float(bound.subs(kappa_M, value)))(found["orthonormal_kappa"])}


def _without_gram(A: tuple[np.ndarray, ...], l: int, t: int) -> np.ndarray:
    """A_{l+1}ᵀ ⋯ A_Lᵀ."""
    return np.linalg.multi_dot([np.eye(A[-1].shape[-1]), *(A[upper][t].T for upper in range(l, len(A)))])


# ---- measures ---------------------------------------------------------------------------------------------------------


def probability(K: int, M: int) -> float:
    """P_learn: at least M positive entries among K fair signs."""
    return sum(comb(K, k) for k in range(K - M + 1)) / 2**K


def measure_learnable(d: Arrays) -> dict[str, Measured]:
    """The table against the binomial law."""
    scores, blocked, allowed, words = [], [], [], []
    for K, M in SIZES:
        done, positive, law = converged(d[f"eg_{K}_{M}"]), (d[f"F_{K}_{M}"] > 0).sum(1), probability(K, M)
        scores.append((done.mean() - law) / np.sqrt(law * (1 - law) / len(done)))
        blocked += list(done[positive < M])
        allowed += list(done[positive >= M])
        words.append(f"({K}, {M}) {done.mean():.2f}/{law:.2f}")
    share, runs = float(np.mean(allowed)), len(allowed)
    error = float(np.sqrt(max(share * (1 - share), 0.25 / runs) / runs))
    return {
        "relu-table": Measured(float(np.max(np.abs(scores))), note="measured/predicted at (K, M): " + ", ".join(words)),
        "relu-table-blocked": Measured(float(np.mean(blocked)), note=f"{int(np.sum(blocked))} of {len(blocked)} runs"),
        "relu-table-allowed": Measured(share, error, f"{int(np.sum(allowed))} of {runs} runs"),
    }


def measure_corruption(d: Arrays) -> dict[str, Measured]:
    """Predicted against measured alignment."""
    mean, predicted, without = (d[name].mean(1) for name in ("measured", "predicted", "without"))
    worst = int(np.argmax(np.abs(mean - predicted)))
    error = float((d["measured"] - d["predicted"])[worst].std(ddof=1) / np.sqrt(d["measured"].shape[1]))
    reduced = {share: d[f"late_alignment_{share}"][:, -1] for share in (0.0, 0.5)}
    gap = max(float(np.max(np.abs(d[f"late_trained_{share}"] - reduced[share]))) for share in (0.0, 0.5))
    losses = ", ".join(f"{d[f'late_loss_{share}'][-1] / d[f'late_loss_{share}'][0]:.1e}" for share in (0.0, 0.5))
    words = lambda values: ", ".join(f"{value:.3f}" for value in values)
    late = d["late_alignment_0.5"]
    fall, finals = float(np.max(late.max(1) - late[:, -1])), f"final, layers 2, 3, 4: {words(late[:, -1])}; without noise {words(reduced[0.0])}"
    return {
        "corrupted": Measured(float(np.max(np.abs(mean - predicted))), error, f"p = {SHARES[worst]:g}; measured {words(mean)} for p = 0 … 1"),
        "corrupted-signal": Measured(float(np.max(np.abs(mean - without)))),
        "corrupted-late": Measured(gap, note=f"loss over its start: {losses} for p = 0, 1/2"),
        "corrupted-fall": Measured(fall, note=finals),
    }


def measure_gradient(d: Arrays) -> dict[str, Measured]:
    """Gradient alignment and conditioning."""
    distance = lambda kind: np.abs(d[f"{kind}_mean"] - d[f"{kind}_isotropic"]).mean(0).max()
    first = (d["orthonormal_least"] - d["bound"])[:, 0]
    later = (d["orthonormal_least"] - d["bound"])[:, 1:]
    mean = d["orthonormal_mean"].mean(0)
    return {
        "gradient-exact": Measured(float(max(d["orthonormal_gap"].max(), d["skewed_gap"].max()))),
        "gradient-worst": Measured(float(first.min()), note=f"later, where the matrices are not symmetric, {later.min():.3f}"),
        "gradient-mean": Measured(float(distance("orthonormal")), note="means of layer 1: " + ", ".join(f"{value:.2f}" for value in mean[:, 0])),
        "gradient-skewed": Measured(float(distance("skewed"))),
    }
