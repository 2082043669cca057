"""The rich regime: mean-field equations derived from a rule and a network.

The derivation follows the weights. Every random matrix is listed with the vectors that it multiplies, forward and transposed
(`matrix_products`). Conditioning a Gaussian matrix on those products (the cavity argument) turns each product into a Gaussian field plus a
response times the conjugate vectors; whether a response is there at all is a question of who depends on whom, answered by a search in the
rule's dependency graph (`responses`). What training adds is a sum of outer products, so it enters through order parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from . import dmft_feedback as learned_part
from . import fields as F
from .derivation import Derivation
from .dmft_terms import Terms, eq, past, past_and_present
from .errors import BadInput
from .fields import L, c, c0, d, ell, mu, nu, s, t
from .latex import Documented
from .loss import over_outputs
from .network import MLP
from .rules import FIELDS, Rule, require
from .symbols import f, gamma0, log_Z, y, z
from .training import PLAIN, Training

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
class DMFTEquations(Terms, Documented):
    """The closed set of equations of a rule on a network in the infinite-width limit, at any feature-learning strength γ0.

    Attributes:
        bound: the rule on the network.
        training: loss, momentum, weight decay, mini-batches, outputs.

    Source: Bordelon & Pehlevan 2023, section 4 and appendices; THEORY section 4.
    """

    # ---- the derivation's three tables -------------------------------------------------------------------------------

    @cached_property
    def matrix_products(self) -> tuple[MatrixProduct, ...]:
        """Which vectors each hidden random matrix multiplies, forward and transposed."""
        g_tilde = self.g_tilde(ell + 1, self.nu_back, s)
        products = [MatrixProduct("W", False, self.forward(ell, nu, s), False, F.field_u(ell + 1, nu, s))]
        if self.carried != 0:
            products.append(MatrixProduct("W", True, g_tilde, False, self.zeta(ell, self.nu_back, s)))
        if self.coefficient("independent") != 0:
            products.append(MatrixProduct("V", True, g_tilde, False, F.field_q(ell, self.nu_back, s)))
        if not self.follows_gradient:
            products.append(MatrixProduct("W", True, F.field_g(ell + 1, self.nu_back, s), True, F.field_r(ell, self.nu_back, s)))
        return (*products, *learned_part.products(self))

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

    def reaction(self, kind: type, field: sp.Expr, total: Callable[[sp.Expr], sp.Expr], layer: sp.Expr = ell) -> sp.Expr:
        """Σ response × field over the past, zero if the response vanishes."""
        return sp.S.Zero if self.response(kind) == 0 else total(kind(layer, mu, self.nu_back, t, s) * field)

    # ---- the equations -----------------------------------------------------------------------------------------------

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """All equations by name; layers 1 ≤ ℓ ≤ L unless the name says readout."""
        here = (ell, self.mu_back, t)
        eqs: dict[str, sp.Equality] = {}
        eqs["preactivation"] = eq(F.field_h(ell, mu, t), self._preactivation())
        if self.net.depth > 1:
            if self._uses_feedback and not self.follows_gradient:
                eqs["feedback field"] = eq(self.z_tilde(*here), self._feedback())
            eqs["gradient field"] = eq(F.field_z(*here), self._gradient_field())
        eqs |= self._readout()
        eqs["gradient"] = eq(F.field_g(*here), self._slope(ell, mu, t) * F.field_z(*here))
        if not self.follows_gradient:
            eqs["pseudo-gradient"] = eq(self.g_tilde(*here), self._at(self.rule.pseudo_gradient, *here))
        eqs |= learned_part.carried_fields(self)
        eqs |= self._gaussian_fields()
        eqs |= self._order_parameters()
        for found in self.responses:
            if not found.vanishes:
                eqs[f"response {type(found.kernel).__name__}"] = found.definition
        return MappingProxyType(eqs | self.training.equations | self._output())

    @property
    def _uses_feedback(self) -> bool:
        return z in self.rule.pseudo_gradient.free_symbols

    def _slope(self, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        return self._at(self.rule.slope, layer, example, time)

    @property
    def _sw2(self) -> sp.Expr:
        return self.net.sigma_w**2

    def _preactivation(self) -> sp.Expr:
        """h = k (u + σ_w² Σ A g̃) + c0 Σ k ω Δ (σ_w² Φ + σ_b²) g̃."""
        conjugate = self.g_tilde(ell, self.nu_back, s)
        learned = self.driven(self.nu_back) * (self._sw2 * F.Phi(ell - 1, mu, nu, t, s) + self.net.sigma_b**2) * conjugate
        random = F.field_u(ell, mu, t)
        if self.net.depth > 1:
            random += self.reaction(F.A, self._sw2 * conjugate, self.past, ell - 1)
            random += self.reaction(F.D, self.net.sigma_w * F.field_h(ell, nu, s), past, ell - 1)
        return self.training.kept_at_t * random + c0 * self.past(learned)

    def _feedback(self) -> sp.Expr:
        """z̃ = (a k + b)[ζ + σ_w² Σ B̃ F] + a c0 σ_w² Σ k ω Δ H F + c q + d ξ."""
        mu_back, nu_back = self.mu_back, self.nu_back
        own = F.field_q(ell, mu_back, t) + self.reaction(F.B_V, self._sw2 * self.forward(ell, nu, s), past_and_present)
        right = self.on_independent * own + self.coefficient("direct") * F.field_xi(ell, *self._output_index)
        if self.carried != 0:
            kernel = self.B_tilde(ell, mu_back, nu, t, s)
            conjugate = self._sw2 * kernel * self.forward(ell, nu, s)
            reaction = past_and_present(conjugate) if self.response(type(kernel)) != 0 else sp.Integer(0)
            right += self.carried * (self.zeta(ell, mu_back, t) + reaction)
        overlap = self._sw2 * self.H(ell + 1, nu_back, mu_back, s, t)
        right += self.coefficient("transported") * c0 * self.past(self.driven(nu_back) * overlap * self.forward(ell, nu, s))
        return right + learned_part.learned_feedback(self, ell, self.unweighted(nu_back), overlap, self.past)

    @property
    def _output_index(self) -> tuple[sp.Expr, ...]:
        """The index of a readout's or feedback's own vector, if there are several."""
        return (c,) if self.training.many else ()

    def _gradient_field(self) -> sp.Expr:
        """z = k (r + σ_w² Σ B F) + c0 σ_w² Σ k ω Δ G̃ F."""
        mu_back, nu_back = self.mu_back, self.nu_back
        learned = self._sw2 * self.driven(nu_back) * self.G_tilde(ell + 1, mu_back, nu_back, t, s) * self.forward(ell, nu, s)
        random = F.field_r(ell, mu_back, t)
        if self.response(F.B) != 0:
            random += past_and_present(self._sw2 * F.B(ell, mu_back, nu, t, s) * self.forward(ell, nu, s))
        return self.training.kept_at_t * random + c0 * self.past(learned)

    def _readout(self) -> dict[str, sp.Equality]:
        """The fields of the last layer: the readout weights w(t), and what the path makes of them."""
        index = self._output_index
        initial, own, vector = F.field_r(L, *index), F.field_q(L, *index), F.field_xi(L, *index)
        sw, kept = self.net.sigma_w, self.training.kept_at_t
        mine = F.with_output(nu, c) if self.training.many else nu  # G^{L+1} joins an output with itself only
        learned = c0 * self._sw2 * past(self.driven(mine) * self.forward(L, nu, s))
        eqs = {"readout gradient field": eq(F.field_z(L, self.mu_back, t), kept * sw * initial + learned)}
        if self._uses_feedback and not self.follows_gradient:
            last, evolution = self.bound.path[-1], self.rule.evolution
            on_own = last.independent if evolution is None else evolution.on_independent(t, last.independent)
            frozen = (last.transported * kept + self.evolved(last.initial)) * sw * initial + on_own * sw * own + last.direct * vector
            memory = learned_part.learned_feedback(self, L, self.unweighted(mine), self._sw2, past)
            eqs["readout feedback field"] = eq(self.z_tilde(L, self.mu_back, t), frozen + last.transported * learned + memory)
        return eqs

    def _gaussian_fields(self) -> dict[str, sp.Equality]:
        """Covariances of the Gaussian parts."""
        cov, sw2 = F.covariance_of, self._sw2
        first, second, pair = (ell, self.mu_back, t), (ell, self.nu_back, s), (ell + 1, self.mu_back, self.nu_back, t, s)
        eqs = {"covariance u": eq(cov(F.field_u(ell, mu, t), F.field_u(ell, nu, s)), sw2 * F.Phi(ell - 1, mu, nu, t, s) + self.net.sigma_b**2)}
        if self.rule.uses_gates:
            eqs["covariance m"] = eq(cov(F.field_m(ell, mu), F.field_m(ell, nu)), F.Phi(0, mu, nu, t, s))
        if self.net.depth == 1:
            return eqs
        eqs["covariance r"] = eq(cov(F.field_r(*first), F.field_r(*second)), sw2 * F.G(*pair))
        if not self.follows_gradient and self.carried != 0:
            eqs["covariance zeta"] = eq(cov(self.zeta(*first), self.zeta(*second)), sw2 * F.H(*pair))
            eqs["covariance r zeta"] = eq(cov(F.field_r(*first), self.zeta(*second)), sw2 * F.G_tilde(*pair))
        if self.coefficient("independent") != 0:
            eqs["covariance q"] = eq(cov(F.field_q(*first), F.field_q(*second)), sw2 * F.H(*pair))
        return eqs | learned_part.covariances(self)

    def _order_parameters(self) -> dict[str, sp.Equality]:
        """Averages over the single-site process."""
        mean = F.average
        pair, first, second = (ell, self.mu_back, self.nu_back, t, s), (ell, self.mu_back, t), (ell, self.nu_back, s)
        eqs = {
            "Phi": eq(F.Phi(ell, mu, nu, t, s), mean(self.forward(ell, mu, t) * self.forward(ell, nu, s))),
            "G": eq(F.G(*pair), mean(F.field_g(*first) * F.field_g(*second))),
        }
        if not self.follows_gradient:
            eqs["G_tilde"] = eq(F.G_tilde(*pair), mean(F.field_g(*first) * self.g_tilde(*second)))
            if self.net.depth > 1 and (self.carried != 0 or self.coefficient("independent") != 0):
                eqs |= learned_part.order_parameters(self)
                eqs["H"] = eq(F.H(*pair), mean(self.g_tilde(*first) * self.g_tilde(*second)))
        return eqs

    def _output(self) -> dict[str, sp.Equality]:
        """Output, error, eNTK."""
        mu_back, nu_back = self.mu_back, self.nu_back
        kernel = sp.Sum(self.G_tilde(ell + 1, mu_back, nu_back, t, s) * (self._sw2 * F.Phi(ell, mu, nu, t, s) + self.net.sigma_b**2), (ell, 0, L))
        overlap = F.average(F.field_z(L, mu_back, t) * self.forward(L, mu, t)) - F.average(F.field_z(L, mu_back, 0) * self.forward(L, mu, 0))
        if self.net.sigma_b != 0:
            overlap += c0 * self.net.sigma_b**2 * past(self.driven(F.with_output(nu, c) if self.training.many else nu))
        return {
            "output": eq(F.output(mu_back, t), overlap / gamma0),
            "error": eq(F.error(mu_back, t), self._error()),
            "entk": eq(F.entk(mu_back, nu_back, t, s), kernel),
        }

    def _error(self) -> sp.Expr:
        """Δ = −∂loss/∂f at (μ, t)."""
        many, count = self.training.many, self.training.outputs
        at = lambda output: {y: F.target[(mu, output) if many else mu], f: F.output(F.with_output(mu, output) if many else mu, t)}
        total = sp.Sum(sp.exp(at(d)[f]), (d, 1, count))
        found = self.training.loss.error.replace(over_outputs, lambda summand: sp.Sum(summand.subs(at(d)), (d, 1, count)) if many else summand)
        return found.subs(at(c)).subs(log_Z, sp.log(total))

    # ---- what a reader asks for --------------------------------------------------------------------------------------

    def lazy_limit(self) -> tuple[sp.Expr, ...]:
        """γ0 → 0 of these equations: the eNTK's contributions for ℓ = 0…L, in K_mumu, K_munu, K_nunu.

        Taken from the equations (not from `lazy_kernel`, with which a test compares it).
        """
        self._need_plain("the lazy limit")
        from .dmft_limits import lazy_limit

        return lazy_limit(self)

    def linear(self) -> LinearEquations:
        """Linear units: these equations closed on covariances, as matrix equations over (t, μ).

        Raises:
            BadInput: activation or pseudo-gradient are not linear, or training is not plain.
        """
        self._need_plain("the linear reduction")
        from .linear import linear_equations

        return linear_equations(self)

    def limits(self) -> Derivation:
        """γ0 → 0, parameters → 0, one hidden layer, linear units: taken on these equations and checked."""
        self._need_plain("these limits")
        from .limits import limits_derivation

        return limits_derivation(self)

    def _need_plain(self, what: str) -> None:
        if not self.training.plain:
            raise BadInput(
                f"{what} reads the equations of full-batch steps on the squared loss of one output; these have {self.training.title()[2:]}: "
                "take dmft_equations(rule, net) without training="
            )

    def derivation(self) -> Derivation:
        """From the update rule to the closed equations, line by line."""
        from .dmft_text import equations_derivation

        return equations_derivation(self)

    def title(self) -> str:
        """One line: rule and network."""
        return f"Mean-field equations of {self.rule.name}: {self.net.size}, activation {self.net.activation}{self.training.title()}"

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


def dmft_equations(rule: Rule, net: MLP, training: Training = PLAIN) -> DMFTEquations:
    """Derive the mean-field equations of `rule` on `net`.

    Args:
        rule: the learning rule.
        net: the network.
        training: loss, momentum, weight decay, mini-batches, outputs; full-batch steps on the squared loss by default.

    Raises:
        BadInput: `rule`, `net` or `training` are not what their names say, or feedback weights that learn outer products of each example meet several
            outputs.
    """
    require(rule, net)
    evolution = rule.evolution
    if not isinstance(training, Training):
        raise BadInput(f"training={training!r} does not say how to train: give Training(loss=…, momentum=…, weight_decay=…, batches=…, outputs=…)")
    if training.many and evolution is not None and (evolution.outer != 0 or evolution.null != 0):
        raise BadInput(
            f"rule {rule.name!r}: its feedback weights learn from outer products of each example, which have no output index: several outputs "
            "are not defined for it; use one output"
        )
    return DMFTEquations(rule.bind(net), training)


__all__ = ["FIELDS", "DMFTEquations", "MatrixProduct", "Response", "dmft_equations"]
