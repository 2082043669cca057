"""Gated linear networks in the rich regime: which gates to average over, and what comes out as a solution.

The pass itself is in `given_gates.py`, gates and their weights in `gates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from .dmft import rank_tolerance, refined, solution_of
from .dynamics import Dynamics
from .gates import MOST_EXAMPLES, Gates, all_patterns, drawn, enough, second_moments
from .given_gates import run
from .problem import Problem
from .progress import Progress
from .richness import richness
from .sampling import Innovations
from .solution import Solution

# Relative energy of directions that are not followed, where features move far: far below what drawn gates resolve; without them, what rounding leaves.
EXACT_TOL, DRAWN_TOL = 1e-14, 1e-6
# Relative energy of what double precision keeps of a field that is projected twice.
FLOOR = 1e-26


@dataclass(frozen=True)
class Conditional:
    """A problem whose fields are Gaussian given the gates, and how to solve it; the arguments of `solve_dmft`."""

    p: Problem
    rule: Any
    net: Any
    bound: Dynamics
    values: dict[str, float]
    rank_tol: float | None
    responses: bool
    two_time: bool
    throw: bool
    progress: bool

    def exact(self, required: bool) -> Solution | None:
        """The sum over all patterns of gates; without standard error.

        Raises:
            ValueError: there are too many of them, though this method is `required`; otherwise None.
        """
        began = perf_counter()
        gates = all_patterns(self.p, self.bound, self.values)
        if gates is None:
            if required:
                raise ValueError(self._too_many())
            return None
        tol = self._tolerance(EXACT_TOL)
        spent = {"sampling": perf_counter() - began}
        with Progress(self.progress, f"{self.bound.name}, {len(gates.weights)} patterns of gates", self.p.steps) as bar:
            found = self._run([gates] * self.bound.depth, tol, bar)
        settings = {"method": "exact", "patterns": len(gates.weights), "rank_tol": tol, "responses": self.responses}
        # two replicas that agree: standard errors are zero
        return self._solution([found, found], settings, {**spent, "run": perf_counter() - began - spent["sampling"]})

    def _too_many(self) -> str:
        p, name = self.p, self.bound.name
        if not self.bound.sign_gates:
            why = f"of {name}: its gates take more than two values, so that their patterns cannot be counted"
        elif p.P > MOST_EXAMPLES:
            why = f"with P={p.P}: 2^{p.P} patterns of gates are too many (up to P={MOST_EXAMPLES}, or inputs in a plane)"
        else:
            tests = 0 if p.X_test is None else len(p.X_test)
            why = f"with P={p.P}, rank {np.linalg.matrix_rank(p.Kx)} and {tests} test inputs: probabilities of patterns of gates would take too long"
        return f"method='exact' {why}; give method='conditional'"

    def weights_can_be_found(self, samples: int) -> bool:
        """Whether so many gates are enough, with a margin, to make their second moments exact, without which drawing the gates alone does not pay."""
        return samples >= 2 * enough(self.p.P)

    def drawn(self, innovations: Innovations, replicas: int, tol: float | None, max_samples: int) -> Solution:
        """Averages over drawn gates, with standard errors over replicas."""
        rank_tol = self._tolerance(DRAWN_TOL)
        second = second_moments(self.p, self.rule, self.net, self.bound, self.values)
        settings = {
            "method": "conditional", "replicas": replicas, "seed": innovations.seed, "sampling": innovations.kind, "tol": tol, "rank_tol": rank_tol,
            "responses": self.responses,
        }  # fmt: skip

        def solve(innovations: Innovations, reached: str) -> Solution:
            S, seconds, runs, calibrated = innovations.samples, {"sampling": 0.0, "run": 0.0}, [], True
            with Progress(self.progress, f"{self.bound.name}, {S} patterns of gates{reached}", replicas * self.p.steps) as bar:
                for replica in range(replicas):
                    began = perf_counter()
                    own = replace(innovations, replica=replica)
                    gates = [drawn(self.p, self.bound, self.values, own, l, second) for l in range(self.bound.depth)]
                    calibrated = calibrated and all(layer.calibrated for layer in gates)
                    now = perf_counter()
                    runs.append(self._run(gates, rank_tol, bar))
                    seconds["sampling"] += now - began
                    seconds["run"] += perf_counter() - now
            return self._solution(runs, {**settings, "samples": S, "calibrated": calibrated}, seconds)

        return refined(solve, innovations, tol, max_samples)

    def _tolerance(self, usual: float) -> float:
        return rank_tolerance(self.rank_tol, usual, FLOOR, richness(self.p, self.bound, self.values), "double precision")

    def _run(self, gates: list[Gates], tol: float, bar: Progress) -> dict[str, Any]:
        return run(self.p, self.bound, self.values, gates, tol, self.responses, self.two_time, bar)

    def _solution(self, runs: list[dict[str, Any]], settings: dict[str, Any], seconds: dict[str, float]) -> Solution:
        return solution_of(self.p, self.bound, self.values, runs, settings, self.throw, seconds)
