"""One big run, as large as one device holds: S = 1,000,000 samples, L = 3, P = 20, T = 200 in single precision.

    python benchmarks/gpu.py                         on a GPU: target 2 minutes after compilation
    python benchmarks/gpu.py --samples 2000          scaled down, on anything
    python benchmarks/gpu.py --samples 8192 --steps 1000 --dtype float64 --once     long, on two cores: target 15 minutes in 24 GiB
    python benchmarks/gpu.py --json gpu.json

Two runs with different seeds: the first compiles, the second is the figure (`--once`: a single run, compilation included). Memory is what the
device's allocator saw at its peak, or the process's peak where the device does not tell (CPU), beside the sum that docs/scale.md gives for
the state alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from derive import GD, MLP
from numerics import Problem, solve_dmft


def problem(P: int, steps: int) -> Problem:
    """Standard normal inputs of dimension 100 and random signs."""
    random = np.random.default_rng(0)
    return Problem(random.normal(size=(P, 100)), np.sign(random.normal(size=P)), 1.0, 0.3, steps)


def state_bytes(depth: int, samples: int, capacity: int, item: int) -> int:
    """b S (L − 1)(2 r + 2 q) with r = q = capacity."""
    return item * samples * (depth - 1) * 4 * capacity


def measure(samples: int, depth: int, P: int, steps: int, capacity: int | None, dtype: str, once: bool) -> dict[str, Any]:
    """Two runs, and what the second took; or one."""
    p, net, rows = problem(P, steps), MLP(depth=depth, activation="tanh"), []
    for seed in (0,) if once else (0, 1):
        began, cpu = time.perf_counter(), time.process_time()
        sol = solve_dmft(p, GD(), net, samples=samples, replicas=1, seed=seed, two_time=False, capacity=capacity, dtype=dtype, progress=True)
        rows.append(time.perf_counter() - began)
        used = time.process_time() - cpu
    seen = jax.local_devices()[0].memory_stats() or {}
    peak = seen.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {
        "date": time.strftime("%Y-%m-%d"), "device": jax.local_devices()[0].device_kind, "devices": jax.local_device_count(), "dtype": dtype,
        "samples": samples, "depth": depth, "P": P, "steps": steps, "first": rows[0], "seconds": rows[-1], "cpu": used, "parts": sol.stats["seconds"],
        "peak_bytes": int(peak), "state_bytes": state_bytes(depth, samples, sol.stats["capacity"], np.dtype(dtype).itemsize),
        "capacity": sol.stats["capacity"], "rank_forward": sol.stats["rank_forward"], "rank_backward": sol.stats["rank_backward"],
        "gram_error": sol.stats["gram_error"], "first_loss": float(sol.loss[0]), "last_loss": float(sol.loss[-1]),
    }  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--capacity", type=int, help="directions to begin with; the right one saves memory and compilations")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--once", action="store_true", help="a single run, which compiles too")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    found = measure(given.samples, given.depth, given.examples, given.steps, given.capacity, given.dtype, given.once)
    print("\n".join(f"{name:14s} {value}" for name, value in found.items()))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
