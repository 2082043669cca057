"""How fast the solver is, as ratios measured side by side in one run.

    python benchmarks/speed.py                        problems D, W and M: minutes to tens of minutes
    python benchmarks/speed.py --problem D --quick    small sizes: a minute or two
    python benchmarks/speed.py --problem W --gamma0 3 --json speed.json

(a) against the published alternating algorithm (`published.py`), compiled: as published (fixed-point paths and Jacobians) and with paths
    forward in time, which is our improvement of it; (b) against an ensemble of dense networks (`ensemble.py`) with the best choice of width ×
    seeds, with and without 1/N extrapolation; (c) against the machine (`roofline.py`); and the growth in S and T.

Every contestant is called once unmeasured: compilation is `first call − median`, stated and not counted. Then all take turns, each time with a
new seed, and medians of whole calls are compared, random numbers and assembly of results included: wall time and CPU time (summed over
cores, and the one to trust on a busy machine) against the published algorithm, CPU time against everything else. Errors are those of
these very runs: relative L2 distance of the loss curve, and relative Frobenius distance of the final kernels, from the references of
`problems.py`, root mean square over seeds. A ratio at equal error takes our smallest S whose error is no larger than the rival's.

The ensemble's cost at a given error is not searched by trial but follows from three measured numbers of each width: CPU seconds for one network
c, variance v and bias b of its estimate (b² less the variance left in it, never below zero: in the rival's favour). With n = v/(ε² − b²) networks
of width N the time is n c; with extrapolation (2 √(v_N c_N) + √(v_h c_h))²/(ε² − b²), h = N/2. The choice is then run to check it (not in
--quick).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import ensemble
import numpy as np
import roofline
from problems import Case, digest, kernel_error, problem_d, problem_m, problem_w, reference, relative_error
from published import solve_published

from numerics import Problem, Solution, solve_dmft

Digest = dict[str, np.ndarray]
ERRORS = ("loss", "kernels")
PARTS = ["published", "ensembles", "roofline", "growth"]
# Timed batches of networks of one width.
REPEATS = 3
# Runs of ours from which the error of one is estimated; ensembles up to so many CPU seconds are run to check their choice.
SEEDS, CHECKED = 16, 6.0
# Of our fields and of the ensembles' networks; small matrices of ours are in double precision.
DTYPE = "float32"


def take_turns(contestants: dict[str, Callable[[int], Digest]], repeats: int, frozen: Digest) -> dict[str, dict[str, float]]:
    """Time contestants in turn.

    Args:
        contestants: by name, functions of a seed.
        repeats: timed calls of each.
        frozen: the reference.

    Returns:
        For each: seconds and cpu (medians; cpu is summed over cores, and what to trust on a busy machine), compile, and errors of loss
        and kernels.
    """
    first, seconds, errors = {}, {name: [] for name in contestants}, {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for name, run in contestants.items():
        first[name] = _timed(run, 0)[0]
    for seed in range(1, repeats + 1):
        for name, run in contestants.items():
            took, used, found = _timed(run, seed)
            seconds[name].append(took)
            cpu[name].append(used)
            errors[name].append((relative_error(found["loss"], frozen["loss"]), kernel_error(found, frozen)))
    rows = {}
    for name in contestants:
        typical = median(seconds[name])
        loss, kernels = np.sqrt(np.mean(np.square(errors[name]), axis=0))
        rows[name] = {
            "seconds": typical, "cpu": median(cpu[name]), "compile": max(first[name] - typical, 0.0), "loss": float(loss),
            "kernels": float(kernels),
        }  # fmt: skip
    return rows


def _timed(run: Callable[[int], Any], seed: int) -> tuple[float, float, Any]:
    began, used = time.perf_counter(), time.process_time()
    found = run(seed)
    return time.perf_counter() - began, time.process_time() - used, found


def solve(case: Case, samples: int, seed: int, p: Problem | None = None) -> Solution:
    """Our solver with one replica, in the ensembles' precision, and like them with kernels at the last time only, where kernels cost time."""
    return solve_dmft(p or case.problem, case.rule, case.net, samples=samples, replicas=1, seed=seed, dtype=DTYPE, kernels_at=(-1,))


def ours(case: Case, samples: int) -> Callable[[int], Digest]:
    """Our solver as a contestant."""
    return lambda seed: digest(solve(case, samples, seed))


def published(case: Case, paths: str, quick: bool) -> Callable[[int], Digest]:
    """The published algorithm at its authors' S = 1000 and 15 sweeps (quick: 200 and 3, too few to converge)."""
    samples, sweeps = (200, 3) if quick else (1000, 15)
    return lambda seed: solve_published(case.problem, case.rule, case.net, samples, sweeps=sweeps, paths=paths, seed=seed).digest()


def against_published(case: Case, sizes: list[int], repeats: int, quick: bool) -> dict[str, dict[str, float]]:
    """(a): our sizes and the two variants of the published algorithm, with ratios."""
    frozen, about = reference(case)
    print(f"\n(a) {case.name}: {case.about}; reference ±{about['error']:.1e} (loss), ±{about['kernel_error']:.1e} (kernels)", flush=True)
    rivals = {"published": published(case, "fixed-point", quick), "published, forward in time": published(case, "causal", quick)}
    rows = take_turns({**{f"ours S={S}": ours(case, S) for S in sizes}, **rivals}, repeats, frozen)
    for name, row in rows.items():
        times = f"{row['seconds']:9.4f} s, cpu {row['cpu']:9.4f} s, compile {row['compile']:6.1f} s"
        print(f"  {name:28s} {times}; error of loss {row['loss']:.2e}, of kernels {row['kernels']:.2e}", flush=True)
    for rival in rivals:
        for kind in ERRORS:
            print(f"  {rival}, equal error of {kind}: {_ratio(rows, rival, kind, sizes)}")
    return rows


def _ratio(rows: dict[str, dict[str, float]], rival: str, kind: str, sizes: list[int]) -> str:
    for S in sizes:
        mine = rows[f"ours S={S}"]
        if mine[kind] <= rows[rival][kind]:
            wall, cpu = (rows[rival][measure] / mine[measure] for measure in ("seconds", "cpu"))
            return f"{wall:.0f} times slower than ours at S={S} ({cpu:.0f} times the cpu time)"
    return "none of our sizes is as accurate"


def unit(case: Case, width: int, budget: float, frozen: Digest) -> dict[str, Any]:
    """Cost, variance and bias² of one network's estimate, for one width, from as many networks as `budget` seconds hold."""
    p = case.problem
    one = lambda seeds, seed: _timed(lambda s: ensemble.train(p, case.rule, case.net, width, seeds, s), seed)
    pilot = min(one(4, seed)[1] for seed in range(3)) / 4
    seeds = int(np.clip(budget / REPEATS / pilot, 4, 4096))
    one(seeds, 0)
    measured = [one(seeds, seed) for seed in range(1, REPEATS + 1)]
    seconds, runs = [row[1] for row in measured], [row[2] for row in measured]
    f = np.concatenate([run.f for run in runs])
    kernels = {name: np.concatenate([run.kernels[name] for run in runs]) for name in runs[0].kernels}
    found = ensemble.Ensemble(f, kernels).digest(p)
    # the loss of a mean output, linearised
    influence = -np.mean((p.y - f.mean(axis=0)) * (f - f.mean(axis=0)), axis=2)
    spread = lambda x, scale: float(np.sum(np.square(x - x.mean(axis=0))) / (len(x) - 1) / scale**2)
    names = [name for name in frozen if name in kernels]
    variance = {
        "loss": spread(influence, np.linalg.norm(frozen["loss"])),
        "kernels": float(np.mean([spread(kernels[name], np.linalg.norm(frozen[name])) for name in names])),
    }
    return {"width": width, "count": len(f), "cost": median(seconds) / seeds, "variance": variance, "found": found}


def cheapest(units: list[dict[str, Any]], error: float, kind: str, frozen: Digest) -> dict[str, dict[str, Any]]:
    """The cheapest ensemble with a given error, plain and extrapolated; infinite cost where none reaches it.

    Its bias is `resolved` if chance left less than the error in the estimate that the bias was read from.
    """
    best = {name: {"seconds": np.inf, "choice": "not reached"} for name in ("plain", "extrapolated")}
    by_width = {one["width"]: one for one in units}
    for one in units:
        v, c = one["variance"][kind], one["cost"]
        room = error**2 - max(_squared(one["found"], frozen, kind) - v / one["count"], 0.0)
        if room > 0:
            n = max(int(np.ceil(v / room)), 1)
            _keep(best["plain"], n * c, f"{one['width']} x {n}", [(one["width"], n)], v / one["count"] <= error**2)
        half = by_width.get(one["width"] // 2)
        if half is None:
            continue
        vh, ch = half["variance"][kind], half["cost"]
        found = {name: 2 * value - half["found"][name] for name, value in one["found"].items()}
        chance = 4 * v / one["count"] + vh / half["count"]
        room = error**2 - max(_squared(found, frozen, kind) - chance, 0.0)
        if room > 0:
            scale = (2 * np.sqrt(v * c) + np.sqrt(vh * ch)) / room
            n, nh = max(int(np.ceil(2 * np.sqrt(v / c) * scale)), 1), max(int(np.ceil(np.sqrt(vh / ch) * scale)), 1)
            choice = [(one["width"], n), (half["width"], nh)]
            _keep(best["extrapolated"], n * c + nh * ch, f"{one['width']} x {n}, {half['width']} x {nh}", choice, chance <= error**2)
    return best


def _squared(found: Digest, frozen: Digest, kind: str) -> float:
    return (relative_error(found["loss"], frozen["loss"]) if kind == "loss" else kernel_error(found, frozen)) ** 2


def _keep(best: dict[str, Any], seconds: float, choice: str, networks: list[tuple[int, int]], resolved: bool) -> None:
    if seconds < best["seconds"]:
        best.update(seconds=seconds, choice=choice, networks=networks, resolved=bool(resolved))


def check_choice(case: Case, networks: list[tuple[int, int]], kind: str, frozen: Digest) -> tuple[float, float]:
    """Run an ensemble that `cheapest` chose.

    Returns:
        CPU seconds without compilation, and the error that it has.
    """
    p, found, total = case.problem, [], 0.0
    for width, seeds in networks:
        ensemble.train(p, case.rule, case.net, width, seeds, 77)
        _, used, run = _timed(lambda seed, width=width, seeds=seeds: ensemble.train(p, case.rule, case.net, width, seeds, seed), 78)
        total += used
        found.append(run.digest(p))
    estimate = found[0] if len(found) == 1 else {name: 2 * found[0][name] - found[1][name] for name in found[0]}
    return total, float(np.sqrt(_squared(estimate, frozen, kind)))


def against_ensemble(case: Case, sizes: list[int], widths: list[int], quick: bool) -> list[dict]:
    """(b): for each of our sizes, the cheapest ensemble of the same error. In CPU seconds."""
    frozen, about = reference(case)
    rows = take_turns({f"S={S}": ours(case, S) for S in sizes}, 4 if quick else SEEDS, frozen)
    units = [unit(case, width, 2.0 if quick else 20.0, frozen) for width in widths]
    print(f"\n(b) {case.name}: {case.about}; reference ±{about['error']:.1e} (loss), ±{about['kernel_error']:.1e} (kernels)")
    print("  CPU seconds of one network of width N: " + ", ".join(f"{u['width']}: {u['cost']:.2g}" for u in units))
    found = []
    for S in sizes:
        mine = rows[f"S={S}"]
        for kind in ERRORS:
            for name, best in cheapest(units, mine[kind], kind, frozen).items():
                row = {"S": S, "error of": kind, "error": mine[kind], "cpu": mine["cpu"], "ensemble": name, **best}
                line = f"  S={S:<6d} {kind:8s} {mine[kind]:.2e} in {mine['cpu']:.4f} s; {name:13s} {best['choice']:24s}"
                if np.isfinite(best["seconds"]):
                    row["ratio"] = best["seconds"] / mine["cpu"]
                    line += f" {best['seconds']:9.3f} s: ratio {row['ratio']:.1f}" + ("" if best["resolved"] else " (bias not resolved)")
                    if not quick and best["seconds"] < CHECKED:
                        row["checked seconds"], row["checked error"] = check_choice(case, best["networks"], kind, frozen)
                        line += f" (run: {row['checked seconds']:.3f} s, error {row['checked error']:.1e})"
                print(line, flush=True)
                found.append(row)
    return found


def against_machine(case: Case, samples: int, repeats: int) -> dict[str, float]:
    """(c): the share of the roofline, in CPU seconds."""
    run = lambda seed: solve(case, samples, seed)
    sol, seconds = run(0), []
    machines = []
    for seed in range(1, repeats + 1):
        machines.append(roofline.measure(sol.settings["dtype"]))
        began = time.process_time()
        sol = run(seed)
        seconds.append(time.process_time() - began)
    machine = roofline.Machine(*np.median(machines, axis=0))
    least, moved, operations = roofline.least_seconds(sol, machine)
    share, steps = least / median(seconds), least / sol.stats["seconds"]["run"]
    print(f"\n(c) {case.name}, S={samples}: {machine.bandwidth / 1e9:.1f} GB/s, {machine.rate / 1e9:.0f} Gop/s measured")
    print(f"  must move {moved / 1e9:.2f} GB and do {operations / 1e9:.1f} Gop: {least:.3f} s; takes {median(seconds):.3f} s: {share:.0%} of the roofline")
    print(f"  steps alone (wall time, without drawing normals and assembling the result): {steps:.0%}")
    made = roofline.products_made(sol)
    alone = made / machine.rate
    of_call, of_steps = alone / median(seconds), alone / sol.stats["seconds"]["run"]
    print(f"  its own products, {made / 1e9:.1f} Gop, at that rate: {alone:.3f} s, {of_call:.0%} (of the steps {of_steps:.0%})")
    found = {"samples": samples, "products made": made, "least": least, "seconds": median(seconds), "share": share, "share of steps": steps}
    return {**found, **machine._asdict()}


def growth(case: Case, sizes: list[int], steps: list[int], samples: int, repeats: int) -> dict[str, list[dict]]:
    """CPU time and rank against S, and against T at one S."""
    p = case.problem
    longer = lambda T: Problem(p.X, p.y, p.gamma0, p.eta, T)
    runs = [("S", S, p, S) for S in sizes] + [("T", T, longer(T), samples) for T in steps]
    tables: dict[str, list[dict]] = {"S": [], "T": []}
    print(f"\ngrowth, {case.name}")
    for axis, value, problem, S in runs:
        seconds = []
        for seed in range(repeats + 1):
            began = time.process_time()
            sol = solve(case, S, seed, problem)
            seconds.append(time.process_time() - began)
        r, q = roofline.ranks(sol)
        row = {axis: value, "seconds": median(seconds[1:]), "rank": int(max(r[:, -1].max(), q[:, -1].max()))}
        row["microseconds per S and T"] = 1e6 * row["seconds"] / S / problem.steps
        tables[axis].append(row)
        print(f"  {axis}={value:<7d} {row['seconds']:8.3f} s, largest rank {row['rank']}, {row['microseconds per S and T']:.3f} µs per S and T")
    return tables


def draw(tables: dict[str, list[dict]], path: Path) -> None:
    """Both growths as one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, (name, rows) in zip(axes, tables.items(), strict=True):
        at, seconds = [row[name] for row in rows], [row["seconds"] for row in rows]
        axis.loglog(at, seconds, "o-")
        axis.loglog(at, [seconds[-1] * value / at[-1] for value in at], color="0.6", lw=0.8)
        axis.annotate("linear", (at[0], seconds[-1] * at[0] / at[-1]), color="0.4", fontsize=8, va="top")
        axis.set_xticks(at, [f"{value:,}" for value in at])
        axis.minorticks_off()
        axis.set(xlabel=name, ylabel="CPU seconds")
    figure.savefig(path, dpi=110)


def race(case: Case, parts: list[str], quick: bool, roof: int | None, repeats: int) -> dict[str, Any]:
    """What was asked for about one problem."""
    deep, T = case.net.depth > 1, case.problem.steps
    sizes = [64, 256, 1024] if quick else [256, 1024, 4096, 8192]
    widths = ([64, 128, 256, 512] if quick else [64, 128, 256, 512, 1024]) if deep else ([256, 512, 1024, 2048] if quick else [512, 1024, 2048, 4096, 8192])
    studies = {
        "published": lambda: against_published(case, sizes, 2 if quick else repeats, quick),
        "ensembles": lambda: against_ensemble(case, sizes if quick else [*sizes, 16384], widths, quick),
        "roofline": lambda: against_machine(case, roof or (4096 if quick else 65536), 2 if quick else 3),
        "growth": lambda: growth(case, [512, 1024, 2048] if quick else [1024, 4096, 16384, 65536], [T, 2 * T] if quick else [T, 2 * T, 4 * T, 8 * T], 1024, 2),
    }
    return {name: study() for name, study in studies.items() if name in parts and (case.name != "M" or name == "roofline")}


def main() -> None:
    """Run the races, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=("D", "W", "M"), action="append", help="which; all by default; of M, which has many examples, the roofline only")
    parser.add_argument("--gamma0", type=float, action="append", help="for W: 0.1, 1 or 3; 1 by default")
    parser.add_argument("--part", choices=PARTS, action="append", help="which; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls against the published algorithm, whose calls take minutes")
    parser.add_argument("--quick", action="store_true", help="small sizes; ratios then say little")
    parser.add_argument("--roofline-samples", type=int, help="S of part (c)")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--figure", type=Path, help="draw the growth here, one figure a problem")
    given = parser.parse_args()
    names = given.problem or ["D", "W", "M"]
    chosen = [problem_d()] if "D" in names else []
    chosen += [problem_w(g) for g in (given.gamma0 or [1.0])] if "W" in names else []
    chosen += [problem_m()] if "M" in names else []
    machine = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "load": os.getloadavg()[0], "machine": platform.machine()}
    print(f"{machine['date']}, {machine['cores']} cores, load {machine['load']:.1f} at the start (a quiet machine has less than 0.5)")
    found: dict[str, Any] = {"machine": machine}
    for case in chosen:
        found[case.name] = race(case, given.part or PARTS, given.quick, given.roofline_samples, given.repeats)
        if given.figure and "growth" in found[case.name]:
            draw(found[case.name]["growth"], given.figure.with_stem(f"{given.figure.stem}-{case.name}"))
        if given.json:
            given.json.write_text(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
