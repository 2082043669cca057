"""Solutions on disk: one npz file, written atomically, with everything needed to know what it is."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .order_parameters import KINDS, Layers
from .problem import Problem
from .snapshots import Snapshot
from .solution import Solution

FORMAT = "lazyrich solution"
VERSION = 2  # since 2 an array that occurs several times is written once
PART = ".part"  # ends the names of files that are being written
KERNELS = ("Phi", "G", "G_tilde", "H")
ARRAYS = (
    "f", "f_se", "loss", "loss_se", "f_test", "f_test_se", "test_loss", "test_loss_se", "entk", "entk_se",
    "alignment", "alignment_se", "cka", "cka_se", "kta", "kta_se",
)  # fmt: skip
FIELDS = ("h", "z", "m")
TEXTS = ("rule", "solver", "source", "parameters", "settings", "stats", "status")


def versions() -> dict[str, str]:
    """Versions of what computed a solution."""
    try:
        own = version("lazyrich")
    except PackageNotFoundError:
        own = "not installed"
    return {"lazyrich": own, "jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()}


def save(solution: Solution, path: str | PathLike[str]) -> None:
    """Write a solution to `path`; a reader sees the old file or the new one, never a part.

    Args:
        solution: what to write.
        path: file name, used as it is.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    arrays: dict[str, Any] = {f"solution/{name}": getattr(solution, name) for name in ARRAYS if getattr(solution, name) is not None}
    arrays |= {f"problem/{name}": value for name, value in solution.problem.arrays().items()}
    kinds: dict[str, Any] = {}
    for name in KERNELS:
        layers: Layers = getattr(solution, name)
        kinds[name] = [layers.first, [type(kernel).__name__ for kernel in layers]]
        for l, kernel in layers.items():
            arrays |= {f"kernel/{name}/{l}/{part}": array for part, array in kernel.arrays().items()}
    for t, snapshot in solution.snapshots.items():
        arrays |= {f"snapshot/{t}/{name}/{l}": array for name in FIELDS for l, array in getattr(snapshot, name).items()}
    arrays, same = _distinct(arrays)
    header = {"format": FORMAT, "version": VERSION, "versions": versions(), "kernels": kinds, "snapshots": list(solution.snapshots), "same": same}
    header |= {name: getattr(solution, name) for name in TEXTS}
    write(path, header, arrays)


def _distinct(arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays without those that equal another to the bit, and which one that is: of gradient descent, G̃ and H are G, each with two equal factors."""
    first: dict[tuple[Any, ...], str] = {}
    distinct, same = {}, {}
    for name, value in arrays.items():
        array = np.asarray(value)
        known = first.setdefault((array.dtype.str, array.shape, blake2b(np.ascontiguousarray(array).data).digest()), name)
        if known == name:
            distinct[name] = array
        else:
            same[name] = known
    return distinct, same


def write(path: str | PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays and a header to one npz file; a reader sees the old file or the new one, never a part.

    Args:
        path: file name, used as it is.
        header: what JSON can hold; `format` and `version` say what the file is.
        arrays: by name.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: str | PathLike[str]) -> Solution:
    """Read a solution.

    Args:
        path: a file that `save` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, foreign, or of a later format.
    """
    header, arrays = read(path, FORMAT, VERSION, "a solution saved", "give a file written by Solution.save")
    try:
        arrays |= {name: arrays[known] for name, known in header.get("same", {}).items()}
        return _rebuild(header, arrays)
    except KeyError as error:
        raise ValueError(f"{path} lacks the entry {error}: it is damaged; save it again") from None


def read(path: str | PathLike[str], kind: str, version: int, what: str, remedy: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file that `write` wrote.

    Args:
        path: the file.
        kind: its format.
        version: the latest version that the caller reads.
        what, remedy: for the messages: what the file should be, and what to do if it is not.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, foreign, or of a later version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, AttributeError, NotImplementedError, IsADirectoryError) as error:
        raise ValueError(f"{path} cannot be read as {what} by lazyrich ({error}): it is truncated or of another kind; {remedy}") from None
    try:
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != kind:
            raise KeyError("format")
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path} is an npz file but not {what} by lazyrich: {remedy}") from None
    if header["version"] > version:
        raise ValueError(
            f"{path} has format version {header['version']}, this lazyrich ({versions()['lazyrich']}) reads up to {version}: "
            f"use the one that wrote it (lazyrich {header['versions']['lazyrich']}) or a later one"
        )
    return header, arrays


def _rebuild(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Solution:
    under = lambda prefix: {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
    layers: dict[str, Any] = {}
    for name, (first, kinds) in header["kernels"].items():
        kernels = [KINDS[kind].from_arrays(under(f"kernel/{name}/{l}/")) for l, kind in enumerate(kinds, first)]
        layers[name] = Layers(kernels, first)
    optional = {"f_test", "f_test_se", "test_loss", "test_loss_se"}
    records: dict[str, Any] = {name: arrays.get(f"solution/{name}") if name in optional else arrays[f"solution/{name}"] for name in ARRAYS}
    texts: dict[str, Any] = {name: header[name] for name in TEXTS}
    by_layer = lambda prefix: {int(l): array for l, array in under(prefix).items()}
    # files of earlier versions have none
    snapshots = {t: Snapshot(**{name: by_layer(f"snapshot/{t}/{name}/") for name in FIELDS}) for t in header.get("snapshots", [])}
    return Solution(problem=problem_of(arrays), snapshots=snapshots, **records, **layers, **texts)


def problem_of(arrays: Mapping[str, np.ndarray]) -> Problem:
    """The problem among a file's arrays."""
    return Problem.from_arrays({name.removeprefix("problem/"): array for name, array in arrays.items() if name.startswith("problem/")})
