"""Ways to do the same thing, compared at equal S: which has the smaller error, and which the smaller bias.

    python benchmarks/variants.py                              problem D, S = 128, 256, 1024, both studies
    python benchmarks/variants.py --case D0.1 --samples 256 --seeds 32 --study control

responses   responses made adjoint at finite S (W and Wᵀ are transposes of each other on what they met), or entering as the theory's averages
            alone (`adjoint=False`); both have the same limit.
control     exact kernels at t = 0 and the lazy limit as control variates (`control=`), for what one call returns: the mean of four replicas.

Errors are root mean square over seeds, against the references of `problems.py`; those of responses are of single replicas, and bias is the error
of the mean over seeds, beside what chance leaves of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from problems import Case, cases, digest, kernel_error, reference, relative_error

from numerics import Solution, solve_dmft

# Of one call, where they count together.
REPLICAS = 4


def runs(case: Case, samples: int, seeds: int, replicas: int = 1, **options: Any) -> list[Solution]:
    """One solution for each seed."""
    options = {"method": "sampling", "two_time": False, **options}
    solve = lambda seed: solve_dmft(case.problem, case.rule, case.net, samples, replicas, seed, **options)
    return [solve(seed) for seed in range(seeds)]


def responses(case: Case, samples: int, seeds: int) -> list[dict[str, Any]]:
    """Errors and biases with and without adjointness."""
    frozen, rows = reference(case)[0], []
    for adjoint in (True, False):
        began = time.process_time()
        found = [digest(sol) for sol in runs(case, samples, seeds, adjoint=adjoint, dtype="float32")]
        used = time.process_time() - began
        mean = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
        row: dict[str, Any] = {"study": "responses", "case": case.name, "samples": samples, "seeds": seeds, "adjoint": adjoint}
        for kind, error in (("loss", lambda a, b: relative_error(a["loss"], b["loss"])), ("kernels", kernel_error)):
            row[kind] = float(np.sqrt(np.mean([error(each, frozen) ** 2 for each in found])))
            row[f"bias of {kind}"] = error(mean, frozen)
            row[f"chance of {kind}"] = float(np.sqrt(np.sum([error(each, mean) ** 2 for each in found]) / (seeds - 1) / seeds))
        rows.append({**row, "cpu": used / seeds})
    return rows


def control(case: Case, samples: int, seeds: int) -> list[dict[str, Any]]:
    """Errors with and without control variates, and what standard errors say of the loss's."""
    frozen, rows = reference(case)[0], []
    rms = lambda values: float(np.sqrt(np.mean(np.square(values))))
    for chosen in (False, True):
        runs(case, samples, 1, REPLICAS, control=chosen)  # compile
        began = time.process_time()
        found = runs(case, samples, seeds, REPLICAS, control=chosen)
        used = time.process_time() - began
        digests = [digest(sol) for sol in found]
        row = {"study": "control", "case": case.name, "samples": samples, "seeds": seeds, "control": chosen}
        row |= {"loss": rms([relative_error(each["loss"], frozen["loss"]) for each in digests])}
        row |= {"kernels": rms([kernel_error(each, frozen) for each in digests])}
        row |= {"said": rms([np.linalg.norm(sol.loss_se) / np.linalg.norm(frozen["loss"]) for sol in found])}
        rows.append({**row, "cpu": used / seeds})
    return rows


def show(row: dict[str, Any]) -> str:
    """One line."""
    head = f"  S={row['samples']:<6d} "
    if row["study"] == "control":
        name = "controlled" if row["control"] else "sampled"
        return head + f"{name:11s}loss {row['loss']:.2e} (said {row['said']:.2e}), final kernels {row['kernels']:.2e}; cpu {row['cpu']:.3f} s"
    parts = [f"{kind} {row[kind]:.2e}, bias {row[f'bias of {kind}']:.1e} (chance {row[f'chance of {kind}']:.1e})" for kind in ("loss", "kernels")]
    return head + f"{'adjoint' if row['adjoint'] else 'averages':9s}" + "; ".join(parts) + f"; cpu {row['cpu']:.2f} s"


def main() -> None:
    """Run the studies, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(cases()), default="D")
    parser.add_argument("--samples", type=int, nargs="+", default=[128, 256, 1024])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--study", choices=("responses", "control"), action="append")
    parser.add_argument("--json", type=Path, help="write all rows here")
    given = parser.parse_args()
    case, rows = cases()[given.case], []
    about = reference(case)[1]
    for name in given.study or ("responses", "control"):
        print(f"{name}, {case.name}: {case.about}; reference ±{about['error']:.1e} (loss), ±{about['kernel_error']:.1e} (kernels)")
        for samples in given.samples:
            new = {"responses": responses, "control": control}[name](case, samples, given.seeds)
            rows += new
            print("\n".join(map(show, new)), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
