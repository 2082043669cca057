"""A learning rule on a network as a flow of weight matrices, in the words of `derive.words`.

With h^{ℓ+1} = s_ℓ W^ℓ a^ℓ + σ_b b^ℓ, a = forward(h), a⁰ = x, e_μ the error signal at the outputs and δ^ℓ_μ = g̃^ℓ_μ times the error,

    dW^ℓ/dt = η_ℓ s_ℓ Σ_μ δ^{ℓ+1}_μ a^ℓ_μᵀ − λ W^ℓ,     db^ℓ/dt = η_ℓ σ_b Σ_μ δ^{ℓ+1}_μ − λ b^ℓ,
    δ^ℓ = D^ℓ [s_ℓ (α W^ℓ + B^ℓ)ᵀ δ^{ℓ+1} + β F^ℓᵀ e],   δ^{L+1} = e.

Nothing is assumed about e: any loss, any batch, any weights of the examples, as functions of time. B^ℓ has the shape of W^ℓ and is all of
the feedback path that is not carried by W^ℓ(t) itself. s_ℓ are the network's fixed factors, σ_w over the square root of the fan-in.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import sympy as sp

from .errors import BadInput
from .evolution import FIELDS, Evolution
from .homogeneity import Units, units
from .network import MLP
from .rules import BoundRule, Rule
from .symbols import Delta, eta, h, omega, w, z
from .words import SAMPLE, UNIT, Identity, Letter, Word, at_end, transpose

Velocity = dict[Letter, list[tuple[sp.Expr, Word]]]
EULER = "Euler: the units are homogeneous of degree"
# One entry of a forward weight matrix, in feedback that is a function of it.
entry = w


def width(layer: int, depth: int) -> sp.Symbol:
    """The number of units of a layer: D inputs, N_1…N_L, C outputs."""
    name = "D" if layer == 0 else "C" if layer == depth + 1 else f"N{layer}"
    return sp.Symbol(name, integer=True, positive=True)


@dataclass(frozen=True)
class WeightFlow:
    """The flow, with everything that a search for laws may vary.

    Attributes:
        bound: the rule on the network.
        rates: η_0…η_L.
        decay: λ, weight decay.
        entrywise: B_ij = entrywise(W_ij) at all times, in the symbol `w`; replaces the rule's path. None: the rule's own.
        activity: what the units do.
        evolution: how B moves, None if it is frozen.
    """

    bound: BoundRule
    rates: tuple[sp.Expr, ...]
    decay: sp.Expr
    entrywise: Any
    activity: Units
    evolution: Evolution | None
    ghosts: tuple[int, ...] = field(default=())
    products: tuple[int, ...] = field(default=())

    @staticmethod
    def of(rule: Rule, net: MLP, rates: tuple[sp.Expr, ...] | None, decay: sp.Expr, entrywise: sp.Expr | None) -> WeightFlow:
        """The flow of a rule on a network."""
        bound = rule.bind(net)
        exact = {name: sp.nsimplify(getattr(bound, name), rational=True) for name in ("forward", "slope", "pseudo_gradient")}
        bound = replace(bound, **exact)
        own = slope_of(bound)
        activity = Units(None, None, None, ()) if own is None else units(own, bound.forward)
        rests = rule.evolution is None or entrywise is not None or rule.evolution == Evolution()
        return WeightFlow(bound, rates or (eta,) * (net.depth + 1), decay, entrywise, activity, None if rests else rule.evolution)

    @property
    def depth(self) -> int:
        """L."""
        return self.bound.net.depth

    @property
    def name(self) -> str:
        """How the rule is called, with what was added to it."""
        rule = self.bound.rule.name
        return rule if self.entrywise is None else f"{rule} with feedback weights {self.entrywise}"

    @property
    def biased(self) -> bool:
        """Whether there are biases."""
        return self.bound.net.sigma_b != 0

    def scale(self, l: int) -> sp.Expr:
        """s_ℓ = σ_w/√fan-in; σ_w at the readout, whose fan-in enters neither its update nor its feedback."""
        sigma = self.bound.net.sigma_w
        return sigma if l == self.depth else sigma / sp.sqrt(width(l, self.depth))

    # ---- letters ----------------------------------------------------------------------------------------------------

    def W(self, l: int) -> Letter:
        """Forward weights."""
        return Letter(f"W{l}", l + 1, l, tex=f"W_{{{l}}}")

    def b(self, l: int) -> Letter:
        """Biases."""
        return Letter(f"b{l}", l + 1, UNIT, tex=f"b_{{{l}}}")

    def B(self, l: int) -> Letter:
        """Feedback weights, in the shape of W^ℓ."""
        return Letter(f"B{l}", l + 1, l, tex=f"B_{{{l}}}")

    def F(self, l: int) -> Letter:
        """Direct feedback to layer ℓ."""
        return Letter(f"F{l}", self.depth + 1, l, tex=f"F_{{{l}}}")

    def M(self, l: int) -> Letter:
        """The ghost readout of layer ℓ: dM/dt = η_ℓ Σ_μ e_μ a^ℓ_μᵀ, M(0) = 0. It has no influence on the network."""
        return Letter(f"M{l}", self.depth + 1, l, tex=f"M_{{{l}}}")

    def C(self, l: int) -> Letter:
        """A matrix that turns direct feedback into layered feedback: F^{ℓ+1} C^ℓ = F^ℓ."""
        return Letter(f"C{l}", l + 1, l, tex=f"C_{{{l}}}")

    def D(self, l: int) -> Letter:
        """diag d(h^ℓ_μ), the factor of the feedback field in g̃."""
        return Letter(f"D{l}", l, l, diagonal=True, tex=f"D_{{{l}}}")

    def a(self, l: int) -> Letter:
        """a^ℓ_μ = φ(h^ℓ_μ), at ℓ = 0 the input."""
        return Letter(f"a{l}", l, SAMPLE, tex="x" if l == 0 else f"a_{{{l}}}")

    def h(self, l: int) -> Letter:
        """Preactivations."""
        return Letter(f"h{l}", l, SAMPLE, tex=f"h_{{{l}}}")

    def delta(self, l: int) -> Letter:
        """δ^ℓ_μ, pseudo-gradient times error; e at the outputs."""
        return Letter(f"d{l}", l, SAMPLE, tex="e" if l == self.depth + 1 else rf"\delta_{{{l}}}")

    def v(self, l: int) -> Letter:
        """The vector whose outer products with activities the feedback weights learn."""
        return Letter(f"v{l}", l, SAMPLE, tex=f"v_{{{l}}}")

    def one(self) -> Letter:
        """The 1 that multiplies a bias."""
        return Letter("one", UNIT, SAMPLE, tex="1")

    def Psi(self, l: int) -> Letter:
        """diag_i Σ_k ψ(W^ℓ_ki), the potential of entrywise feedback B = ψ′(W)."""
        return Letter(f"Psi{l}", l, l, diagonal=True, tex=rf"\Psi_{{{l}}}")

    @cached_property
    def potential(self) -> sp.Expr:
        """ψ(w) = ∫₀^w of the entrywise feedback, for w > 0 and for w < 0.

        Raises:
            BadInput: SymPy finds no antiderivative.
        """
        size = sp.Symbol("q", positive=True)
        above, below = (sign * sp.integrate(self.entrywise.subs(entry, sign * size), (size, 0, size)) for sign in (1, -1))
        if sp.sympify(above).has(sp.Integral) or sp.sympify(below).has(sp.Integral):
            raise BadInput(f"feedback={self.entrywise} has no antiderivative that SymPy finds, and the law needs one: give another function")
        if sp.simplify(above - below) == 0:
            return above.subs(size, sp.Abs(entry))
        return sp.Piecewise((above.subs(size, entry), entry >= 0), (below.subs(size, -entry), True))

    # ---- the feedback path ------------------------------------------------------------------------------------------

    def carried(self, l: int) -> sp.Expr:
        """α: how much of the feedback field comes through W^ℓ(t)."""
        return sp.S.Zero if self.entrywise is not None else self.bound.path[l - 1].transported

    def has_B(self, l: int) -> bool:
        """Whether there are feedback weights besides W^ℓ(t)."""
        if self.entrywise is not None:
            return True
        at = self.bound.path[l - 1]
        learnt = self.evolution is not None and any((self.evolution.pull, self.evolution.copy, self.evolution.outer, self.evolution.null))
        return bool(at.initial != 0 or at.independent != 0 or learnt)

    def straight(self, l: int) -> sp.Expr:
        """β: the strength of direct feedback to layer ℓ."""
        return sp.S.Zero if self.entrywise is not None else self.bound.path[l - 1].direct

    @cached_property
    def constants(self) -> set[Letter]:
        """Frozen matrices."""
        layers = range(1, self.depth + 1)
        frozen = {self.B(l) for l in layers if self.has_B(l) and self.evolution is None and self.entrywise is None}
        return frozen | {self.F(l) for l in layers if self.straight(l) != 0} | {self.C(l) for l in self.products}

    # ---- the flow ---------------------------------------------------------------------------------------------------

    @cached_property
    def velocity(self) -> Velocity:
        """Time derivatives of the letters that move."""
        found: Velocity = {}
        for l in range(self.depth + 1):
            rate, up = self.rates[l], self.delta(l + 1)
            found[self.W(l)] = [(rate * self.scale(l), (up, self.a(l).T)), *self._decayed(self.W(l))]
            if self.biased:
                found[self.b(l)] = [(rate * self.bound.net.sigma_b, (up, self.one().T)), *self._decayed(self.b(l))]
        for l in range(1, self.depth + 1):
            if self.has_B(l) and self.evolution is not None:
                found[self.B(l)] = self._learning_feedback(l, self.evolution)
            if self.entrywise is not None:
                found[self.Psi(l)] = [(c, (self.B(l).T, *word)) for c, word in found[self.W(l)]]
        for l in self.ghosts:
            found[self.M(l)] = [(self.rates[l], (self.delta(self.depth + 1), self.a(l).T))]
        return found

    def _decayed(self, letter: Letter) -> list[tuple[sp.Expr, Word]]:
        return [] if self.decay == 0 else [(-self.decay, (letter,))]

    def _learning_feedback(self, l: int, evolution: Evolution) -> list[tuple[sp.Expr, Word]]:
        """dB/dt = −decay B + pull W + copy (what W learns) + outer products; time in steps."""
        update = self.rates[l] * self.scale(l)
        terms = [
            (-evolution.decay, (self.B(l),)),
            (evolution.pull, (self.W(l),)),
            (evolution.copy * update, (self.delta(l + 1), self.a(l).T)),
        ]
        terms += self._hebbian(l, evolution.outer)
        P, N = sp.Symbol("P", integer=True, positive=True), width(l, self.depth)
        size, above = self._above(l)
        terms.append((-evolution.null * size**2 / (P * (1 if l == self.depth else N)), (*above, *transpose(above), self.B(l))))
        return [(coefficient, word) for coefficient, word in terms if coefficient != 0]

    def _above(self, l: int) -> tuple[sp.Expr, Word]:
        """What feedback weights see as the preactivation above: h^{ℓ+1}, at the readout σ_w W^L a^L/N."""
        if l < self.depth:
            return sp.S.One, (self.h(l + 1),)
        return self.bound.net.sigma_w / width(l, self.depth), (self.W(l), self.a(l))

    def _hebbian(self, l: int, outer: sp.Expr) -> list[tuple[sp.Expr, Word]]:
        """Outer products v aᵀ; where v is linear in h and ω = s B a + σ_b b in these letters, otherwise as a vector of its own."""
        P, N = sp.Symbol("P", integer=True, positive=True), width(l, self.depth)
        last = l == self.depth
        each = 1 / P if last else 1 / (P * sp.sqrt(N))
        size, above = self._above(l)
        on_h, on_omega = outer.diff(h), outer.diff(omega)
        if (on_h.free_symbols | on_omega.free_symbols) & FIELDS or sp.expand(outer - on_h * h - on_omega * omega) != 0:
            return [(each, (self.v(l + 1), self.a(l).T))]
        bias = self.bound.net.sigma_b if self.biased and not last else sp.S.Zero
        mirrored = self.bound.net.sigma_w / (N if last else sp.sqrt(N))
        return [
            (each * size * on_h, (*above, self.a(l).T)),
            (each * mirrored * on_omega, (self.B(l), self.a(l), self.a(l).T)),
            (each * bias * on_omega, (self.b(l), self.one(), self.a(l).T)),
        ]

    # ---- identities -------------------------------------------------------------------------------------------------

    def identities(self, layer: int) -> list[Identity]:
        """What is known of the forward and the backward pass, for laws of the weights around a hidden layer."""
        hidden = range(1, self.depth + 1)
        backward = [l for l in hidden if l <= layer or self.straight(l) != 0] if slope_of(self.bound) is not None else []
        found = [self._forward(l) for l in range(self.depth + 1)]
        found += [self._backward(l) for l in backward]
        found += [self._homogeneous(l) for l in hidden if self.activity.degree is not None]
        found += [self._proportional(l) for l in hidden if self.activity.gain is not None]
        found += [self._constant_slope(l) for l in hidden if self.activity.slope is not None]
        return found + [self._product(l) for l in self.products]

    def _forward(self, l: int) -> Identity:
        match, scale, sigma_b = at_end(self.a(l), self.W(l)), self.scale(l), self.bound.net.sigma_b

        def rewrite(word: Word):
            front = match(word)
            if front is None:
                return None
            bias = [(-sigma_b / scale, (*front, self.b(l), self.one()))] if self.biased else []
            return [(1 / scale, (*front, self.h(l + 1))), *bias]

        tail = f" - {_times(sigma_b)}{self.b(l).latex()}" if self.biased else ""
        equation = f"{_times(scale)}{self.W(l).latex()} {self.a(l).latex()} = {self.h(l + 1).latex()}{tail}"
        return Identity("Forward pass.", equation, rewrite)

    def _backward(self, l: int) -> Identity:
        match, up = at_end(self.delta(l)), self.delta(l + 1)
        scale = self.scale(l)
        terms: list[tuple[sp.Expr, Word]] = []
        if self.carried(l) != 0:
            terms.append((scale * self.carried(l), (self.D(l), self.W(l).T, up)))
        if self.has_B(l):
            terms.append((scale, (self.D(l), self.B(l).T, up)))
        if self.straight(l) != 0:
            terms.append((self.straight(l), (self.D(l), self.F(l).T, self.delta(self.depth + 1))))

        def rewrite(word: Word):
            front = match(word)
            return None if front is None else [(coefficient, front + tail) for coefficient, tail in terms]

        shown = " + ".join(_times(c) + " ".join(letter.latex() for letter in word) for c, word in terms) or "0"
        return Identity("Backward pass of the rule.", f"{self.delta(l).latex()} = {shown}", rewrite)

    def _homogeneous(self, l: int) -> Identity:
        degree = self.activity.degree

        def rewrite(word: Word):
            if not word or word[-1] != self.h(l):
                return None
            place = len(word) - 2
            while place >= 0 and word[place].diagonal:
                if word[place] == self.D(l):
                    return [(degree, word[:place] + word[place + 1 : -1] + (self.a(l),))]
                place -= 1
            return None

        equation = f"{self.D(l).latex()} {self.h(l).latex()} = {_times(degree)}{self.a(l).latex()}"
        return Identity(f"{EULER} {degree}; diagonal matrices commute.", equation, rewrite)

    def _proportional(self, l: int) -> Identity:
        match, gain = at_end(self.h(l)), sp.sympify(self.activity.gain)
        rewrite = lambda word: None if (front := match(word)) is None else [(1 / gain, (*front, self.a(l)))]
        return Identity("The units are linear.", f"{self.a(l).latex()} = {_times(gain)}{self.h(l).latex()}", rewrite)

    def _constant_slope(self, l: int) -> Identity:
        return _anywhere((self.D(l),), self.activity.slope, (), "The slope is constant.", f"{self.D(l).latex()} = {sp.latex(self.activity.slope)}")

    def _product(self, l: int) -> Identity:
        equation = f"{self.F(l + 1).latex()} {self.C(l).latex()} = {self.F(l).latex()}"
        return _anywhere((self.F(l + 1), self.C(l)), sp.S.One, (self.F(l),), "By the choice of the matrix.", equation)


def slope_of(bound: BoundRule) -> sp.Expr | None:
    """d(h, m) with g̃ = d·z; None if the pseudo-gradient is not of this form."""
    slope = bound.pseudo_gradient.diff(z)
    rest = sp.simplify(bound.pseudo_gradient - slope * z)
    return slope if rest == 0 and not slope.free_symbols & {z, Delta} else None


def _anywhere(pattern: Word, factor: sp.Expr, replacement: Word, reason: str, equation: str) -> Identity:
    """A rule that replaces a product of letters wherever it stands in a word."""

    def rewrite(word: Word):
        for start in range(len(word) - len(pattern) + 1):
            if word[start : start + len(pattern)] == pattern:
                return [(factor, word[:start] + replacement + word[start + len(pattern) :])]
        return None

    return Identity(reason, equation, rewrite)


def _times(factor: sp.Expr | None) -> str:
    """A factor in front of letters."""
    if factor == 1:
        return ""
    text = sp.latex(factor)
    return (rf"\left({text}\right)" if isinstance(factor, sp.Add) else text) + r"\, "


