"""What the search returns: laws with their proofs, and the rates at which would-be laws are violated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from .conservation_search import Found
from .conservation_text import coefficient_latex, expression, joined, letter_meanings, sum_latex
from .derivation import Derivation, Step, factor_latex, in_unicode
from .errors import BadInput
from .latex import Documented, aligned
from .network import MLP
from .rules import Rule
from .weight_flow import EULER, WeightFlow
from .words import SAMPLE, Letter, TraceSum, Word, differentiate, reduce

time = sp.Symbol("t", real=True)


@dataclass(frozen=True, repr=False)
class Law(Documented):
    """A conserved quantity of a learning rule on a network, for every data set, loss and initialisation.

    Attributes:
        flow: rule and network, with learning rates and decay.
        found: the combination of words and its rate.

    W0…WL are forward weights (WL the readout's), b their biases, B and F feedback weights in the orientation of the forward ones.
    """

    flow: WeightFlow
    found: Found

    @property
    def rule(self) -> Rule:
        """The learning rule."""
        return self.flow.bound.rule

    @property
    def net(self) -> MLP:
        """The network."""
        return self.flow.bound.net

    @property
    def kind(self) -> str:
        """"layer" (a number), "neuron" (a number for each neuron i of the layer) or "matrix"."""
        return self.found.kind

    @property
    def layer(self) -> int:
        """The hidden layer ℓ whose incoming and outgoing weights the law ties; for a law linear in W^ℓ the layer below it."""
        return self.found.layer

    @property
    def rate(self) -> sp.Expr:
        """κ with dQ/dt = −κ Q; zero for a constant of motion."""
        return self.found.rate

    @cached_property
    def expr(self) -> sp.Expr:
        """The conserved quantity, e^{κt} Q, in matrix symbols; for a neuron its entry i."""
        value = expression(self.flow, self.found.total, self.kind)
        return value if self.rate == 0 else sp.exp(self.rate * time) * value

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """Names of the weights that the law contains."""
        names = {letter.name.replace("Psi", "W") for letter in self.found.total.letters}
        return tuple(sorted(names - {"S"}))

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Letters that are no part of the network: ghost readouts M and factors C of direct feedback. Empty for most laws."""
        return tuple(name for name in self.letters if name[0] in "MC")

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Symbols in the law's coefficients other than sizes, sorted by name; decay included."""
        free = set().union(*(c.free_symbols for c in self.found.total.terms.values()), self.rate.free_symbols)
        return tuple(sorted((symbol for symbol in free if not symbol.is_integer), key=str))

    def latex(self) -> str:
        """The law as an align* environment."""
        return aligned([self.statement()])

    def statement(self) -> str:
        """The law as one line of LaTeX."""
        body = sum_latex(self.found.total, self.kind)
        if self.rate != 0:
            body = rf"e^{{{sp.latex(self.rate * time)}}} \Bigl[ {body} \Bigr]"
        return rf"{body} = \text{{const}}"

    def text(self) -> str:
        """The law as one line of text."""
        return in_unicode(self.statement())

    def title(self) -> str:
        where = {"layer": f"of layer {self.layer}", "neuron": f"of every neuron i of layer {self.layer}", "matrix": f"(matrix) at layer {self.layer}"}
        return f"Conserved quantity {where[self.kind]} under {self.flow.name}"

    def definitions(self) -> list[tuple[str, str]]:
        return letter_meanings(self.flow, self.found.total)

    def proof(self) -> Derivation:
        """The time derivative, step by step, down to zero (or −κ Q)."""
        return Derivation(f"{self.title()}: proof", tuple(proof_steps(self.flow, self.found)))

    derivation = proof

    @property
    def is_quadratic(self) -> bool:
        """Whether it is a constant, and of at most second degree in the weights."""
        return self.rate == 0 and not any(letter.name.startswith("Psi") for letter in self.found.total.letters)

    @cached_property
    def discrete(self) -> TraceSum:
        """What one step of any size ΔW adds to Q, exactly, in letters dW0, db0, …: the quadratic part of Q.

        Raises:
            BadInput: the law has a rate, or is not quadratic in the weights.
        """
        if not self.is_quadratic:
            raise BadInput(f"{self!r} has no exact identity for finite steps: only constants that are quadratic in the weights have one")
        return quadratic_part(self.found.total, self.flow.velocity)

    def check(self, widths: tuple[int, ...] | None = None, examples: int = 3, seed: int = 0) -> sp.Expr:
        """The law's time derivative in a small network of random rational weights, by exact arithmetic entry by entry.

        This shares nothing with the algebra of words: forward pass, backward pass and update are sums over indices.

        Args:
            widths: units of all layers, inputs and outputs included; by default distinct small numbers.
            examples: number of examples.
            seed: of weights, data and errors.

        Returns:
            max |dQ/dt + κQ| over the entries of the law, relative to the largest term in it. Exactly 0 where the activation
            takes rational numbers to rational numbers; otherwise below 1e-40 (1e-20 where the law has a potential).
        """
        from .conservation_check import rate_error

        return rate_error(self.flow, self.kind, self.found.total, self.found.total * (-self.rate), widths, examples, seed)

    def source(self) -> str:
        """A JAX module with the law as a function of weights: value(...), and increment(...) of a finite step where there is one."""
        from .codegen.law import law_source

        return law_source(self)

    def __repr__(self) -> str:
        return f"{self.kind:6} law, layer {self.layer}: {self.text()}"


@dataclass(frozen=True, repr=False)
class Violation(Documented):
    """A quantity that is not conserved, and its time derivative.

    Attributes:
        flow: rule and network.
        candidate: the quantity: what would be conserved if the obstacles were away.
        total: its time derivative, everything put in that is known.
        obstacles: what stands in the way.
    """

    flow: WeightFlow
    candidate: Found
    total: TraceSum
    obstacles: tuple[str, ...]

    @property
    def kind(self) -> str:
        """"layer", "neuron" or "matrix"."""
        return self.candidate.kind

    @property
    def layer(self) -> int:
        """The hidden layer ℓ."""
        return self.candidate.layer

    @cached_property
    def quantity(self) -> sp.Expr:
        """The quantity that is not conserved."""
        return expression(self.flow, self.candidate.total, self.kind)

    @cached_property
    def rate(self) -> sp.Expr:
        """Its time derivative, in matrix symbols and vectors of single examples μ."""
        return expression(self.flow, self.total, self.kind)


    def check(self, widths: tuple[int, ...] | None = None, examples: int = 3, seed: int = 0) -> sp.Expr:
        """How far the rate is from the time derivative in a small random network; see `Law.check`."""
        from .conservation_check import rate_error

        return rate_error(self.flow, self.kind, self.candidate.total, self.total, widths, examples, seed)

    def latex(self) -> str:
        return aligned([self.statement()])

    def statement(self) -> str:
        """d/dt quantity = rate as one line of LaTeX."""
        return rf"\frac{{d}}{{dt}}\Bigl[ {sum_latex(self.candidate.total, self.kind)} \Bigr] = {sum_latex(self.total, self.kind)}"

    def title(self) -> str:
        return f"No law ({self.kind}) at layer {self.layer} under {self.flow.name}"

    def definitions(self) -> list[tuple[str, str]]:
        return letter_meanings(self.flow, self.candidate.total + self.total)

    def derivation(self) -> Derivation:
        """How the rate follows."""
        return Derivation(f"{self.title()}: rate", tuple(proof_steps(self.flow, self.candidate)))

    def __repr__(self) -> str:
        because = f"  ({'; '.join(self.obstacles)})" if self.obstacles else ""
        return f"{self.kind}, layer {self.layer}: {in_unicode(self.statement())}{because}"


def proof_steps(flow: WeightFlow, found: Found) -> list[Step]:
    """The steps of a proof; they end with zero, with −κ Q, or with a rate that is neither."""
    moving = sorted(found.total.letters & set(flow.velocity))
    derivative = differentiate(found.total, flow.velocity)
    steps = [
        Step("The quantity.", f"Q = {sum_latex(found.total, found.kind)}"),
        Step(
            "The rule in continuous time; the error signal e may come from any loss and any batch. Other letters are constant.",
            children=tuple(Step(f"{letter_name(letter)} moves.", _velocity_latex(flow, letter)) for letter in moving),
        ),
        Step("Leibniz rule.", rf"\dot Q = {sum_latex(derivative, found.kind)}"),
    ]
    left, used = reduce(derivative, flow.identities(found.layer))
    for identity, after in used:
        new = identity.reason.startswith(EULER) and identity.reason not in {step.reason for step in steps}
        children = flow.activity.steps if new else ()
        steps.append(
            Step(identity.reason, identity.equation, (*children, Step("Put in.", rf"\dot Q = {sum_latex(after, found.kind)}")))
        )
    if not left:
        return [*steps, Step("Nothing is left: Q is constant.", r"\dot Q = 0")]
    if not left + found.total * found.rate:
        rate = factor_latex(found.rate)
        return [*steps, Step("What is left is a multiple of Q.", rf"\dot Q = -{rate}\, Q,\quad e^{{{sp.latex(found.rate * time)}}} Q = \text{{const}}")]
    return [*steps, Step("What is left does not vanish.", rf"\dot Q = {sum_latex(left, found.kind)}")]


def letter_name(letter: Letter) -> str:
    """W_0 for W0: as formulas in text are written."""
    return f"{letter.name[0]}_{letter.name[1:]}" if letter.name[1:].isdigit() else letter.name


def _velocity_latex(flow: WeightFlow, letter: Letter) -> str:
    terms = flow.velocity[letter]
    shown = sum_latex_open(terms)
    head, _, index = letter.latex().partition("_")
    return rf"\dot{{{head}}}_{index} = {shown}"


def sum_latex_open(terms: list[tuple[sp.Expr, Word]]) -> str:
    """A sum of products of letters that is not under a trace."""
    parts = []
    for coefficient, word in terms:
        body = " ".join(letter.latex() for letter in word)
        parts.append(coefficient_latex(coefficient) + (r"\sum_{\mu} " if any(SAMPLE in (letter.rows, letter.columns) for letter in word) else "") + body)
    return joined(parts)


def quadratic_part(total: TraceSum, velocity: Mapping[Letter, object]) -> TraceSum:
    """Σ c tr ΔX ΔY over the words in which both letters move."""
    found = []
    for coefficient, word in total.pairs():
        places = [k for k, letter in enumerate(word) if letter.plain in velocity]
        if len(places) < 2:
            continue
        change = {k: Letter(f"d{word[k].name}", word[k].rows, word[k].columns, False, word[k].transposed, rf"\Delta {word[k].tex}") for k in places}
        found.append((coefficient, tuple(change.get(k, letter) for k, letter in enumerate(word))))
    return TraceSum.of(found)

