"""The vocabulary of a rule's mean-field equations: coefficients of its feedback path, and its fields under the names that it gives them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from . import fields as F
from .fields import L, P, c, d, ell, mu, nu, s, t
from .network import MLP
from .rules import BoundRule, Rule
from .symbols import Delta, g_tilde, h, m, omega, z
from .training import PLAIN, Training


@dataclass(frozen=True)
class Terms:
    """A rule on a network under some training.

    Attributes:
        bound: the rule on the network.
        training: loss, momentum, weight decay, mini-batches, outputs.
    """

    bound: BoundRule
    training: Training = PLAIN

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

    # ---- indices: what comes back from the outputs carries the output's index, where there are several ---------------

    @property
    def mu_back(self) -> sp.Expr:
        """μ, or μc."""
        return F.with_output(mu, c) if self.training.many else mu

    @property
    def nu_back(self) -> sp.Expr:
        """ν, or νd."""
        return F.with_output(nu, d) if self.training.many else nu

    def past(self, summand: sp.Expr) -> sp.Expr:
        """Σ over earlier times, examples and outputs."""
        return past(summand, self.training.outputs)

    def driven(self, example: sp.Expr) -> sp.Expr:
        """k(t, s) ω_ν(s) Δ_ν(s), the error of an example (and output) as it drives what was learned by t."""
        return self.training.counted(_example(example)) * F.error(example, s)

    # ---- coefficients of the feedback path ---------------------------------------------------------------------------

    def coefficient(self, name: str) -> sp.Expr:
        """A path coefficient at layer ℓ: its value if it is the same at every layer, otherwise name_ℓ."""
        values = {getattr(path, name) for path in self.bound.path}
        return values.pop() if len(values) == 1 else sp.Indexed(sp.IndexedBase(name), ell)

    @cached_property
    def carried(self) -> sp.Expr:
        """How much of W(0)ᵀ g̃ the feedback field contains at time t."""
        return self.coefficient("transported") * self.training.kept_at_t + self.on_initial

    @property
    def on_initial(self) -> sp.Expr:
        """b₁(t), the coefficient of W(0)ᵀ in the feedback weights."""
        return self.evolved(self.coefficient("initial"))

    def evolved(self, start: sp.Expr) -> sp.Expr:
        """b₁(t) from b₁(0) = start: where weight decay shrinks the forward weights, the sum over all that was taken in of them."""
        evolution, training = self.rule.evolution, self.training
        if evolution is None:
            return start
        if training.weight_decay == 0:
            return evolution.on_initial(t, start)
        taken = evolution.pull * F.kept(_step) + evolution.copy * (F.kept(_step + 1) - F.kept(_step))
        forgotten = evolution.on_independent(t, start)
        return forgotten + sp.Sum(evolution.forgetting(t, _step) * taken, (_step, 0, t - 1)) if taken != 0 else forgotten

    @property
    def feedback_memory(self) -> sp.Expr:
        """κ(t, s), the weight in the feedback weights of the forward update made at s < t."""
        evolution, training = self.rule.evolution, self.training
        if evolution is None:
            return sp.Integer(0)
        if training.weight_decay == 0 and training.momentum == 0:
            return evolution.memory(t, s)
        taken = evolution.pull * F.memory(_step, s) + evolution.copy * (F.memory(_step + 1, s) - F.memory(_step, s))
        return sp.Sum(evolution.forgetting(t, _step) * taken, (_step, s, t - 1)) if taken != 0 else sp.Integer(0)

    @property
    def on_independent(self) -> sp.Expr:
        """b₀(t), the coefficient of V in the feedback weights."""
        start, evolution = self.coefficient("independent"), self.rule.evolution
        return start if evolution is None else evolution.on_independent(t, start)

    @property
    def owns_matrix(self) -> bool:
        """Whether V is part of the feedback path."""
        return self.coefficient("independent") != 0

    @property
    def mirrors(self) -> bool:
        """Whether the feedback weights learn from what they make of the features below, ω."""
        return self.rule.evolution is not None and self.rule.evolution.mirrors

    @property
    def null(self) -> sp.Expr:
        """The rate at which the feedback weights unlearn their reconstructions ψ."""
        return sp.S.Zero if self.rule.evolution is None else self.rule.evolution.null

    @property
    def product(self) -> sp.Expr:
        """v as the rule says it, zero where the feedback weights learn no outer products φ vᵀ."""
        return sp.S.Zero if self.rule.evolution is None else self.rule.evolution.outer

    @property
    def remembered(self) -> sp.Expr:
        """q^{t−1−s} ω_ν(s), the weight of an outer product that the feedback weights learned at s."""
        kept = sp.S.One if self.rule.evolution is None else self.rule.evolution.forgetting(t, s)
        return kept * self.share(nu)

    def share(self, example: sp.Expr) -> sp.Expr:
        """ω_ν(s), the weight of an example in the batch of step s."""
        return F.share(example, s) if self.training.batches else sp.S.One

    def unweighted(self, example: sp.Expr) -> sp.Expr:
        """ω_ν(s) Δ_ν(s): what the feedback weights remember with a weight of their own."""
        return self.share(_example(example)) * F.error(example, s)

    def outer(self, layer: sp.Expr, example: sp.Expr, time: sp.Expr) -> sp.Expr:
        """v, what the feedback weights learn from the layer above the one that they reach."""
        values = {
            h: F.field_h(layer, _example(example), time), g_tilde: self.g_tilde(layer, example, time) if layer != L + 1 else sp.S.One,
            Delta: F.error(example, time), omega: F.field_omega(layer, example, time),
        }  # fmt: skip
        return self.product.subs(values, simultaneous=True)

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
        alone = _example(example)
        values = {
            h: F.field_h(layer, alone, time), z: self.z_tilde(layer, example, time), m: F.field_m(layer, alone),
            Delta: F.error(example, time),
        }  # fmt: skip
        return expr.subs(values, simultaneous=True)


_step = sp.Symbol("j", integer=True, nonnegative=True)


def _example(index: sp.Expr) -> sp.Expr:
    """The example of an index that may carry an output as well."""
    return index.args[0] if isinstance(index, F.with_output) else index


def past(expr: sp.Expr, outputs: sp.Expr = sp.S.One) -> sp.Expr:
    """Σ over training examples ν, their outputs d if there are several, and earlier times s < t."""
    over = () if outputs == 1 else ((d, 1, outputs),)
    return sp.Sum(expr, (nu, 1, P), *over, (s, 0, t - 1))


def past_and_present(expr: sp.Expr) -> sp.Expr:
    """Σ over training examples ν and times s ≤ t."""
    return sp.Sum(expr, (nu, 1, P), (s, 0, t))


def eq(left: sp.Expr, right: sp.Expr) -> sp.Equality:
    """An equation that stays one."""
    return sp.Eq(left, right, evaluate=False)
