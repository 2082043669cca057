"""The main job: every learning rule on handwritten digits, from formula to one-page report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import sympy as sp
from rich.console import Console
from rich.text import Text

from derive import DFA, FA, GD, GLN, MLP, Hebb, LazyKernel, lazy_kernel
from derive.latex import document
from derive.rules import Rule
from lazyrich import console, records
from lazyrich.arguments import Examples
from lazyrich.data import digits

HALF = sp.Rational(1, 2)


@dataclass(frozen=True)
class Scale:
    """How large the demo is.

    The activation is erf: its kernels are closed, its features are signed, so that two classes part by sign, and it
    keeps Hebbian growth bounded (with ReLU, Hebb diverges at this learning rate).
    """

    train: int
    test: int
    steps: int
    samples: int
    replicas: int
    width: int
    seeds: int
    # Enough room for the rank that most of the rules reach: growing it later means compiling again.
    capacity: int | None = None
    eta: float = 0.5
    gamma0: float = 1.0
    depth: int = 2
    activation: str = "erf"
    classes: tuple[int, int] = (3, 8)


FULL = Scale(train=20, test=100, steps=40, samples=1024, replicas=4, width=1000, seeds=4, capacity=640)
FAST = Scale(train=6, test=10, steps=6, samples=128, replicas=2, width=64, seeds=2)


@dataclass(frozen=True)
class Entry:
    """A rule in the demo: file name, column title, the rule."""

    stem: str
    label: str
    rule: Rule


def entries() -> tuple[Entry, ...]:
    """The rules, in the order of the report's columns."""
    return (
        Entry("gd", "GD", GD()),
        Entry("fa_rho1", "FA, ρ = 1", FA(1)),
        Entry("fa_rho0.5", "FA, ρ = ½", FA(HALF)),
        Entry("fa_rho0", "FA, ρ = 0", FA(0)),
        Entry("dfa", "DFA", DFA()),
        Entry("hebb", "Hebb", Hebb()),
        Entry("gln", "GLN", GLN()),
    )


def run(folder: Path, scale: Scale = FULL, fresh: bool = False, screen: Console | None = None) -> dict:
    """Derive, generate, solve, train, report.

    Args:
        folder: for latex/, kernels/, solutions/, report.png, report.pdf, report.md and summary.json.
        scale: sizes.
        fresh: recompute instead of taking up saved solutions.
        screen: where to print; standard output if None, standard error if the caller prints the summary.

    Returns:
        The summary that is also written as JSON.
    """
    start = perf_counter()
    screen = screen or console.output()
    net = MLP(depth=scale.depth, activation=scale.activation)
    screen.print(Text(f"1. Lazy kernels: {net.size}, activation {scale.activation}", style="bold"))
    kernels = dict(_derive(folder, net, screen))

    screen.print(Text("\n2. Training dynamics at infinite width, and networks that check them", style="bold"))
    from lazyrich import solving  # JAX starts here: the formulas above are on screen before

    data = digits(scale.classes, scale.train, scale.test)
    settings = solving.Settings(
        scale.gamma0, scale.eta, scale.steps, scale.samples, scale.replicas, scale.width, scale.seeds,
        dtype="float32", capacity=scale.capacity,
    )  # fmt: skip
    arrays = {"X": data.X, "y": data.y, "X_test": data.X_test, "y_test": data.y_test}
    p = solving.problem(Examples(data.name, arrays), settings)
    store = solving.Store(folder / "solutions", fresh)
    found = {}
    for entry in entries():
        found[entry.stem] = solving.solutions(store, entry.stem, p, entry.rule, net, settings, sys.stderr.isatty())
        _progress_line(screen, entry, found[entry.stem], store)

    screen.print(Text("\n3. Report", style="bold"))
    from lazyrich import report, summary

    columns = [
        report.RuleResult(entry.label, report.one_line(kernels[entry.stem]), **found[entry.stem]) for entry in entries()
    ]
    figure = report.page(columns, data.y, data.y_test, *_headlines(scale))
    figures = report.save_figure(figure, folder)
    rows = [summary.row(entry.stem, entry.label, **found[entry.stem]) for entry in entries()]
    screen.print(summary.table(rows, scale.steps, scale.width))
    seconds = perf_counter() - start
    (folder / "report.md").write_text(summary.markdown(rows, scale, kernels, store.seconds, seconds), encoding="utf-8")
    record = {"scale": vars(scale) | {"classes": list(scale.classes)}, "rules": rows, "seconds": round(seconds, 1)}
    records.write(folder / "summary.json", record)
    names = ", ".join(str(path) for path in (*figures, folder / "report.md"))
    screen.print(
        Text(f"{seconds:.0f} s. Look at {names}; formulas in {folder / 'latex'}, kernels in {folder / 'kernels'}.")
    )
    return record


def _derive(folder: Path, net: MLP, screen: Console) -> Iterator[tuple[str, LazyKernel]]:
    """Each rule's kernel: printed, written as LaTeX (and PDF), generated as JAX code."""
    for name in ("latex", "kernels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pdfs = 0
    for entry in entries():
        kernel = lazy_kernel(entry.rule, net)
        screen.print(Text(f"{entry.label:<10}", style="bold"), Text(kernel_line(kernel)))
        tex = folder / "latex" / f"{entry.stem}.tex"
        tex.write_text(document(kernel), encoding="utf-8")
        pdfs += console.compile_pdf(tex) is not None
        kernel.save(folder / "kernels" / f"{entry.stem.replace('.', '_')}.py")
        yield entry.stem, kernel
    pdf = "and PDF" if pdfs else "(no PDF: pdflatex is not installed)"
    screen.print(Text(f"Derivations as LaTeX {pdf} in {folder / 'latex'}; JAX modules in {folder / 'kernels'}."))


def kernel_line(kernel: LazyKernel) -> str:
    """The kernel in named symbols, as text."""
    return repr(kernel).splitlines()[1].strip().replace("K_munu", "Kx").replace("_munu", "")


def _progress_line(screen: Console, entry: Entry, found: dict[str, Any], store: Any) -> None:
    seconds = sum(store.seconds[f"{entry.stem}_{part}"] for part in found)
    losses = ", ".join(f"{part} {solution.loss[-1]:.4f}" for part, solution in found.items())
    screen.print(
        Text(f"{entry.label:<10}", style="bold"), Text(f"training loss at the end: {losses}   ({seconds:.1f} s)")
    )


def _headlines(scale: Scale) -> tuple[str, str]:
    first, second = scale.classes
    title = f"Seven learning rules on handwritten digits, {first} against {second}"
    setting = f"{console.counted(scale.depth, 'hidden layer')}, {scale.activation}, γ0 = {scale.gamma0:g}"
    images = f"{scale.train} training and {scale.test} test images, {console.counted(scale.steps - 1, 'update')} with η = {scale.eta:g}"
    return title, f"{setting}; {images}; {scale.seeds} networks of width {scale.width}."
