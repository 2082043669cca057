"""Sums of words as LaTeX and as SymPy expressions, in the form that the kind of a law asks for.

A layer's law is a number, a neuron's the entry i, a matrix law the factor that multiplies the probe.
"""

from __future__ import annotations

import sympy as sp
from sympy.core.symbol import Str

from .derivation import to_latex
from .weight_flow import WeightFlow, entry, width
from .words import SAMPLE, UNIT, Letter, TraceSum, Word, opened, transpose

mu = sp.Symbol("mu", integer=True, positive=True)
i, j, k = sp.symbols("i j k", integer=True, nonnegative=True)
examples = sp.Symbol("P", integer=True, positive=True)


class OfExample(sp.MatrixExpr):
    """A vector, or a diagonal matrix, that belongs to the example μ: h^ℓ_μ, D^ℓ_μ."""

    def __new__(cls, name: str, tex: str, example: sp.Expr, rows: sp.Expr, columns: sp.Expr) -> OfExample:
        return sp.Basic.__new__(cls, Str(str(name)), Str(str(tex)), sp.sympify(example), sp.sympify(rows), sp.sympify(columns))

    @property
    def shape(self) -> tuple[sp.Expr, sp.Expr]:
        """(rows, columns)."""
        return self.args[3], self.args[4]

    def _entry(self, row: sp.Expr, column: sp.Expr, **options: object) -> sp.Expr:
        value = sp.Function(str(self.args[0]))(self.args[2], row)
        return value if self.args[4] == 1 else value * sp.KroneckerDelta(row, column)

    def _sympystr(self, printer) -> str:
        return f"{self.args[0]}({printer.doprint(self.args[2])})"

    def _latex(self, printer) -> str:
        return f"{{{self.args[1]}}}"


# ---- the part of a word that its probe multiplies ------------------------------------------------------------------------


def cut(word: Word) -> tuple[Word, bool]:
    """The product that the probe multiplies, tr(S · product), and whether there is a probe; without one the word, opened at its example."""
    for side in (word, transpose(word)):
        for start, letter in enumerate(side):
            if letter.name == "S" and not letter.transposed:
                return side[start + 1 :] + side[:start], True
    return opened(word), False


def sampled(word: Word) -> bool:
    """Whether the word belongs to an example, so that it is summed over examples."""
    return any(SAMPLE in (letter.rows, letter.columns) for letter in word)


# ---- LaTeX ----------------------------------------------------------------------------------------------------------------


def sum_latex(total: TraceSum, kind: str) -> str:
    """A sum of words as LaTeX."""
    ranked = sorted(total.pairs(), key=lambda pair: (sampled(pair[1]), _rank(pair[1])))
    parts = [
        coefficient_latex(coefficient) + (r"\sum_{\mu} " if sampled(word) else "") + word_latex(word, kind) for coefficient, word in ranked
    ]
    return joined(parts)


def _rank(word: Word) -> tuple[int, str]:
    names = sorted(letter.name for letter in word if letter.name != "S")
    return min(map(layer_of, names), default=0), "".join(sorted(names, reverse=True))


def layer_of(name: str) -> int:
    """12 for W12; 0 for a name without a number."""
    digits = name.lstrip("".join(sign for sign in name if not sign.isdigit()))
    return int(digits) if digits else 0


def coefficient_latex(coefficient: sp.Expr) -> str:
    """A factor in front of a word, with its sign; nothing for 1."""
    if coefficient in (1, -1):
        return "" if coefficient == 1 else "-"
    factor = to_latex(sp.factor(coefficient))
    return rf"\left({factor}\right) " if isinstance(sp.factor(coefficient), sp.Add) else factor + " "


def joined(parts: list[str]) -> str:
    """Terms with their signs."""
    if not parts:
        return "0"
    text = parts[0]
    for part in parts[1:]:
        text += f" - {part[1:].lstrip()}" if part.startswith("-") else f" + {part}"
    return text


def word_latex(word: Word, kind: str) -> str:
    """One word."""
    body, probed = cut(word)
    if len(body) == 1:
        return body[0].latex() if not body[0].name.startswith("Psi") else _potential_latex(body[0], probed)
    if not probed:
        return _number_latex(body)
    if kind == "neuron":
        return _neuron_latex(body)
    return _product(body)


def _potential_latex(letter: Letter, probed: bool) -> str:
    tex = letter.tex.replace(r"\Psi", "W")
    return rf"\sum_k \psi\bigl(({tex})_{{ki}}\bigr)" if probed else rf"\Psi({tex})"


def _product(word: Word) -> str:
    return " ".join(letter.latex() for letter in word)


def _number_latex(word: Word) -> str:
    if len(word) == 2 and not sampled(word):
        first, second = (letter if word[0].transposed == word[1].transposed else letter.plain for letter in word)
        if word[0].plain == word[1].plain:
            return rf"\lVert {first.latex()}\rVert^2"
        first, second = sorted((first.plain, second.plain), reverse=True)  # ⟨W, B⟩: forward weights first
        return rf"\langle {first.latex()}, {second.latex()}\rangle"
    if sampled(word):
        return _product(word)
    return rf"\operatorname{{tr}}\bigl({_product(word)}\bigr)"


def _neuron_latex(word: Word) -> str:
    """Entry ii of a product."""
    if len(word) == 2 and not sampled(word):
        first, second = word
        side = r"\cdot i" if first.transposed else r"i \cdot"
        row = lambda letter: f"({letter.plain.latex()})_{{i}}" if letter.plain.columns == UNIT else f"({letter.plain.latex()})_{{{side}}}"
        if first.plain == second.plain:
            return f"({first.plain.latex()})_{{i}}^2" if first.columns == UNIT else rf"\lVert {row(first)} \rVert^2"
        return rf"{row(first)} \cdot {row(second)}"
    place = next((n for n, letter in enumerate(word) if letter.right in (SAMPLE, UNIT)), None)
    if place is None:
        return rf"\bigl({_product(word)}\bigr)_{{ii}}"
    left, right = word[: place + 1], transpose(word[place + 1 :])
    entry = lambda part: f"({_product(part)})_{{i}}"
    return rf"{entry(left)} {entry(right)}"


# ---- SymPy ----------------------------------------------------------------------------------------------------------------


def symbol(flow: WeightFlow, letter: Letter) -> sp.MatrixExpr:
    """A letter as a matrix expression of the network's sizes."""
    size = lambda space: sp.S.One if space in (SAMPLE, UNIT) else width(space, flow.depth)
    plain = letter.plain
    if plain.name.startswith("D") or SAMPLE in (plain.rows, plain.columns):
        found: sp.MatrixExpr = OfExample(plain.name, plain.tex, mu, size(plain.rows), size(plain.columns))
    else:
        found = sp.MatrixSymbol(plain.name, size(plain.rows), size(plain.columns))
    return found.T if letter.transposed else found


def expression(flow: WeightFlow, total: TraceSum, kind: str) -> sp.Expr:
    """A sum of words as a SymPy expression: traces, the entry i, or a matrix (its entry i, j where examples are summed over)."""
    single = kind == "matrix" and any(sampled(word) for word in total.terms)
    terms = [coefficient * _term(flow, word, kind, single) for coefficient, word in total.pairs()]
    if kind == "matrix" and not single:
        return sp.MatAdd(*terms).doit() if terms else sp.S.Zero
    return sp.Add(*terms)


def _term(flow: WeightFlow, word: Word, kind: str, single: bool) -> sp.Expr:
    body, probed = cut(word)
    if body[0].name.startswith("Psi"):
        return _potential(flow, body[0], probed)
    if len(body) == 2 and not sampled(word) and kind != "matrix":
        return _pair(flow, body, probed)
    factors = [symbol(flow, letter) for letter in body if letter.name != "one"]
    if not probed:
        value = sp.Trace(sp.MatMul(*factors))
    elif kind == "neuron" or single:
        value = _entry(flow, body, i, i if kind == "neuron" else j)
    else:
        value = sp.MatMul(*factors)
    return sp.Sum(value, (mu, 1, examples)) if sampled(word) else value


def _entry(flow: WeightFlow, body: Word, row: sp.Symbol, column: sp.Symbol) -> sp.Expr:
    """Entry of a product; at the vector of an example it is cut into two vectors."""
    place = next((n for n, letter in enumerate(body) if letter.right == SAMPLE), None)
    if place is None:
        return sp.MatMul(*(symbol(flow, letter) for letter in body))[row, column]
    return _component(flow, body[: place + 1], row) * _component(flow, transpose(body[place + 1 :]), column)


def _component(flow: WeightFlow, body: Word, row: sp.Symbol) -> sp.Expr:
    """Entry of a matrix product with a vector; diagonal matrices in front are factors."""
    front = 0
    while body[front].diagonal:
        front += 1
    slopes = sp.Mul(*(sp.Function(letter.name)(mu, row) for letter in body[:front]))
    return slopes * sp.MatMul(*(symbol(flow, letter) for letter in body[front:] if letter.name != "one")).doit()[row, 0]


def _pair(flow: WeightFlow, body: Word, probed: bool) -> sp.Expr:
    """tr(XY), or its part Σ_k X_ik Y_ki, entry by entry where there is a probe."""
    X, Y = (symbol(flow, letter) for letter in body)
    if not probed:
        return sp.Trace(X * Y)
    inner = X.shape[1]
    term = X[i, k] * Y[k, i]
    return term.subs(k, 0) if inner == 1 else sp.Sum(term, (k, 0, inner - 1))


def _potential(flow: WeightFlow, letter: Letter, probed: bool) -> sp.Expr:
    """Σ_k ψ(W_ki), summed over i too where there is no probe."""
    l = letter.rows
    W = symbol(flow, flow.W(l))
    inner = sp.Sum(flow.potential.subs(entry, W[k, i]), (k, 0, W.shape[0] - 1))
    return inner if probed else sp.Sum(inner, (i, 0, W.shape[1] - 1))


# ---- words for letters -----------------------------------------------------------------------------------------------------


def letter_meanings(flow: WeightFlow, total: TraceSum) -> list[tuple[str, str]]:
    """LaTeX and meaning of every letter in a sum."""
    found = []
    for letter in sorted(total.letters):
        if letter.name != "S":
            found.append((letter.latex(), meaning(flow, letter)))
    return found


def meaning(flow: WeightFlow, letter: Letter) -> str:
    """What a letter stands for."""
    head, l = letter.name.rstrip("0123456789"), layer_of(letter.name)
    if head == "W":
        return {flow.depth: "forward weights of the readout", 0: "forward weights of the inputs"}.get(l, f"forward weights from layer {l} to {l + 1}")
    return {
        "b": f"biases of layer {l + 1}",
        "B": f"feedback weights from layer {l + 1} to layer {l}, in the shape of the forward ones",
        "F": f"direct feedback from the outputs to layer {l}",
        "M": f"a ghost readout of layer {l}: trained on its activity like a readout, from zero, without influence on the network",
        "C": f"any matrix with F_{l + 1} C_{l} = F_{l}; there is one if F_{l + 1} has full row rank",
        "D": f"diagonal matrix of the slopes of layer {l}, for an example",
        "a": f"activity of layer {l} (at 0: the input), for an example",
        "h": f"preactivation of layer {l}, for an example",
        "d": "error signal at the outputs" if l == flow.depth + 1 else f"pseudo-gradient of layer {l} times the error, for an example",
        "v": f"what the feedback weights learn as outer products at layer {l}",
        "Psi": f"the sum of {flow.potential if flow.entrywise is not None else 0} over the entries w of W_{l}",
        "one": "the constant 1 that a bias multiplies",
    }[head]
