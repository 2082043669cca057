"""How the error falls with the number of samples, for every rule and every kind of sampling.

    python benchmarks/accuracy.py            a table of minutes
    python benchmarks/accuracy.py --fast     small sizes, GD and DFA only
    python benchmarks/accuracy.py --full     every rule, up to the sizes of the targets
    python benchmarks/accuracy.py --json accuracy.json

Error: relative L2 distance of the loss curve, and of the kernels Φ^ℓ and G^ℓ at the last recorded time, from the references of
`problems.py`; root mean square over seeds of single replicas, so that it is what a user gets without averaging. Fitted: error = constant ·
S^slope. Bias: distance of the mean over seeds from the reference, against error/√seeds, which is what chance alone leaves of it; a bias
well above chance that falls as 1/S is the finite-S one. A reference's own error is shown, since nothing can be resolved below it. Gated
networks are sampled here like all others; `gated.py` shows what else they allow.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
from problems import Case, accuracy_problem, cases, digest, kernel_error, problem_w, reference, relative_error

from numerics import solve_dmft

KINDS = ("plain", "moments", "sobol")
RULES = ("GD", "FA", "DFA", "Hebb", "GLN")
# What the solver must reach: case → {S: largest relative error of the loss curve}
TARGETS = {
    "tanh_GD": {4096: 0.003},
    "tanh_DFA": {4096: 0.003},
    "relu_GD": {4096: 0.01},
    "W1": {1024: 0.006, 8192: 0.002, 65536: 0.0008},
}


def measure(case: Case, sampling: str, samples: int, seeds: int, frozen: dict[str, np.ndarray]) -> dict[str, float | int | str]:
    """Errors of single replicas of one size.

    Returns:
        loss, kernels: root mean square over seeds; bias: of the mean loss; chance: what bias would be without one.
    """
    began = time.perf_counter()
    runs = [
        digest(solve_dmft(case.problem, case.rule, case.net, samples, 1, seed, method="sampling", sampling=sampling, throw=False))
        for seed in range(seeds)
    ]
    errors = np.array([relative_error(run["loss"], frozen["loss"]) for run in runs])
    kernels = np.array([kernel_error(run, frozen) for run in runs])
    mean = np.mean([run["loss"] for run in runs], axis=0)
    spread = np.sqrt(np.sum([relative_error(run["loss"], mean) ** 2 for run in runs]) / max(seeds - 1, 1) / seeds)
    return {
        "case": case.name, "sampling": sampling, "samples": samples, "seeds": seeds, "loss": float(np.sqrt(np.mean(errors**2))),
        "kernels": float(np.sqrt(np.mean(kernels**2))), "bias": relative_error(mean, frozen["loss"]), "chance": float(spread),
        "seconds": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def fit(samples: list[int], errors: list[float]) -> tuple[float, float]:
    """(constant, slope) of error = constant · S^slope by least squares in logarithms."""
    slope, constant = np.polyfit(np.log(samples), np.log(errors), 1)
    return float(np.exp(constant)), float(slope)


def study(case: Case, kinds: tuple[str, ...], sizes: list[int], seeds: int) -> list[dict]:
    """All sizes and kinds of one case, printed as they come."""
    frozen, about = reference(case)
    print(f"\n{case.name}: {case.about}; reference ±{about['error']:.1e} (loss), ±{about['kernel_error']:.1e} (kernels)")
    print(f"  {'sampling':9s} {'S':>6s} {'loss':>9s} {'kernels':>9s} {'bias':>9s} {'by chance':>9s} {'bias·S':>8s} {'seconds':>8s}")
    rows = []
    for kind in kinds:
        mine = [measure(case, kind, samples, seeds, frozen) for samples in sizes]
        for row in mine:
            row["reference_error"] = about["error"]
            print(
                f"  {kind:9s} {row['samples']:6d} {row['loss']:9.2e} {row['kernels']:9.2e} {row['bias']:9.2e} {row['chance']:9.2e} "
                f"{row['bias'] * row['samples']:8.2f} {row['seconds']:8.2f}",
                flush=True,
            )
        if len(sizes) > 1:
            laws = [fit(sizes, [row[name] for row in mine]) for name in ("loss", "kernels")]
            print(f"  {kind:9s} loss ≈ {laws[0][0]:.2g} S^{laws[0][1]:.2f}, kernels ≈ {laws[1][0]:.2g} S^{laws[1][1]:.2f}")
        rows += mine
    return rows


def verdicts(rows: list[dict]) -> list[dict]:
    """Targets against what was measured with Sobol points; sizes that were not run are left out."""
    found = []
    for row in rows:
        target = TARGETS.get(row["case"], {}).get(row["samples"])
        if target is not None and row["sampling"] == "sobol":
            found.append({"case": row["case"], "samples": row["samples"], "loss": row["loss"], "target": target, "pass": row["loss"] <= target})
    return found


def plan(fast: bool, full: bool) -> list[tuple[Case, tuple[str, ...], list[int], int]]:
    """(case, kinds, sizes, seeds) of a study."""
    if fast:
        sizes = [128, 256, 512]
        return [(accuracy_problem("GD"), KINDS, sizes, 4), (accuracy_problem("DFA"), ("sobol",), sizes, 4), (problem_w(), ("sobol",), sizes, 4)]
    sizes = [256, 1024, 4096, 16384] if full else [256, 1024, 4096]
    seeds = 16 if full else 8
    studies = [(accuracy_problem(rule), KINDS, sizes, seeds) for rule in RULES]
    studies += [(case, KINDS if full else ("sobol",), sizes, seeds) for name, case in cases().items() if name.startswith("relu_")]
    two_layer = [256, 1024, 8192, 65536] if full else [256, 1024, 8192]
    return [*studies, *((problem_w(g), ("sobol",), two_layer, 4 * seeds) for g in ((0.1, 1.0, 3.0) if full else (1.0,)))]


def main() -> None:
    """Run the studies, print tables and targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path, help="write all rows here")
    given = parser.parse_args()
    rows, missing = [], []
    for case, kinds, sizes, seeds in plan(given.fast, given.full):
        try:
            rows += study(case, kinds, sizes, seeds)
        except FileNotFoundError as error:
            missing.append(str(error))
    print("\ntargets (loss, Sobol points)")
    found = verdicts(rows)
    for row in found:
        print(f"  {row['case']:9s} S={row['samples']:<6d} {row['loss']:.2e} against {row['target']:.1e}: {'pass' if row['pass'] else 'FAIL'}")
    if not found:
        print("  none at these sizes")
    for line in missing:
        print(f"left out: {line}")
    if given.json:
        given.json.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "rows": rows, "targets": found}, indent=1))


if __name__ == "__main__":
    main()
