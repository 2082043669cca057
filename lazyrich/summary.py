"""The demo in numbers: one row a rule, for the terminal and for report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from derive import LazyKernel
from lazyrich.console import counted
from lazyrich.solving import accuracy, compare, value_and_error


def row(stem: str, label: str, lazy: Any, theory: Any, network: Any) -> dict:
    """What the tables and summary.json hold of a rule."""
    final = compare(theory, network)
    scores = [entry.z for entry in final if entry.z is not None]
    return {
        "rule": label,
        "stem": stem,
        "final": [asdict(entry) for entry in final],
        "lazy_training_loss": float(lazy.loss[-1]),
        "lazy_test_loss": float(lazy.test_loss[-1]),
        "test_accuracy": {"theory": accuracy(theory), "network": accuracy(network), "lazy": accuracy(lazy)},
        "loss_curve_deviation": float(np.linalg.norm(theory.loss - network.loss) / np.linalg.norm(network.loss)),
        "mean_square_z": float(np.mean(np.square(scores))) if scores else None,
    }


def table(rows: Sequence[Mapping], steps: int, width: int) -> Table:
    """For the terminal, 80 columns, of the last of `steps` recorded times: training and test loss with standard errors in brackets, and z-scores."""
    found = Table(
        title=f"After {counted(steps - 1, 'update')}: 0.067(3) means 0.067 ± 0.003; z in standard deviations",
        title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False, caption_justify="left",
        caption=f"Besides their standard errors, networks of width {width} differ from the limit by O(1/{width}).",
    )  # fmt: skip
    found.add_column("rule", no_wrap=True)
    for heading in ("loss\ntheory", "\nnetworks", "\nz", "test loss\ntheory", "\nnetworks", "\nz", "test\nright"):
        found.add_column(heading, justify="right", no_wrap=True)
    for entry in rows:
        cells = []
        for item in entry["final"][:2]:
            cells += [
                brackets(item["theory"], item["theory_se"]),
                brackets(item["network"], item["network_se"]),
                _z(item),
            ]
        found.add_row(entry["rule"], *cells, _share(entry["test_accuracy"]["theory"]))
    return found


def brackets(value: float, error: float) -> str:
    """0.067(3) for 0.067 ± 0.003; two digits where the first is 1."""
    if not np.isfinite(error) or error <= 1e-15:
        return f"{value:.4g}"
    digits = -int(np.floor(np.log10(error)))
    digits = max(0, digits + (error * 10**digits < 1.95))
    return f"{value:.{digits}f}({error * 10**digits:.0f})"


def markdown(
    rows: Sequence[Mapping], scale: Any, kernels: Mapping[str, LazyKernel], seconds: Mapping[str, float], total: float
) -> str:
    """The text part of the report."""
    from lazyrich.demo import kernel_line

    first, second = scale.classes
    lines = [
        f"# Learning rules on handwritten digits, {first} against {second}",
        "",
        f"{counted(scale.depth, 'hidden layer')}, activation {scale.activation}, γ0 = {scale.gamma0:g}, η = {scale.eta:g}, "
        f"{counted(scale.steps - 1, 'update')}, P = {scale.train} training and {scale.test} test images. "
        f"Theory: {scale.replicas} replicas of {scale.samples} samples. "
        f"Networks: {scale.seeds} of width {scale.width}.",
        "",
        "![report](report.png)",
        "",
        "## Lazy kernels",
        "",
        *(f"- **{entry['rule']}**: `{kernel_line(kernels[entry['stem']])}`" for entry in rows),
        "",
        "Phi_l and dotPhi_l are the Gaussian expectations of φφ and φ̇φ̇ at layer l, K the input kernel; derivations are "
        "in `latex/`, JAX modules in `kernels/`.",
        "",
        f"## After {counted(scale.steps - 1, 'update')}",
        "",
        "± standard errors over replicas and seeds; z is theory minus networks in standard deviations, "
        "given that errors come from so few runs (Welch's t). "
        f"Networks of finite width differ from the limit by O(1/{scale.width}) besides.",
        "",
        "| rule | quantity | theory | networks | z |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in rows:
        for index, item in enumerate(entry["final"]):
            theory, network, z = _cells(item)
            lines.append(f"| {entry['rule'] if index == 0 else ''} | {item['quantity']} | {theory} | {network} | {z} |")
        shares = [_share(entry["test_accuracy"][part]) for part in ("theory", "network")]
        lines.append(f"| | test accuracy | {shares[0]} | {shares[1]} | |")
        lines.append(f"| | training loss, lazy limit | {entry['lazy_training_loss']:.4g} | | |")
    lines += ["", "## Time", "", "| solution | seconds |", "| --- | --- |"]
    lines += [f"| {name} | {value:.1f} |" for name, value in seconds.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"This run took {total:.0f} s; solutions that it took up from an earlier one kept their times.",
            "",
        ]
    )


def _cells(item: Mapping) -> tuple[str, str, str]:
    theory, network = (
        value_and_error(item["theory"], item["theory_se"]),
        value_and_error(item["network"], item["network_se"]),
    )
    return theory, network, _z(item)


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.2f}"


def _z(item: Mapping) -> str:
    return "exact" if item["z"] is None else f"{item['z']:+.1f}"
