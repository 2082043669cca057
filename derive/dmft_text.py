"""How the mean-field equations tell their story: the derivation's steps and the table of definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from .derivation import Derivation, Step, factor_latex, to_latex
from .fields import L, P, c0, field_q, nu
from .symbols import eta, gamma0, u

if TYPE_CHECKING:
    from .dmft import DMFTEquations, MatrixProduct, Response


def equations_derivation(eqs: DMFTEquations) -> Derivation:
    """Setup, matrix products, conditioning, responses, learned part, closed equations."""
    steps = [*_setup(eqs), *eqs.training.steps(), *_evolution_steps(eqs), _products_step(eqs), *_conditioning_steps(eqs), *_learned_steps(eqs)]
    steps.append(Step("Collected, the closed set of equations.", None, tuple(Step(_caption(n), e) for n, e in eqs.equations.items())))
    return Derivation(eqs.title(), tuple(steps))


def _caption(name: str) -> str:
    if name.startswith("response "):
        return f"Response {RESPONSE_NAMES[name.removeprefix('response ')]}."
    return _CAPTIONS.get(name, name[0].upper() + name[1:]) + "."


_CAPTIONS = {
    "preactivation": "Preactivation: Gaussian part, reaction of the layer below, memory of what was learned",
    "feedback field": "Feedback field of layers ℓ < L",
    "gradient field": "True gradient field of layers ℓ < L",
    "readout gradient field": "True gradient field of the last layer: the readout weights",
    "readout feedback field": "Feedback field of the last layer",
    "Phi": "Activities' kernel",
    "G": "Gradient kernel",
    "G_tilde": "Gradient–pseudo-gradient kernel",
    "H": "Pseudo-gradient kernel",
    "mirrored features": "What the feedback weights make of the features below, layers 2 ≤ ℓ ≤ L",
    "reconstruction": "What they reconstruct from the preactivations above, layers ℓ < L",
    "readout activity": "At the readout h is a number",
    "mirrored readout": "So is what the readout's feedback vector makes of the features",
    "readout reconstruction": "Reconstruction by the readout's feedback vector",
    "R": "Overlap of what the feedback weights learn from with the pseudo-gradient",
    "S": "Overlap of preactivation and pseudo-gradient",
    "C": "Preactivations' kernel",
    "R_h": "Overlap of what the feedback weights learn from with the preactivation",
    "Psi": "Overlap of features and reconstructions",
    "output": "Output, centred at t = 0",
    "error": "Error signal",
    "initial weights left": "What weight decay leaves of the initial weights",
    "memory of updates": "How much of the update made at s is in the weights at t",
    "entk": "Effective neural tangent kernel",
    "covariance u": "The Gaussian part of h",
    "covariance m": "The gates",
    "covariance r": "The Gaussian part of z",
    "covariance zeta": "The Gaussian part of W(0)ᵀ g̃",
    "covariance r zeta": "The Gaussian parts of the same matrix applied to g and to g̃ are correlated",
    "covariance q": "The Gaussian field of V, independent of those of W(0)",
    "covariance p": "The Gaussian part of V used forward",
    "covariance u b": "The bias that h and ω share",
    "covariance theta": "The Gaussian part of W(0)ᵀ h",
    "covariance theta zeta": "One matrix applied to h and to g̃",
    "covariance r theta": "One matrix applied to g and to h",
    "covariance chi": "The Gaussian part of Vᵀ h",
    "covariance chi q": "One matrix applied to h and to g̃",
}


def _learned_sum(eqs: DMFTEquations) -> str:
    """Σ k ω Δ over earlier times, examples and outputs, as LaTeX."""
    outputs = r"\, d" if eqs.training.many else ""
    weight = eqs.training.counted(nu)
    front = "" if weight == 1 else factor_latex(weight) + r"\,"
    return rf"\sum_{{s<t,\nu{outputs}}}{front}\Delta_{{{_index(eqs)}}}(s)"


def _index(eqs: DMFTEquations) -> str:
    """ν, or νd."""
    return to_latex(eqs.nu_back)


def _setup(eqs: DMFTEquations) -> list[Step]:
    rule = eqs.rule
    kept = "" if eqs.training.kept_at_t == 1 else factor_latex(eqs.training.kept_at_t) + r"\,"
    return [
        Step(
            "The rule: forward map, pseudo-gradient, and the path of the feedback field with its four coefficients.",
            rf"F = {to_latex(rule.forward)},\quad \tilde g = {to_latex(rule.pseudo_gradient)},\quad \tilde z^{{\ell}} = "
            rf"{_path_latex(eqs)}",
        ),
        Step(
            "The weights at step t, with c_0 = ηγ0/P; all sums over ν run over the training examples.",
            rf"W^{{\ell}}(t) = {kept}W^{{\ell}}(0) + \frac{{c_0}}{{\sqrt N}}{_learned_sum(eqs)}\,"
            rf"\tilde g^{{\ell+1}}_{{{_index(eqs)}}}(s)\,F(h^{{\ell}}_\nu(s))^{{\top}}",
        ),
    ]


def _evolution_steps(eqs: DMFTEquations) -> list[Step]:
    """The feedback weights' own update and what it makes of them."""
    evolution = eqs.rule.evolution
    if evolution is None:
        return []
    kept = to_latex(evolution.kept)
    parts = [r"B^{\ell}" if evolution.kept == 1 else rf"\bigl({kept}\bigr) B^{{\ell}}"]
    if evolution.pull != 0:
        parts.append(rf"{factor_latex(evolution.pull)}\, W^{{\ell}}(t)^{{\top}}")
    if evolution.copy != 0:
        parts.append(rf"\bigl({to_latex(evolution.copy)}\bigr)\,\Delta W^{{\ell}}(t)^{{\top}}")
    if evolution.outer != 0:
        parts.append(r"\frac{1}{P\sqrt N}\sum_\nu F(h^{\ell}_\nu)\,v_\nu^{\ell+1\,\top}")
    if evolution.null != 0:
        parts.append(rf"\frac{{-{factor_latex(evolution.null)}}}{{P\sqrt N}}\sum_\nu \psi^{{\ell}}_\nu\,h_\nu^{{\ell+1\,\top}}")
    said = [r"v = " + to_latex(evolution.outer)] if evolution.outer != 0 else []
    said += [r"\omega^{\ell+1} = \sigma_w B^{\ell\top} F(h^{\ell})/\sqrt N + \sigma_b b^{\ell+1}"] if evolution.mirrors else []
    said += [r"\psi^{\ell} = B^{\ell} h^{\ell+1}/\sqrt N"] if evolution.null != 0 else []
    memory = [r"b_1(t) = " + to_latex(eqs.on_initial), r"b_0(t) = " + to_latex(eqs.on_independent)]
    if eqs.feedback_memory != 0:
        memory.append(r"\kappa(t,s) = " + to_latex(eqs.feedback_memory))
    return [
        Step("The feedback weights learn: at every step", r",\qquad ".join([r"B^{\ell} \leftarrow " + " + ".join(parts), *said])),
        Step(
            "The recursions for the coefficients of W(0)ᵀ and V, and for the weight of a forward update made at s < t, are linear; solved, "
            "B(t) stays a sum of random matrices and outer products.",
            r",\qquad ".join(memory),
        ),
    ]


def _path_latex(eqs: DMFTEquations) -> str:
    parts = []
    for name, term in (
        ("transported", r"W^{\ell}(t)^{\top}\tilde g^{\ell+1}/\sqrt N"), ("initial", r"W^{\ell}(0)^{\top}\tilde g^{\ell+1}/\sqrt N"),
        ("independent", r"V^{\ell\top}\tilde g^{\ell+1}/\sqrt N"), ("direct", r"\xi^{\ell}"),
    ):  # fmt: skip
        coefficient = {"initial": eqs.on_initial, "independent": eqs.on_independent}.get(name, eqs.coefficient(name))
        if coefficient != 0:
            front = "" if coefficient == 1 else rf"\bigl({to_latex(coefficient)}\bigr)\,"
            parts.append(front + term)
    return " + ".join(parts) or "0"


def _product_line(product: MatrixProduct) -> Step:
    matrix = f"{product.matrix}^ℓ" + ("ᵀ" if product.transposed else "")
    use = "observed only" if product.observed else "used by the dynamics"
    symbol = {"V": r"V^{\ell\top}", "W": r"W^{\ell}(0)^{\top}"} if product.transposed else {"V": r"V^{\ell}", "W": r"W^{\ell}(0)"}
    return Step(f"{matrix}: {use}.", rf"\tfrac{{1}}{{\sqrt N}}{symbol[product.matrix]}\,{to_latex(product.vector)}\quad\text{{for all }}\nu, s")


def _products_step(eqs: DMFTEquations) -> Step:
    if eqs.net.depth == 1:
        return Step(
            "One hidden layer: W⁰ multiplies the inputs only and is never transposed, the readout is a vector. No random matrix is met "
            "from both sides, so there are no responses: h is Gaussian plus memory."
        )
    lines = tuple(_product_line(product) for product in eqs.matrix_products)
    return Step("Which vectors does each random matrix of a hidden layer multiply?", None, lines)


def _conditioning_steps(eqs: DMFTEquations) -> list[Step]:
    if eqs.net.depth == 1:
        return []
    other = " V is conditioned likewise, independently of W." if any(p.matrix == "V" and not p.transposed for p in eqs.matrix_products) else ""
    both = (
        "A Gaussian matrix conditioned on its products: to leading order in 1/N every forward product W a is a Gaussian field with covariance ⟨a a⟩ "
        "plus a response times the vectors that met Wᵀ, and every transposed product Wᵀ b is a Gaussian field with covariance ⟨b b⟩ plus a "
        "response times the vectors that met W (integration by parts over the entries of W)." + other
    )
    return [
        Step(
            both,
            r"\tfrac1{\sqrt N}W a_\mu(t) \to u_\mu(t) + "
            r"\sum_{s,\nu} \Bigl\langle\tfrac{\partial a_\mu(t)}{\partial \zeta_\nu(s)}\Bigr\rangle b_\nu(s),\qquad "
            r"\tfrac1{\sqrt N}W^{\top} b_\mu(t) \to \zeta_\mu(t) + "
            r"\sum_{s,\nu} \Bigl\langle\tfrac{\partial b_\mu(t)}{\partial u_\nu(s)}\Bigr\rangle a_\nu(s)",
        ),
        Step(
            "Which of these responses are there? One can be non-zero only if a chain of dependence leads from the Gaussian field to the vector.",
            None,
            tuple(_response_line(found) for found in eqs.responses),
        ),
    ]


RESPONSE_NAMES = {
    "A": "A", "B": "B", "B_tilde": "B̃", "A_r": "The response of F(h) to r", "A_V": "Â", "B_V": "B̂", "D": "D", "D_V": "D̂", "E": "E", "E_V": "Ê",
}  # fmt: skip


def _response_line(found: Response) -> Step:
    name = RESPONSE_NAMES[type(found.kernel).__name__]
    if found.vanishes:
        return Step(f"{name} vanishes: {found.why_zero}.", sp.Eq(found.kernel, 0, evaluate=False))
    return Step(f"{name} is there, by the chain {' → '.join(found.chain)}.", found.definition)


def _learned_steps(eqs: DMFTEquations) -> list[Step]:
    total, back, here = _learned_sum(eqs), _index(eqs), to_latex(eqs.mu_back)
    kernel = back if here == r"\mu" else "," + back
    steps = [
        Step(
            "The learned part of W is a sum of outer products, so applied to an activity it is a sum of pseudo-gradients weighted by overlaps: "
            "an order parameter times a field.",
            rf"\frac{{c_0}}{{N}}{total}\,\tilde g^{{\ell+1}}_{{{back}}}(s)\,F(h^{{\ell}}_\nu(s))\cdot F(h^{{\ell}}_\mu(t)) \to "
            rf"c_0{total}\,\Phi^{{\ell}}_{{\mu\nu}}(t,s)\,\tilde g^{{\ell+1}}_{{{back}}}(s)",
        )
    ]
    if eqs.net.depth > 1:
        steps.append(
            Step(
                "Transposed and applied to the true gradient, it is a sum of activities weighted by gradient–pseudo-gradient overlaps.",
                rf"\frac{{c_0}}{{N}}{total}\,F(h^{{\ell}}_\nu(s))\;\tilde g^{{\ell+1}}_{{{back}}}(s)\cdot g^{{\ell+1}}_{{{here}}}(t) \to "
                rf"c_0{total}\,\tilde G^{{\ell+1}}_{{{here}{kernel}}}(t,s)\,F(h^{{\ell}}_\nu(s))",
            )
        )
        if not eqs.follows_gradient and eqs.coefficient("transported") == 0 and eqs.rule.evolution is None:
            steps.append(Step("The feedback path uses frozen matrices only, so nothing learned enters z̃."))
    return steps + _feedback_steps(eqs)


def _feedback_steps(eqs: DMFTEquations) -> list[Step]:
    """What the outer products inside B make of g̃, of the features and of the preactivations above."""
    steps: list[Step] = []
    if eqs.net.depth == 1:
        return steps
    if eqs.product != 0:
        steps.append(Step(
            "So are the outer products that the feedback weights learned themselves, an overlap times a field.",
            r"\tfrac1N F(h^{\ell}_\nu(s))\,v^{\ell+1}_\nu(s)\cdot\tilde g^{\ell+1}_\mu(t) \to R^{\ell+1}_{\nu\mu}(s,t)\,F(h^{\ell}_\nu(s))",
        ))  # fmt: skip
    if eqs.mirrors:
        steps.append(Step(
            "Used forward, the same outer products give ω; V is then met from both sides, and its reaction is Â.",
            r"\tfrac1N v^{\ell+1}_\nu(s)\,F(h^{\ell}_\nu(s))\cdot F(h^{\ell}_\mu(t)) \to \Phi^{\ell}_{\nu\mu}(s,t)\,v^{\ell+1}_\nu(s)",
        ))  # fmt: skip
    if eqs.null != 0:
        steps.append(Step(
            "The reconstructions ψ = B h/√N are subtracted with the preactivations that made them: ψ needs all that B was made of, applied to h.",
            r"\tfrac1N \psi^{\ell}_\nu(s)\,h^{\ell+1}_\nu(s)\cdot\tilde g^{\ell+1}_\mu(t) \to S^{\ell+1}_{\nu\mu}(s,t)\,\psi^{\ell}_\nu(s)",
        ))  # fmt: skip
    return steps


def definitions(eqs: DMFTEquations) -> list[tuple[str, str]]:
    """The rows of a document's table of definitions."""
    top = "δ_cd" if eqs.training.many else "1"
    rows = [
        (to_latex(sp.Eq(c0, eta * gamma0 / P)), "step size times feature-learning strength over the number of training examples P"),
        (r"h^{\ell}_\mu(t)", "preactivation of layer ℓ on example μ before update t"),
        (rf"F = {to_latex(eqs.rule.forward)}", f"what the next layer receives; φ is {eqs.net.activation}"),
        (r"z^{\ell}_\mu(t),\ g^{\ell}_\mu(t)", "back-propagated field and true gradient"),
    ]
    if not eqs.follows_gradient:
        rows += [
            (r"\tilde z^{\ell}_\mu(t),\ \tilde g^{\ell}_\mu(t)", "feedback field that the rule's path delivers, and pseudo-gradient"),
        ]
    if eqs.rule.uses_gates:
        rows.append((r"m^{\ell}_\mu", "gate, Gaussian with covariance K^x, frozen, independent at each layer"))
    for product in eqs.matrix_products if eqs.net.depth > 1 else ():
        matrix = "V" if product.matrix == "V" else "W(0)"
        rows.append((to_latex(product.gaussian), f"Gaussian part of {matrix}{'ᵀ' if product.transposed else ''} applied to its vector"))
    rows += _learning_definitions(eqs)
    if eqs.coefficient("direct") != 0:
        rows.append((r"\xi^{\ell}", "direct feedback vector, standard normal, frozen"))
    rows += [
        (r"\Phi^{\ell},\ G^{\ell},\ \tilde G^{\ell},\ H^{\ell}", f"order parameters; Φ⁰ = K^x, G^{{L+1}} = G̃^{{L+1}} = H^{{L+1}} = {top}"),
        (r"\langle\cdot\rangle", "average over the single-site process"),
    ]
    for found in eqs.responses:
        if not found.vanishes:
            rows.append((to_latex(found.kernel), "response function; A⁰ = 0 and B^L = 0"))
    if (own := eqs.rule.feedback.readout) is not None:
        last = eqs.bound.path[-1]
        value = to_latex((own - last.initial * u) / last.independent)
        rows.append((rf"{to_latex(field_q(L))} = {value}", "at the readout, u = w(0), v another normal: zero mean and unit variance, but not Gaussian"))
    rows += eqs.training.definitions()
    for layer, path in enumerate(eqs.bound.path, 1):
        if len(set(eqs.bound.path)) > 1:
            given = {k: v for k, v in vars(path).items() if v != 0}
            rows.append((rf"\ell = {layer}", "path coefficients " + ", ".join(f"{k} = {v}" for k, v in given.items())))
    return rows


def _learning_definitions(eqs: DMFTEquations) -> list[tuple[str, str]]:
    """Fields of feedback weights that learn from what they carry."""
    rows = []
    if eqs.mirrors:
        rows.append((r"\omega^{\ell}_\mu(t)", "what the feedback weights, used forward, make of the features below"))
    if eqs.mirrors and eqs.net.sigma_b != 0:
        rows.append((r"b^{\ell}", "initial bias, standard normal"))
    if eqs.null != 0:
        rows.append((r"\psi^{\ell}_\mu(t)", "what the feedback weights make of the preactivations above"))
    if eqs.product != 0 or eqs.null != 0:
        rows.append((r"h^{L+1},\ \tilde g^{L+1}", "at the readout h is a number, w·F/N up to scale, and g̃ = 1"))
    return rows


__all__ = ["definitions", "equations_derivation"]
