"""A judge of laws that knows no words: a small network in exact arithmetic, updated entry by entry.

Weights, data and errors are random rational numbers, so are all parameters; quadratic quantities are differentiated along the update by
an exact central difference. Numbers become irrational only where an activation does; those are carried to 50 digits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from .conservation_text import cut, sampled
from .errors import BadInput
from .evolution import Evolution
from .symbols import Delta, g_tilde, h, m, omega, z
from .weight_flow import WeightFlow, entry, slope_of, width
from .words import TraceSum, Word

DIGITS = 50
Weights = Mapping[str, sp.Matrix]


@dataclass(frozen=True)
class SmallNetwork:
    """A network with random rational weights under a flow.

    Attributes:
        flow: rule and network.
        widths: units of the layers 0…L+1.
        examples: how many.
        seed: of all numbers.
    """

    flow: WeightFlow
    widths: tuple[int, ...]
    examples: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.widths) != self.flow.depth + 2 or min(self.widths) < 1 or self.examples < 1:
            raise BadInput(
                f"widths={self.widths}, examples={self.examples}: give {self.flow.depth + 2} widths (inputs, hidden layers, outputs) and at "
                "least one example"
            )

    def number(self, *key: object) -> sp.Rational:
        """A rational number that is not zero, the same for the same key."""
        draw = random.Random(f"{self.seed}/{key}")
        return sp.Rational(draw.choice((-1, 1)) * draw.randint(1, 12), draw.randint(1, 7))

    def random(self, name: str, rows: int, columns: int) -> sp.Matrix:
        """A matrix of such numbers."""
        return sp.Matrix(rows, columns, lambda row, column: self.number(name, row, column))

    @cached_property
    def values(self) -> dict[sp.Symbol, sp.Expr]:
        """Numbers for all parameters; squares for sizes, which enter through their roots only."""
        flow, act = self.flow, self.flow.bound.net
        free = {*flow.bound.parameters, *flow.decay.free_symbols, *act.parameters, *(s for rate in flow.rates for s in rate.free_symbols)}
        free |= set() if flow.evolution is None else flow.evolution.free_symbols
        free |= set() if flow.entrywise is None else flow.entrywise.free_symbols - {entry}
        known: dict[sp.Symbol, sp.Expr] = {symbol: abs(self.number(str(symbol))) / 13 for symbol in sorted(free, key=str)}
        sizes = [*(width(l, flow.depth) for l in range(flow.depth + 2)), sp.Symbol("P", integer=True, positive=True)]
        return known | {size: self.number(str(size)) ** 2 for size in sizes}

    def at(self, expr: sp.Expr) -> sp.Expr:
        """An expression's value."""
        return _number(sp.sympify(expr).subs(self.values))

    def entries(self, expr: sp.Expr, layer: int, **fields: sp.Matrix) -> sp.Matrix:
        """A single-site expression in h, m, …, at every unit and example."""
        first = next(iter(fields.values()))
        names = {"h": h, "z": z, "Delta": Delta, "g_tilde": g_tilde, "omega": omega}

        def value(unit: int, example: int) -> sp.Expr:
            here = {names[name]: field[unit, example] for name, field in fields.items()} | {m: self.number("gate", layer, unit, example)}
            return _number(expr.subs(self.values).subs(here))

        return sp.Matrix(first.rows, first.cols, value)

    @cached_property
    def weights(self) -> dict[str, sp.Matrix]:
        """All weight matrices by name."""
        flow, n, L = self.flow, self.widths, self.flow.depth
        found = {f"W{l}": self.random(f"W{l}", n[l + 1], n[l]) for l in range(L + 1)}
        if flow.biased:
            found |= {f"b{l}": self.random(f"b{l}", n[l + 1], 1) for l in range(L + 1)}
        for l in reversed(range(1, L + 1)):
            if flow.has_B(l) and flow.entrywise is None:
                found[f"B{l}"] = self.random(f"B{l}", n[l + 1], n[l])
            if l in flow.products:
                found[f"C{l}"] = self.random(f"C{l}", n[l + 1], n[l])
            if flow.straight(l) != 0:
                found[f"F{l}"] = found[f"F{l + 1}"] * found[f"C{l}"] if l in flow.products else self.random(f"F{l}", n[L + 1], n[l])
            if l in flow.ghosts:
                found[f"M{l}"] = self.random(f"M{l}", n[L + 1], n[l])
        if flow.entrywise is not None:
            found |= {f"B{l}": found[f"W{l}"].applyfunc(lambda each: self.at(flow.entrywise.subs(entry, each))) for l in range(1, L + 1)}
        return found

    @cached_property
    def fields(self) -> dict[str, sp.Matrix]:
        """h, a, δ, D (its diagonal) and v of all layers, columns for examples."""
        flow, L, W = self.flow, self.flow.depth, self.weights
        bound = flow.bound
        found = {"a0": self.random("x", self.widths[0], self.examples), f"d{L + 1}": self.random("e", self.widths[-1], self.examples)}
        ones = sp.ones(1, self.examples)
        for l in range(L + 1):
            bias = self.at(bound.net.sigma_b) * W[f"b{l}"] * ones if flow.biased else sp.zeros(self.widths[l + 1], self.examples)
            found[f"h{l + 1}"] = self.at(flow.scale(l)) * W[f"W{l}"] * found[f"a{l}"] + bias
            if l < L:
                found[f"a{l + 1}"] = self.entries(bound.forward, l + 1, h=found[f"h{l + 1}"])
        for l in reversed(range(1, L + 1)):
            if slope_of(bound) is not None:
                found[f"D{l}"] = self.entries(bound.pseudo_gradient.diff(z), l, h=found[f"h{l}"])
            found[f"d{l}"] = self._pseudo_gradient(l, found)
        return found

    def _pseudo_gradient(self, l: int, found: dict[str, sp.Matrix]) -> sp.Matrix:
        flow, L, W = self.flow, self.flow.depth, self.weights
        carried = sp.zeros(self.widths[l], self.examples)
        layered = self.at(flow.carried(l)) * W[f"W{l}"] if flow.carried(l) != 0 else sp.zeros(*W[f"W{l}"].shape)
        if flow.has_B(l):
            layered += W[f"B{l}"]
        carried += self.at(flow.scale(l)) * layered.T * found[f"d{l + 1}"]
        if flow.straight(l) != 0:
            carried += self.at(flow.straight(l)) * W[f"F{l}"].T * found[f"d{L + 1}"]
        expr = flow.bound.pseudo_gradient
        if Delta in expr.free_symbols:  # one output: the error itself enters the unit
            error = sp.ones(self.widths[l], 1) * found[f"d{L + 1}"][0, :]
            own = self.entries(expr, l, h=found[f"h{l}"], z=carried, Delta=error)
            return own.multiply_elementwise(error)
        return self.entries(expr, l, h=found[f"h{l}"], z=carried)  # linear in z: the error comes down with it

    @cached_property
    def velocity(self) -> dict[str, sp.Matrix]:
        """Time derivatives of the weights."""
        flow, L, W, fields = self.flow, self.flow.depth, self.weights, self.fields
        found = {name: sp.zeros(*matrix.shape) for name, matrix in W.items()}
        for l in range(L + 1):
            rate, up = self.at(flow.rates[l]), fields[f"d{l + 1}"]
            learnt = rate * self.at(flow.scale(l)) * up * fields[f"a{l}"].T
            found[f"W{l}"] = learnt - self.at(flow.decay) * W[f"W{l}"]
            if flow.biased:
                found[f"b{l}"] = rate * self.at(flow.bound.net.sigma_b) * up * sp.ones(self.examples, 1) - self.at(flow.decay) * W[f"b{l}"]
            if l in flow.ghosts:
                found[f"M{l}"] = rate * fields[f"d{L + 1}"] * fields[f"a{l}"].T
            if flow.evolution is not None and f"B{l}" in W:
                found[f"B{l}"] = self._feedback_velocity(l, learnt)
        return found

    def _feedback_velocity(self, l: int, learnt: sp.Matrix) -> sp.Matrix:
        evolution, W, fields = self.flow.evolution or Evolution(), self.weights, self.fields
        moved = self.at(evolution.pull) * W[f"W{l}"] - self.at(evolution.decay) * W[f"B{l}"] + self.at(evolution.copy) * learnt
        L = self.flow.depth
        N, P = width(l, L), sp.Symbol("P", integer=True, positive=True)
        above = self._above(l)
        each, root = self.at(1 / P if l == L else 1 / (P * sp.sqrt(N))), self.at(sp.S.One if l == L else 1 / sp.sqrt(N))
        reconstructed = root * W[f"B{l}"].T * above
        return moved + each * (self.outer(l + 1) * fields[f"a{l}"].T - self.at(evolution.null) * above * reconstructed.T)

    def _above(self, l: int) -> sp.Matrix:
        """The preactivation that the feedback weights see: h^{l+1}, at the readout σ_w W a/N."""
        if l < self.flow.depth:
            return self.fields[f"h{l + 1}"]
        return self.at(self.flow.bound.net.sigma_w / width(l, self.flow.depth)) * self.weights[f"W{l}"] * self.fields[f"a{l}"]

    def outer(self, l: int) -> sp.Matrix:
        """v^ℓ; g̃ in it stands for δ."""
        flow, fields, L = self.flow, self.fields, self.flow.depth
        N = width(l - 1, L)
        sigma = self.at(flow.bound.net.sigma_w / (N if l == L + 1 else sp.sqrt(N)))
        mirrored = sigma * self.weights[f"B{l - 1}"] * fields[f"a{l - 1}"]
        if flow.biased and l <= L:
            mirrored += self.at(flow.bound.net.sigma_b) * self.weights[f"b{l - 1}"] * sp.ones(1, self.examples)
        above = self._above(l - 1)
        error = sp.ones(self.widths[l], 1) * fields[f"d{L + 1}"][0, :]
        return self.entries((flow.evolution or Evolution()).outer, l, h=above, g_tilde=fields[f"d{l}"], Delta=error, omega=mirrored)

    # ---- sums of words, multiplied out ------------------------------------------------------------------------------------

    def evaluate(self, total: TraceSum, kind: str, weights: Weights) -> list[sp.Matrix]:
        """The value of every term: 1×1 for a layer, the diagonal for neurons, else a matrix."""
        return [self.at(coefficient) * self._word(word, kind, weights) for coefficient, word in total.pairs()]

    def _word(self, word: Word, kind: str, weights: Weights) -> sp.Matrix:
        if not sampled(word):
            return self._product(word, kind, weights, 0)
        parts = [self._product(word, kind, weights, example) for example in range(self.examples)]
        return sum(parts[1:], parts[0])

    def _product(self, word: Word, kind: str, weights: Weights, example: int) -> sp.Matrix:
        body, probed = cut(word)
        value = sp.eye(self.widths[body[0].left] if body[0].left >= 0 else 1)
        for letter in body:
            if letter.name.startswith("Psi"):
                matrix = self._potential(weights[f"W{letter.rows}"])
            elif letter.name in weights:
                matrix = weights[letter.name]
            elif letter.name == "one":
                matrix = sp.ones(1, 1)
            elif letter.diagonal:
                matrix = sp.diag(*self.fields[letter.name][:, example])
            else:
                vectors = self.outer(letter.rows) if letter.name.startswith("v") else self.fields[letter.name]
                matrix = vectors[:, example]
            value = value * (matrix.T if letter.transposed else matrix)
        if not probed:
            return sp.Matrix([[value.trace()]])
        return sp.Matrix([value[row, row] for row in range(value.rows)]) if kind == "neuron" else value

    def _potential(self, W: sp.Matrix) -> sp.Matrix:
        psi = lambda each: self.at(self.flow.potential.subs(entry, each))
        return sp.diag(*(sum(psi(each) for each in W[:, column]) for column in range(W.cols)))


def _number(value: sp.Expr) -> sp.Expr:
    """Rational numbers as they are, others to 50 digits."""
    return value if value.is_Rational else sp.N(value, DIGITS)


def rate_error(
    flow: WeightFlow, kind: str, total: TraceSum, predicted: TraceSum, widths: tuple[int, ...] | None, examples: int, seed: int
) -> sp.Expr:
    """max |dQ/dt − predicted|, relative to the largest term of dQ/dt, in a small random network.

    Raises:
        BadInput: the widths do not fit the network.
    """
    outputs = 1 if Delta in flow.bound.pseudo_gradient.free_symbols else 2
    default = (*((3, 2, 4)[l % 3] for l in range(flow.depth + 1)), outputs)
    network = SmallNetwork(flow, tuple(widths or default), examples, seed)
    ahead, behind = ({name: W + sign * network.velocity[name] * _step(total) for name, W in network.weights.items()} for sign in (1, -1))
    terms = [
        (up - down) / (2 * _step(total))
        for up, down in zip(network.evaluate(total, kind, ahead), network.evaluate(total, kind, behind), strict=True)
    ]
    expected = network.evaluate(predicted, kind, network.weights)
    derivative = sum(terms[1:], terms[0])
    difference = derivative - sum(expected[1:], expected[0]) if expected else derivative
    scale = max(abs(each) for term in (*terms, *expected) for each in term)
    worst = max(abs(each) for each in difference)
    return worst / scale if scale != 0 else worst


def _step(total: TraceSum) -> sp.Expr:
    """The central difference is exact for quadratic words at any step; a potential needs a small one, and keeps half the digits."""
    return sp.Rational(1, 10**12) if any(letter.name.startswith("Psi") for letter in total.letters) else sp.S.One
