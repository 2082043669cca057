"""Recorded derivations: what was done, with which equation, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import sympy as sp

from .symbols import LATEX_NAMES


def to_latex(expr: object) -> str:
    """LaTeX of an expression, an equation, or a string that is LaTeX already, with the project's symbol names."""
    return expr if isinstance(expr, str) else sp.latex(expr, symbol_names=LATEX_NAMES)


@dataclass(frozen=True)
class Step:
    """One step of a derivation.

    Attributes:
        reason: one sentence, why this step holds ("Price's theorem in c", "z and z̃ are independent of h at t = 0").
        equation: the result of the step: a SymPy expression or relation, or a LaTeX string; None for a remark.
        children: the steps inside this one, e.g. those of a Gaussian expectation.
    """

    reason: str
    equation: sp.Basic | str | None = None
    children: tuple[Step, ...] = ()

    def lines(self, indent: int = 0) -> Iterator[str]:
        """The step and those inside it as plain text."""
        pad = "  " * indent
        yield f"{pad}{self.reason}"
        if self.equation is not None:
            yield f"{pad}    {self.equation}"
        for child in self.children:
            yield from child.lines(indent + 1)


@dataclass(frozen=True)
class Derivation:
    """An ordered list of steps; prints as text, exports as LaTeX."""

    title: str
    steps: tuple[Step, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        numbered = []
        for number, step in enumerate(self.steps, 1):
            first, *rest = step.lines(1)
            numbered.append("\n".join([f"{number}. {first.strip()}", *rest]))
        return "\n".join([self.title, "", *numbered])

    __repr__ = __str__

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def latex(self) -> str:
        """An enumerate environment that compiles with amsmath."""
        from .latex import derivation_latex

        return derivation_latex(self)

    def _repr_latex_(self) -> str:
        return self.latex()
