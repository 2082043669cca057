"""Matrix words under the trace: the algebra in which conservation laws are sought.

A letter is a matrix with typed spaces: rows of W^ℓ are units of layer ℓ+1, columns are units of layer ℓ. A word is a cyclic product of
letters whose spaces match, read as the trace of the product, so that rotating and transposing it changes nothing; `canonical` picks one
form. Vectors such as h^ℓ_μ are letters too, with the one-dimensional space of the example μ on one side; a word that passes through that
space is a number for each example, and is summed over them. `TraceSum` is a linear combination of words.

SymPy's own matrix expressions do not serve here: the derivative of a sum of traces with respect to a MatrixSymbol comes out as zero
without a warning, products with diagonal matrices do not commute, and tr(AC) − tr(CA) is not recognised as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import sympy as sp

# One-dimensional spaces: of the example μ, and of the 1 that multiplies a bias.
SAMPLE, UNIT = -1, -2


@dataclass(frozen=True, order=True)
class Letter:
    """A matrix by name.

    Attributes:
        name: unique in its alphabet.
        rows, columns: the spaces it maps to and from: a layer ℓ = 0…L+1, `SAMPLE` or `UNIT`.
        diagonal: whether it is diagonal, so that it commutes with other diagonal letters and is its own transpose.
        transposed: whether it stands for its transpose.
        tex: how it prints.
    """

    name: str
    rows: int
    columns: int
    diagonal: bool = False
    transposed: bool = False
    tex: str = field(default="", compare=False)

    @property
    def T(self) -> Letter:
        """The transpose."""
        return self if self.diagonal else replace(self, transposed=not self.transposed)

    @property
    def plain(self) -> Letter:
        """The letter itself, not transposed."""
        return replace(self, transposed=False)

    @property
    def left(self) -> int:
        """The space on its left side in a product."""
        return self.columns if self.transposed else self.rows

    @property
    def right(self) -> int:
        """The space on its right side."""
        return self.rows if self.transposed else self.columns

    def latex(self) -> str:
        """The letter, with ⊤ if it is transposed."""
        return (self.tex or self.name) + (r"^{\top}" if self.transposed else "")


Word = tuple[Letter, ...]


def transpose(word: Word) -> Word:
    """(XY…Z)ᵀ = Zᵀ…YᵀXᵀ."""
    return tuple(letter.T for letter in reversed(word))


def check_types(word: Word) -> None:
    """Raise TypeError unless all spaces match, the last letter's with the first's too."""
    for letter, following in zip(word, (*word[1:], word[0]), strict=True):
        if letter.right != following.left:
            raise TypeError(f"{letter.name} maps from space {letter.right}, {following.name} to space {following.left}: no product")


def canonical(word: Word) -> Word:
    """The smallest among all rotations of the word and of its transpose, runs of diagonal letters sorted."""
    check_types(word)
    return min(_sorted_runs(turned) for side in (word, transpose(word)) for turned in _rotations(side))


def _rotations(word: Word) -> Iterator[Word]:
    """Rotations that do not cut a run of diagonal letters in two."""
    whole = all(letter.diagonal for letter in word)
    for start in range(len(word)):
        if whole or not (word[start].diagonal and word[start - 1].diagonal):
            yield word[start:] + word[:start]


def _sorted_runs(word: Word) -> Word:
    found: list[Letter] = []
    run: list[Letter] = []
    for letter in word:
        if not letter.diagonal:
            found += [*sorted(run), letter]
            run = []
        else:
            run.append(letter)
    return (*found, *sorted(run))


def opened(word: Word) -> Word:
    """The word turned so that it begins and ends at the space of the example; as it is if it does not pass there."""
    for start, letter in enumerate(word):
        if letter.left == SAMPLE:
            return word[start:] + word[:start]
    return word


@dataclass(frozen=True)
class TraceSum:
    """A linear combination of words, each in canonical form, no coefficient zero."""

    terms: Mapping[Word, sp.Expr]

    @staticmethod
    def of(pairs: Iterable[tuple[sp.Expr, Word]]) -> TraceSum:
        """Collect (coefficient, word) pairs."""
        found: dict[Word, sp.Expr] = {}
        for coefficient, word in pairs:
            key = canonical(word)
            found[key] = found.get(key, sp.S.Zero) + coefficient
        return TraceSum({word: value for word, each in found.items() if (value := sp.cancel(each)) != 0})

    def pairs(self) -> Iterator[tuple[sp.Expr, Word]]:
        """(coefficient, word), in order of the words."""
        return ((self.terms[word], word) for word in sorted(self.terms))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __add__(self, other: TraceSum) -> TraceSum:
        return TraceSum.of([*self.pairs(), *other.pairs()])

    def __mul__(self, factor: sp.Expr | int) -> TraceSum:
        return TraceSum.of((factor * coefficient, word) for coefficient, word in self.pairs())

    __rmul__ = __mul__

    def subs(self, values: Mapping[sp.Expr, sp.Expr]) -> TraceSum:
        """With symbols in the coefficients replaced."""
        return TraceSum({word: value.subs(values) for word, value in self.terms.items()})

    @property
    def letters(self) -> set[Letter]:
        """All letters, none transposed."""
        return {letter.plain for word in self.terms for letter in word}


def differentiate(total: TraceSum, velocity: Mapping[Letter, list[tuple[sp.Expr, Word]]]) -> TraceSum:
    """d/dt by the Leibniz rule: every letter that moves is replaced, one at a time, by its velocity.

    Args:
        total: what to differentiate.
        velocity: for the letters that move, their time derivative as a sum of (open) words; letters that are missing are constants.
    """
    found: list[tuple[sp.Expr, Word]] = []
    for coefficient, word in total.pairs():
        for place, letter in enumerate(word):
            for factor, moved in velocity.get(letter.plain, []):
                inner = transpose(moved) if letter.transposed else moved
                found.append((coefficient * factor, word[:place] + inner + word[place + 1 :]))
    return TraceSum.of(found)


# A rewriting rule's action on an opened word: the words that replace it, or None if it does not apply.
Rewrite = Callable[[Word], list[tuple[sp.Expr, Word]] | None]


@dataclass(frozen=True)
class Identity:
    """An equation between words, used from left to right.

    Attributes:
        reason: why it holds, one sentence.
        equation: LaTeX.
        rewrite: its action on an opened word; it is tried on the word and on its transpose.
    """

    reason: str
    equation: str
    rewrite: Rewrite

    def apply(self, total: TraceSum) -> TraceSum | None:
        """The sum with every word to which the identity applies replaced, until it applies to none; None if it never does."""
        changed, pending = False, total
        while (once := self._once(pending)) is not None:
            changed, pending = True, once
        return pending if changed else None

    def _once(self, total: TraceSum) -> TraceSum | None:
        found: list[tuple[sp.Expr, Word]] = []
        changed = False
        for coefficient, word in total.pairs():
            line = opened(word)
            replaced = self.rewrite(line)
            if replaced is None:
                replaced = self.rewrite(opened(transpose(line)))
            if replaced is None:
                found.append((coefficient, word))
            else:
                changed = True
                found += [(coefficient * factor, new) for factor, new in replaced]
        return TraceSum.of(found) if changed else None


def reduce(total: TraceSum, identities: Iterable[Identity]) -> tuple[TraceSum, list[tuple[Identity, TraceSum]]]:
    """Apply identities, in order and again and again, until none applies.

    Returns:
        What is left, and each identity that was used with the sum after it.
    """
    used: list[tuple[Identity, TraceSum]] = []
    rules = list(identities)
    while True:
        for identity in rules:
            after = identity.apply(total)
            if after is not None:
                total = after
                used.append((identity, total))
                break
        else:
            return total, used


def at_end(last: Letter, *before: Letter) -> Callable[[Word], Word | None]:
    """A matcher: the front of a word that ends with `before` and `last`, else None."""
    pattern = (*before, last)

    def match(word: Word) -> Word | None:
        return word[: -len(pattern)] if word[-len(pattern) :] == pattern else None

    return match
