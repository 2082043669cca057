"""Runs that survive being killed: the whole state of a solver in one file, written every so many steps.

A resumed run goes on from the very bits that were saved, so that its result is the one of an uninterrupted run.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import numpy as np

from .dynamics import Dynamics
from .errors import positive_integer
from .jaxify import jaxify
from .objective import Objective
from .problem import Problem
from .sampling import Innovations
from .solution import Solution
from .storage import PART, problem_of, read, versions, write

FORMAT = "lazyrich checkpoint"
VERSION = 2
# Seconds that pass at least between two writings, unless it is said how often to write.
PATIENCE = 10.0
# Results are reproducible to the bit only with the same of these.
DECISIVE = ("lazyrich", "jax", "numpy")


@dataclass
class Keeper:
    """What a solver tells about its progress; with path None it listens and keeps nothing.

    Attributes:
        path: the file.
        every: steps between writings.
        patience: seconds between writings, at least.
        header: what the run is: rule, parameters, settings.
        problem: the problem's arrays, by name.
        done: what the file knows about finished runs, by name.
        unfinished: what it knows about the run that was interrupted.
        written: when it was last written, or opened.
    """

    path: Path | None
    every: int = 1
    patience: float = 0.0
    header: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, np.ndarray] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    unfinished: dict[str, Any] | None = None
    written: float = field(default_factory=monotonic)

    def finished(self, name: str) -> Any:
        """What the run of this name found, a replica or a batch of networks; None if it did not get to its end."""
        return self.done.get(name)

    def room(self, name: str) -> Any:
        """The solver's bookkeeping when this run was interrupted, None if it was not."""
        saved = self.unfinished
        return None if saved is None or saved["name"] != name else saved["room"]

    def resume(self, name: str, state: Any, history: Any) -> tuple[Any, Any]:
        """State and history to go on from: the saved ones, or else those given.

        Args:
            name: of the run.
            state, history: at the start, with the `room` that was saved; they tell the structure.

        Raises:
            ValueError: the file's arrays do not have that structure.
        """
        saved = self.unfinished
        if saved is None or saved["name"] != name:
            return state, history
        leaves, structure = jax.tree.flatten(state)
        kept = saved["state"]
        if len(kept) != len(leaves) or any(a.dtype != b.dtype or a.ndim != b.ndim for a, b in zip(kept, leaves, strict=False)):
            raise ValueError(f"{self.path} does not hold the state of this run: it is damaged; delete it to start anew")
        whole = lambda array, empty: np.concatenate([array, np.zeros((len(empty) - len(array), *array.shape[1:]), array.dtype)])
        self.unfinished = None
        return jax.tree.unflatten(structure, kept), jax.tree.map(whole, saved["history"], history)

    def next_stop(self, t: int, stop: int) -> int:
        """Where to pause on the way from t to `stop`."""
        return stop if self.path is None else min(stop, (t // self.every + 1) * self.every)

    def due(self, t: int) -> bool:
        """Whether the state at t is to be written."""
        return self.path is not None and t % self.every == 0 and monotonic() - self.written >= self.patience

    def write_state(self, name: str, t: int, state: Any, history: Any, room: Any = None) -> None:
        """Write everything, in the middle of a run.

        Args:
            name: of the run.
            t: how many times are recorded.
            state, history: arrays of numpy, those of the history with time first.
            room: the solver's own bookkeeping of capacity, what JSON can hold.
        """
        past = jax.tree.map(lambda array: array[:t], history)
        self._write({"name": name, "t": t, "room": room, "state": jax.tree.leaves(state), "history": past})

    def finish(self, name: str, run: dict[str, Any]) -> None:
        """Write everything, at the end of a run that found `run`."""
        if self.path is not None:
            self.done[name] = run
            self._write(None)

    def _write(self, unfinished: dict[str, Any] | None) -> None:
        self.written = monotonic()
        if self.path is None or jax.process_index() > 0:
            return
        arrays: dict[str, np.ndarray] = {f"problem/{name}": array for name, array in self.problem.items()}
        body = {name: _pack(entry, arrays) for name, entry in (("done", self.done), ("unfinished", unfinished))}
        write(self.path, {**self.header, **body}, arrays)


def open_checkpoint(
    path: str | PathLike[str] | None, every: int | None, solver: str, p: Problem, rule: Dynamics, values: Mapping[str, float],
    settings: Mapping[str, Any],
) -> Keeper:  # fmt: skip
    """The keeper of a run, with what its file knows already.

    Args:
        path: the file; None to keep nothing.
        every: steps between writings; by default a twentieth of all, and `PATIENCE` seconds.
        solver: "dmft" or "finite".
        p, rule, values, settings: what is solved and how: a file is only continued if all of it agrees.

    Raises:
        ValueError: the file is of another run or of other versions, truncated or foreign; or `every` without a path.
    """
    if path is None:
        if every is not None:
            raise ValueError(f"every={every!r} without checkpoint=: there is no file to write to; give checkpoint='run.ckpt'")
        return Keeper(None)
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"checkpoint={str(path)!r} lies in a folder that does not exist: create {target.parent} first")
    interval = -(-p.steps // 20) if every is None else positive_integer("every", every, "a number of steps between checkpoints")
    header = {
        "format": FORMAT, "version": VERSION, "versions": versions(), "solver": solver, "rule": rule.name, "source": rule.source,
        "source_hash": hashlib.sha256(rule.source.encode()).hexdigest(), "problem_hash": problem_hash(p), "biased": rule.biased,
        "parameters": dict(values), "settings": dict(settings),
    }  # fmt: skip
    # several processes write together, and have clocks of their own
    patience = PATIENCE if every is None and jax.process_count() == 1 else 0.0
    keeper = Keeper(target, interval, patience, json.loads(json.dumps(header)), p.arrays())
    for leftover in glob.glob(f".{glob.escape(target.name)}.*{PART}", root_dir=target.parent):
        (target.parent / leftover).unlink(missing_ok=True)  # of a writer that was killed
    if target.exists():
        saved, arrays = _read(target)
        _compare(target, keeper, saved, arrays)
        keeper.done, keeper.unfinished = saved["done"], saved["unfinished"]
    return keeper


def problem_hash(p: Problem) -> str:
    """The same for equal problems, in all their bits."""
    digest = hashlib.sha256()
    for name, value in sorted(p.arrays().items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Partial:
    """What an unfinished run has found so far.

    Attributes:
        solver: "dmft", whose runs are replicas, or "finite", whose runs are networks.
        problem, rule, parameters, settings, versions: what is solved, by what.
        samples: S of the replicas below, with `tol` the largest so far; None of networks.
        t: number of recorded times of each run that began; the last may be unfinished.
        f: outputs of each run.
        loss: losses of each run.
        finished: number of runs that got to their end.

    Shapes:
        f[r] (t[r], P), loss[r] (t[r],).
    """

    solver: str
    problem: Problem
    rule: str
    parameters: dict[str, float]
    settings: dict[str, Any]
    versions: dict[str, str]
    samples: int | None
    t: list[int]
    f: list[np.ndarray]
    loss: list[np.ndarray]
    finished: int
    _dynamics: Dynamics
    _runs: list[dict[str, Any]]

    def solution(self) -> Solution:
        """All order parameters of the finished runs.

        Raises:
            ValueError: none is finished yet.
        """
        if not self._runs:
            begun = f"the first is at t={self.t[0]} of {self.problem.steps}" if self.t else "none has begun"
            raise ValueError(f"no {self._one} is finished ({begun}): use .f and .loss, or resume the run")
        if self.solver == "finite":
            from . import finite

            return finite.solution_of(self.problem, self._dynamics, self.parameters, self._runs, {**self.settings, "seeds": self.finished}, throw=False)
        from . import dmft

        settings = {**self.settings, "samples": self.samples, "replicas": self.finished}
        return dmft.solution_of(self.problem, self._dynamics, self.parameters, self._runs, settings, throw=False)

    @property
    def _one(self) -> str:
        return "network" if self.solver == "finite" else "replica"

    def __repr__(self) -> str:
        last = f", the next at t={self.t[-1]}" if len(self.t) > self.finished else ""
        total = self.settings.get("seeds" if self.solver == "finite" else "replicas", "?")
        losses = ", ".join(f"{loss[-1]:.4g}" for loss in self.loss if len(loss))
        return f"Partial({self.rule}, {self.finished} of {total} {self._one}s finished{last}, T={self.problem.steps}; losses {losses or 'none'})"


def load_checkpoint(path: str | PathLike[str]) -> Partial:
    """What a running, killed or finished run has found so far.

    Args:
        path: what was given as `checkpoint=`.

    Raises:
        FileNotFoundError: there is none yet.
        ValueError: the file is truncated or foreign.
    """
    header, arrays = _read(Path(path))
    p = problem_of(arrays)
    networks, unfinished = header["solver"] == "finite", header["unfinished"]
    begun = [*header["done"], *([unfinished["name"]] if unfinished else [])]
    # replicas with fewer samples were steps on the way to `tol`
    samples = None if networks else max(map(_samples, begun), default=0)
    runs = [run for name, run in header["done"].items() if networks or _samples(name) == samples]
    f = [each for run in runs for each in run["f"]] if networks else [run["history"]["f"] for run in runs]
    finished = len(f)
    if unfinished is not None:
        last = unfinished["history"]["f"]
        f += list(np.moveaxis(last, 1, 0)) if networks else [last]
    rule = Dynamics(jaxify(header["source"]), header["source"], header["biased"])
    return Partial(
        header["solver"], p, header["rule"], header["parameters"], header["settings"], header["versions"], samples,
        [len(record) for record in f], f, [p.loss(record) for record in f], finished, rule, runs,
    )  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    remedy = "give the path that was given as checkpoint=, or delete the file to start anew"
    header, arrays = read(path, FORMAT, VERSION, "a checkpoint written", remedy)
    try:
        header |= {name: _unpack(header[name], arrays) for name in ("done", "unfinished")}
    except KeyError as error:
        raise ValueError(f"{path} lacks the entry {error}: it is damaged; delete it to start anew") from None
    return header, arrays


def _compare(path: Path, own: Keeper, saved: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a file of another run."""
    differences = []
    if saved["solver"] != own.header["solver"]:
        differences.append(f"the solver is {saved['solver']} there and {own.header['solver']} here")
    stored = {name.removeprefix("problem/"): array for name, array in arrays.items() if name.startswith("problem/")}
    differences += problem_differences(stored, own.problem)
    if saved["source_hash"] != own.header["source_hash"]:
        differences.append(f"the rule is {saved['rule']} there and {own.header['rule']} here, or the network is another")
    for group in ("parameters", "settings"):
        for name in sorted({*saved[group], *own.header[group]}):
            theirs, ours = saved[group].get(name), own.header[group].get(name)
            if theirs != ours:
                differences.append(f"{name} is {theirs!r} there and {ours!r} here")
    remedy = "give another checkpoint= path, or delete the file to start anew"
    if differences:
        raise ValueError(f"{path} is the checkpoint of another run ({'; '.join(differences)}): it cannot be continued as this one; {remedy}")
    changed = [f"{name} {saved['versions'][name]} there, {own.header['versions'][name]} here" for name in DECISIVE
               if saved["versions"][name] != own.header["versions"][name]]  # fmt: skip
    if changed:
        raise ValueError(f"{path} was written by other versions ({'; '.join(changed)}): the result would mix both; use those, or {remedy}")


def problem_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs between two problems, given by their `arrays`: a stored one there, and the one here."""
    unequal = lambda a, b: a is None or b is None or not np.array_equal(a, b)
    pairs = {name: (theirs.get(name), ours.get(name)) for name in sorted({*theirs, *ours})}
    return [_difference(name, *pair) for name, pair in pairs.items() if unequal(*pair)]


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if name == "loss":
        there, here = (Objective.of("squared" if source is None else str(source)).name for source in (theirs, ours))
        return f"loss is {there!r} there and {here!r} here" if there != here else f"loss is another {here!r}"
    if name in ("momentum", "weight_decay"):
        theirs, ours = (np.float64(0.0 if value is None else value) for value in (theirs, ours))
    if theirs is None or ours is None:
        return f"{name} is given only {'here' if theirs is None else 'there'}"
    if np.ndim(theirs) == 0 and np.ndim(ours) == 0:
        return f"{name} is {np.asarray(theirs).item()!r} there and {np.asarray(ours).item()!r} here"
    return f"{name} holds other numbers"


def replica_name(innovations: Innovations) -> str:
    """The name of the replica with these innovations."""
    return f"S={innovations.samples} replica={innovations.replica}"


def _samples(name: str) -> int:
    return int(name.split()[0].removeprefix("S="))


def _pack(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree of what JSON can hold; its arrays go to `arrays`."""
    if isinstance(tree, (np.ndarray, np.generic)):
        key = f"array/{len(arrays)}"
        arrays[key] = np.asarray(tree)
        return {"array": key}
    if isinstance(tree, tuple):
        return {"tuple": [_pack(entry, arrays) for entry in tree]}
    if isinstance(tree, list):
        return {"list": [_pack(entry, arrays) for entry in tree]}
    if isinstance(tree, dict):
        return {"dict": {name: _pack(entry, arrays) for name, entry in tree.items()}}
    return {"value": tree}


def _unpack(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    kind, content = next(iter(tree.items()))
    if kind == "array":
        return arrays[content]
    if kind == "value":
        return content
    if kind == "dict":
        return {name: _unpack(entry, arrays) for name, entry in content.items()}
    return {"tuple": tuple, "list": list}[kind](_unpack(entry, arrays) for entry in content)
