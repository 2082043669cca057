"""A rule on a network, as the solvers see it: generated single-site functions and the numbers that go into them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any, TypeVar

from .jaxify import jaxify
from .kernel import refuse_correlations

T = TypeVar("T")
COEFFICIENTS = ("transported", "initial", "independent", "direct")


@dataclass(frozen=True)
class Dynamics:
    """What one training step needs to know about a rule. Hashable: compiled code is kept per `Dynamics`.

    Attributes:
        module: the generated module (see `derive.codegen`).
        source: its text.
        biased: whether σ_b ≠ 0.
    """

    module: ModuleType
    source: str
    biased: bool

    def __hash__(self) -> int:
        return hash((self.source, self.biased))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dynamics) and (self.source, self.biased) == (other.source, other.biased)

    @property
    def name(self) -> str:
        """How the rule is called in titles and tables."""
        return self.module.NAME

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return self.module.DEPTH

    @property
    def gated(self) -> bool:
        """Whether frozen gates m are part of the fields."""
        return self.module.USES_GATES

    @property
    def linear_given_gates(self) -> bool:
        """Whether F = f(m) h and g̃ = g: given the gates every field is Gaussian."""
        return getattr(self.module, "LINEAR_GIVEN_GATES", False)

    @property
    def sign_gates(self) -> bool:
        """Whether, besides, f depends on the signs of the gates only."""
        return getattr(self.module, "SIGN_GATES", False)

    @property
    def gradient(self) -> bool:
        """Whether g̃ = g identically."""
        return self.module.PROPAGATES_GRADIENT

    @property
    def evolves(self) -> bool:
        """Whether the feedback weights learn."""
        return self.module.EVOLVES

    @property
    def learns_outer_products(self) -> bool:
        """Whether they learn more than the forward weights tell them."""
        return self.module.LEARNS_OUTER_PRODUCTS

    @property
    def copies(self) -> bool:
        """Whether they receive the forward weights' own steps."""
        return getattr(self.module, "COPIES", False)

    @property
    def mirrors(self) -> bool:
        """Whether they learn from what they make of the features below, used forward: ω."""
        return getattr(self.module, "MIRRORS", False)

    @property
    def reconstructs(self) -> bool:
        """Whether they unlearn what they make of the preactivations above: ψ."""
        return getattr(self.module, "RECONSTRUCTS", False)

    def readout_feedback(self, w: Any, v: Any) -> Any:
        """The readout's own feedback vector: v, or what the rule makes of the initial readout and it, entry by entry."""
        return v if v is None or not hasattr(self.module, "readout_feedback") else self.module.readout_feedback(w, v)

    def uses(self, layer: int, *names: str) -> bool:
        """Whether the feedback field z̃^ℓ has any of these terms; ℓ = `layer` in 1…L (ℓ = L: from the readout)."""
        return any(name in self.module.PATH[layer - 1] for name in names)

    def feeds_back(self, layer: int, shrinks: bool) -> tuple[str, ...]:
        """Which fields of the forward weights W^ℓ are feedback, so that forward fields respond to them.

        Args:
            layer: ℓ.
            shrinks: whether weight decay takes a share of W(0) in every step, which copies of the steps then contain.
        """
        copied = ("initial",) if shrinks and self.copies else ()
        return tuple(name for name in ("transported", "initial") if self.uses(layer, name) or name in copied)


def dynamics(rule: Any, net: Any, parameters: Mapping[str, float] | None = None) -> tuple[Dynamics, dict[str, float]]:
    """Generate and load a rule's functions on a network, and settle its parameters.

    Args:
        rule: an object with `.bind(net)` whose result has `.source()`.
        net: the network to put it on.
        parameters: values of symbolic parameters, by name.

    Returns:
        The dynamics and the parameter values as floats.

    Raises:
        ValueError: rule or network are none, a parameter has no value, a value is no number or no correlation, or a name is unknown.
    """
    source = _source(rule, net)
    module = jaxify(source)
    values = settle(module.NAME, module.PARAMETERS, parameters)
    refuse_correlations(module, values)
    return Dynamics(module, source, float(module.scales(**values)[1]) != 0.0), values


def refuse_outputs(p: Any, rule: Dynamics) -> None:
    """Feedback weights that learn from outer products of each example have no rule for several outputs.

    Raises:
        ValueError: such a rule on a problem with several outputs.
    """
    if p.outputs > 1 and (rule.learns_outer_products or rule.reconstructs):
        raise ValueError(
            f"y has {p.outputs} outputs, but the feedback weights of {rule.name} learn from outer products of each example, which have no "
            "output index: solve for one column of y, or use a rule whose feedback weights do not"
        )


def settle(owner: str, names: tuple[str, ...], parameters: Mapping[str, float] | None) -> dict[str, float]:
    """Values for exactly the named parameters.

    Raises:
        ValueError: one is missing, superfluous, or not a finite number.
    """
    given = {str(name): value for name, value in (parameters or {}).items()}
    for name in names:
        if name not in given:
            example = f"FA(0.3) or parameters={{'{name}': 0.3}}" if name == "rho" else f"parameters={{'{name}': …}}"
            raise ValueError(f"{name} is symbolic in {owner} and has no value: give {example}")
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"parameters has {name!r}, which {owner} does not contain (its free parameters: {known}): remove it")
    try:
        values = {name: float(given[name]) for name in names}
    except (TypeError, ValueError):
        raise ValueError(f"parameters={given} of {owner} are not all numbers: give floats") from None
    for name, value in values.items():
        if value - value != 0:
            raise ValueError(f"parameters[{name!r}]={value} of {owner} is not finite: give a finite number")
    return values


def kept(find: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    """A function of a rule and a network that keeps what it found, where these can be told apart by a hash."""
    known = lru_cache(maxsize=128)(find)
    return wraps(find)(lambda rule, net: (known if isinstance(rule, Hashable) and isinstance(net, Hashable) else find)(rule, net))


@kept
def _source(rule: Any, net: Any) -> str:
    if not hasattr(rule, "bind") or isinstance(rule, type):
        name = getattr(rule, "__name__", "")
        hint = f"call it, {name}()" if callable(rule) and name else "give GD(), FA(0.5), … or a Rule; the order is (problem, rule, network)"
        raise ValueError(f"rule={rule!r} is not a learning rule: {hint}")
    if not hasattr(net, "activation"):
        raise ValueError(f"net={net!r} is not a network: give MLP(depth=…, activation=…); the order is (problem, rule, network)")
    return rule.bind(net).source()
