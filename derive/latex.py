"""LaTeX: aligned equations with broken sums, derivations as lists, and standalone documents. Plain amsmath is all they need."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import sympy as sp

from .derivation import Derivation, Step, factor_latex, to_latex
from .latex_lines import PAGE, QUAD, fitted, line_width, terms, width

LETTER = 4.7  # points that a letter of text takes
LINE_WIDTH = 150  # characters of LaTeX after which a sum is broken; about one line of an A4 page at 10 pt


class Documented:
    """Something derived that can be read as a page: in a notebook as LaTeX, or as a standalone document.

    Attributes:
        equations: the result by name; not needed where `latex` says otherwise.
    """

    @property
    def equations(self) -> Mapping[str, sp.Basic | str]:
        """The result by name."""
        raise NotImplementedError

    def latex(self) -> str:
        """The result as LaTeX for amsmath: all equations as an align* environment."""
        return aligned(self.equations.values())

    def derivation(self) -> Derivation:
        """How the result was derived."""
        raise NotImplementedError

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        raise NotImplementedError

    def title(self) -> str:
        """One line: what it is of."""
        raise NotImplementedError

    def _repr_latex_(self) -> str:
        return self.latex()

    def document(self) -> str:
        """A standalone LaTeX document: definitions, result, derivation."""
        return document(self)


def aligned(equations: Iterable[sp.Basic | str], depth: int = 0) -> str:
    """An align* environment, one equation a line, long sums broken at their terms and other long lines where they can be; `depth` lists around it."""
    body = fitted(" \\\\\n".join(_aligned_line(equation, line_width(depth)) for equation in equations), depth)
    return f"\\begin{{align*}}\n{body}\n\\end{{align*}}"


def _aligned_line(equation: sp.Basic | str, page: float) -> str:
    if isinstance(equation, str):
        parts = re.split(r",?\\q?quad", equation) if len(equation) > LINE_WIDTH else [equation]
        return " \\\\\n".join(map(_mark, parts))
    if isinstance(equation, sp.MatrixBase) and max(len(to_latex(row)) for row in equation.tolist()) > 2 * LINE_WIDTH:
        short, named = named_parts(equation)
        return " \\\\\n".join([f"&{to_latex(short)}", *_definitions(named)])
    if not isinstance(equation, sp.Equality):
        whole = to_latex(equation)
        if len(whole) <= 2 * LINE_WIDTH or not isinstance(equation, sp.Expr) or isinstance(equation, sp.MatrixExpr):
            return "&" + whole
        short, named = named_parts(equation)
        return " \\\\\n".join(["&" + " \\\\\n&\\quad ".join(broken_sum(short)), *_definitions(named)])
    left, right = to_latex(equation.lhs), to_latex(equation.rhs)
    if len(left) + len(right) <= LINE_WIDTH + 60:
        return f"{left} &= {right}"
    lines, named = broken_sum(equation.rhs), dict[sp.Expr, sp.Symbol]()
    if max(map(len, lines)) > 2 * LINE_WIDTH or any(width(term) > page - QUAD for line in lines for term in terms(line)):
        short, named = named_parts(equation.rhs)
        lines = broken_sum(short)
    split = len(left) > LINE_WIDTH // 2
    head = " \\\\\n&\\quad ".join([f"&{left}", "= " + lines[0], *lines[1:]] if split else [f"{left} &= " + lines[0], *lines[1:]])
    return " \\\\\n".join([head, *(_named_line(name, part) for part, name in named.items())])


def _definitions(named: Mapping[sp.Expr, sp.Symbol]) -> Iterable[str]:
    """The lines of named sums under an expression that is aligned at its left."""
    return ("&" + _named_line(name, part).replace("&=", "=", 1) for part, name in named.items())


def _named_line(name: sp.Symbol, part: sp.Expr) -> str:
    """t = …, in lines that leave room for the longer left side of the equation above."""
    return f"{to_latex(name)} &= " + " \\\\\n&\\quad ".join(broken_sum(part, LINE_WIDTH - 20))


def named_parts(expr: Any) -> tuple[Any, dict[sp.Expr, sp.Symbol]]:
    """Long sums where no line can be broken, in functions, roots, powers and matrices, by names t_1, t_2, …: the rest, and the sums with their names."""
    taken = {symbol.name for symbol in expr.free_symbols}
    names = (name for name in (f"t_{number}" for number in count(1)) if name not in taken)
    parts: dict[sp.Expr, sp.Symbol] = {}

    longest_kept = LINE_WIDTH // (10 if isinstance(expr, sp.MatrixBase) else 3)

    def shortened(e: sp.Expr, breakable: bool) -> sp.Expr:
        if not e.args or not isinstance(e, sp.Expr) or isinstance(e, sp.Indexed | sp.Sum | sp.Integral):
            return e
        longest = max(e.args, key=lambda arg: len(to_latex(arg)))
        inside = lambda arg: breakable and (isinstance(e, sp.Add) or (isinstance(e, sp.Mul) and arg == longest))
        small = e.func(*(shortened(arg, inside(arg)) for arg in e.args))
        if isinstance(small, sp.Add) and not breakable and len(to_latex(small)) > longest_kept:
            if small not in parts:
                parts[small] = sp.Symbol(next(names))
            return parts[small]
        return small

    return expr.applyfunc(lambda entry: shortened(entry, False)) if isinstance(expr, sp.MatrixBase) else shortened(expr, True), parts


def _mark(equation: str) -> str:
    """Put the alignment point in front of the first relation outside braces."""
    depth = 0
    for match in re.finditer(r"\\[{}]|[{}]|=|\\(?:sim|to)(?![a-zA-Z])", equation):
        token = match.group()
        if token in "{}":
            depth += 1 if token == "{" else -1
        elif depth == 0 and not token.startswith(("\\{", "\\}")):
            return equation[: match.start()] + "&" + equation[match.start() :]
    return "&" + equation


def broken_sum(expr: sp.Expr, width: int = LINE_WIDTH) -> list[str]:
    """An expression in lines of about `width` characters: sums break at their terms, products inside their longest sum."""
    if len(to_latex(expr)) <= width:
        return [to_latex(expr)]
    if isinstance(expr, sp.Mul):
        sums = sorted((factor for factor in expr.args if isinstance(factor, sp.Add)), key=lambda e: len(to_latex(e)))
        if sums and len(to_latex(sums[-1])) > width // 2:
            place = expr.args.index(sums[-1])
            before, after = expr.args[:place], expr.args[place + 1 :]
            if expr.is_commutative:
                before, after = (*before, *after), ()
            cofactor = _product(expr, before)
            front = factor_latex(cofactor)
            inside = broken_sum(sums[-1], width)
            inside[-1] += r"\Bigr]" + (rf" \cdot {factor_latex(_product(expr, after))}" if after else "")
            if len(front) + len(inside[0]) > width + 60:
                ahead = broken_sum(cofactor, width)
                if isinstance(cofactor, sp.Add):
                    ahead[0], ahead[-1] = r"\Bigl[" + ahead[0], ahead[-1] + r"\Bigr]"
                return [*ahead, r"\cdot \Bigl[" + inside[0], *inside[1:]]
            inside[0] = (rf"{front} \cdot " if front != "1" else "") + r"\Bigl[" + inside[0]
            return inside
    lines: list[str] = []
    for index, term in enumerate(sp.Add.make_args(expr)):
        parts = broken_sum(term, width) if isinstance(term, sp.Mul) and isinstance(expr, sp.Add) else [to_latex(term)]
        if index and not parts[0].lstrip().startswith("-"):
            parts[0] = "+ " + parts[0]
        if lines and len(lines[-1]) + len(parts[0]) <= width:
            lines[-1] += " " + parts.pop(0)
        lines += parts
    return lines


def _product(whole: sp.Expr, factors: Sequence[sp.Expr]) -> sp.Expr:
    """Some of a product's factors, in its order."""
    if whole.is_commutative:
        return sp.Mul(*factors)
    return factors[0] if len(factors) == 1 else whole.func(*factors, evaluate=False) if factors else sp.S.One


def derivation_latex(derivation: Derivation) -> str:
    """An enumerate environment: reasons as text, equations displayed, inner steps as nested lists (up to LaTeX's depth of four)."""
    return _list(derivation.steps, depth=1)


def _list(steps: Iterable[Step], depth: int) -> str:
    steps, lines = list(steps), [r"\begin{enumerate}"]
    if depth == 2 and len(steps) > 26:  # more than there are letters
        lines.append(r"\renewcommand{\theenumii}{\arabic{enumii}}")
    for step in steps:
        lines.append(rf"\item {text(step.reason)}")
        if step.equation is not None:
            lines.append(aligned([step.equation], depth))
        if step.children:
            inner = list(step.children)
            lines.append(
                _list(inner, depth + 1) if depth < 4 else "\n".join(aligned([s.equation], depth) for s in inner if s.equation is not None)
            )
    return "\n".join([*lines, r"\end{enumerate}"])


_UNICODE = {
    "φ̇": r"$\dot\varphi$", "φ": r"$\varphi$", "g̃": r"$\tilde g$", "z̃": r"$\tilde z$", "G̃": r"$\tilde G$", "B̃": r"$\tilde B$", "W̃": r"$\tilde W$",
    "Φ̇": r"$\dot\Phi$", "Φ": r"$\Phi$", "Σ": r"$\Sigma$", "Γ": r"$\Gamma$", "Δ": r"$\Delta$", "δ": r"$\delta$", "ρ": r"$\rho$", "σ": r"$\sigma$",
    "μ": r"$\mu$", "ν": r"$\nu$", "ξ": r"$\xi$", "ζ": r"$\zeta$", "η": r"$\eta$", "γ": r"$\gamma$", "ℓ": r"$\ell$", "∂": r"$\partial$", "√": r"$\surd$",
    "ᵀ": r"$^{\top}$", "²": r"$^2$", "³": r"$^3$", "¹": r"$^1$", "⁰": r"$^0$", "₁": r"$_1$", "₂": r"$_2$", "₃": r"$_3$", "₄": r"$_4$", "∞": r"$\infty$",
    "→": r"$\to$", "≥": r"$\ge$", "≤": r"$\le$", "≠": r"$\ne$", "·": r"$\cdot$", "×": r"$\times$", "∘": r"$\circ$", "⟨": r"$\langle$", "⟩": r"$\rangle$",
    "−": r"$-$", "∫": r"$\int$", "π": r"$\pi$", "θ": r"$\theta$", "λ": r"$\lambda$", "κ": r"$\kappa$", "α": r"$\alpha$", "β": r"$\beta$", "∈": r"$\in$",
    "±": r"$\pm$", "½": r"$\tfrac12$", "…": r"\dots{}", "∏": r"$\prod$", "∑": r"$\sum$", "∼": r"$\sim$", "≈": r"$\approx$", "∝": r"$\propto$",
    "⊗": r"$\otimes$", "ϑ": r"$\vartheta$", "Â": r"$\hat A$", "B\u0302": r"$\hat B$", "D\u0302": r"$\hat D$", "Ê": r"$\hat E$",
    "–": "--", "—": "---", "τ": r"$\tau$", "ψ": r"$\psi$", "Ψ": r"$\Psi$", "ω": r"$\omega$", "ε": r"$\varepsilon$", "⊥": r"$\perp$", "⁻": r"$^{-}$",
    "<": "$<$", ">": "$>$", "χ": r"$\chi$", "∇": r"$\nabla$", "ᵗ": r"$^t$", "⟂": r"$\perp$", "Ξ": r"$\Xi$", "Λ": r"$\Lambda$", "∥": r"$\parallel$",
    "‖": r"$\|$", "′": r"$'$", "Θ": r"$\Theta$", "Π": r"$\Pi$", "⋯": r"$\cdots$", "←": r"$\leftarrow$", "\u0302": "", "\u0303": "", "\u0307": "", "\u0308": "",
}  # fmt: skip


_LONG_WORD = re.compile(r"\S{32,}")  # products of brackets, as SymPy writes them
_MAY_BREAK = r"\hspace{0pt plus 3em}"
_SCRIPTED = re.compile(r"(?<![a-z])[^\W\d_][\u0303\u0307]?'?(?:[_^](?:\{[^{}]*\}|[^\W_]))+")


def text(sentence: str) -> str:
    """A sentence with Greek letters and signs as LaTeX text; letters with sub- or superscripts become formulas."""
    pieces, end = [], 0
    for match in _SCRIPTED.finditer(sentence):
        pieces += [_escaped(sentence[end : match.start()]), f"${_formula(match.group())}$"]
        end = match.end()
    return "".join([*pieces, _escaped(sentence[end:])])


def _escaped(words: str) -> str:
    escaped = re.sub(r"([#%&_{}])", r"\\\1", words).replace("^", r"\^{}").replace("~", r"\~{}")
    for sign, command in _UNICODE.items():
        escaped = escaped.replace(sign, command)
    return _ascii(_LONG_WORD.sub(lambda word: word.group().replace(")*(", rf")*{_MAY_BREAK}("), escaped))


_ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar", "\u0307": "dot", "\u0308": "ddot"}


def _ascii(tex: str) -> str:
    """LaTeX without signs that pdflatex may not know, for text and formulas alike; a sign without a command is named by its number."""
    return re.sub(r"[^\x00-\x7f]", lambda match: _plain_sign(match.group()), tex)


def _plain_sign(sign: str) -> str:
    from pylatexenc.latexencode import UnicodeToLatexEncoder

    kind, *parts = unicodedata.decomposition(sign).split() or [""]
    if kind in ("<super>", "<sub>"):
        return rf"\ensuremath{{{'^' if kind == '<super>' else '_'}{{{_ascii(chr(int(parts[0], 16)))}}}}}"
    if sign in _UNICODE:
        return rf"\ensuremath{{{_UNICODE[sign].strip('$')}}}"
    if parts and (accent := _ACCENTS.get(chr(int(parts[0], 16)))):
        return rf"\ensuremath{{\{accent}{{{_ascii(chr(int(kind, 16)))}}}}}"
    encoder = UnicodeToLatexEncoder(replacement_latex_protection="none", unknown_char_policy="unihex", unknown_char_warning=False)
    command = encoder.unicode_to_latex(sign)
    return command if command.startswith(r"\ensuremath") else rf"\text{{{command}}}"


def _formula(letters: str) -> str:
    for sign, command in _UNICODE.items():
        letters = letters.replace(
            sign, command.strip("$") + (" " if command.startswith("$\\") and command.strip("$")[-1].isalpha() else "")
        )
    return _ascii(letters)


def document(subject: Documented) -> str:
    """A standalone LaTeX document: definitions, derivation, result."""
    definitions = subject.definitions()
    rows = " \\\\\n".join(f"${symbol}$ & {text(meaning)}" for symbol, meaning in definitions)
    symbols, meanings = (max(widths, default=0.0) for widths in ([width(s, 1) for s, _ in definitions], [LETTER * len(m) for _, m in definitions]))
    column = "l" if symbols + meanings < PAGE - QUAD else f"p{{{PAGE - symbols - 3 * QUAD:.0f}pt}}"
    source = "\n".join(
        [
            r"\documentclass[10pt,a4paper]{article}",
            r"\usepackage{amsmath,amssymb}",
            r"\usepackage[margin=2.2cm]{geometry}",
            r"\allowdisplaybreaks",
            r"\begin{document}",
            rf"\section*{{{text(subject.title())}}}",
            r"\subsection*{Definitions}",
            rf"\begin{{tabular}}{{@{{}}l{column}@{{}}}}",
            rows,
            r"\end{tabular}",
            r"\subsection*{Result}",
            subject.latex(),
            r"\subsection*{Derivation}",
            subject.derivation().latex(),
            r"\end{document}",
            "",
        ]
    )
    return _ascii(source)
