"""Many solutions: every combination of some parameters of a problem, a rule and a solver.

γ0, η and the symbolic parameters of rule and network are numbers that compiled code receives, so that all points of a sweep over them
share it: only the first point compiles. Points run one after the other, each with all the machine (docs/scale.md has the measurement).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import problem_differences, problem_hash
from .dmft import real_type, solve_dmft
from .dynamics import dynamics
from .errors import seed_number
from .finite import train_finite
from .jaxify import jaxify
from .lazy import solve_lazy
from .problem import Problem
from .progress import Progress
from .snapshots import listed
from .solution import Solution, raise_failure

SOLVERS: dict[str, Callable[..., Solution]] = {"dmft": solve_dmft, "lazy": solve_lazy, "finite": train_finite}
FIELDS = ("gamma0", "eta", "steps", "momentum", "weight_decay")
# What a solver is told that does not change what it finds; the sweep itself decides on these.
OWN = ("p", "rule", "net", "parameters", "progress", "checkpoint")
INDIFFERENT = (*OWN, "throw", "every", "chunk", "devices")
# Lists of times, which are one value.
TIMES = ("snapshots", "kernels_at")


class Sweep(Mapping[tuple, Solution]):
    """Solutions by parameter values, in the order of the product: `sweep[1.0, 0.3]`, or `sweep.at(gamma0=1.0, rho=0.3)`.

    With files, solutions are read when they are asked for and not kept in memory.

    Attributes:
        axes: values of every parameter that varies, by name.
        skipped: how many points were there already.
    """

    def __init__(self, axes: Mapping[str, tuple], points: Mapping[tuple, Solution | Path], rows: list[dict[str, Any]], skipped: int) -> None:
        self.axes = dict(axes)
        self.skipped = skipped
        self._points, self._rows = dict(points), rows

    def __getitem__(self, key: Any) -> Solution:
        key = key if isinstance(key, tuple) else (key,)
        if key not in self._points:
            there = "; ".join(f"{name} in {list(values)}" for name, values in self.axes.items())
            raise KeyError(f"{key} is no point of this sweep over ({', '.join(self.axes)}): {there}")
        found = self._points[key]
        return Solution.load(found) if isinstance(found, Path) else found

    def __iter__(self) -> Iterator[tuple]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def at(self, **values: Any) -> Solution:
        """The solution at these values of all parameters that vary.

        Raises:
            KeyError: a name or a value is not part of the sweep.
        """
        if set(values) != set(self.axes):
            raise KeyError(f"at({', '.join(values)}) does not name a point: give exactly {', '.join(self.axes) or 'nothing'}")
        return self[tuple(values[name] for name in self.axes)]

    def table(self) -> list[dict[str, Any]]:
        """One row a point: its parameters, final losses with standard errors, alignment and CKA of the last layer, status."""
        return [dict(row) for row in self._rows]

    def __repr__(self) -> str:
        head = f"Sweep over {', '.join(self.axes) or 'nothing'}: {len(self)} solutions" + (f", {self.skipped} from files" if self.skipped else "")
        columns = [name for name in self._rows[0] if any(_present(row[name]) for row in self._rows)] if self._rows else []
        cells = [columns, *([_text(row[name]) for name in columns] for row in self._rows)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([head, *(f"  {line}" for line in lines)])


def sweep(
    problem: Problem, rule: Any, net: Any, *, solver: str = "dmft", out: str | PathLike[str] | None = None, progress: bool = False,
    every: int | None = None, **options: Any,
) -> Sweep:  # fmt: skip
    """Solve a problem for every combination of the values that are given as lists.

    Args:
        problem: gives what is not swept.
        rule, net: may have symbolic parameters, such as ρ of FA(rho).
        solver: "dmft", "lazy" or "finite".
        out: folder for the solutions, one file a point, named by its parameters. Points that are there are not solved again. None keeps
            them in memory.
        progress: show a bar over all points.
        every: steps between checkpoints within a point ("dmft" and "finite", with `out`): a killed sweep then loses no more than these.
        options: gamma0, eta, steps, momentum, weight_decay; symbolic parameters of rule and network by name; arguments of the solver
            (seed, samples, …). A list, tuple or array of values is swept (but those of `snapshots` and `kernels_at`), anything else is the
            same at all points. A point that diverges does not end the sweep (throw=True lets it, also when it is read from a file).

    Returns:
        Solutions by the values of what varies, in the order in which it was given.

    Raises:
        ValueError: an unknown option, a symbol with the name of another one, or a file of `out` that holds something else.
        SolveFailed: a point diverged, and throw=True.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is not known: give one of {', '.join(map(repr, SOLVERS))}")
    options = {**(options.pop("parameters", None) or {}), **options}
    task = _Task.of(solver, problem, rule, net, options, every if out is not None else None)
    folder = None if out is None else Path(out)
    if folder is None and every is not None:
        raise ValueError(f"every={every!r} without out=: there is no folder for checkpoints; give out='runs'")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    points: dict[tuple, Solution | Path] = {}
    rows, skipped = [], 0
    with Progress(progress, f"{solver}: {', '.join(task.axes) or 'one point'}", task.count) as bar:
        for key in product(*task.axes.values()):
            point = dict(zip(task.axes, key, strict=True))
            solution, known = task.solve(point, folder)
            points[key] = solution if folder is None else folder / file_name(point)
            rows.append({**point, **_summary(solution)})
            skipped += known
            bar.advance(1)
    return Sweep(task.axes, points, rows, skipped)


def file_name(point: Mapping[str, Any]) -> str:
    """The name of a point's file: exact values, so that no two points share one."""
    return ",".join(f"{name}={value}" for name, value in point.items()) + ".npz" if point else "solution.npz"


@dataclass(frozen=True)
class _Task:
    """What is common to all points."""

    solver: str
    problem: Problem
    rule: Any
    net: Any
    parameters: tuple[str, ...]
    axes: dict[str, tuple]
    fixed: dict[str, Any]
    every: int | None

    @staticmethod
    def of(solver: str, problem: Problem, rule: Any, net: Any, options: Mapping[str, Any], every: int | None) -> _Task:
        once = _Once(rule, net)
        parameters = tuple(jaxify(once.source()).PARAMETERS)
        allowed = [name for name in inspect.signature(SOLVERS[solver]).parameters if name not in OWN and name != "every"]
        taken = {**dict.fromkeys((*inspect.signature(sweep).parameters, "parameters"), "an argument of sweep"),
                 **dict.fromkeys(allowed, f"an argument of {SOLVERS[solver].__name__}"), **dict.fromkeys(FIELDS, "a field of the problem")}  # fmt: skip
        for name in parameters:
            if name in taken:
                raise ValueError(f"the symbol {name} of the rule or the network has the name of {taken[name]}, so that {name}= would mean both: "
                                 "rename the symbol")  # fmt: skip
        known = (*FIELDS, *parameters, *allowed)
        for name in options:
            if name not in known:
                raise ValueError(f"{name}={options[name]!r} is neither a field of the problem, a parameter of the rule nor an argument of "
                                 f"{SOLVERS[solver].__name__}: known are {', '.join(known)}")  # fmt: skip
        # 1 and 1.0 are the same point
        number = lambda name, value: float(value) if name in (*FIELDS, *parameters) and name != "steps" else _plain(name, value)
        axes = {name: _values(name, [number(name, value) for value in given]) for name, given in options.items()
                if (name in parameters or name not in (*INDIFFERENT, *TIMES)) and _is_many(given)}  # fmt: skip
        fixed = {name: _plain(name, given) for name, given in options.items() if name not in axes}
        return _Task(solver, problem, once, net, parameters, axes, {"throw": False, **fixed}, every)

    @property
    def count(self) -> int:
        """Number of points."""
        return int(np.prod([len(values) for values in self.axes.values()], dtype=int))

    def solve(self, point: Mapping[str, Any], folder: Path | None) -> tuple[Solution, bool]:
        """One point's solution, and whether it was there."""
        given = {**self.fixed, **point}
        p = replace(self.problem, **{name: given[name] for name in FIELDS if name in given})
        options: dict[str, Any] = {name: value for name, value in given.items() if name not in (*FIELDS, *self.parameters)}
        options["parameters"] = {name: given[name] for name in self.parameters if name in given}
        request = self._request(p, options)
        if folder is None:
            return SOLVERS[self.solver](p, self.rule, self.net, **options), False
        target = folder / file_name(point)
        if target.exists():
            stored = _checked(target, request, p)
            return raise_failure(stored) if self.fixed["throw"] else stored, True
        unfinished = folder / f".{target.name}.checkpoint"
        if self.solver != "lazy" and self.every is not None:
            options |= {"checkpoint": unfinished, "every": self.every}
        solution = SOLVERS[self.solver](p, self.rule, self.net, **options)
        solution = replace(solution, stats={**solution.stats, "request": request})
        solution.save(target)
        unfinished.unlink(missing_ok=True)
        return solution, False

    def _request(self, p: Problem, options: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides about a solution, as JSON has it."""
        bound, values = dynamics(self.rule, self.net, options["parameters"])
        signature = inspect.signature(SOLVERS[self.solver]).bind(p, self.rule, self.net, **options)
        signature.apply_defaults()
        settings = {name: value for name, value in signature.arguments.items() if name not in INDIFFERENT}
        fields: dict[str, Any] = {name: value for name in FIELDS if (value := getattr(p, name))}
        request = {
            "solver": self.solver, "rule": bound.name, "source": hashlib.sha256(bound.source.encode()).hexdigest(),
            "problem": problem_hash(p), "fields": fields, "parameters": values, "settings": settings,
        }  # fmt: skip
        return json.loads(json.dumps(request, default=str))


class _Once:
    """A rule on a network that generates its code once, not at every point."""

    def __init__(self, rule: Any, net: Any) -> None:
        self._rule, self._source = rule, rule.bind(net).source()
        self._lazy: Any = None
        self._equations: Any = None

    def bind(self, net: Any) -> _Once:
        """Itself: the network is the sweep's."""
        return self

    def source(self) -> str:
        """The generated text."""
        return self._source

    def lazy_kernel(self, net: Any) -> Any:
        """The lazy kernel, derived once."""
        if self._lazy is None:
            self._lazy = self._rule.lazy_kernel(net)
        return self._lazy

    def dmft_equations(self, net: Any) -> Any:
        """The mean-field equations, derived once."""
        if self._equations is None:
            self._equations = self._rule.dmft_equations(net)
        return self._equations


def _is_many(value: Any) -> bool:
    return (isinstance(value, np.ndarray) and value.ndim > 0) or (isinstance(value, Sequence) and not isinstance(value, str))


def _plain(name: str, value: Any) -> Any:
    """An argument as JSON and file names have it: what NumPy has its own types for is the same request as without."""
    if name == "seed":
        return seed_number(name, value)
    if name == "dtype" and value is not None:
        return str(real_type(value))
    if name in TIMES and value is not None:
        return tuple(map(_item, listed(name, value)))
    return _item(value)


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _values(name: str, given: Any) -> tuple:
    values = tuple(given)
    if not values:
        raise ValueError(f"{name}=[] has no values: give at least one")
    if len(set(values)) < len(values):
        raise ValueError(f"{name}={list(values)} has a value twice: give each once")
    return values


def _checked(path: Path, request: Mapping[str, Any], p: Problem) -> Solution:
    """A stored solution, if it is the one that is asked for."""
    remedy = "give another out=, or delete the file to solve it again"
    solution = Solution.load(path)
    stored = solution.stats.get("request")
    if stored is None:
        raise ValueError(f"{path} was not saved by a sweep, so that nothing says how it was solved: {remedy}")
    if not {"parameters", "settings"} <= set(stored):
        raise ValueError(f"{path} was saved by an earlier version, which did not tell parameters of the rule from arguments of the solver: {remedy}")
    unequal = lambda theirs, ours: [name for name in dict.fromkeys((*ours, *theirs)) if theirs.get(name) != ours.get(name)]
    show = lambda theirs, ours, names: [f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in names]
    names = unequal(stored, request)
    differences = show(stored, request, [name for name in names if name in ("solver", "rule")])
    for group in ("parameters", "settings"):
        differences += show(stored[group], request[group], unequal(stored[group], request[group]))
    if "source" in names and "rule" not in names:
        differences.append("the rule or the network is another of the same name")
    if "problem" in names:
        differences += problem_differences(solution.problem.arrays(), p.arrays())
    if differences:
        raise ValueError(f"{path} holds another solution ({'; '.join(differences)}): {remedy}")
    return solution


def _summary(solution: Solution) -> dict[str, Any]:
    last = lambda record: None if record is None else float(record[-1])
    return {
        "loss": last(solution.loss), "loss_se": last(solution.loss_se), "test_loss": last(solution.test_loss),
        "test_loss_se": last(solution.test_loss_se), "alignment": last(solution.alignment[-1]), "cka": last(solution.cka[-1]),
        "status": solution.status,
    }  # fmt: skip


def _present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _text(value: Any) -> str:
    return "" if not _present(value) else f"{value:.5g}" if isinstance(value, float) else str(value)
