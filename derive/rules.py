"""Learning rules as data: a pseudo-gradient expression and a feedback path.

A rule changes the weights by ΔW^ℓ ∝ Σ_μ Δ_μ g̃^{ℓ+1}_μ φ(h^ℓ_μ)ᵀ. It is written once, here, in terms of single-site fields:

    h   preactivation h^ℓ_μ(t)          z       the feedback field z̃^ℓ_μ(t) that the rule's path delivers
    m   gate M^ℓ x_μ/√D, frozen         Delta   error signal Δ_μ(t)
    phi(·), dphi(·)   the network's activation and its derivative

Kernels, mean-field equations, the infinite-width solver and the finite network all read nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import sympy as sp

from .activations import Activation, almost_everywhere_derivative
from .admissible import TAKEN, check
from .errors import BadInput
from .evolution import Evolution
from .network import MLP
from .piecewise import steps_form
from .symbols import Delta, ddphi, dphi, h, m, phi, recognised, u, v, z

if TYPE_CHECKING:
    from .dmft import DMFTEquations
    from .lazy import LazyKernel

Coefficient: TypeAlias = sp.Expr | tuple[sp.Expr, ...]
FIELDS = (h, z, m, Delta)
COEFFICIENTS = ("transported", "initial", "independent", "direct")
ACTIVITY = phi(h)


@dataclass(frozen=True)
class Feedback:
    """The path along which the error signal comes down: z̃^ℓ is a sum of up to four terms.

        z̃^ℓ = transported · W^ℓ(t)ᵀ g̃^{ℓ+1}/√N + initial · W^ℓ(0)ᵀ g̃^{ℓ+1}/√N + independent · V^ℓᵀ g̃^{ℓ+1}/√N + direct · ξ^ℓ

    W(t) are the current forward weights, W(0) the initial ones, V a random matrix of its own and ξ^ℓ a standard normal vector,
    both frozen. At the readout (ℓ = L) the matrices are the vectors w(t), w(0), v and g̃^{L+1} = 1. A coefficient is a number, an
    expression, or a sequence with one entry for each hidden layer ℓ = 1…L. All four zero: the rule uses no feedback.

    With an `evolution` the matrix B = initial · W(0)ᵀ + independent · V is where the feedback weights start, and they learn from there.
    `correlations` are those among the coefficients that must lie in [0, 1] when their parameters get values. `readout`, an expression in u and v,
    is set by `entrywise_feedback`: what initial · w_i(0) + independent · v_i is at the readout, where entries meet the features of their own unit,
    so that more than their moments counts.
    """

    transported: Coefficient = sp.S.Zero
    initial: Coefficient = sp.S.Zero
    independent: Coefficient = sp.S.Zero
    direct: Coefficient = sp.S.Zero
    evolution: Evolution | None = None
    correlations: tuple[sp.Expr, ...] = field(default=(), compare=False)
    readout: sp.Expr | None = None

    def __post_init__(self) -> None:
        for name in COEFFICIENTS:
            value = _coefficient(getattr(self, name))
            object.__setattr__(self, name, value)
            for entry in value if isinstance(value, tuple) else (value,):
                check("Feedback", f"coefficient {name}", entry, ())
        if self.readout is not None:
            check("Feedback", "function readout", self.readout, (u, v))
        if self.evolution is not None and not isinstance(self.evolution, Evolution):
            raise BadInput(f"evolution={self.evolution!r} is not an update of feedback weights: give Evolution(decay=…, pull=…, …)")

    def at(self, layer: int, depth: int) -> PathCoefficients:
        """The four coefficients for the field z̃^ℓ, ℓ = `layer`, in a network with `depth` hidden layers.

        Raises:
            BadInput: a coefficient given per layer does not have `depth` entries.
        """
        values = []
        for name in COEFFICIENTS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                if len(value) != depth:
                    raise BadInput(
                        f"{len(value)} per-layer coefficients ({', '.join(map(str, value))}) for depth={depth}: "
                        "give one for each hidden layer, the last for the readout"
                    )
                value = value[layer - 1]
            values.append(value)
        return PathCoefficients(*values)

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        """Symbols in any coefficient."""
        found: set[sp.Symbol] = set() if self.evolution is None else self.evolution.free_symbols
        for name in COEFFICIENTS:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                found |= item.free_symbols
        return found


@dataclass(frozen=True)
class PathCoefficients:
    """`Feedback` at one layer."""

    transported: sp.Expr
    initial: sp.Expr
    independent: sp.Expr
    direct: sp.Expr


@dataclass(frozen=True)
class Rule:
    """A learning rule.

    Args:
        name: how it is called in titles and tables.
        pseudo_gradient: g̃ as an expression in h, z, m, Delta, phi(·), dphi(·) and parameters.
        feedback: how the field z reaches the layer; `Feedback()` for a rule without feedback.
        forward: what the next layer receives from this one: phi(h), or dphi(m)*h in a gated linear network.

    Raises:
        BadInput: g̃ uses z though the feedback path is empty, or an expression has a term that the theory cannot treat (see `admissible`).

    Example:
        >>> FA_without_slope = Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2)))
    """

    name: str
    pseudo_gradient: sp.Expr
    feedback: Feedback = field(default_factory=Feedback)
    forward: sp.Expr = ACTIVITY

    def __post_init__(self) -> None:
        for name in ("pseudo_gradient", "forward"):
            object.__setattr__(self, name, recognised(getattr(self, name), TAKEN))
        owner = f"rule {self.name!r}"
        check(owner, "pseudo-gradient", self.pseudo_gradient, FIELDS)
        check(owner, "forward map", self.forward, (h, m))
        if z in self.pseudo_gradient.free_symbols and self.feedback == Feedback():
            raise BadInput(
                f"rule {self.name!r}: its pseudo-gradient {self.pseudo_gradient} uses the feedback field z but its feedback path is "
                "empty: give Feedback(transported=…), Feedback(initial=…, independent=…) or Feedback(direct=…)"
            )
        if self.forward.free_symbols - {h, m}:
            strangers = ", ".join(sorted(map(str, self.forward.free_symbols - {h, m})))
            raise BadInput(f"rule {self.name!r}: the forward map {self.forward} may use h and m only, not {strangers}")

    @property
    def slope(self) -> sp.Expr:
        """∂forward/∂h, the factor of the true gradient g = slope · z: almost everywhere, as φ̇ is (no δ at kinks and jumps; 0 for steps)."""
        return almost_everywhere_derivative(self.forward, h)

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """The rule's free symbols (e.g. rho), sorted by name."""
        free = (self.pseudo_gradient.free_symbols | self.feedback.free_symbols) - set(FIELDS)
        return tuple(sorted(free, key=str))

    @property
    def evolution(self) -> Evolution | None:
        """How the feedback weights learn; None if they do not."""
        return self.feedback.evolution

    def frozen_at(self, step: sp.Expr | int) -> Rule:
        """The rule with its feedback weights as they are after `step` updates in the lazy limit, and frozen there."""
        if self.evolution is None:
            return self
        start = self.feedback
        initial = _each(lambda b: self.evolution.on_initial(sp.sympify(step), b), start.initial)
        independent = _each(lambda b: self.evolution.on_independent(sp.sympify(step), b), start.independent)
        path = Feedback(start.transported, initial, independent, start.direct, correlations=start.correlations, readout=start.readout)
        return Rule(f"{self.name} after {step} steps", self.pseudo_gradient, path, self.forward)

    @property
    def uses_gates(self) -> bool:
        """Whether the rule needs the frozen gates m."""
        return m in self.forward.free_symbols | self.pseudo_gradient.free_symbols

    @property
    def propagates_gradient(self) -> bool:
        """Whether g̃ = g identically: the feedback field is the true one and the pseudo-gradient is slope · z."""
        return self.feedback == Feedback(transported=1) and sp.expand(self.pseudo_gradient - self.slope * z) == 0

    def bind(self, net: MLP) -> BoundRule:
        """The rule's single-site functions with the network's activation put in."""
        put = lambda expr: put_activation(expr, net.activation)
        return BoundRule(
            self,
            net,
            put(self.forward),
            put(self.slope),
            put(self.pseudo_gradient),
            tuple(self.feedback.at(layer, net.depth) for layer in range(1, net.depth + 1)),
        )

    def lazy_kernel(self, net: MLP) -> LazyKernel:
        """The lazy-limit kernel of this rule on a network: `derive.lazy_kernel(self, net)`."""
        from .lazy import lazy_kernel

        return lazy_kernel(self, net)

    def dmft_equations(self, net: MLP) -> DMFTEquations:
        """The mean-field equations of this rule on a network: `derive.dmft_equations(self, net)`."""
        from .dmft import dmft_equations

        return dmft_equations(self, net)


@dataclass(frozen=True)
class BoundRule:
    """A rule on a network: everything a kernel, a solver or a finite network needs to know.

    Attributes:
        forward, slope: expressions in h, m.
        pseudo_gradient: expression in h, z, m, Delta.
        path: feedback coefficients of the layers ℓ = 1…L (index 0 is layer 1; the last is the readout's).
    """

    rule: Rule
    net: MLP
    forward: sp.Expr
    slope: sp.Expr
    pseudo_gradient: sp.Expr
    path: tuple[PathCoefficients, ...]

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Free symbols of rule and network, sorted by name."""
        return tuple(sorted({*self.rule.parameters, *self.net.parameters}, key=str))

    @property
    def linear_given_gates(self) -> bool:
        """Whether gates alone make fields nonlinear: F = f(m) h and g̃ = g, so that all fields are Gaussian once the gates are known."""
        linear = not self.slope.has(h) and sp.expand(self.forward - self.slope * h) == 0
        return self.rule.uses_gates and self.rule.propagates_gradient and linear

    @property
    def sign_gates(self) -> bool:
        """Whether they do, and f(m) depends on the sign of m only."""
        kink = sp.Dummy()
        return self.linear_given_gates and not steps_form(self.slope, m).xreplace({sp.Heaviside(m): kink}).has(m)

    def source(self) -> str:
        """A readable Python module with the rule's single-site functions in JAX, for solvers and finite networks."""
        from .codegen.emit import dynamics_source

        return dynamics_source(self)


def require(rule: object, net: object) -> None:
    """Refuse what is no rule or no network.

    Raises:
        BadInput: either is not.
    """
    if not isinstance(rule, Rule):
        name = getattr(rule, "__name__", "")
        hint = f"call it, {name}()" if callable(rule) and name else "give GD(), FA(rho), DFA(), Hebb(), GLN() or Rule(…)"
        raise BadInput(f"rule={rule!r} is not a learning rule: {hint}")
    if not isinstance(net, MLP):
        raise BadInput(f"net={net!r} is not a network: give MLP(depth=…, activation=…)")


def put_activation(expr: sp.Expr, act: Activation) -> sp.Expr:
    """Replace phi(·), dphi(·), ddphi(·) by an activation and its derivatives (almost everywhere: no δ)."""
    replaced = expr.replace(ddphi, lambda q: act.derivative(2, q))
    replaced = replaced.replace(dphi, lambda q: act.derivative(1, q))
    return replaced.replace(phi, lambda q: act.derivative(0, q))


def _coefficient(value: object) -> Coefficient:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_exact(entry) for entry in value)
    return _exact(value)


def _exact(value: object) -> sp.Expr:
    """SymPy expression with floats turned into the rationals that they print as."""
    return sp.nsimplify(sp.sympify(value), rational=True)


def _correlations(values: object) -> tuple[sp.Expr, ...] | sp.Expr:
    """Check correlations ρ: numbers must lie in [0, 1]."""
    exact = _coefficient(values)
    for entry in exact if isinstance(exact, tuple) else (exact,):
        if entry.is_number and not (entry.is_real and 0 <= entry <= 1):
            raise BadInput(f"rho={_short(entry)} is not a correlation: FA needs 0 <= rho <= 1")
    return exact


def symbolic(correlation: tuple[sp.Expr, ...] | sp.Expr) -> tuple[sp.Expr, ...]:
    """The correlations whose range can only be checked when their parameters have values."""
    entries = correlation if isinstance(correlation, tuple) else (correlation,)
    return tuple(dict.fromkeys(entry for entry in entries if entry.free_symbols))


def _short(number: sp.Expr) -> str:
    """A number as a person would write it."""
    return f"{float(number):g}" if number.is_real else str(number)


def _each(function, values):
    return tuple(map(function, values)) if isinstance(values, tuple) else function(values)


def GD() -> Rule:
    """Gradient descent: g̃ = φ̇(h) z, errors transported by the current weights."""
    return Rule("GD", dphi(h) * z, Feedback(transported=1))


def FA(rho: object = 0) -> Rule:
    """Feedback alignment: errors come down through W̃ = ρ W(0) + √(1−ρ²) V, frozen.

    Args:
        rho: the correlation of W̃ with W(0): a number in [0, 1], an expression, or one for each hidden layer
            (ρ_ℓ carries the signal from layer ℓ+1 to layer ℓ; the last is the readout's).

    Raises:
        BadInput: a number outside [0, 1].

    Source: Lillicrap et al. 2016; Bordelon & Pehlevan 2023.
    """
    correlation = _correlations(rho)
    rest = _each(lambda r: sp.sqrt(1 - r**2), correlation)
    label = f"[{', '.join(map(str, correlation))}]" if isinstance(correlation, tuple) else str(correlation)
    return Rule(f"FA(rho={label})", dphi(h) * z, Feedback(initial=correlation, independent=rest, correlations=symbolic(correlation)))


def DFA() -> Rule:
    """Direct feedback alignment: every layer gets its own frozen Gaussian projection of the error. Source: Nøkland 2016."""
    return Rule("DFA", dphi(h) * z, Feedback(direct=1))


def Hebb() -> Rule:
    """Error-modulated Hebbian learning: g̃ = Δ φ(h), no feedback. Source: Bordelon & Pehlevan 2023."""
    return Rule("Hebb", Delta * phi(h))


def GLN() -> Rule:
    """Gated linear network: h passes through frozen gates φ̇(m); gradient descent through the same gates. Source: Fiat et al. 2019; Bordelon & Pehlevan 2023."""
    return Rule("GLN", dphi(m) * z, Feedback(transported=1), forward=dphi(m) * h)
