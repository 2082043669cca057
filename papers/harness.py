"""Running a paper's studies: each is computed once, saved, and measured against the claims.

`python -m papers.<name>.run --fast` is the entry; see any folder's run.py for what it must define.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from derive.errors import BadInput
from lazyrich.arguments import writable_folder
from lazyrich.console import complain
from numerics.storage import write

from .claims import Claim, Measured, Paper

__all__ = ["Measured", "main"]

Arrays = dict[str, np.ndarray]
Study = Callable[[bool], Mapping[str, object]]
ROOT = Path(__file__).parents[1]


def main(
    file: str,
    studies: Mapping[str, Study],
    measure: Callable[[dict[str, Arrays]], dict[str, Measured]],
    draw: Callable[[dict[str, Arrays], Path], None],
    use: Callable[[str], None] | None = None,
) -> None:
    """The command line of a paper's folder.

    Args:
        file: the calling module's `__file__`.
        studies: by name; each takes whether the run is the full one and returns arrays by name.
        measure: values of all claims, from all studies' arrays.
        draw: writes the figures from the same.
        use: takes a source of data, where studies can have another than their own, and refuses what cannot be read: adds the option --data.
            What is found with it stays in the folder of the arrays.

    Raises:
        SystemExit: with code 2, after a line that says why, where data or folders cannot be read or written.
    """
    try:
        _run(file, studies, measure, draw, use)
    except (BadInput, OSError) as error:
        complain(str(error))
        sys.exit(2)


def _run(
    file: str,
    studies: Mapping[str, Study],
    measure: Callable[[dict[str, Arrays]], dict[str, Measured]],
    draw: Callable[[dict[str, Arrays], Path], None],
    use: Callable[[str], None] | None,
) -> None:
    folder = Path(file).resolve().parent
    options = _options(folder, studies, use is not None)
    mode = "full" if options.full else "fast"
    console = Console()
    jax.config.update("jax_enable_x64", True)
    paper = Paper.read(folder)
    store = writable_folder(options.out) / folder.name / mode
    if use is not None and options.data is not None:
        use(options.data)
        store /= re.sub(r"[^\w.-]+", "-", options.data)
        folder, paper = store, replace(paper, folder=store)
    data = {}
    for place, (name, study) in enumerate(studies.items(), 1):
        again = options.again and (not options.only or name in options.only)
        missing_is_fine = bool(options.only) and name not in options.only
        label = f"{paper.name}, study {place} of {len(studies)}: {name}"
        data[name] = _obtain(store / f"{name}.npz", study, options.full, again, label, console, missing_is_fine)
    if absent := [name for name, arrays in data.items() if arrays is None]:
        console.print(f"not measured yet: {', '.join(absent)} have not run; run without --only")
        return
    complete = {name: arrays for name, arrays in data.items() if arrays is not None}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    draw(complete, folder / "figures")
    measured = measure(complete)
    paper.record(measured, mode)
    console.print(_verdicts(paper, measured))
    console.print(f"figures: {folder / 'figures'}   numbers: {paper.results_file(mode)}   data: {store}")


def _options(folder: Path, studies: Mapping[str, Study], takes_data: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m papers.{folder.name}.run", description="Compute, measure, draw; finished studies are kept."
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--fast", action="store_true", help="small sizes, minutes on two cores (default)")
    size.add_argument("--full", action="store_true", help="the paper's sizes where they can be had")
    parser.add_argument("--only", nargs="+", choices=list(studies), metavar="STUDY", help=f"run these only: {', '.join(studies)}")
    parser.add_argument("--again", action="store_true", help="repeat studies that have run before")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "papers", help="where the studies' arrays go (default out/papers)")
    if takes_data:
        parser.add_argument("--data", metavar="SOURCE", help="other data than the paper's folder uses: mnist:FOLDER or cifar10:FOLDER")
    return parser.parse_args()


def _obtain(path: Path, study: Study, full: bool, again: bool, label: str, console: Console, optional: bool) -> Arrays | None:
    """A study's arrays, from disk if it has run."""
    if path.exists() and not again:
        console.print(f"{label}: kept from an earlier run ({path})")
    elif optional:
        return None
    else:
        began = perf_counter()
        with console.status(f"{label} …"):
            found = {name: np.asarray(array) for name, array in study(full).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, {"format": "lazyrich study", "study": label}, found)
        console.print(f"{label}: {perf_counter() - began:.0f} s")
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "header"}


def _verdicts(paper: Paper, measured: Mapping[str, Measured]) -> Table:
    table = Table(title=f"{paper.name}: {paper.title}", title_justify="left")
    for column in ("claim", "predicted", "measured", ""):
        table.add_column(column)
    for name, claim in paper.claims.items():
        style = None if claim.holds(measured[name].value) else "bold red"
        table.add_row(claim.what, claim.expectation, str(measured[name]), verdict(claim, measured[name]), style=style)
    return table


def verdict(claim: Claim, measured: Measured) -> str:
    """In one word, or two for negative controls."""
    if claim.control:
        return "fails, as it must" if claim.holds(measured.value) else "PASSES THOUGH WRONG"
    return "agrees" if claim.holds(measured.value) else "DISAGREES"


if __name__ == "__main__":
    sys.exit("run a paper: python -m papers.<name>.run --fast")
