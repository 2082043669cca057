"""Tests on samples of fields: equal distributions, and Gaussianity as such and given the gates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import ks_2samp, normaltest

from .statistics import Data

FIELDS = ("h1", "h2", "z1", "z2")
FEWEST = 200  # neurons of a gate pattern, below which its variance is too uncertain to divide by


def kolmogorov(data: Data, name: str, letter: str, theory: str, network: str) -> float:
    """√(nm/(n+m)) sup |F_theory − F_network| of a field on the first example, at two times; above 1.95 with probability 0.001.

    Of every network only each fourth neuron enters: what its neurons have in common, O(1/√N) fluctuations of order parameters, then is
    small beside their scatter.
    """
    a = data[f"{name}.dmft.{theory}.{letter}"][:, 0].ravel()
    b = data[f"{name}.network.{network}.{letter}"][:, 0, ::4].ravel()
    return float(ks_2samp(a, b).statistic * np.sqrt(len(a) * len(b) / (len(a) + len(b))))


def excess(values: Float[np.ndarray, "R P N"]) -> tuple[float, float]:
    """Excess kurtosis of each replica, averaged over examples and replicas, with its standard error, √(24/n) of a Gaussian at least."""
    v = values.astype(float)
    v = v - v.mean(axis=(0, 2), keepdims=True)
    each = np.mean(v**4, axis=2) / np.mean(v**2, axis=2) ** 2 - 3.0
    per_replica = each.mean(axis=1)
    sampling = np.sqrt(24.0 / (v.shape[0] * v.shape[2]))
    return float(per_replica.mean()), float(max(per_replica.std(ddof=1) / np.sqrt(len(per_replica)), sampling))


def given_gates(data: Data, name: str, solver: str, letter: str) -> tuple[float, float]:
    """Excess kurtosis of a field within groups of neurons with the same gates on all examples, averaged over groups.

    In a network without gates its units' activity takes their place: neurons that are on for the same examples.
    """
    values, keys = standardised(data, name, solver, letter)
    fourth = np.mean(values**4, axis=1) - 3.0
    return float(fourth.mean()), float(np.sqrt(24.0 / keys))


def normality(data: Data, name: str, solver: str, letter: str) -> Float[np.ndarray, "P"]:
    """p values of D'Agostino and Pearson's test of skewness and kurtosis on what `given_gates` looks at, for each example."""
    return np.array([normaltest(each).pvalue for each in standardised(data, name, solver, letter)[0]])


def standardised(data: Data, name: str, solver: str, letter: str) -> tuple[Float[np.ndarray, "P n"], int]:
    """A field at the end with each group's mean taken off and its standard deviation divided out, and the number of neurons."""
    prefix = f"{name}.{solver}.end"
    gates = data.get(f"{prefix}.m{letter[1]}", data[f"{prefix}.h{letter[1]}"])
    P = gates.shape[1]
    flat = lambda array: np.moveaxis(array, 1, 0).reshape(P, -1).astype(float)
    values, pattern = flat(data[f"{prefix}.{letter}"]), 2 ** np.arange(P) @ (flat(gates) > 0)
    groups = [values[:, pattern == key] for key in np.unique(pattern)]
    kept = [group for group in groups if group.shape[1] >= FEWEST]
    scaled = [(group - group.mean(axis=1, keepdims=True)) / group.std(axis=1, keepdims=True) for group in kept]
    joined = np.concatenate(scaled, axis=1)
    return joined, joined.shape[1]
