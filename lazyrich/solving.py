"""Theory and networks on one problem: solve, save, resume, compare. Shared by `lazyrich solve` and the demo."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table
from rich.text import Text

from derive.network import MLP
from derive.rules import Rule
from lazyrich import console, records
from lazyrich.arguments import Examples, consecutive_batches
from numerics import Problem, Solution, solve_dmft, solve_lazy, train_finite
from numerics.agreement import deviates
from numerics.checkpoint import problem_hash
from numerics.errors import positive_integer, seed_number
from numerics.storage import versions


@dataclass(frozen=True)
class Settings:
    """How a problem is solved; names as in `solve_dmft` and `train_finite`, None their defaults. width = 0: no networks."""

    gamma0: float
    eta: float
    steps: int
    samples: int
    replicas: int
    width: int
    seeds: int
    seed: int = 0
    dtype: str | None = None
    capacity: int | None = None
    loss: str = "squared"
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 0

    def __post_init__(self) -> None:
        """Refuse what the solvers would refuse, before the first of them has run."""
        positive_integer("samples", self.samples, "a number of single-site samples")
        positive_integer("replicas", self.replicas, "a number of independent replicas")
        seed_number("seed", self.seed)
        if self.width != 0:
            positive_integer("width", self.width, "a number of neurons in a hidden layer")
            positive_integer("seeds", self.seeds, "a number of networks")


@dataclass(frozen=True)
class Comparison:
    """One number from theory and from networks, with standard errors; z is their difference in standard deviations.

    z takes into account that errors come from a few runs (`deviates`). It is None without networks, where both are exact, or where an error is
    unknown.
    """

    quantity: str
    theory: float
    theory_se: float
    network: float | None = None
    network_se: float | None = None
    z: float | None = None


def problem(examples: Examples, settings: Settings) -> Problem:
    """The examples as a training problem."""
    training = {name: getattr(settings, name) for name in ("gamma0", "eta", "steps", "loss", "momentum", "weight_decay")}
    batches = consecutive_batches(settings.batch_size, len(np.atleast_1d(examples.arrays["X"])))
    return Problem(**training, batches=batches, **examples.arrays)


class Store:
    """Solutions in a folder, reused when asked for again with the same rule, data, settings and versions.

    Args:
        folder: where they are.
        fresh: compute everything again.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder, self.fresh = folder, fresh
        self.saved: list[Path] = []
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, stem: str, key: Sequence[object], compute: Callable[[Path], Solution]) -> Solution:
        """The solution `stem`, from its file if that is whole and of the same key; `compute` is told where checkpoints may go."""
        path, note = self.folder / f"{stem}.npz", self.folder / f"{stem}.json"
        digest = _digest([*key, versions()])
        unfinished = self.folder / f".{stem}.{digest[:16]}.checkpoint"
        for other in self.folder.glob(f".{stem}.*.checkpoint"):
            if other != unfinished or self.fresh:
                other.unlink()
        if not self.fresh and (kept := _kept(path, note, digest)):
            solution, self.seconds[stem] = kept
            self.saved.append(path)
            return solution
        note.unlink(missing_ok=True)
        start = perf_counter()
        try:
            solution = compute(unfinished)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(self.account()) from stop
        self.seconds[stem] = perf_counter() - start
        solution.save(path)
        records.write(note, {"made_from": digest, "seconds": self.seconds[stem]})
        unfinished.unlink(missing_ok=True)
        self.saved.append(path)
        return solution

    def account(self) -> str:
        """What is on disk, for whoever interrupted."""
        begun = any(self.folder.glob(".*.checkpoint"))
        names = ", ".join([*(path.name for path in self.saved), *(["a checkpoint of what was under way"] if begun else [])])
        return f"Saved in {self.folder}: {names}. The same command resumes." if names else "Nothing was saved."


def solutions(
    store: Store, stem: str, p: Problem, rule: Rule, net: MLP, settings: Settings, progress: bool
) -> dict[str, Solution]:
    """Lazy theory where there is one (no weight decay), rich theory, and networks if the settings ask for them."""
    shared = [rule.bind(net).source(), problem_hash(p)]
    pick = lambda *names: {name: getattr(settings, name) for name in names}
    infinite, finite = pick("samples", "replicas", "seed", "dtype", "capacity"), pick("width", "seeds", "seed", "dtype")
    found = {}
    if not p.weight_decay:
        found["lazy"] = store.get(f"{stem}_lazy", [*shared, "lazy"], lambda _: solve_lazy(p, rule, net))
    found["theory"] = store.get(
        f"{stem}_theory",
        [*shared, "dmft", infinite],
        # of gated networks "auto" has better methods than sampling, which write no checkpoints
        lambda unfinished: solve_dmft(p, rule, net, **infinite, progress=progress, checkpoint=None if rule.uses_gates else unfinished),
    )
    if settings.width:
        found["network"] = store.get(
            f"{stem}_network",
            [*shared, "finite", finite],
            lambda unfinished: train_finite(p, rule, net, **finite, progress=progress, checkpoint=unfinished),
        )
    return found


def compare(theory: Solution, network: Solution | None) -> list[Comparison]:
    """The last recorded state, after steps − 1 updates: losses, alignment of gradients, alignment of features with the targets."""
    pick: dict[str, Callable[[Solution], tuple[float, float]]] = {
        "training loss": lambda s: (s.loss[-1], s.loss_se[-1]),
    }
    if theory.test_loss is not None:
        pick["test loss"] = lambda s: (s.test_loss[-1], s.test_loss_se[-1])  # type: ignore[index]
    for layer in range(theory.depth):
        pick[f"gradient alignment, layer {layer + 1}"] = partial(_at_end, "alignment", layer)
    for layer in range(theory.depth):
        pick[f"kernel-target alignment, layer {layer + 1}"] = partial(_at_end, "cka", layer)
    rows = []
    for name, read in pick.items():
        value, se = map(float, read(theory))
        if network is None:
            rows.append(Comparison(name, value, se))
            continue
        other, other_se = map(float, read(network))
        # below this both are exact but for round-off
        z = float(deviates(value, se, theory.runs, other, other_se, network.runs)) if np.hypot(se, other_se) > 1e-12 else np.nan
        rows.append(Comparison(name, value, se, other, other_se, z if np.isfinite(z) else None))
    return rows


def _at_end(name: str, layer: int, solution: Solution) -> tuple[float, float]:
    return getattr(solution, name)[layer, -1], getattr(solution, f"{name}_se")[layer, -1]


def accuracy(solution: Solution) -> float | None:
    """Share of test examples that are put into the right class at the end: by the largest of several outputs, or the sign of a single one.

    Returns:
        None without test targets, and where these name no classes: several outputs whose largest target is not unique, one that is not ±1.
    """
    y = solution.problem.y_test
    if solution.f_test is None or y is None:
        return None
    f = solution.f_test[-1]
    if y.ndim > 1:
        unique = np.count_nonzero(y == np.max(y, axis=1, keepdims=True), axis=1) == 1
        return float(np.mean(np.argmax(f, axis=1) == np.argmax(y, axis=1))) if np.all(unique) else None
    return float(np.mean(np.sign(f) == y)) if np.all(np.abs(y) == 1) else None


# ---- `lazyrich solve` -----------------------------------------------------------------------------------------------


def run(p: Problem, rule: Rule, net: MLP, settings: Settings, folder: Path, progress: bool) -> dict:
    """Solve, save solutions, figure and summary in `folder`, and return the summary."""
    store = Store(folder)
    found = solutions(store, "solution", p, rule, net, settings, progress and sys.stderr.isatty())
    theory, network = found["theory"], found.get("network")
    figure = theory.plot()
    drawn = [folder / "figure.png", folder / "figure.pdf"]
    figure.savefig(drawn[0], dpi=160)
    figure.savefig(drawn[1])
    summary = {
        "rule": rule.name,
        "activation": str(net.activation),
        "depth": net.depth,
        **asdict(settings),
        "P": p.P,
        "final": [asdict(row) for row in compare(theory, network)],
        "lazy_training_loss": float(found["lazy"].loss[-1]) if "lazy" in found else None,
        "test_accuracy": accuracy(theory),
        "seconds": store.seconds,
        "files": sorted(map(str, [*store.saved, *drawn])),
    }
    records.write(folder / "summary.json", summary)
    return summary


def show(summary: Mapping) -> None:
    """Print a summary as a table."""
    screen = console.output()
    layers, updates = console.counted(summary["depth"], "hidden layer"), console.counted(summary["steps"] - 1, "update")
    table = Table(title=f"{summary['rule']}, {layers}, {summary['activation']}: after {updates}", title_justify="left")
    table.add_column("")
    for heading in ("infinite width", "networks", "z") if summary["width"] else ("infinite width",):
        table.add_column(heading, justify="right")
    for row in summary["final"]:
        cells = [value_and_error(row["theory"], row["theory_se"])]
        if summary["width"]:
            cells += [
                value_and_error(row["network"], row["network_se"]),
                "" if row["z"] is None else f"{row['z']:+.1f}",
            ]
        table.add_row(row["quantity"], *cells)
    if summary["lazy_training_loss"] is not None:
        table.add_row("training loss, lazy limit", value_and_error(summary["lazy_training_loss"], 0.0))
    screen.print(table)
    screen.print(Text("saved: " + ", ".join(summary["files"])))


def value_and_error(value: float | None, error: float | None) -> str:
    """0.01234 ± 0.00012, with the digits that the error allows."""
    if value is None or not np.isfinite(value):
        return ""
    if error is None or not np.isfinite(error) or error <= 1e-15:
        return f"{value:.4g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 12))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _kept(path: Path, note: Path, digest: str) -> tuple[Solution, float] | None:
    """A solution with its seconds; None where its note is of another key, or either file is missing or damaged."""
    try:
        record = json.loads(note.read_text(encoding="utf-8"))
        return (Solution.load(path), record["seconds"]) if record["made_from"] == digest else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _digest(key: Sequence[object]) -> str:
    total = hashlib.sha256()
    for part in key:
        total.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()
