"""The demo in numbers: one row a rule, for the terminal and for report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from derive import LazyKernel
from lazyrich.solving import Comparison, accuracy, compare, value_and_error


def row(stem: str, label: str, lazy: Any, theory: Any, network: Any) -> dict:
    """What the tables and summary.json hold of a rule."""
    final = compare(theory, network)
    scores = [entry.z for entry in final if entry.z is not None]
    return {
        "rule": label,
        "stem": stem,
        "final": [asdict(entry) | {"z": entry.z} for entry in final],
        "lazy_training_loss": float(lazy.loss[-1]),
        "lazy_test_loss": float(lazy.test_loss[-1]),
        "test_accuracy": {"theory": accuracy(theory), "network": accuracy(network), "lazy": accuracy(lazy)},
        "largest_loss_deviation": float(np.linalg.norm(theory.loss - network.loss) / np.linalg.norm(network.loss)),
        "mean_square_z": float(np.mean(np.square(scores))) if scores else None,
    }


def table(rows: Sequence[Mapping], steps: int) -> Table:
    """For the terminal: training and test loss with standard errors and z-scores."""
    found = Table(
        title=f"After {steps} steps (± standard error; z: theory minus networks, in standard errors)",
        title_justify="left",
    )
    found.add_column("rule")
    for heading in (
        "loss, theory",
        "networks",
        "z",
        "test loss, theory",
        "networks",
        "z",
        "test accuracy",
        "lazy loss",
    ):
        found.add_column(heading, justify="right")
    for entry in rows:
        train, test = entry["final"][:2]
        share, lazy = entry["test_accuracy"]["theory"], entry["lazy_training_loss"]
        found.add_row(entry["rule"], *_cells(train), *_cells(test), f"{share:.2f}", f"{lazy:.4f}")
    return found


def markdown(
    rows: Sequence[Mapping], scale: Any, kernels: Mapping[str, LazyKernel], seconds: Mapping[str, float], total: float
) -> str:
    """The text part of the report."""
    from lazyrich.demo import kernel_line

    first, second = scale.classes
    lines = [
        f"# Learning rules on handwritten digits, {first} against {second}",
        "",
        f"{scale.depth} hidden layers, activation {scale.activation}, γ0 = {scale.gamma0:g}, η = {scale.eta:g}, "
        f"{scale.steps} steps, P = {scale.train} training and {scale.test} test images. "
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
        "## After training",
        "",
        "± standard errors over replicas and seeds; z is theory minus networks in units of both errors. "
        f"Networks of finite width differ from the limit by O(1/{scale.width}) besides.",
        "",
        "| rule | quantity | theory | networks | z |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in rows:
        for index, item in enumerate(entry["final"]):
            theory, network, z = _cells(item)
            lines.append(f"| {entry['rule'] if index == 0 else ''} | {item['quantity']} | {theory} | {network} | {z} |")
        lines.append(
            f"| | test accuracy | {entry['test_accuracy']['theory']:.2f} | {entry['test_accuracy']['network']:.2f} | |"
        )
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
    found = Comparison(item["quantity"], item["theory"], item["theory_se"], item["network"], item["network_se"])
    z = "exact" if found.z is None else f"{found.z:+.1f}"
    return value_and_error(found.theory, found.theory_se), value_and_error(found.network, found.network_se), z
