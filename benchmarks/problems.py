"""The problems that the benchmarks share, and reference solutions of them.

    python benchmarks/problems.py                                  list problems and references
    python benchmarks/problems.py --refresh D W1 --samples 65536 --replicas 8

References are large runs of `solve_dmft` with seeds that no benchmark uses, kept in data/*.npz with what they were made from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy
import sympy as sp

from derive import DFA, FA, GD, GLN, MLP, Hebb, x
from numerics import Problem, Solution, solve_dmft

DATA = Path(__file__).parent / "data"
REFERENCE_SEED = 100_000
RULES = {"GD": GD(), "FA": FA(0.5), "DFA": DFA(), "Hebb": Hebb(), "GLN": GLN()}


@dataclass(frozen=True)
class Case:
    """A problem with a rule and a network.

    Attributes:
        name: file name of its reference.
        about: one line for tables.
    """

    name: str
    about: str
    problem: Problem
    rule: Any
    net: MLP


def data(P: int, D: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal inputs and random signs."""
    random = np.random.default_rng(seed)
    return random.normal(size=(P, D)), np.sign(random.normal(size=P))


def problem_d(gamma0: float = 1.0) -> Case:
    """Problem D: deep, smooth, short."""
    net = MLP(depth=3, activation=sp.tanh(sp.Rational(4, 5) * x) / sp.Rational(4, 5))
    about = f"L=3, tanh(0.8h)/0.8, P=5, T=30, eta=0.1, gamma0={gamma0:g}"
    return Case("D" if gamma0 == 1 else f"D{gamma0:g}", about, Problem(*data(5, 25, 0), gamma0, 0.1, 30), GD(), net)


def problem_w(gamma0: float = 1.0) -> Case:
    """Problem W: a two-layer ReLU network, long."""
    p = Problem(*data(10, 25, 1), gamma0, 0.1, 100)
    return Case(f"W{gamma0:g}", f"L=1, ReLU, P=10, T=100, eta=0.1, gamma0={gamma0:g}", p, GD(), MLP(depth=1, activation="relu"))


def problem_m() -> Case:
    """Problem M: many examples, so that products do more with every number that they read."""
    p = Problem(*data(64, 100, 3), 1.0, 1.0, 40)
    return Case("M", "L=3, tanh, P=64, D=100, T=40, eta=1, gamma0=1", p, GD(), MLP(depth=3, activation="tanh"))


def accuracy_problem(rule: str = "GD", activation: str = "tanh") -> Case:
    """The problem on which errors of all rules are measured."""
    p = Problem(*data(4, 20, 2), 1.5, 0.3, 20)
    about = f"{rule}, L=3, {activation}, P=4, T=20, eta=0.3, gamma0=1.5"
    return Case(f"{activation}_{rule}", about, p, RULES[rule], MLP(depth=3, activation=activation))


def cases() -> dict[str, Case]:
    """All of them, by name."""
    found = [*(problem_d(g) for g in (1.0, 0.1, 0.3)), *(problem_w(g) for g in (0.1, 1.0, 3.0))]
    # Hebb's features grow without bound there with ReLU
    found += [accuracy_problem(rule, activation) for activation in ("tanh", "relu") for rule in RULES if (activation, rule) != ("relu", "Hebb")]
    return {case.name: case for case in found}


def digest(sol: Solution) -> dict[str, np.ndarray]:
    """What errors are measured on: the loss curve and the kernels at the last recorded time."""
    found = {"loss": np.asarray(sol.loss), "f": np.asarray(sol.f)}
    for l in range(1, sol.depth + 1):
        found[f"Phi{l}"], found[f"G{l}"] = sol.Phi[l].block(-1, -1), sol.G[l].block(-1, -1)
    return found


def relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def kernel_error(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Relative Frobenius error of the final kernels Φ^ℓ and G^ℓ, root mean square over layers."""
    names = [name for name in reference if name.startswith(("Phi", "G"))]
    return float(np.sqrt(np.mean([relative_error(found[name], reference[name]) ** 2 for name in names])))


def reference(case: Case) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The frozen solution of a case.

    Returns:
        As `digest`; and its provenance, with `error`, its own relative standard error of the loss, and `kernel_error`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it belongs to another problem of the same name.
    """
    path = DATA / f"{case.name}.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: python benchmarks/problems.py --refresh {case.name}")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop("provenance")))
    p = case.problem
    kept = all(np.array_equal(arrays.pop(name), getattr(p, name)) for name in ("X", "y", "gamma0", "eta", "steps"))
    if not kept:
        raise ValueError(f"{path} belongs to another problem: python benchmarks/problems.py --refresh {case.name}")
    return arrays, about


def refresh(case: Case, samples: int, replicas: int, seed: int = REFERENCE_SEED, rank_tol: float | None = None) -> dict[str, Any]:
    """Compute a reference, one replica at a time, and write it.

    Returns:
        Its provenance.
    """
    began = time.perf_counter()
    p = case.problem
    solutions = [solve_dmft(p, case.rule, case.net, samples=samples, replicas=1, seed=seed + k, rank_tol=rank_tol) for k in range(replicas)]
    runs, settings = [digest(solution) for solution in solutions], solutions[0].settings
    mean = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
    standard = lambda errors: float(np.sqrt(np.sum(np.square(errors)) / max(replicas - 1, 1) / replicas))
    about = {
        "case": case.about, "method": settings["method"], "samples": settings.get("samples"), "replicas": replicas, "first_seed": seed,
        "sampling": "sobol", "rank_tol": rank_tol,
        "error": standard([relative_error(run["loss"], mean["loss"]) for run in runs]),
        "kernel_error": standard([kernel_error(run, mean) for run in runs]),
        "seconds": round(time.perf_counter() - began, 1), "date": time.strftime("%Y-%m-%d"), "commit": _commit(),
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "scipy": scipy.__version__},
    }  # fmt: skip
    DATA.mkdir(exist_ok=True)
    kept = {name: np.asarray(getattr(p, name)) for name in ("X", "y", "gamma0", "eta", "steps")}
    np.savez(DATA / f"{case.name}.npz", provenance=json.dumps(about), **mean, **kept)
    return about


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    """List, or refresh."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", nargs="+", metavar="NAME", choices=[*known, "all"], help="compute these references")
    parser.add_argument("--samples", type=int, default=32768)
    parser.add_argument("--replicas", type=int, default=8)
    given = parser.parse_args()
    names = list(known) if given.refresh and "all" in given.refresh else (given.refresh or [])
    for name in names:
        print(f"{name}: {refresh(known[name], given.samples, given.replicas)}", flush=True)
    for case in known.values():
        try:
            about = reference(case)[1]
            size = "exact" if about["samples"] is None else f"S={about['samples']} x {about['replicas']}"
            size += f", loss ±{about['error']:.1e}, kernels ±{about['kernel_error']:.1e}"
            print(f"{case.name:10s} {case.about:52s} {size}, {about['date']} at {about['commit']}")
        except (FileNotFoundError, ValueError) as error:
            print(f"{case.name:10s} {case.about:52s} {error}")


if __name__ == "__main__":
    main()
