"""Starts of online runs, and when a run counts as converged."""

from __future__ import annotations

from typing import Any

import numpy as np

LEARNED = 1e-3  # generalisation error, relative to the initial one, below which a run counts as converged


def start(seed: int, K: int, M: int, std: float, D: int = 1000) -> dict[str, Any]:
    """Overlaps of random vectors: students of the given standard deviation, teachers orthonormal."""
    rng = np.random.default_rng(seed)
    B = np.linalg.qr(rng.normal(size=(D, M)))[0].T * np.sqrt(D)
    w = std * rng.normal(size=(K, D))
    return {"Q": w @ w.T / D, "R": w @ B.T / D, "T": np.eye(M), "v": std * rng.normal(size=K)}


def starts(seeds: int, K: int, M: int, std: float) -> dict[str, Any]:
    """A batch of starts; the teachers' overlaps are shared."""
    drawn = [start(seed, K, M, std) for seed in range(seeds)]
    return {name: np.stack([one[name] for one in drawn]) for name in ("Q", "R", "v")} | {"T": np.eye(M)}


def converged(eg: np.ndarray) -> np.ndarray:
    """Which runs fit, from the errors at the start and at the end."""
    return eg[:, -1] < LEARNED * eg[:, 0]
