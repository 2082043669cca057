"""Small feature learning: kernels and output of a two-layer network to second order in γ0, for any rule that is odd in its feedback.

The discrete equations are solved order by order: h = u + γ0 h₁ + γ0² h₂ + …, w and z̃ likewise, Δ = Δ⁽⁰⁾ + γ0² Δ⁽²⁾ + O(γ0⁴). Odd orders of
averages vanish because every field keeps its parity in the Gaussians w(0), z̃(0). What remains are Gaussian averages of at most four
functions, which the engine brings to closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from . import fields as F
from .couplings import KERNELS, coupling, summands
from .derivation import Derivation
from .dmft import DMFTEquations, dmft_equations
from .errors import BadInput, DeriveError
from .fields import L, c0, ell, nu, s
from .latex import Documented
from .moments import Moment, moment
from .network import MLP
from .rules import Rule, require
from .series import Series, Term, collect, constant, learn, pair, product, taylor
from .symbols import Delta, h, x, z

KINKS = (sp.Heaviside, sp.sign, sp.Abs, sp.Max, sp.Min, sp.Piecewise, sp.DiracDelta)


@dataclass(frozen=True)
class SmallFeatureExpansion(Documented):
    """A two-layer network's mean-field theory to O(γ0²).

    Attributes:
        eqs: the equations that are expanded.
        share: the coefficient of w(0) in z̃(0): Cov(w(0), z̃(0)).
        variance: Var z̃(0).
        transported: how much of what w learns enters z̃.

    Source: THEORY section 4; Bordelon & Pehlevan 2022 (perturbation theory in γ0).
    """

    eqs: DMFTEquations
    share: sp.Expr
    variance: sp.Expr
    transported: sp.Expr

    @property
    def slope(self) -> sp.Expr:
        """p in g̃ = p(h) z̃, as an expression in x."""
        return sp.expand(self.eqs.bound.pseudo_gradient.diff(z)).subs(h, x)

    @property
    def activation(self) -> sp.Expr:
        """φ as an expression in x."""
        return self.eqs.bound.forward.subs(h, x)

    @cached_property
    def series(self) -> Mapping[str, Series]:
        """h − u, w and z̃ order by order up to γ0³."""
        shift: Series = {}
        w: Series = {0: (constant(powers=(1, 0)),)}
        z_tilde: Series = {0: (constant(powers=(0, 1)),)}
        for order in (1, 2, 3):
            features = taylor(self.activation, shift, order - 1)
            gradient = product(taylor(self.slope, shift, order - 1), z_tilde, order - 1)
            shift = {**shift, order: learn(gradient, order, sp.Integer(1), kernel=True)}
            w = {**w, order: learn(features, order, sp.Integer(1), kernel=False)}
            if self.transported != 0:
                z_tilde = {**z_tilde, order: learn(features, order, self.transported, kernel=False)}
        return MappingProxyType({"h": shift, "w": w, "z_tilde": z_tilde})

    @cached_property
    def averages(self) -> Mapping[str, tuple[Term, ...]]:
        """Φ, G̃ (at (μ, t), (ν, s)) and f as sums of terms whose Gaussians w(0), z̃(0) are averaged; "Phi2" is the coefficient of γ0²."""
        shift, w, z_tilde = (self.series[name] for name in ("h", "w", "z_tilde"))
        features = taylor(self.activation, shift, 3)
        gradient = product(taylor(sp.diff(self.activation, x), shift, 2), w, 2)
        own = product(taylor(self.slope, shift, 2), z_tilde, 2)
        overlap = product(w, features, 3)
        found = {
            "Phi0": pair(features, features, 0), "Phi2": pair(features, features, 2),
            "G_tilde0": pair(gradient, own, 0), "G_tilde2": pair(gradient, own, 2), "f0": overlap[1], "f2": overlap[3],
        }  # fmt: skip
        roots = {"f0": 1, "f2": 1}
        return MappingProxyType({name: self._averaged(terms, roots.get(name, 2)) for name, terms in found.items()})

    def _averaged(self, terms: tuple[Term, ...], roots: int) -> tuple[Term, ...]:
        """⟨w(0)^a z̃(0)^b⟩ put in; terms whose functions are odd in all of u vanish."""
        kept = []
        for term in terms:
            weight = term.number * self._weight(*term.powers)
            if weight != 0 and not moment(term.sorted_functions[0]).vanishes:
                kept.append(Term(weight, term.nodes, term.kernels, term.functions, (0, 0), term.later))
        return collect(kept, roots)

    def _weight(self, a: int, b: int) -> sp.Expr:
        """E[w^a z̃^b] for the correlated pair: Isserlis."""
        if (a + b) % 2:
            return sp.Integer(0)
        if a == 0:
            return sp.factorial2(b - 1) * self.variance ** (b // 2) if b else sp.Integer(1)
        rest = (a - 1) * self._weight(a - 2, b) if a > 1 else sp.Integer(0)
        return rest + (b * self.share * self._weight(a - 1, b - 1) if b else sp.Integer(0))

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """The Gaussian averages that all results need, each in closed form.

        Raises:
            NoClosedForm: the engine has none; `.reason` names the obstruction.
        """
        found = {moment(term.sorted_functions[0]): None for terms in self.averages.values() for term in terms}
        return tuple(found)

    @cached_property
    def equations(self) -> Mapping[str, str]:
        """Fields, kernels and output order by order, as LaTeX."""
        from .expansion_text import expansion_equations

        return expansion_equations(self)

    def derivation(self) -> Derivation:
        """Order by order, with the Gaussian averages."""
        from .expansion_text import expansion_derivation

        return expansion_derivation(self)

    def title(self) -> str:
        """One line: rule and activation."""
        return f"{self.eqs.rule.name}, one hidden layer, activation {self.eqs.net.activation}: expansion to O(γ0²)"

    def source(self) -> str:
        """A JAX module: Phi2, G_tilde2, f2 as functions of K^x and the history of errors, and `solve` for all of them from the targets.

        Raises:
            NoClosedForm: a Gaussian average has none.
        """
        from .codegen.expansion import expansion_source

        return expansion_source(self)

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        from .expansion_text import expansion_definitions

        return expansion_definitions(self)

    def __repr__(self) -> str:
        from .derivation import in_unicode

        return "\n".join([self.title(), *(f"  {in_unicode(line)}" for line in self.equations.values())])


def small_feature_expansion(rule: Rule, net: MLP) -> SmallFeatureExpansion:
    """Expand a two-layer network's mean-field equations to second order in γ0.

    Args:
        rule: a rule whose pseudo-gradient is a function of h times its feedback field (GD, FA, DFA, mixtures, FA without slope).
        net: one hidden layer, σ_w = 1, σ_b = 0, a smooth activation.

    Raises:
        BadInput: another depth or scale, an activation with kinks, or a rule that is not odd in its feedback field.
    """
    require(rule, net)
    if net.depth != 1:
        raise BadInput(f"depth={net.depth}: the expansion is derived for one hidden layer (no responses); give MLP(1, …), or use solve_dmft")
    if net.sigma_w != 1 or net.sigma_b != 0:
        raise BadInput(f"sigma_w={net.sigma_w}, sigma_b={net.sigma_b}: the expansion is derived for sigma_w=1, sigma_b=0; scale the inputs instead")
    if net.activation.expr.has(*KINKS):
        raise BadInput(
            f"activation {net.activation} has kinks: its second derivative is a δ function, so the fields have no Taylor expansion in γ0 and "
            "averages of four of its derivatives are orthant probabilities without closed form; use solve_dmft, or a smooth activation"
        )
    eqs = dmft_equations(rule, net)
    if rule.evolution is not None or rule.uses_gates:
        raise BadInput(f"rule {rule.name!r} has learning feedback weights or gates: the expansion treats frozen or transported feedback only")
    if rule.feedback.readout is not None:
        raise BadInput(f"rule {rule.name!r}: the readout's feedback {rule.feedback.readout} is not Gaussian, as averages here are; use solve_dmft")
    gradient = sp.expand(eqs.bound.pseudo_gradient)
    if gradient.has(Delta) or sp.expand(gradient - gradient.diff(z) * z) != 0 or gradient.diff(z).has(z):
        raise BadInput(
            f"rule {rule.name!r}: the pseudo-gradient {gradient} is not a function of h times z, so odd orders of γ0 do not vanish; use solve_dmft"
        )
    share, variance, transported = _path(eqs)
    return SmallFeatureExpansion(eqs, share, variance, transported)


def _path(eqs: DMFTEquations) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Cov(w(0), z̃(0)), Var z̃(0), and the share of what w learns that enters z̃; checks what the fields collect."""
    equations, plain = eqs.equations, Delta * c0
    memory = coupling(equations["preactivation"], eqs.g_tilde(ell, nu, s))
    learned = coupling(equations["readout gradient field"], eqs.forward(L, nu, s))
    if sp.expand(memory - plain * KERNELS[F.Phi]) != 0 or sp.expand(learned - plain) != 0:
        raise DeriveError(f"the fields collect {memory} and {learned}, not c0 Δ Φ and c0 Δ: these equations are not of the kind expanded here")
    if eqs.follows_gradient:
        return sp.Integer(1), sp.Integer(1), sp.Integer(1)
    equation = equations["readout feedback field"]
    static = sp.expand(summands(equation)[0])
    share, own, direct = (static.coeff(field) for field in (F.field_r(L), F.field_q(L), F.field_xi(L)))
    entering = sp.expand(coupling(equation, eqs.forward(L, nu, s)) / plain)
    return share, sp.expand(share**2 + own**2 + direct**2), entering


__all__ = ["SmallFeatureExpansion", "small_feature_expansion"]
