"""Lazy-limit kernels, derived: what a rule and a network learn with at γ0 → 0.

At t = 0 the fields of a layer are Gaussian and the pair (z_μ, z̃_ν) is independent of h, but for z̃ where ⟨∂g̃/∂h⟩ ≠ 0 in the layer above, which
does not matter as long as g̃ is linear in z̃. So everything a layer contributes is two functions of the covariance of its preactivations, and
both are Gaussian expectations:

    Φ^ℓ = E[F(h_μ) F(h_ν)],                    F the forward map,
    G̃^ℓ = E[F'(h_μ) z_μ · g̃(h_ν, z̃_ν)] = Cov(z_μ, z̃_ν) · E[F'(h_μ) ∂g̃/∂z̃(h_ν)]     (Gaussian integration by parts).

`lazy_kernel` splits these expectations over the independent fields (h, gates m, feedback z), gives each factor to the Gaussian engine,
and composes the layers. That DFA and Hebb keep only the last layer, or that FA weighs layer ℓ by ρ^{L−ℓ}, follows from Cov(z, z̃).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sympy as sp

from .derivation import Derivation
from .duals import Covariance, Dual, PairFunction, pair_function, slope_in_feedback, slope_vanishes
from .errors import BadInput
from .fields import t as time
from .latex import Documented
from .network import MLP
from .piecewise import KINKED, steps_form
from .rules import BoundRule, PathCoefficients, Rule, require
from .symbols import Delta, K_mumu, K_munu, K_nunu, h, m, z

INPUT = Covariance(K_mumu, K_munu, K_nunu)


@dataclass(frozen=True)
class LazyKernel(Documented):
    """The eNTK of a rule on a network in the lazy limit, with everything that it is made of.

    Attributes:
        bound: the rule on the network.
        Phi: E[F(h_μ) F(h_ν)] as a function of the preactivation covariance.
        G: E[F'(h_μ) ∂g̃/∂z̃(h_ν)], the factor that the backward pass gains at each layer.
        weights: for ℓ = 1…L the coefficient c_ℓ in Cov(z^ℓ, z̃^ℓ) = σ_w² c_ℓ G̃^{ℓ+1}.
    """

    bound: BoundRule
    Phi: PairFunction
    G: PairFunction
    weights: tuple[sp.Expr, ...]

    @property
    def rule(self) -> Rule:
        return self.bound.rule

    @property
    def net(self) -> MLP:
        return self.bound.net

    @property
    def depth(self) -> int:
        return self.net.depth

    @cached_property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Free symbols that a numerical evaluation must be given, sorted by name; those that cancel are not asked for."""
        used = self.net.sigma_w.free_symbols | self.net.sigma_b.free_symbols | self.Phi.free_symbols
        if self.deepest_reached <= self.depth:
            used |= self.G.free_symbols
            for weight in self.weights[self.deepest_reached - 1 :]:
                used |= weight.free_symbols
            if self.G.uses(z):
                used |= self._feedback_parameters
        return tuple(p for p in self.bound.parameters if p in used)

    @property
    def closed(self) -> bool:
        """Whether every expectation that the kernel needs has a closed form."""
        return all(dual.closed is not None for dual in self.duals)

    @property
    def duals(self) -> tuple[Dual, ...]:
        """The distinct expectations in the kernel; those multiplied by zero are left out."""
        functions = (self.Phi, self.G) if self.deepest_reached <= self.depth else (self.Phi,)
        return tuple(dict.fromkeys(dual for function in functions for dual in function.duals))

    @cached_property
    def deepest_reached(self) -> int:
        """The lowest ℓ with G̃^ℓ ≠ 0; depth + 1 if the signal does not pass the readout."""
        reached = self.depth + 1
        while reached > 1 and self.weights[reached - 2] != 0 and not self.G.is_zero:
            reached -= 1
        return reached

    # ---- the recursion, evaluated on symbols -------------------------------------------------------------------------

    @cached_property
    def preactivation(self) -> tuple[Covariance, ...]:
        """Σ^ℓ, the covariance of h^ℓ for ℓ = 1…L, and of the readout for ℓ = L+1 (index 0 is ℓ = 1), expanded."""
        widths = [self._affine(INPUT)]
        for _ in range(self.depth):
            widths.append(self._affine(self.Phi.on(widths[-1], gates=INPUT)))
        return tuple(widths)

    @cached_property
    def backward(self) -> tuple[sp.Expr, ...]:
        """G̃^ℓ at (μ, ν) for ℓ = 1…L+1 (index 0 is ℓ = 1), expanded."""
        values = [sp.Integer(1)]
        for layer in range(self.depth, 0, -1):
            if layer < self.deepest_reached:
                values.append(sp.Integer(0))
                continue
            slope = self.G.on(self.preactivation[layer - 1], gates=INPUT, feedback=self._feedback_variance[layer - 1]).munu
            values.append(self.net.sigma_w**2 * self.weights[layer - 1] * slope * values[-1])
        return tuple(reversed(values))

    @cached_property
    def contributions(self) -> tuple[sp.Expr, ...]:
        """The terms G̃^{ℓ+1} Σ^{ℓ+1} of the eNTK for ℓ = 0…L: what training W^ℓ (and its bias) adds."""
        return tuple(g * q.munu for g, q in zip(self.backward, self.preactivation, strict=True))

    @cached_property
    def expr(self) -> sp.Expr:
        """The eNTK as one expression in K_mumu, K_munu, K_nunu and the parameters."""
        return collect_parameters(sum(self.contributions), self.parameters)

    @cached_property
    def operations(self) -> int:
        """About how many operations `expr` has, counted layer by layer without writing it out: it grows exponentially with the depth."""
        net = self.net
        affine = lambda q: q.map(lambda size: size + sp.count_ops(net.sigma_w**2 + net.sigma_b**2))
        sigma, total, inputs = affine(INPUT.map(lambda _: 0)), 0, INPUT.map(lambda _: 0)
        slopes = []
        for _ in range(self.depth):
            total += sigma.munu
            slopes.append(self.G.operations(sigma, gates=inputs).munu)
            sigma = affine(self.Phi.operations(sigma, gates=inputs))
        reached = [slope for layer, slope in enumerate(slopes, 1) if layer >= self.deepest_reached]
        return total + sigma.munu + sum((index + 1) * slope for index, slope in enumerate(reached))

    @cached_property
    def nngp(self) -> sp.Expr:
        """σ_w² Φ^L + σ_b², the covariance of the readout's preactivation, in K_mumu, K_munu, K_nunu."""
        return self.preactivation[-1].munu

    def _affine(self, q: Covariance) -> Covariance:
        return _scaled(q, self.net.sigma_w**2, self.net.sigma_b**2)

    @cached_property
    def left_out(self) -> str:
        """What outputs do that this kernel does not, where units jump; empty if there is nothing."""
        moved = any(weight != 0 for weight in self.weights)
        return _crossings(self.bound, self.G.right) if moved else ""

    @cached_property
    def features_feed_back(self) -> bool:
        """Whether z̃^ℓ = ζ + B̃ F(h^ℓ) with B̃ = ⟨∂g̃/∂h⟩ ≠ 0 of the layer above, in some hidden layer: then it depends on h^ℓ at t = 0 already."""
        return any(weight != 0 for weight in self.weights[:-1]) and not slope_vanishes(self.bound.pseudo_gradient)

    @cached_property
    def _feedback_variance(self) -> tuple[Covariance, ...]:
        """Cov(z̃^ℓ, z̃^ℓ) for ℓ = 1…L; asked for only when g̃ is not linear in z̃."""
        if not self.G.uses(z):
            return (Covariance(sp.Integer(1), sp.Integer(1), sp.Integer(1)),) * self.depth
        pseudo = pair_function("H", self.bound.pseudo_gradient, self.bound.pseudo_gradient)
        above = Covariance(sp.Integer(1), sp.Integer(1), sp.Integer(1))
        values = []
        for layer in range(self.depth, 0, -1):
            path = self.bound.path[layer - 1]
            here = _scaled(above, self.carried(path), path.direct**2)
            values.append(here)
            above = pseudo.on(self.preactivation[layer - 1], gates=INPUT, feedback=here)
        return tuple(reversed(values))

    @property
    def _feedback_parameters(self) -> set[sp.Symbol]:
        """Free symbols of Cov(z̃, z̃) at the layers that the signal reaches."""
        used = self.bound.pseudo_gradient.free_symbols - {h, m, z, Delta}
        for path in self.bound.path[self.deepest_reached - 1 :]:
            for coefficient in (self.carried(path), path.direct):
                used |= coefficient.free_symbols
        return used

    def carried(self, path: PathCoefficients) -> sp.Expr:
        """What of E[g̃ g̃] of the layer above is in Cov(z̃, z̃): W(t) and W(0) are the same matrix at t = 0, V is another one."""
        return self.net.sigma_w**2 * ((path.transported + path.initial) ** 2 + path.independent**2)

    # ---- what a reader asks for --------------------------------------------------------------------------------------

    @property
    def recursion(self) -> tuple[sp.Equality, ...]:
        """The layer equations, one step of each, in named symbols."""
        from .lazy_text import recursion_equations

        return recursion_equations(self)

    def derivation(self) -> Derivation:
        """How the kernel follows from the rule, step by step, with the Gaussian expectations' own steps."""
        from .lazy_text import kernel_derivation

        return kernel_derivation(self)

    def latex(self) -> str:
        """The kernel as LaTeX for amsmath: the expanded form up to depth 3 where it is closed, else the recursion."""
        from .lazy_text import kernel_latex

        return kernel_latex(self)

    def title(self) -> str:
        """One line: rule and network."""
        from .lazy_text import kernel_title

        return kernel_title(self)

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        from .lazy_text import kernel_definitions

        return kernel_definitions(self)

    def source(self, standalone: bool = False) -> str:
        """A readable Python module that evaluates the kernel with JAX.

        Args:
            standalone: write the helper functions into the module instead of importing them from `numerics.safe`.
        """
        from .codegen.emit import kernel_source

        return kernel_source(self, standalone=standalone)

    def layers_source(self) -> str:
        """A readable Python module that evaluates Φ^ℓ, G^ℓ, G̃^ℓ and H^ℓ of every layer at t = 0 with JAX."""
        from .codegen.layers import layers_source

        return layers_source(self)

    def save(self, path: str | Path, standalone: bool = False) -> Path:
        """Write `source()` to a file and return its path."""
        target = Path(path)
        target.write_text(self.source(standalone=standalone), encoding="utf-8")
        return target

    def __repr__(self) -> str:
        from .lazy_text import kernel_repr

        return kernel_repr(self)


def lazy_kernel(rule: Rule, net: MLP) -> LazyKernel:
    """Derive the lazy-limit eNTK of `rule` on `net`.

    Args:
        rule: any `Rule`, built in or the user's own.
        net: the network; any depth, any activation.

    Returns:
        A `LazyKernel`. If the rule's feedback weights learn, it depends on the step `t`, a parameter. Expectations without a closed
        form stay in it by name and are integrated numerically in generated code.

    Raises:
        BadInput: the rule's kernel would depend on the error signal Δ, so that it is not a kernel of the inputs alone; or g̃ is not linear in z, and
            z depends on h at t = 0, so that no average factorises.

    Source: Bordelon & Pehlevan 2023, section 3; THEORY section 3.
    """
    require(rule, net)
    bound = rule.frozen_at(time).bind(net)
    pulled = slope_in_feedback(bound.pseudo_gradient)
    weights = tuple(path.transported + path.initial for path in bound.path)
    if Delta in pulled.free_symbols and any(weight != 0 for weight in weights):
        raise BadInput(
            f"rule {rule.name!r}: ∂g̃/∂z = {pulled} depends on the error signal Δ, so the lazy eNTK is not a function of the inputs alone; "
            "keep Δ out of the part of g̃ that multiplies z"
        )
    Phi = pair_function("Phi", bound.forward, bound.forward)
    G = pair_function("G", bound.slope, pulled)
    kernel = LazyKernel(bound, Phi, G, weights)
    if G.uses(z):
        _refuse_what_is_not_linear(kernel)
    return kernel


def _refuse_what_is_not_linear(kernel: LazyKernel) -> None:
    """Refuse a g̃ that is not linear in z where the law of z is another than a Gaussian of known variance, independent of h."""
    bound = kernel.bound
    of_rule = f"rule {bound.rule.name!r}: g̃ = {bound.pseudo_gradient} is not linear in z"
    if bound.rule.feedback.readout is not None:
        raise BadInput(f"{of_rule}, and z at the readout, {bound.rule.feedback.readout}, is not Gaussian: use solve_dmft at small gamma0")
    if kernel.features_feed_back:
        raise BadInput(
            f"{of_rule}, and ⟨∂g̃/∂h⟩ is not zero, so that with {bound.net.depth} layers the feedback field of a layer depends on its own features at "
            "t = 0 already, z = ζ + B φ(h), and the kernel is no product of averages: use solve_dmft at small gamma0, or a g̃ that is odd in z, or "
            "feedback weights that are independent of the forward ones"
        )
    if Delta in bound.pseudo_gradient.free_symbols and any(kernel.carried(path) != 0 for path in bound.path[:-1]):
        raise BadInput(
            f"{of_rule}, and contains the error signal Δ, which the variance of z in the layer below, and so the kernel, would depend on: keep Δ out of g̃"
        )


def _crossings(bound: BoundRule, pulled: sp.Expr) -> str:
    """What a kernel with slopes almost everywhere leaves out: units that cross a jump of F, where ∂g̃/∂z moves h."""
    if pulled == 0 or not bound.forward.has(*KINKED):
        return ""
    derived = sp.expand(steps_form(bound.forward, h).diff(h))
    for delta in sorted(derived.atoms(sp.DiracDelta), key=str):
        place = h - delta.args[0]
        if not place.has(h) and sp.simplify(derived.coeff(delta).subs(h, place)) != 0:
            return (
                f"units jump at h = {place}, and the rule moves h. Outputs feel the units that cross the jump, which the slope of the units, taken almost "
                "everywhere, leaves out of the kernel"
            )
    return ""


def _scaled(q: Covariance, factor: sp.Expr, constant: sp.Expr) -> Covariance:
    return q.map(lambda entry: factor * entry + constant)


def collect_parameters(expr: sp.Expr, parameters: Sequence[sp.Symbol]) -> sp.Expr:
    """Write a sum as a polynomial in the rule's parameters where it is one (ρ² … + ρ … + …)."""
    names = [p for p in parameters if expr.has(p) and expr.is_polynomial(p)]
    if not names:
        return expr
    # what does not contain them is no business of `collect`, which would go through all of it
    hidden: dict[sp.Expr, sp.Dummy] = {}
    terms = [term.as_independent(*names, as_Add=False) for term in sp.Add.make_args(expr)]
    short = sp.Add(*(hidden.setdefault(free, sp.Dummy()) * rest for free, rest in terms))
    return sp.collect(short, names).xreplace({dummy: free for free, dummy in hidden.items()})
