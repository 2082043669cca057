"""Conservation laws of learning rules: found from the update, proved step by step.

`conservation_laws(rule, net)` writes the rule as a flow of weight matrices (`weight_flow`), searches an ansatz of matrix words for
combinations whose time derivative vanishes for all data and errors (`conservation_search`), and says for everything that is not conserved
what stands in the way and at which rate it changes.

Source: Robertson & Koyejo 2023 (layer-wise feedback alignment is conserved).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations

import sympy as sp

from .conservation_law import Law, Violation
from .conservation_search import KINDS, Found, probe, products, rate_of, search
from .derivation import Derivation, Step, in_unicode
from .errors import BadInput
from .evolution import Evolution
from .homogeneity import Units, units
from .latex import Documented, aligned
from .network import MLP
from .rules import Rule, require
from .symbols import h, m, recognised
from .weight_flow import WeightFlow, entry, slope_of
from .words import TraceSum


class ConservationLaws(Documented, list[Law]):
    """The laws that were found, as a list; `.violations` has the rates of what is not conserved.

    Attributes:
        flow: rule and network, with learning rates and decay.
    """

    def __init__(self, laws: Sequence[Law], flow: WeightFlow) -> None:
        super().__init__(laws)
        self.flow = flow

    @cached_property
    def violations(self) -> list[Violation]:
        """For every kind and layer without a law of network and feedback alone: the nearest quantity, its rate of change, and the obstacles."""
        ghosts = lambda law: any(name.startswith("M") for name in law.letters)
        kept = {(law.kind, law.layer) for law in self if not ghosts(law) and not law.found.linear}
        layers = range(1, self.flow.depth + 1)
        return [_nearest(self.flow, kind, layer) for kind in KINDS for layer in layers if (kind, layer) not in kept]

    def title(self) -> str:
        """One line: what they are of."""
        net = self.flow.bound.net
        extra = f", weight decay {self.flow.decay}" if self.flow.decay != 0 else ""
        return f"Conservation laws of {self.flow.name}: {net.size}, activation {net.activation}{extra}"

    def latex(self) -> str:
        """All laws in one align* environment."""
        return aligned([law.statement() for law in self]) if self else r"\text{no law}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning."""
        return sorted({row for part in (*self, *self.violations) for row in part.definitions()})

    def derivation(self) -> Derivation:
        """All proofs, and the rates of what is not conserved."""
        proved = [Step(law.title() + ".", law.statement(), tuple(law.proof())) for law in self]
        broken = [Step(found.title() + ".", found.statement(), tuple(found.derivation())) for found in self.violations]
        return Derivation(self.title(), (*proved, *broken))

    def __repr__(self) -> str:
        lines = [f"  {law!r}" for law in self] or ["  none"]
        special = sorted({row for law in self for row in law.definitions() if row[0].startswith(("M_", "C_", r"\Psi"))})
        lines += [f"  where {in_unicode(symbol)} is {meaning}" for symbol, meaning in special]
        broken = [f"  {found!r}" for found in self.violations]
        return "\n".join([self.title(), *lines, *(["not conserved:", *broken] if broken else [])])

    __str__ = __repr__


def conservation_laws(
    rule: Rule, net: MLP, *, rates: bool | Sequence[object] | None = None, decay: object = 0, feedback: object = None
) -> ConservationLaws:
    """Find what a learning rule conserves, for every data set, loss and initialisation, and prove it.

    Args:
        rule: the learning rule; feedback weights may be frozen, direct, or learn (`Evolution`, time in steps).
        net: the network; whether its activation is homogeneous, and of which degree, is derived from its expression.
        rates: learning rates η_0…η_L of the layers (the readout's last), True for symbols; by default one common rate.
        decay: weight decay λ of all forward weights and biases; laws then hold up to a factor e^{κt}.
        feedback: feedback weights as a function of the current forward weights, entry by entry, in the symbol `w`: sign(w) for sign
            symmetry. Replaces the rule's own path.

    Returns:
        The laws of number, neuron and matrix kind of every hidden layer, a list; empty if there are none.

    Raises:
        BadInput: rates that are not one for each weight matrix, or feedback that is not a function of w or has no potential.

    Source: Robertson & Koyejo 2023 for FA; Du et al. 2018 for gradient descent.

    Example:
        >>> conservation_laws(FA(rho), MLP(2, "relu"))
    """
    require(rule, net)
    flow = WeightFlow.of(rule, net, _rates(rates, net), sp.nsimplify(sp.sympify(decay), rational=True), _entrywise(feedback))
    found = list(_all_laws(flow))
    found.sort(key=lambda law: (KINDS.index(law.kind), law.layer))
    return ConservationLaws(found, flow)


def _all_laws(flow: WeightFlow) -> Iterator[Law]:
    linear = [law for layer in range(1, flow.depth + 1) for law in search(flow, "matrix", layer, linear=True)]
    yield from (Law(flow, law) for law in linear)
    for kind in KINDS:
        known = [(each, total) for each in linear for total in products(each, kind)]
        for layer in range(1, flow.depth + 1):
            implied = [total for each, total in known if each.layer in (layer, layer - 1)]
            laws = [Law(flow, law) for law in search(flow, kind, layer, known=implied)]
            yield from laws or _with_auxiliary(flow, kind, layer)


def _with_auxiliary(flow: WeightFlow, kind: str, layer: int) -> list[Law]:
    """Laws of direct feedback that need a letter more: a factor C of the feedback, or else a ghost readout M."""
    if layer == flow.depth or flow.straight(layer) == 0:
        return []
    for extended in (replace(flow, products=(layer,)), replace(flow, ghosts=(layer,))):
        laws = [Law(extended, found) for found in search(extended, kind, layer)]
        if laws := [law for law in laws if law.auxiliary]:
            return laws
    return []


# ---- what is not conserved ------------------------------------------------------------------------------------------------

Relaxation = tuple[str, Callable[[WeightFlow], WeightFlow]]


def _obstacles(flow: WeightFlow, layer: int) -> list[Relaxation]:
    """What may stand in the way of a law, and the flow without it."""
    act = flow.bound.net.activation
    linear = Units(sp.S.One, sp.S.One, sp.S.One, ())
    found: list[Relaxation] = []
    if flow.decay != 0:
        found.append(("weight decay", lambda f: replace(f, decay=sp.S.Zero)))
    if flow.evolution is not None and flow.evolution.decay != 0:
        found.append(("decay of the feedback weights", lambda f: replace(f, evolution=replace(f.evolution or Evolution(), decay=sp.S.Zero))))
    if flow.evolution is not None:
        found.append(("feedback weights that learn", lambda f: replace(f, evolution=None)))
    own = slope_of(flow.bound)
    if flow.activity.degree is None and own is not None:
        homogeneous = units(flow.bound.slope, flow.bound.forward).degree is not None
        missing = "the rule leaves out the slope of the units" if not own.free_symbols & {h, m} else "the rule's slope is not that of the units"
        name = missing if homogeneous else f"{act} is not homogeneous"
        found.append((name, lambda f: replace(f, activity=replace(f.activity, degree=sp.S.One))))
    if flow.activity.gain is None and own is not None:
        found.append(("the units are not linear", lambda f: replace(f, activity=linear)))
    if layer < flow.depth and flow.straight(layer) != 0 and flow.straight(layer + 1) != 0:
        found.append(("direct feedback", lambda f: replace(f, products=(layer,))))
    return found


def _nearest(flow: WeightFlow, kind: str, layer: int) -> Violation:
    """The law that would hold with as few obstacles as possible taken away and does not with all of them, and its rate with them."""
    obstacles = _obstacles(flow, layer)
    for count in range(1, len(obstacles) + 1):
        for chosen in combinations(obstacles, count):
            relaxed = flow
            for _, relax in chosen:
                relaxed = relax(relaxed)
            seen = replace(flow, products=relaxed.products)
            for found in search(relaxed, kind, layer):
                violation = _violation(seen, found, tuple(name for name, _ in chosen))
                if not _kept(violation):
                    return violation
    size = sp.S.One if kind == "matrix" else sp.S.Half
    own = TraceSum.of([(size, (*probe(kind, layer), flow.W(layer - 1), flow.W(layer - 1).T))])
    return _violation(flow, Found(kind, layer, own, sp.S.Zero), ())


def _kept(violation: Violation) -> bool:
    """Whether the quantity is conserved after all, up to decay, as what a law linear in the weights implies is."""
    own, rate = violation.candidate.total, violation.total
    word = next(iter(own.terms))
    return not rate + own * (-rate.terms.get(word, sp.S.Zero) / own.terms[word])


def _violation(flow: WeightFlow, candidate: Found, obstacles: tuple[str, ...]) -> Violation:
    return Violation(flow, candidate, rate_of(flow, candidate.total, candidate.layer), obstacles)


# ---- arguments --------------------------------------------------------------------------------------------------------------


def _rates(rates: bool | Sequence[object] | None, net: MLP) -> tuple[sp.Expr, ...] | None:
    if rates is None or rates is False:
        return None
    if rates is True:
        return tuple(sp.Symbol(f"eta_{l}", positive=True) for l in range(net.depth + 1))
    found = tuple(sp.nsimplify(sp.sympify(rate), rational=True) for rate in rates)
    if len(found) != net.depth + 1:
        raise BadInput(f"{len(found)} learning rates for {net.depth + 1} weight matrices: give one for each, the readout's last")
    for rate in found:
        if rate.is_number and not rate.is_positive:
            raise BadInput(f"rates contain {rate}, which is no learning rate: give numbers > 0 or symbols")
    return found


def _entrywise(feedback: object) -> sp.Expr | None:
    if feedback is None:
        return None
    expr = recognised(feedback, (entry,))
    if entry not in expr.free_symbols:
        raise BadInput(f"feedback={expr} does not contain w: write feedback weights as a function of the forward weight w, such as sign(w)")
    return expr
