"""Gated linear networks: everything drawn, only the gates drawn, or nothing drawn. Error against processor time.

    python benchmarks/gated.py                       two-valued and smooth gates, P = 4, one to three layers
    python benchmarks/gated.py --case relu_20_2 tanh_20_2 --json gated.json

sampling      h and z of every sample are drawn (Sobol points), S samples
conditional   gates are drawn, S of them, with weights that make their second moments exact; the Gaussian part is integrated
equal weights the same without those weights
exact         all patterns of gates with their probabilities

Errors: relative L2 distance of the loss curve, and of Φ^ℓ, G^ℓ at the last time, from the reference; root mean square over seeds of single
replicas. Reference: the exact solution where gates have two values and few patterns (with directions followed down to energies of 1e-20; by
default to 1e-14, which is its error in the table), otherwise conditional runs with other seeds, whose own
error is printed. Cost: processor time of a warm call (user and system), the least of all seeds. Set OMP_NUM_THREADS=1 and
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false to compare single threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from problems import data, digest, kernel_error, relative_error

from derive import GLN, MLP
from numerics import Problem, Solution, conditional, solve_dmft

CASES = [f"{activation}_4_{depth}" for activation in ("relu", "tanh") for depth in (1, 2, 3)]
LARGE = [f"{activation}_{P}_2" for activation in ("relu", "tanh") for P in (8, 20)]
SIZES = {"sampling": (256, 1024, 4096, 16384), "conditional": (32, 64, 128, 256, 512), "equal weights": (64, 256)}


def problem(name: str) -> tuple[Problem, MLP]:
    """activation_P_L: the problem of `accuracy.py` for P = 4, more examples with as many dimensions as it takes."""
    activation, P, depth = name.split("_")
    p = Problem(*data(int(P), 5 * int(P) if P == "4" else 2 * int(P), 2), 1.5, 0.3, 20)
    return p, MLP(depth=int(depth), activation=activation)


def solver(p: Problem, net: MLP, method: str) -> Callable[[int, int], Solution]:
    """One replica with so many samples and a seed."""
    options: dict[str, Any] = {"replicas": 1, "two_time": False, "throw": False}
    return lambda samples, seed: solve_dmft(p, GLN(), net, samples, seed=seed, method=method.replace("equal weights", "conditional"), **options)


def reference(p: Problem, net: MLP) -> tuple[dict[str, np.ndarray], float, str]:
    """The solution, its own relative error of the loss, and what it is."""
    try:
        return digest(solve_dmft(p, GLN(), net, method="exact", two_time=False, rank_tol=1e-20)), 0.0, "exact"
    except ValueError:
        runs = [digest(solve_dmft(p, GLN(), net, 512, 1, 1000 + k, method="conditional", rank_tol=1e-7)) for k in range(8)]
        mean = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
        return mean, float(np.sqrt(np.sum([relative_error(run["loss"], mean["loss"]) ** 2 for run in runs]) / 56)), "conditional, 8 x 512"


def measure(solve: Callable[[int, int], Solution], samples: int, seeds: int, right: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors over seeds and processor time of one warm call."""
    solve(samples, seeds)
    found, times = [], []
    for seed in range(seeds):
        began = time.process_time()
        solution = solve(samples, seed)
        times.append(time.process_time() - began)
        found.append(digest(solution))
    rms = lambda errors: float(np.sqrt(np.mean(np.square(errors))))
    return {
        "loss": rms([relative_error(each["loss"], right["loss"]) for each in found]), "kernels": rms([kernel_error(each, right) for each in found]),
        "cpu": min(times),
    }  # fmt: skip


def study(name: str, seeds: int, longest: float) -> list[dict[str, Any]]:
    """All methods and sizes of one case; larger sizes are left out once a call takes longer than `longest` seconds."""
    p, net = problem(name)
    right, error, what = reference(p, net)
    print(f"\n{name}: P={p.P}, L={net.depth}, T={p.steps}, eta={p.eta:g}, gamma0={p.gamma0:g}; reference {what}, ±{error:.1e}", flush=True)
    rows = []
    for method, sizes in {**SIZES, **({"exact": (1,)} if what == "exact" else {})}.items():
        usual = conditional.second_moments
        if method == "equal weights":
            conditional.second_moments = lambda *_: None  # type: ignore[assignment]
        try:
            for samples in sizes:
                row = {"case": name, "method": method, "samples": samples, **measure(solver(p, net, method), samples, seeds, right)}
                rows.append(row)
                size = "" if method == "exact" else f"S={samples}"
                print(f"  {method:14s} {size:8s} loss {row['loss']:.1e}  kernels {row['kernels']:.1e}  cpu {row['cpu']:.3f} s", flush=True)
                if row["cpu"] > longest:
                    break
        finally:
            conditional.second_moments = usual
    return rows


def main() -> None:
    """Run the studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=[*CASES, *LARGE], default=CASES)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds of one call after which no larger one is tried")
    parser.add_argument("--json", type=Path, help="write all rows here")
    given = parser.parse_args()
    rows = [row for name in given.case for row in study(name, given.seeds, given.longest)]
    if given.json:
        given.json.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
