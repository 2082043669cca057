"""Ways to do the same thing, compared at equal S: which has the smaller error, and which the smaller bias.

    python benchmarks/variants.py                              problem D, S = 128, 256, 1024, both studies
    python benchmarks/variants.py --case tanh_GD --samples 256 --seeds 32 --study control

responses   responses made adjoint at finite S (W and Wᵀ are transposes of each other on what they met), or entering as the theory's averages
            alone (`adjoint=False`); both have the same limit.
control     exact kernels at t = 0 as control variates: Φ(T) − β (Φ(0) − exact), and f − β (lazy output of the sampled eNTK at t = 0 − that of
            the exact one). β = 0 is the plain estimate; it pays where the errors at t = 0 and at T go together.

Errors are those of single replicas, root mean square over seeds, against the references of `problems.py`; bias is the error of the mean over
seeds, beside what chance leaves of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from problems import Case, cases, digest, kernel_error, reference, relative_error

from numerics import Problem, Solution, solve_dmft, solve_lazy

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def runs(case: Case, samples: int, seeds: int, **options: Any) -> list[Solution]:
    """One replica for each seed, in single precision."""
    options = {"method": "sampling", "dtype": "float32", "two_time": False, **options}
    solve = lambda seed: solve_dmft(case.problem, case.rule, case.net, samples, 1, seed, **options)
    return [solve(seed) for seed in range(seeds)]


def responses(case: Case, samples: int, seeds: int) -> list[dict[str, Any]]:
    """Errors and biases with and without adjointness."""
    frozen, rows = reference(case)[0], []
    for adjoint in (True, False):
        began = time.process_time()
        found = [digest(sol) for sol in runs(case, samples, seeds, adjoint=adjoint)]
        used = time.process_time() - began
        mean = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
        row: dict[str, Any] = {"study": "responses", "case": case.name, "samples": samples, "seeds": seeds, "adjoint": adjoint}
        for kind, error in (("loss", lambda a, b: relative_error(a["loss"], b["loss"])), ("kernels", kernel_error)):
            row[kind] = float(np.sqrt(np.mean([error(each, frozen) ** 2 for each in found])))
            row[f"bias of {kind}"] = error(mean, frozen)
            row[f"chance of {kind}"] = float(np.sqrt(np.sum([error(each, mean) ** 2 for each in found]) / (seeds - 1) / seeds))
        rows.append({**row, "cpu": used / seeds})
    return rows


def lazy_outputs(p: Problem, K: np.ndarray) -> np.ndarray:
    """f(t) of gradient descent with a constant kernel."""
    f, found = np.zeros(p.P), []
    for _ in range(p.steps):
        found.append(f)
        f = f + p.eta / p.P * K @ (p.y - f)
    return np.array(found)


def control(case: Case, samples: int, seeds: int) -> list[dict[str, Any]]:
    """Errors with control variates, for several β."""
    p, frozen, lazy = case.problem, reference(case)[0], solve_lazy(case.problem, case.rule, case.net)
    found = runs(case, samples, seeds)
    shifts = [lazy_outputs(p, sol.entk[0]) - lazy_outputs(p, lazy.entk[0]) for sol in found]
    rms = lambda values, name: float(np.sqrt(np.mean([relative_error(value, frozen[name]) ** 2 for value in values])))
    start = {"study": "control", "case": case.name, "samples": samples, "seeds": seeds}
    rows = [{**start, "of": "loss", "errors": [rms([p.loss(s.f - b * d) for s, d in zip(found, shifts, strict=True)], "loss") for b in BETAS]}]
    for name in (each for each in frozen if each.startswith(("Phi", "G"))):
        kernel = lambda sol, t, name=name: getattr(sol, name[:-1])[int(name[-1])].block(t, t)
        off = [kernel(sol, 0) - kernel(lazy, 0) for sol in found]
        errors = [rms([kernel(sol, -1) - b * d for sol, d in zip(found, off, strict=True)], name) for b in BETAS]
        rows.append({**start, "of": name, "errors": errors})
    return rows


def show(row: dict[str, Any]) -> str:
    """One line."""
    head = f"  S={row['samples']:<6d} "
    if row["study"] == "control":
        return head + f"{row['of']:6s} " + "  ".join(f"β={b:g}: {error:.2e}" for b, error in zip(BETAS, row["errors"], strict=True))
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
