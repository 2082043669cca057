"""Time and memory of generated kernels, as ratios to X @ X.T measured in the same run.

    python benchmarks/kernels.py [--n 3000] [--d 100] [--repeats 5]

Prints medians over interleaved repeats, so that another load on the machine hits all of them alike, and the peak memory of
each kernel in N×N arrays (its result included), in a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TARGETS = {"float64": 6.0, "float32": 10.0, "tanh / erf": 3.0, "peak": 3.0}
ACTIVATIONS = ("relu", "erf", "tanh")


def main() -> None:
    """Print the table; with --peak, one activation's peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--d", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_peak(options.peak, options.n, options.d))
        return
    for dtype in ("float64", "float32"):
        _times(dtype, options)
    for activation in ACTIVATIONS:
        command = [sys.executable, __file__, "--peak", activation, "--n", str(options.n), "--d", str(options.d)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"peak memory, {activation:5s} float64: {peak:5.2f} N×N arrays (target ≤ {TARGETS['peak']:g})")


def _kernel(activation: str):
    from derive import GD, MLP, lazy_kernel
    from numerics import jaxify

    return jaxify(lazy_kernel(GD(), MLP(depth=3, activation=activation)))


def _times(dtype: str, options: argparse.Namespace) -> None:
    # before the first array: switches double precision on
    import numerics  # noqa: F401, I001
    import jax

    X = jax.random.normal(jax.random.key(0), (options.n, options.d), dtype)
    assert X.dtype == dtype
    Y = jax.random.normal(jax.random.key(1), (options.n, options.d), dtype)
    runs = {"X @ X.T": jax.jit(lambda X, Y: X @ X.T)}
    for activation in ACTIVATIONS:
        kernel = _kernel(activation)
        runs[activation] = lambda X, Y, k=kernel: k(X)
        runs[f"{activation} (X, Y)"] = lambda X, Y, k=kernel: k(X, Y)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(X, Y).block_until_ready()
    for _ in range(options.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run(X, Y).block_until_ready()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{dtype}, N = {options.n}, D = {options.d}, depth 3; X @ X.T takes {1e3 * median['X @ X.T']:.0f} ms")
    for name, value in median.items():
        target = f" (target ≤ {TARGETS[dtype]:g})" if name in ("relu", "erf") else ""
        print(f"  {name:12s} {value / median['X @ X.T']:6.2f} × X @ X.T{target}")
    print(f"  tanh / erf   {median['tanh'] / median['erf']:6.2f} (target ≤ {TARGETS['tanh / erf']:g})")


def _peak(activation: str, n: int, d: int) -> float:
    """Peak resident memory of a call above what was resident before it, in N×N float64 arrays; the call is compiled already."""
    kernel = _kernel(activation)
    import jax

    X = jax.random.normal(jax.random.key(0), (n, d), "float64")
    kernel(X).block_until_ready()
    # Linux: give freed memory back, and forget the peak so far
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    kernel(X).block_until_ready()
    return (_memory("VmHWM") - before) / (8 * n * n)


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
