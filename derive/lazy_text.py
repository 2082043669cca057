"""How a lazy kernel tells its story: recursion, derivation, LaTeX and repr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import sympy as sp

from .derivation import Derivation, Step, to_latex
from .duals import Covariance, Dual, PairFunction, q_munu, slope_in_feedback
from .latex import LINE_WIDTH, aligned
from .symbols import Delta, K_munu, h, layer_symbol, m, x, z

if TYPE_CHECKING:
    from .lazy import LazyKernel

PSEUDO_GRADIENTS = "E[g_tilde_mu*g_tilde_nu]"
READABLE_OPERATIONS = 60  # longer closed forms are left to `.expr` and the layer equations


class Compact:
    """The recursion in named symbols: Σ^ℓ, Φ^ℓ, Φ̇^ℓ, Γ at (μ, ν) in place of the expressions that they stand for."""

    def __init__(self, kernel: LazyKernel) -> None:
        self.kernel = kernel
        self.names = dict(self._name_duals())
        net = kernel.net
        affine = lambda value: net.sigma_w**2 * value + net.sigma_b**2
        self.sigma = [affine(K_munu)]
        for layer in range(1, net.depth + 1):
            self.sigma.append(affine(self.value(kernel.Phi, layer)))
        self.backward = [sp.Integer(1)]
        for layer in range(net.depth, 0, -1):
            factor = net.sigma_w**2 * kernel.weights[layer - 1] * self.value(kernel.G, layer)
            self.backward.append(factor * self.backward[-1])
        self.backward.reverse()
        self.contributions = [g * q for g, q in zip(self.backward, self.sigma, strict=True)]

    def _name_duals(self) -> Iterator[tuple[tuple[sp.Symbol, Dual], str]]:
        """A base name for each (field, dual) that is not simply the covariance itself."""
        stems: dict[str, dict[tuple[sp.Symbol, Dual], None]] = {}
        for function, base in ((self.kernel.Phi, "Phi"), (self.kernel.G, "dotPhi")):
            for term in function.terms:
                for field, dual in term.duals:
                    if linear(dual) or any((field, dual) in named for named in stems.values()):
                        continue
                    stems.setdefault({h: base, m: "Gamma", z: "Z"}[field], {})[field, dual] = None
        for stem, named in stems.items():
            for number, key in enumerate(named, 1):
                yield key, f"{stem}{number}" if len(named) > 1 else stem

    def value(self, function: PairFunction, layer: int) -> sp.Expr:
        """E[…] of layer ℓ in named symbols."""
        total = sp.Integer(0)
        for term in function.terms:
            product = term.coefficient
            for field, dual in term.duals:
                if linear(dual):
                    product *= {h: self.sigma[layer - 1], m: K_munu, z: layer_symbol("Sigma_tilde", layer, "munu")}[field]
                else:
                    product *= self.symbol(field, dual, layer)
            total += product
        return total

    def symbol(self, field: sp.Symbol, dual: Dual, layer: int) -> sp.Symbol:
        """The symbol of a dual at layer ℓ; gates are the same at every layer."""
        return layer_symbol(self.names[field, dual], None if field == m else layer, "munu")

    @property
    def total(self) -> sp.Expr:
        """The eNTK in named symbols, equal contributions added up."""
        return sum(self.contributions)


def linear(dual: Dual) -> bool:
    """Whether the dual is the covariance itself, E[u v]."""
    return dual.closed == q_munu


def recursion_equations(kernel: LazyKernel) -> tuple[sp.Equality, ...]:
    """Layer equations in named symbols: Σ^ℓ and G̃^ℓ as they are computed, then the eNTK; closed forms first."""
    compact, net = Compact(kernel), kernel.net
    equations = [sp.Eq(layer_symbol("Sigma", 1, "munu"), net.sigma_w**2 * K_munu + net.sigma_b**2, evaluate=False)]
    for layer in range(1, net.depth + 1):
        equations += layer_definitions(kernel, compact, layer)
        phi = layer_symbol("Phi", layer, "munu")
        equations.append(sp.Eq(layer_symbol("Sigma", layer + 1, "munu"), net.sigma_w**2 * phi + net.sigma_b**2, evaluate=False))
    above: sp.Expr = sp.Integer(1)
    backward: dict[int, sp.Expr] = {net.depth + 1: above}
    for layer in range(net.depth, 0, -1):
        equations += feedback_definitions(kernel, compact, layer)
        value = net.sigma_w**2 * kernel.weights[layer - 1] * compact.value(kernel.G, layer) * above
        name = layer_symbol("G_tilde", layer, "munu")
        equations.append(sp.Eq(name, value, evaluate=False))
        above = backward[layer] = sp.Integer(0) if value == 0 else name
    total = sum(backward[layer] * layer_symbol("Sigma", layer, "munu") for layer in range(1, net.depth + 2))
    equations.append(sp.Eq(sp.Symbol("K_eNTK"), total, evaluate=False))
    return tuple(equations)


def layer_definitions(kernel: LazyKernel, compact: Compact, layer: int) -> list[sp.Equality]:
    """Φ^ℓ, Φ̇^ℓ (and Γ, at the first layer) through the covariance of their arguments."""
    covariance = Covariance(*(layer_symbol("Sigma", layer, pair) for pair in ("mumu", "munu", "nunu")))
    inputs = Covariance(*(layer_symbol("K", None, pair) for pair in ("mumu", "munu", "nunu")))
    lines, functions = [], [kernel.Phi] + ([kernel.G] if layer >= kernel.deepest_reached else [])
    for function in functions:
        for term in function.terms:
            for field, dual in term.duals:
                if linear(dual) or (field == m and layer > 1) or field == z:
                    continue
                line = sp.Eq(compact.symbol(field, dual, layer), dual.on(covariance if field == h else inputs), evaluate=False)
                if line not in lines:
                    lines.append(line)
    phi, value = layer_symbol("Phi", layer, "munu"), compact.value(kernel.Phi, layer)
    return lines if phi == value else [*lines, sp.Eq(phi, value.subs(compact.sigma[layer - 1], covariance.munu), evaluate=False)]


def feedback_definitions(kernel: LazyKernel, compact: Compact, layer: int) -> list[sp.Equality]:
    """Where g̃ is not linear in z̃: the covariance of z̃^ℓ, what is averaged over it, and H^ℓ for the layer below."""
    if layer < kernel.deepest_reached or not kernel.G.uses(z):
        return []
    path = kernel.bound.path[layer - 1]
    above = {pair: layer_symbol("H", layer + 1, pair) if layer < kernel.depth else sp.Integer(1) for pair in ("mumu", "munu", "nunu")}
    variance = lambda pair: kernel.carried(path) * above[pair] + path.direct**2
    covariance = Covariance(*(layer_symbol("Sigma_tilde", layer, pair) for pair in ("mumu", "munu", "nunu")))
    lines = [sp.Eq(covariance.munu, variance("munu"), evaluate=False)]
    for term in kernel.G.terms:
        for field, dual in term.duals:
            line = sp.Eq(compact.symbol(field, dual, layer), dual.on(covariance), evaluate=False) if field == z and not linear(dual) else None
            if line is not None and line not in lines:
                lines.append(line)
    if layer > kernel.deepest_reached:
        arguments = [layer_symbol("Sigma", layer, "munu"), covariance.munu]
        lines.append(sp.Eq(layer_symbol("H", layer, "munu"), sp.Function(PSEUDO_GRADIENTS)(*arguments), evaluate=False))
    return lines


def kernel_definitions(kernel: LazyKernel) -> list[tuple[str, str]]:
    """Symbols (LaTeX) and their meaning."""
    return [*DEFINITIONS, *(FEEDBACK_DEFINITIONS if kernel.G.uses(z) else [])]


def kernel_latex(kernel: LazyKernel) -> str:
    """The eNTK over its layer equations."""
    compact = Compact(kernel)
    lines: list[sp.Basic | str] = [sp.Eq(sp.Symbol("K_eNTK"), compact.total, evaluate=False)]
    for layer in range(1, kernel.depth + 1):
        sigma = layer_symbol("Sigma", layer, "munu")
        previous = K_munu if layer == 1 else layer_symbol("Phi", layer - 1, "munu")
        lines.append(sp.Eq(sigma, kernel.net.sigma_w**2 * previous + kernel.net.sigma_b**2, evaluate=False))
        lines += layer_definitions(kernel, compact, layer)
    for layer in range(kernel.depth, 0, -1):
        lines += feedback_definitions(kernel, compact, layer)
    return aligned(_unevaluated_as_integrals(kernel, lines))


def _unevaluated_as_integrals(kernel: LazyKernel, lines: list[sp.Basic | str]) -> list[sp.Basic | str]:
    """Write expectations without a closed form as E[φ(u)φ(v)] over the named covariance."""
    result: list[sp.Basic | str] = []
    labels = {dual.label: dual for dual in kernel.duals}
    for line in lines:
        name = line.rhs.func.__name__ if isinstance(line, sp.Equality) and isinstance(line.rhs, sp.core.function.AppliedUndef) else ""
        if isinstance(line, sp.Equality) and name == PSEUDO_GRADIENTS:
            result.append(rf"{to_latex(line.lhs)} = \mathbb E\bigl[\tilde g(h_\mu, \tilde z_\mu)\,\tilde g(h_\nu, \tilde z_\nu)\bigr]")
        elif isinstance(line, sp.Equality) and name in labels:
            dual = labels[name]
            q = [to_latex(entry) for entry in line.rhs.args]
            f, g = (to_latex(e.subs(x, sp.Symbol(name))) for e, name in ((dual.f, "u"), (dual.g, "v")))
            matrix = rf"\begin{{pmatrix}}{q[0]} & {q[1]}\\ {q[1]} & {q[2]}\end{{pmatrix}}"
            result.append(rf"{to_latex(line.lhs)} = \mathbb E\bigl[({f})\,({g})\bigr],\quad (u,v)\sim\mathcal N\Bigl(0,{matrix}\Bigr)")
        else:
            result.append(line)
    return result


def kernel_derivation(kernel: LazyKernel) -> Derivation:
    """From the update rule to the kernel, each step with its reason."""
    compact, bound, net = Compact(kernel), kernel.bound, kernel.net
    steps = [*_setup(kernel), _forward_step(kernel)]
    steps += _backward_steps(kernel)
    for layer in range(net.depth, 0, -1):
        steps.append(_layer_step(kernel, compact, layer))
    terms = [
        Step(
            f"ℓ = {layer}: what training W^{layer} adds to the eNTK, G̃^{layer + 1} Σ^{layer + 1}.",
            sp.Eq(layer_symbol("K_eNTK", layer, "munu"), compact.contributions[layer], evaluate=False),
        )
        for layer in range(net.depth + 1)
    ]
    short = rf"K_{{\mu\nu}} = {to_latex(compact.total)}"
    steps.append(
        Step(
            "The eNTK is the sum of the contributions of all weight matrices.",
            short if len(short) <= LINE_WIDTH else sp.Eq(sp.Symbol("K_eNTK"), compact.total, evaluate=False),
            tuple(terms),
        )
    )
    if kernel.closed and kernel.operations <= 4 * READABLE_OPERATIONS and sp.count_ops(kernel.expr) <= READABLE_OPERATIONS:
        steps.append(Step("Put in the closed forms of all layers.", sp.Eq(sp.Symbol("K_eNTK"), kernel.expr, evaluate=False)))
    return Derivation(f"Lazy-limit eNTK of {bound.rule.name}, {_network(kernel)}", tuple(steps))


def _setup(kernel: LazyKernel) -> list[Step]:
    """Update, chain rule, Gaussianity at t = 0."""
    bound = kernel.bound
    forward, pseudo = to_latex(bound.rule.forward), to_latex(bound.rule.pseudo_gradient)
    return [
        Step(
            "The rule: its pseudo-gradient and its forward map (φ the network's activation, z the field that the feedback path delivers).",
            rf"\tilde g = {pseudo},\qquad F = {forward}",
        ),
        Step(
            "Each weight matrix moves along the pseudo-gradient of the layer above and the activity of the layer below, each bias along the "
            "pseudo-gradient.",
            r"\dot W^{\ell} = \frac{\gamma_0\, \sigma_w}{P\sqrt N}\, \sum_\nu \Delta_\nu\, \tilde g^{\ell+1}_\nu F(h^{\ell}_\nu)^{\top},\qquad "
            r"\dot b^{\ell} = \frac{\gamma_0\, \sigma_b}{P}\, \sum_\nu \Delta_\nu\, \tilde g^{\ell+1}_\nu",
        ),
        Step(
            "Chain rule through f: the true gradient of layer ℓ+1 meets the rule's pseudo-gradient, the activities of layer ℓ meet each other.",
            r"\dot f_\mu = \frac1P \sum_\nu K_{\mu\nu}\Delta_\nu,\qquad K_{\mu\nu} = \sum_{\ell=0}^{L} \tilde G^{\ell+1}_{\mu\nu}\,\Sigma^{\ell+1}_{\mu\nu},"
            r"\qquad \tilde G^{L+1} = 1",
        ),
        Step(
            "For γ0 → 0 the weights move by a vanishing amount, so every average keeps its value at t = 0, where h^ℓ is Gaussian with "
            "covariance Σ^ℓ and the pair (z, z̃) is Gaussian and independent of h.",
            r"h^{\ell}\sim\mathcal N(0,\Sigma^{\ell}),\qquad \Sigma^{1} = \sigma_w^2 K^{x}+\sigma_b^2,\qquad "
            r"\Sigma^{\ell+1} = \sigma_w^2\Phi^{\ell}+\sigma_b^2",
        ),
    ]


def _forward_step(kernel: LazyKernel) -> Step:
    reason = "The activities' kernel Φ is a Gaussian expectation"
    if m in kernel.bound.forward.free_symbols:
        reason += "; the gates m are independent of h, so that it factorises"
    children = tuple(step for dual in kernel.Phi.duals for step in _dual_steps(dual))
    return Step(
        reason + ".", rf"\Phi_{{\mu\nu}} = \mathbb E\bigl[F(h_\mu)F(h_\nu)\bigr],\qquad F = {to_latex(kernel.bound.forward)}", children
    )


def _dual_steps(dual: Dual) -> Iterator[Step]:
    integrand = dual.f.subs(x, sp.Symbol("u")) * dual.g.subs(x, sp.Symbol("v"))
    if dual.closed is None:
        yield Step(
            f"No closed form ({dual.reason}): it stays a function of the covariance, and generated code integrates it numerically.",
            integrand,
        )
    else:
        yield Step("The Gaussian engine:", sp.Eq(sp.Function("E")(integrand), dual.closed, evaluate=False), tuple(dual.steps))


def _backward_steps(kernel: LazyKernel) -> list[Step]:
    """Stein's lemma on the feedback field."""
    bound = kernel.bound
    pulled = slope_in_feedback(bound.pseudo_gradient)
    if pulled == 0:
        names = f"g̃ = {bound.rule.pseudo_gradient} does not contain the feedback field z̃"
        return [
            Step(
                f"{names}: E[F'(h) z · g̃] = E[z] E[F'(h) g̃] = 0, since z has zero mean and is independent of h. So G̃^ℓ = 0 for every ℓ ≤ L."
            )
        ]
    children = tuple(step for dual in kernel.G.duals for step in _dual_steps(dual)) if kernel.deepest_reached <= kernel.depth else ()
    delta = " (Δ is a number at given data)" if Delta in bound.pseudo_gradient.free_symbols else ""
    return [
        Step(
            f"The true gradient is g = F'(h) z. Gaussian integration by parts in z (Stein's lemma) pulls out its covariance with z̃{delta}.",
            r"\tilde G^{\ell}_{\mu\nu} = \mathbb E\bigl[F'(h_\mu) z_\mu\,\tilde g(h_\nu,\tilde z_\nu)\bigr] = \operatorname{Cov}(z_\mu,\tilde z_\nu)\;"
            rf"\mathbb E\bigl[F'(h_\mu)\,\partial_{{\tilde z}}\tilde g(h_\nu)\bigr],\qquad "
            rf"F' = {to_latex(bound.slope)},\quad \partial_{{\tilde z}}\tilde g = {to_latex(pulled)}",
            children,
        ),
        Step(
            "z^ℓ comes down through W(0)ᵀ; z̃^ℓ shares with it the transported and the initial part of the path, while V and ξ are independent of W(0).",
            r"\operatorname{Cov}(z^{\ell}_\mu,\tilde z^{\ell}_\nu) = \sigma_w^2\,c_\ell\,\tilde G^{\ell+1}_{\mu\nu},\qquad "
            r"c_\ell = \text{transported}_\ell+\text{initial}_\ell",
        ),
    ]


def _layer_step(kernel: LazyKernel, compact: Compact, layer: int) -> Step:
    weight = kernel.weights[layer - 1]
    if kernel.G.is_zero:
        reason = f"Layer {layer}: G̃^{layer} = 0."
    elif weight == 0:
        reason = f"Layer {layer}: c_{layer} = 0, the feedback field is independent of W(0), so G̃^{layer} = 0: W^{layer - 1} does not move the output."
    elif compact.backward[layer - 1] == 0:
        reason = f"Layer {layer}: G̃^{layer + 1} = 0 above, so G̃^{layer} = 0."
    else:
        reason = f"Layer {layer}: c_{layer} = {weight}."
    return Step(reason, sp.Eq(layer_symbol("G_tilde", layer, "munu"), compact.backward[layer - 1], evaluate=False))


def _network(kernel: LazyKernel) -> str:
    net = kernel.net
    plural = "layer" if net.depth == 1 else "layers"
    scales = "" if (net.sigma_w, net.sigma_b) == (1, 0) else f", σ_w = {net.sigma_w}, σ_b = {net.sigma_b}"
    return f"{net.depth} hidden {plural}, activation {net.activation}{scales}"


def kernel_title(kernel: LazyKernel) -> str:
    return f"Lazy-limit kernel of {kernel.rule.name}: {_network(kernel)}"


def kernel_repr(kernel: LazyKernel) -> str:
    """Rule, network, the kernel in named symbols, and which expectations are closed."""
    compact = Compact(kernel)
    lines = [f"LazyKernel of {kernel.rule.name}: {_network(kernel)}", f"  K = {compact.total}"]
    for dual in kernel.duals:
        kind = "closed form" if dual.closed is not None else f"quadrature in generated code ({dual.reason})"
        lines.append(f"  {dual.label}: {kind}")
    if kernel.left_out:
        lines.append(f"  {kernel.left_out}")
    return "\n".join(lines)


DEFINITIONS = [
    (r"K^{x}_{\mu\nu}", "input kernel x_μ·x_ν/D"),
    (r"h^{\ell},\ F(h^{\ell})", "preactivation of layer ℓ and what the next layer receives"),
    (r"\Sigma^{\ell}_{\mu\nu}", "covariance of h^ℓ at initialisation; Σ^{L+1} is the readout's (NNGP kernel)"),
    (r"\Phi^{\ell}_{\mu\nu}", "average of F(h^ℓ_μ) F(h^ℓ_ν) over the units of layer ℓ"),
    (r"\dot\Phi^{\ell}_{\mu\nu}", "average of F'(h^ℓ_μ) ∂g̃/∂z̃(h^ℓ_ν)"),
    (r"\Gamma_{\mu\nu}", "average of φ̇(m_μ) φ̇(m_ν) over the gates, if the rule has gates"),
    (r"z^{\ell},\ \tilde z^{\ell}", "back-propagated field, and the field that the rule's feedback path delivers"),
    (r"g^{\ell},\ \tilde g^{\ell}", "true gradient field F'(h) z, and the rule's pseudo-gradient"),
    (r"\tilde G^{\ell}_{\mu\nu}", "average of g^ℓ_μ g̃^ℓ_ν"),
    (r"\Delta_\mu", "error signal y_μ − f_μ"),
    (r"K_{\mu\nu}", "effective neural tangent kernel (eNTK)"),
]
FEEDBACK_DEFINITIONS = [
    (r"\tilde\Sigma^{\ell}_{\mu\nu}", "covariance of the feedback field z̃^ℓ at initialisation"),
    (r"Z^{\ell}_{\mu\nu}", "average of what ∂g̃/∂z̃ contains of the feedback field z̃^ℓ"),
    (r"H^{\ell}_{\mu\nu}", "average of g̃^ℓ_μ g̃^ℓ_ν, h^ℓ with covariance Σ^ℓ and z̃^ℓ with that of its own"),
]
