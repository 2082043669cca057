"""Conserved polynomials of small networks by brute force, modulo a prime: the judge of how many laws there are.

A polynomial Q of degree at most two in the entries of the weights is conserved if ∇Q·velocity vanishes at every point. Random points of
a prime field give linear equations for its coefficients; with more points than monomials the nullspace is, up to a probability of the
order of 1/prime, exactly the space of laws. Nothing of the symbolic search is used: the passes are written out over arrays, the units'
slopes are free numbers that obey the activation's one identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

PRIME = 2**31 - 1
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A network and a rule.

    Attributes:
        widths: of inputs, hidden layers, outputs.
        rule: "FA", "DFA", "GD" or "KP" (Kolen–Pollack: B moves like W).
        degree: p of the activation; 0 for units whose slope and value have nothing to do with each other.
        linear: whether a = h.
        biased: whether hidden units have biases.
        decay: weight decay of W (and of B, where it learns); laws are then sought with the rate 2·decay.
    """

    widths: tuple[int, ...]
    rule: str
    degree: int = 1
    linear: bool = False
    biased: bool = False
    decay: int = 0

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths) - 2

    def frozen(self, random: np.random.Generator) -> Arrays:
        """Feedback weights that do not move."""
        n = self.widths
        shapes = {
            "FA": {f"B{l}": (n[l + 1], n[l]) for l in range(1, self.depth + 1)},
            "DFA": {f"F{l}": (n[-1], n[l]) for l in range(1, self.depth + 1)},
        }.get(self.rule, {})
        return {name: random.integers(1, PRIME, shape) for name, shape in shapes.items()}

    def moving(self) -> dict[str, tuple[int, int]]:
        """Shapes of the weights that move."""
        n = self.widths
        found = {f"W{l}": (n[l + 1], n[l]) for l in range(self.depth + 1)}
        if self.biased:
            found |= {f"b{l}": (n[l + 1], 1) for l in range(self.depth)}
        if self.rule == "KP":
            found |= {f"B{l}": (n[l + 1], n[l]) for l in range(1, self.depth + 1)}
        return found

    def velocity(self, weights: Arrays, random: np.random.Generator) -> Arrays:
        """One example with a random error."""
        L = self.depth
        a, slopes = [random.integers(1, PRIME, (self.widths[0], 1))], [None]
        for l in range(L):
            h = times(weights[f"W{l}"], a[-1]) + (weights[f"b{l}"] if self.biased else 0)
            slope, value = self._units(h % PRIME, random)
            a.append(value)
            slopes.append(slope)
        error = random.integers(1, PRIME, (self.widths[-1], 1))
        found, delta = {}, error
        for l in reversed(range(L + 1)):
            found[f"W{l}"] = (times(delta, a[l].T) - self.decay * weights[f"W{l}"]) % PRIME
            if self.biased and l < L:
                found[f"b{l}"] = (delta - self.decay * weights[f"b{l}"]) % PRIME
            if self.rule == "KP" and l:
                found[f"B{l}"] = (times(delta, a[l].T) - self.decay * weights[f"B{l}"]) % PRIME
            if l:
                back = {"GD": "W", "DFA": "F"}.get(self.rule, "B")
                delta = slopes[l] * times(weights[f"{back}{l}"].T, error if self.rule == "DFA" else delta) % PRIME
        return found

    def _units(self, h: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.linear:
            return np.ones_like(h), h
        slope = random.integers(1, PRIME, h.shape)
        if self.degree == 0:
            return slope, random.integers(1, PRIME, h.shape)
        return slope, slope * h % PRIME * pow(self.degree, -1, PRIME) % PRIME  # Euler: slope h = p a


def times(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A B modulo the prime."""
    return np.array([[sum(int(x) * int(y) for x, y in zip(row, column, strict=True)) % PRIME for column in B.T] for row in A])


def monomials(case: Case) -> list[tuple[tuple[str, int, int], ...]]:
    """All products of at most two entries of the moving weights."""
    entries = [(name, i, j) for name, (rows, columns) in case.moving().items() for i in range(rows) for j in range(columns)]
    return [(e,) for e in entries] + list(combinations_with_replacement(entries, 2))


def equations(case: Case, frozen: Arrays, seed: int = 0) -> np.ndarray:
    """One row for each random point: ∇(monomial)·velocity + 2·decay·monomial."""
    random = np.random.default_rng(seed)
    terms = monomials(case)
    rows = []
    for _ in range(len(terms) + 20):
        weights = {name: random.integers(1, PRIME, shape) for name, shape in case.moving().items()} | frozen
        speed = case.velocity(weights, random)
        value = lambda entry, of: int(of[entry[0]][entry[1], entry[2]])
        row = []
        for term in terms:
            x = [value(entry, weights) for entry in term]
            v = [value(entry, speed) for entry in term]
            change = v[0] if len(term) == 1 else x[0] * v[1] + v[0] * x[1]
            size = x[0] if len(term) == 1 else x[0] * x[1]
            row.append((change + 2 * case.decay * size) % PRIME)
        rows.append(row)
    return np.array(rows)


def rank(rows: np.ndarray) -> int:
    """Rank modulo the prime, by elimination."""
    rows = np.array(rows, dtype=np.int64) % PRIME
    found = 0
    for column in range(rows.shape[1] if rows.size else 0):
        below = np.nonzero(rows[found:, column])[0]
        if not below.size:
            continue
        pivot = found + below[0]
        rows[[found, pivot]] = rows[[pivot, found]]
        rows[found] = rows[found] * pow(int(rows[found, column]), -1, PRIME) % PRIME
        for other in np.nonzero(rows[:, column])[0]:
            if other != found:
                rows[other] = (rows[other] - rows[other, column] * rows[found]) % PRIME
        found += 1
        if found == len(rows):
            break
    return found


def count(case: Case, frozen: Arrays) -> int:
    """The number of independent conserved polynomials."""
    rows = equations(case, frozen)
    return rows.shape[1] - rank(rows)
