"""Recorded derivations: what was done, with which equation, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE

from .fields import Field, Kernel, Signal, TimeFunction
from .symbols import latex_name


class _Printer(LatexPrinter):
    """LaTeX with the project's symbol names and the field's shorthand for sums over the past."""

    def _print_Symbol(self, expr: sp.Symbol, style: str = "plain") -> str:
        return latex_name(expr) or super()._print_Symbol(expr, style)

    def _print_Add(self, expr: sp.Add, order: str | None = None) -> str:
        return super()._print_Add(expr, order=order).replace("+ - ", "- ")

    def _print_Sum(self, expr: sp.Sum) -> str:
        limits = {str(index): (str(low), str(high)) for index, low, high in expr.limits}
        when = {("0", "t - 1"): "s<t", ("0", "t"): r"s\le t"}.get(limits.get("s", ("", "")))
        if limits.get("nu") == ("1", "P") and when:
            outputs = r"\, d" if "d" in limits else ""
            return rf"\sum_{{{when},\,\nu{outputs}}} " + self.parenthesize(expr.function, PRECEDENCE["Mul"])
        return super()._print_Sum(expr)


def to_latex(expr: object) -> str:
    """LaTeX of an expression, an equation, or a string that is LaTeX already, with the project's symbol names."""
    return expr if isinstance(expr, str) else _Printer().doprint(sp.sympify(expr))


def factor_latex(expr: object) -> str:
    """LaTeX of what multiplies something that follows: sums, and all that would reach over it, in brackets."""
    factor = sp.sympify(expr)
    return rf"\left({to_latex(factor)}\right)" if isinstance(factor, sp.Add | sp.Piecewise) or factor.has(sp.Sum, sp.Integral) else to_latex(factor)


def plain(equation: sp.Basic | str) -> str:
    """An equation as one line of text: expressions as SymPy reads them back, LaTeX and field equations in Unicode."""
    if isinstance(equation, str | sp.MatrixBase) or equation.atoms(Field, Kernel, Signal, TimeFunction, sp.MatrixSymbol):
        return in_unicode(to_latex(equation))
    equation = equation.xreplace({symbol: sp.Symbol(in_unicode(symbol.name)) for symbol in equation.free_symbols if "\\" in symbol.name})
    return f"{equation.lhs} = {equation.rhs}" if isinstance(equation, sp.Equality) else str(equation)


def in_unicode(tex: str) -> str:
    """LaTeX as one line of Unicode text: roots as powers, rows of a matrix apart, brackets where a line needs them."""
    from pylatexenc.latex2text import LatexNodes2Text

    # a command eats the space after it
    grouped = re.sub(r"(\\[a-zA-Z]+) (?=[-=+<>])", r"\1{} ", _in_line(_rows(tex)))
    return re.sub(r"\s+", " ", LatexNodes2Text(math_mode="text").latex_to_text(grouped)).strip()


_MATRIX = re.compile(r"(?:\\left\[)?\\begin\{([pb]?matrix|cases)\}((?:(?!\\begin).)*?)\\end\{\1\}(?:\\right(?:\]|\.))?", re.DOTALL)


def _rows(tex: str) -> str:
    r"""Write \begin{matrix}a & b\\c & d\end{matrix} as [a, b; c, d], cases as {a …; b otherwise}, lines under a sum with commas."""

    def line(match: re.Match[str]) -> str:
        cases = match[1] == "cases"
        rows = [[entry.strip() for entry in row.split("&")] for row in re.split(r"\\\\", match[2])]
        inside = "; ".join((" " if cases else ", ").join(row) for row in rows)
        return rf"\{{{inside}\}}" if cases else f"[{inside}]"

    while (flat := _MATRIX.sub(line, tex)) != tex:
        tex = flat
    return re.sub(r"\\substack\{([^{}]*)\}", lambda match: match[1].replace(r"\\", ", "), tex)


def _in_line(tex: str) -> str:
    r"""Write \frac{a + b}{c} as (a + b)/c, \sqrt[n]{a} as a^(1/n), and scripts of more than one sign in brackets."""
    match = re.search(r"\\t?frac(?=[{\d])|\\sqrt\[|[\^_](?=\{)", tex)
    if not match:
        return tex
    ahead, sign, rest = tex[: match.start()], match.group(), tex[match.end() :]
    if sign == r"\sqrt[":
        index, rest = rest.split("]", 1)
        base, rest = map(_in_line, _group(rest))
        return f"{ahead}{base if re.fullmatch(_TOKEN, base) else f'({base})'}^{{(1/{index})}}{rest}"
    if sign in "^_":
        inside, rest = map(_in_line, _group(rest))
        return f"{ahead}{sign}{{{f'({inside})' if _needs_brackets(inside, sign) else inside}}}{rest}"
    top, rest = _group(rest)
    bottom, rest = _group(rest)
    top, bottom = map(_in_line, (top, bottom))
    top = f"({top})" if re.search(r"[-+ ]", top.strip()) else top
    bottom = f"({bottom})" if re.search(rf"[-+ /]|{_PRODUCT}", bottom.strip()) else bottom
    return f"{ahead}{top}/{bottom}{_in_line(rest)}"


_TOKEN = r"\w|\d+|\\[a-zA-Z]+"
_PRODUCT = r"\d(?=[^\W\d_]|\\(?!top))"  # 2x, 2\pi


def _needs_brackets(script: str, sign: str) -> bool:
    """Whether a line would not show where the script ends: operators and spaces in it; in an exponent products, functions and powers too."""
    plain = re.sub(r"\\(?:left|right)(?![a-z])|\\(?:text|mathrm)(?=\{)|[{}]", "", script)
    if re.fullmatch(r"\([^()]*\)", plain):
        return False
    return bool(re.search(r"[-+ <=,]" if sign == "_" else rf"[-+ <=,/^(]|{_PRODUCT}", plain))


def _group(tex: str) -> tuple[str, str]:
    """The leading {…} group (or single character, or command) and what follows it."""
    if not tex.startswith("{"):
        match = re.match(r"\\[a-zA-Z]+( ?\w)?|.", tex)
        end = match.end() if match else 0
        return tex[:end], tex[end:]
    depth = 0
    for index, sign in enumerate(tex):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            return tex[1:index], tex[index + 1 :]
    return tex[1:], ""


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

    def __post_init__(self) -> None:
        if isinstance(self.equation, sp.MatrixBase):
            object.__setattr__(self, "equation", sp.ImmutableMatrix(self.equation))

    def lines(self, indent: int = 0) -> Iterator[str]:
        """The step and those inside it as plain text."""
        pad = "  " * indent
        yield f"{pad}{self.reason}"
        if self.equation is not None:
            yield f"{pad}    {plain(self.equation)}"
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
