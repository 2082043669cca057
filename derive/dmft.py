"""The rich regime: mean-field equations derived from a rule and a network.

The derivation follows the weights. Every random matrix is listed with the vectors that it multiplies, forward and transposed
(`matrix_products`). Conditioning a Gaussian matrix on those products (the cavity argument) turns each product into a Gaussian field plus a
response times the conjugate vectors; whether a response is there at all is a question of who depends on whom, answered by a search in the
rule's dependency graph (`responses`). What training adds is a sum of outer products, so it enters through order parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from . import fields as F
from .derivation import Derivation
from .errors import BadInput
from .fields import L, P, c0, ell, mu, nu, s, t
from .latex import Documented
from .network import MLP
from .rules import FIELDS, BoundRule, Rule
from .symbols import Delta, g_tilde, h, m, z

if TYPE_CHECKING:
    from .linear import LinearEquations


@dataclass(frozen=True)
class MatrixProduct:
    """One use of a random matrix.

    Attributes:
        matrix: "W" (the forward weights at initialisation) or "V" (the feedback's own matrix).
        transposed: whether the transpose is applied.
        vector: the field that it multiplies, as a SymPy field at (layer, ν, s).
        observed: True if the product only enters observables (the true gradient of a rule that does not use it).
        gaussian: the Gaussian part of the product, a field.
    """

    matrix: str
    transposed: bool
    vector: sp.Expr
    observed: bool
    gaussian: sp.Expr


@dataclass(frozen=True)
class Response:
    """A response function: how the vectors on one side of a matrix react to the Gaussian field on the other.

    Attributes:
        kernel: the response as a kernel at (ℓ, μ, ν, t, s).
        definition: its definition as an equation.
        chain: the dependency that carries it, from the field to the vector; empty if there is none.
        why_zero: why it vanishes; empty if it does not.
    """

    kernel: sp.Expr
    definition: sp.Equality
    chain: tuple[str, ...]
    why_zero: str

    @property
    def vanishes(self) -> bool:
        return bool(self.why_zero)


@dataclass(frozen=True)
class DMFTEquations(Documented):
    """The closed set of equations of a rule on a network in the infinite-width limit, at any feature-learning strength γ0.

    Attributes:
        bound: the rule on the network.

    Source: Bordelon & Pehlevan 2023, section 4 and appendices; THEORY section 4.
    """

    bound: BoundRule

    @property
    def rule(self) -> Rule:
        return self.bound.rule

    @property
    def net(self) -> MLP:
        return self.bound.net

    @cached_property
    def follows_gradient(self) -> bool:
        """g̃ = g: then z̃, ζ, H, G̃, B̃ coincide with z, r, G, G, B and the equations are written with the latter."""
        return self.rule.propagates_gradient

    # ---- coefficients of the feedback path ---------------------------------------------------------------------------

    def coefficient(self, name: str) -> sp.Expr:
        """A path coefficient at layer ℓ: its value if it is the same at every layer, otherwise name_ℓ."""
        values = {getattr(path, name) for path in self.bound.path}
        return values.pop() if len(values) == 1 else sp.Indexed(sp.IndexedBase(name), ell)

    @cached_property
    def carried(self) -> sp.Expr:
        """How much of W(0)ᵀ g̃ the feedback field contains at time t."""
        return self.coefficient("transported") + self.on_initial

    @property
    def on_initial(self) -> sp.Expr:
        """b₁(t), the coefficient of W(0)ᵀ in the feedback weights."""
        start, evolution = self.coefficient("initial"), self.rule.evolution
        return start if evolution is None else evolution.on_initial(t, start)

    @property
    def on_independent(self) -> sp.Expr:
        """b₀(t), the coefficient of V in the feedback weights."""
        start, evolution = self.coefficient("independent"), self.rule.evolution
        return start if evolution is None else evolution.on_independent(t, start)

    def outer(self, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        """v, what the feedback weights learn from the layer above the one that they reach."""
        evolution = self.rule.evolution
        if evolution is None:
            return sp.Integer(0)
        values = {h: F.field_h(layer, example, time), g_tilde: self.g_tilde(layer, example, time), Delta: F.error(example, time)}
        return evolution.outer.subs(values, simultaneous=True)

    # ---- the derivation's three tables -------------------------------------------------------------------------------

    @cached_property
    def matrix_products(self) -> tuple[MatrixProduct, ...]:
        """Which vectors each hidden random matrix multiplies, forward and transposed."""
        g_tilde = self.g_tilde(ell + 1, nu, s)
        products = [MatrixProduct("W", False, self.forward(ell, nu, s), False, F.field_u(ell + 1, nu, s))]
        if self.carried != 0:
            products.append(MatrixProduct("W", True, g_tilde, False, self.zeta(ell, nu, s)))
        if self.coefficient("independent") != 0:
            products.append(MatrixProduct("V", True, g_tilde, False, F.field_q(ell, nu, s)))
        if not self.follows_gradient:
            products.append(MatrixProduct("W", True, F.field_g(ell + 1, nu, s), True, F.field_r(ell, nu, s)))
        return tuple(products)

    @cached_property
    def responses(self) -> tuple[Response, ...]:
        """A, B̃ (and B, for the observed true gradient), each with its chain of dependence or the reason why it vanishes."""
        from .dmft_responses import find_responses

        return find_responses(self)

    def response(self, kind: type) -> sp.Expr:
        """The response of this kind at (ℓ, μ, ν, t, s), zero if it vanishes."""
        for found in self.responses:
            if isinstance(found.kernel, kind):
                return sp.Integer(0) if found.vanishes else found.kernel
        return sp.Integer(0)

    # ---- fields under the names that this rule gives them ------------------------------------------------------------

    def g_tilde(self, *where: sp.Expr) -> sp.Expr:
        return (F.field_g if self.follows_gradient else F.field_g_tilde)(*where)

    def z_tilde(self, *where: sp.Expr) -> sp.Expr:
        return (F.field_z if self.follows_gradient else F.field_z_tilde)(*where)

    def zeta(self, *where: sp.Expr) -> sp.Expr:
        return (F.field_r if self.follows_gradient else F.field_zeta)(*where)

    def H(self, *where: sp.Expr) -> sp.Expr:
        return (F.G if self.follows_gradient else F.H)(*where)

    def G_tilde(self, *where: sp.Expr) -> sp.Expr:
        return (F.G if self.follows_gradient else F.G_tilde)(*where)

    def B_tilde(self, *where: sp.Expr) -> sp.Expr:
        return (F.B if self.follows_gradient else F.B_tilde)(*where)

    def forward(self, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        """F(h, m) at a layer, in terms of φ."""
        return self._at(self.rule.forward, layer, example, time)

    def _at(self, expr: sp.Expr, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        values = {
            h: F.field_h(layer, example, time), z: self.z_tilde(layer, example, time), m: F.field_m(layer, example),
            Delta: F.error(example, time),
        }  # fmt: skip
        return expr.subs(values, simultaneous=True)

    # ---- the equations -----------------------------------------------------------------------------------------------

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """All equations by name; layers 1 ≤ ℓ ≤ L unless the name says readout."""
        eqs: dict[str, sp.Equality] = {}
        eqs["preactivation"] = _eq(F.field_h(ell, mu, t), self._preactivation())
        if self.net.depth > 1:
            if self._uses_feedback and not self.follows_gradient:
                eqs["feedback field"] = _eq(self.z_tilde(ell, mu, t), self._feedback())
            eqs["gradient field"] = _eq(F.field_z(ell, mu, t), self._gradient_field())
        eqs |= self._readout()
        eqs["gradient"] = _eq(F.field_g(ell, mu, t), self._slope(ell, mu, t) * F.field_z(ell, mu, t))
        if not self.follows_gradient:
            eqs["pseudo-gradient"] = _eq(self.g_tilde(ell, mu, t), self._at(self.rule.pseudo_gradient, ell, mu, t))
        eqs |= self._gaussian_fields()
        eqs |= self._order_parameters()
        for found in self.responses:
            if not found.vanishes:
                eqs[f"response {type(found.kernel).__name__}"] = found.definition
        eqs |= self._output()
        return MappingProxyType(eqs)

    @property
    def _uses_feedback(self) -> bool:
        return z in self.rule.pseudo_gradient.free_symbols

    def _slope(self, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        return self._at(self.rule.slope, layer, example, time)

    @property
    def _sw2(self) -> sp.Expr:
        return self.net.sigma_w**2

    def _preactivation(self) -> sp.Expr:
        """h = u + σ_w² Σ A g̃ + c0 Σ Δ (σ_w² Φ + σ_b²) g̃."""
        learned = F.error(nu, s) * (self._sw2 * F.Phi(ell - 1, mu, nu, t, s) + self.net.sigma_b**2) * self.g_tilde(ell, nu, s)
        right = F.field_u(ell, mu, t) + c0 * past(learned)
        if self.net.depth > 1 and self.response(F.A) != 0:
            right += past(self._sw2 * F.A(ell - 1, mu, nu, t, s) * self.g_tilde(ell, nu, s))
        return right

    def _feedback(self) -> sp.Expr:
        """z̃ = (a+b)[ζ + σ_w² Σ B̃ F] + a c0 σ_w² Σ Δ H F + c q + d ξ."""
        right = self.on_independent * F.field_q(ell, mu, t) + self.coefficient("direct") * F.field_xi(ell)
        if self.carried != 0:
            conjugate = self._sw2 * self.B_tilde(ell, mu, nu, t, s) * self.forward(ell, nu, s)
            reaction = past_and_present(conjugate) if self.response(type(self.B_tilde(ell, mu, nu, t, s))) != 0 else sp.Integer(0)
            right += self.carried * (self.zeta(ell, mu, t) + reaction)
        learned = self._sw2 * F.error(nu, s) * self.H(ell + 1, nu, mu, s, t) * self.forward(ell, nu, s)
        return right + self.coefficient("transported") * c0 * past(learned) + self._learned_feedback(ell, learned)

    def _learned_feedback(self, layer: sp.Expr, learned: sp.Expr) -> sp.Expr:
        """What the feedback weights have learned: the forward updates with their memory κ, and their own outer products."""
        evolution = self.rule.evolution
        if evolution is None:
            return sp.Integer(0)
        total = sp.Integer(0)
        if evolution.memory(t, s) != 0:
            total += c0 * past(evolution.memory(t, s) * learned)
        if evolution.outer != 0:
            overlap = F.R(layer + 1, nu, mu, s, t) if layer == ell else self.outer(L + 1, nu, s)
            total += self.net.sigma_w / P * past(evolution.forgetting(t, s) * overlap * self.forward(layer, nu, s))
        return total

    def _gradient_field(self) -> sp.Expr:
        """z = r + σ_w² Σ B F + c0 σ_w² Σ Δ G̃ F."""
        learned = self._sw2 * F.error(nu, s) * self.G_tilde(ell + 1, mu, nu, t, s) * self.forward(ell, nu, s)
        right = F.field_r(ell, mu, t) + c0 * past(learned)
        if self.response(F.B) != 0:
            right += past_and_present(self._sw2 * F.B(ell, mu, nu, t, s) * self.forward(ell, nu, s))
        return right

    def _readout(self) -> dict[str, sp.Equality]:
        """The fields of the last layer: the readout weights w(t), and what the path makes of them."""
        initial, own, vector = F.field_r(L), F.field_q(L), F.field_xi(L)
        sw = self.net.sigma_w
        learned = c0 * self._sw2 * past(F.error(nu, s) * self.forward(L, nu, s))
        eqs = {"readout gradient field": _eq(F.field_z(L, mu, t), sw * initial + learned)}
        if self._uses_feedback and not self.follows_gradient:
            last, evolution = self.bound.path[-1], self.rule.evolution
            on_initial = last.initial if evolution is None else evolution.on_initial(t, last.initial)
            on_own = last.independent if evolution is None else evolution.on_independent(t, last.independent)
            frozen = (last.transported + on_initial) * sw * initial + on_own * sw * own + last.direct * vector
            memory = self._learned_feedback(L, self._sw2 * F.error(nu, s) * self.forward(L, nu, s))
            eqs["readout feedback field"] = _eq(self.z_tilde(L, mu, t), frozen + last.transported * learned + memory)
        return eqs

    def _gaussian_fields(self) -> dict[str, sp.Equality]:
        """Covariances of the Gaussian parts."""
        cov, sw2 = F.covariance_of, self._sw2
        eqs = {
            "covariance u": _eq(cov(F.field_u(ell, mu, t), F.field_u(ell, nu, s)), sw2 * F.Phi(ell - 1, mu, nu, t, s) + self.net.sigma_b**2)
        }
        if self.rule.uses_gates:
            eqs["covariance m"] = _eq(cov(F.field_m(ell, mu), F.field_m(ell, nu)), F.Phi(0, mu, nu, t, s))
        if self.net.depth == 1:
            return eqs
        eqs["covariance r"] = _eq(cov(F.field_r(ell, mu, t), F.field_r(ell, nu, s)), sw2 * F.G(ell + 1, mu, nu, t, s))
        if not self.follows_gradient and self.carried != 0:
            eqs["covariance zeta"] = _eq(cov(self.zeta(ell, mu, t), self.zeta(ell, nu, s)), sw2 * F.H(ell + 1, mu, nu, t, s))
            eqs["covariance r zeta"] = _eq(cov(F.field_r(ell, mu, t), self.zeta(ell, nu, s)), sw2 * F.G_tilde(ell + 1, mu, nu, t, s))
        if self.coefficient("independent") != 0:
            eqs["covariance q"] = _eq(cov(F.field_q(ell, mu, t), F.field_q(ell, nu, s)), sw2 * F.H(ell + 1, mu, nu, t, s))
        return eqs

    def _order_parameters(self) -> dict[str, sp.Equality]:
        """Averages over the single-site process."""
        mean = F.average
        pair = (ell, mu, nu, t, s)
        eqs = {
            "Phi": _eq(F.Phi(*pair), mean(self.forward(ell, mu, t) * self.forward(ell, nu, s))),
            "G": _eq(F.G(*pair), mean(F.field_g(ell, mu, t) * F.field_g(ell, nu, s))),
        }
        if not self.follows_gradient:
            eqs["G_tilde"] = _eq(F.G_tilde(*pair), mean(F.field_g(ell, mu, t) * self.g_tilde(ell, nu, s)))
            if self.net.depth > 1 and (self.carried != 0 or self.coefficient("independent") != 0):
                if self.outer(ell, mu, t) != 0:
                    eqs["R"] = _eq(F.R(*pair), mean(self.outer(ell, mu, t) * self.g_tilde(ell, nu, s)))
                eqs["H"] = _eq(F.H(*pair), mean(self.g_tilde(ell, mu, t) * self.g_tilde(ell, nu, s)))
        return eqs

    def _output(self) -> dict[str, sp.Equality]:
        """Output, error, eNTK."""
        from .symbols import gamma0

        kernel = sp.Sum(self.G_tilde(ell + 1, mu, nu, t, s) * (self._sw2 * F.Phi(ell, mu, nu, t, s) + self.net.sigma_b**2), (ell, 0, L))
        overlap = F.average(F.field_z(L, mu, t) * self.forward(L, mu, t)) - F.average(F.field_z(L, mu, 0) * self.forward(L, mu, 0))
        if self.net.sigma_b != 0:
            overlap += c0 * self.net.sigma_b**2 * past(F.error(nu, s))
        return {
            "output": _eq(F.output(mu, t), overlap / gamma0),
            "error": _eq(F.error(mu, t), F.target[mu] - F.output(mu, t)),
            "entk": _eq(F.entk(mu, nu, t, s), kernel),
        }

    # ---- what a reader asks for --------------------------------------------------------------------------------------

    def lazy_limit(self) -> tuple[sp.Expr, ...]:
        """γ0 → 0 of these equations: the eNTK's contributions for ℓ = 0…L, in K_mumu, K_munu, K_nunu.

        Taken from the equations (not from `lazy_kernel`, with which a test compares it).
        """
        from .dmft_limits import lazy_limit

        return lazy_limit(self)

    def linear(self) -> LinearEquations:
        """Linear units: these equations closed on covariances, as matrix equations over (t, μ).

        Raises:
            BadInput: activation or pseudo-gradient are not linear.
        """
        from .linear import linear_equations

        return linear_equations(self)

    def limits(self) -> Derivation:
        """γ0 → 0, parameters → 0, one hidden layer, linear units: taken on these equations and checked."""
        from .limits import limits_derivation

        return limits_derivation(self)

    def derivation(self) -> Derivation:
        """From the update rule to the closed equations, line by line."""
        from .dmft_text import equations_derivation

        return equations_derivation(self)

    def latex(self) -> str:
        """The final equations as an align* environment."""
        from .latex import aligned

        return aligned(self.equations.values())

    def title(self) -> str:
        """One line: rule and network."""
        return f"Mean-field equations of {self.rule.name}: {self.net.depth} hidden layers, activation {self.net.activation}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        from .dmft_text import definitions

        return definitions(self)

    def source(self) -> str:
        """The rule's single-site functions and path as a Python module: what `solve_dmft` and `train_finite` run."""
        return self.bound.source()

    def __repr__(self) -> str:
        from .derivation import plain
        from .dmft_text import RESPONSE_NAMES

        lines = [self.title(), *(f"  {name}: {plain(equation)}" for name, equation in self.equations.items())]
        lines += [
            f"  {RESPONSE_NAMES[type(found.kernel).__name__]} vanishes: {found.why_zero}" for found in self.responses if found.vanishes
        ]
        return "\n".join(lines)


def dmft_equations(rule: Rule, net: MLP) -> DMFTEquations:
    """Derive the mean-field equations of `rule` on `net`.

    Raises:
        BadInput: `rule` or `net` are not what their names say, or feedback weights learn from what they carry themselves.
    """
    if not isinstance(rule, Rule):
        raise BadInput(f"rule={rule!r} is not a learning rule: give GD(), FA(rho), DFA(), Hebb(), GLN() or Rule(…)")
    if not isinstance(net, MLP):
        raise BadInput(f"net={net!r} is not a network: give MLP(depth=…, activation=…)")
    evolution = rule.evolution
    if evolution is not None and (evolution.mirrors or evolution.null != 0):
        term = "φ ωᵀ with ω = Bᵀφ/√N" if evolution.mirrors else "ψ hᵀ with ψ = B h/√N"
        raise BadInput(
            f"rule {rule.name!r}: its feedback weights learn from {term}, whose response terms are not written as equations yet; "
            "solve_dmft and train_finite run the rule all the same"
        )
    return DMFTEquations(rule.bind(net))


def past(expr: sp.Expr) -> sp.Expr:
    """Σ over training examples ν and earlier times s < t."""
    return sp.Sum(expr, (nu, 1, P), (s, 0, t - 1))


def past_and_present(expr: sp.Expr) -> sp.Expr:
    """Σ over training examples ν and times s ≤ t."""
    return sp.Sum(expr, (nu, 1, P), (s, 0, t))


def _eq(left: sp.Expr, right: sp.Expr) -> sp.Equality:
    return sp.Eq(left, right, evaluate=False)


__all__ = ["FIELDS", "DMFTEquations", "MatrixProduct", "Response", "dmft_equations", "past", "past_and_present"]
