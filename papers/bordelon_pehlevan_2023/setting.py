"""What the studies share: data, rules, sizes, and how a solution is put down as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from derive import DFA, FA, GD, GLN, MLP, Hebb, Rule, rho, sqrt
from lazyrich.arguments import load_examples
from numerics import Problem, Solution, alignment_with, learning_shares, movement

Arrays = dict[str, np.ndarray]
RHO = 0.5
LARGEST = 40, 300  # training and test examples of any study, at most


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes:
        train, test, steps: of the problem.
        samples, replicas: of the theory.
        width, seeds: of the networks.
    """

    train: int
    test: int
    steps: int
    samples: int
    replicas: int
    width: int
    seeds: int

    @property
    def theory(self) -> dict[str, Any]:
        """Arguments of `solve_dmft`."""
        return {"samples": self.samples, "replicas": self.replicas, "dtype": "float32"}

    @property
    def networks(self) -> dict[str, Any]:
        """Arguments of `train_finite`."""
        return {"width": self.width, "seeds": self.seeds, "dtype": "float32", "two_time": False}

    def problem(self, **changes: Any) -> Problem:
        """Threes against eights, K^x_μμ = 1, y = ±1, at γ0 = 1 unless changed."""
        data = _examples(_source[-1], self.train, self.test)
        return Problem(**{"gamma0": 1.0, "eta": 0.5, "steps": self.steps, **data, **changes})


_source = ["digits"]


def use(source: str) -> None:
    """Take classes 3 and 8 of another source from here on: mnist:FOLDER or cifar10:FOLDER.

    Raises:
        BadInput: there are no such files, or not as many examples in them as the largest study takes.
    """
    _examples(source, *LARGEST)
    _source.append(source)


@lru_cache(maxsize=8)
def _examples(source: str, train: int, test: int) -> dict[str, np.ndarray]:
    return load_examples(source, "3,8", train, test, seed=0).arrays


@dataclass(frozen=True)
class Case:
    """A rule on a network, with the values of its symbols.

    ρ stays a symbol, so that all its values share compiled code.
    """

    label: str
    rule: Rule
    net: MLP
    parameters: Mapping[str, float]

    def with_activation(self, activation: str) -> Case:
        """The same with another activation; σ_w = √2 for relu, so that signals do not shrink with depth."""
        return replace(self, net=MLP(self.net.depth, activation, sigma_w=sqrt(2) if activation == "relu" else 1))


def cases(depth: int = 2, correlation: float = RHO) -> dict[str, Case]:
    """The five rules. Units are erf (closed kernels, bounded, signed); the gated network's gates are steps, as in the paper."""
    net = MLP(depth, "erf")
    return {
        "gd": Case("GD", GD(), net, {}),
        "fa": Case(f"FA, ρ = {correlation:g}", FA(rho), net, {"rho": correlation}),
        "dfa": Case("DFA", DFA(), net, {}),
        "hebb": Case("Hebb", Hebb(), net, {}),
        "gln": Case("GLN", GLN(), MLP(depth, "relu"), {}),
    }


def record(prefix: str, solution: Solution) -> Arrays:
    """Losses, alignments, shares and movements of a solution, by name, each with its standard error."""
    y, L = solution.problem.y, solution.depth
    layers = lambda read: [np.stack(part) for part in zip(*(read(l) for l in range(1, L + 1)), strict=True)]
    found: dict[str, Any] = {name: (getattr(solution, name), getattr(solution, f"{name}_se")) for name in ("loss", "f", "cka", "alignment")}
    if solution.test_loss is not None:
        found["test_loss"] = (solution.test_loss, solution.test_loss_se)
    found["shares"] = learning_shares(solution)
    found["moved"] = layers(lambda l: movement(solution.Phi[l]))
    found["gradient_cka"] = layers(lambda l: alignment_with(solution.G_tilde[l], y))
    arrays: Arrays = {}
    for name, (mean, se) in found.items():
        arrays |= {f"{prefix}.{name}": np.asarray(mean), f"{prefix}.{name}_se": np.asarray(se)}
    return arrays


def kernel_distance(K: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """‖K − K_ref‖/‖K_ref‖ over the last two axes."""
    size = lambda matrices: np.linalg.norm(matrices, axis=(-1, -2))
    return size(K - reference) / size(reference)
