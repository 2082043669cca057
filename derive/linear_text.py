"""The closed matrix equations of linear units in order, with the reasons: what `LinearEquations` shows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from .derivation import Derivation, Step, to_latex
from .linear import ERRORS, ONE, SOURCES, kernel, matrix, n, vector
from .symbols import gamma0

if TYPE_CHECKING:
    from .linear import Fields, LinearEquations

FIELD_TEX = {"h": "h", "F": "F", "z_tilde": r"\tilde z", "g_tilde": r"\tilde g", "z": "z", "g": "g"}


def matrix_equations(linear: LinearEquations) -> Mapping[str, sp.Equality]:
    """Couplings, resolvent, fields, order parameters, responses and output by name."""
    eqs = {"C": _eq(matrix(r"C^{\ell}"), linear.coupling_matrix("C"))}
    if linear.couplings["E"] != 0:
        eqs["E"] = _eq(matrix(r"E^{\ell}"), linear.coupling_matrix("E"))
    if not linear.same:
        eqs["E_r"] = _eq(matrix(r"E_r^{\ell}"), linear.coupling_matrix("E_r"))
    eqs["R"] = _eq(matrix(r"R^{\ell}"), sp.Inverse(linear.driving))
    shown = ("h", "g") if linear.same else ("h", "g_tilde", "z")
    for name in shown:
        eqs[f"field {name}"] = _eq(vector(rf"{FIELD_TEX[name]}^{{\ell}}"), combination(linear.fields[name]))
    eqs["Phi"] = _eq(kernel("Phi"), linear.covariance("F", "F"))
    eqs["G"] = _eq(kernel("G"), linear.covariance("g", "g"))
    if not linear.same:
        eqs["G_tilde"] = _eq(kernel("G_tilde"), linear.covariance("g", "g_tilde"))
        if linear.eqs.net.depth > 1:
            eqs["H"] = _eq(kernel("H"), linear.covariance("g_tilde", "g_tilde"))
    eqs |= responses(linear)
    overlap = sp.HadamardProduct(ONE, linear.covariance("z", "F"))
    eqs["output"] = _eq(gamma0 * matrix(r"\operatorname{diag}f"), overlap)
    return MappingProxyType(eqs)


def responses(linear: LinearEquations) -> dict[str, sp.Equality]:
    """The responses that there are: derivatives of linear combinations are their coefficients."""
    found = {}
    for response in linear.eqs.responses:
        name = type(response.kernel).__name__
        if response.vanishes:
            continue
        if name == "A":
            source, field, layer = SOURCES["r" if linear.same else "zeta"], "F", r"\ell"
        else:  # B^ℓ is the response of the layer above to its own u
            source, field, layer = SOURCES["u"], "g_tilde" if name == "B_tilde" else "g", r"\ell-1"
        value = linear.fields[field].get(source, sp.ZeroMatrix(n, n))
        found[f"response {name}"] = _eq(kernel(name, layer), value)
    return found


def combination(field: Fields) -> sp.MatrixExpr:
    """Σ coefficient · Gaussian part."""
    return sp.MatAdd(*(value * source for source, value in field.items()))


def linear_derivation(linear: LinearEquations) -> Derivation:
    """From the single-site equations to the closed matrix equations."""
    eqs = linear.equations
    f, alpha, beta = linear.f, linear.alpha, linear.beta
    show = lambda *names: tuple(Step(_REASONS.get(name, name), eqs[name]) for name in names if name in eqs)
    steps = [
        Step(
            "Forward map and pseudo-gradient are linear in the fields"
            + (" once the gates, which are frozen, are given." if linear.eqs.rule.uses_gates else "."),
            r"F(h) = f h,\quad \tilde g = \alpha h + \beta \tilde z,\qquad "
            rf"f = {to_latex(f)},\quad \alpha = {to_latex(alpha)},\quad \beta = {to_latex(beta)}",
        ),
        Step(
            "Read the joint index (t, μ) as one. What multiplies a field under the sums over the past becomes a matrix; [·]_< keeps the blocks "
            "with s < t, D = diag Δ_ν(s), and J has all entries 1. At the readout the same formulas hold with B = 0 and J for the kernels above.",
            None,
            show("C", "E", "E_r"),
        ),
        Step(
            "The field equations are now linear equations; put z̃ into g̃ and g̃ into h.",
            rf"h = u + C\,\tilde g,\qquad \bigl({to_latex(linear.driving)}\bigr)\,h = u + {_drive(linear)}",
        ),
        Step(
            "C is strictly triangular in time, because h(t) needs pseudo-gradients of earlier times only: it is nilpotent, the inverse exists "
            "and is a finite sum. Its rows at time t need nothing later than t.",
            eqs["R"],
        ),
        Step("Every field is a linear combination of the Gaussian parts.", None, show(*(name for name in eqs if name.startswith("field")))),
        Step("Order parameters are second moments of these combinations.", None, show("Phi", "G", "G_tilde", "H")),
    ]
    if linear.eqs.responses:
        steps.append(
            Step(
                "Responses are derivatives of linear combinations, hence coefficient matrices: nothing is left to average.",
                None,
                show(*responses(linear)) + tuple(
                    Step(f"{type(found.kernel).__name__} vanishes: {found.why_zero}.") for found in linear.eqs.responses if found.vanishes
                ),
            )
        )  # fmt: skip
    else:
        steps.append(Step("One hidden layer: no responses."))
    steps.append(Step("The output is the diagonal of ⟨z F⟩ at the last layer, i = (t, μ).", eqs["output"]))
    if linear.eqs.rule.uses_gates:
        steps.append(Step("All of this holds given the gates; order parameters are in addition averaged over them."))
    return Derivation(linear.title(), tuple(steps))


def _drive(linear: LinearEquations) -> str:
    beta = linear.diagonal(linear.beta)
    if linear.beta == 0 or not linear.gaussian_parts:
        return "0"
    parts = sp.MatAdd(*(value * ONE * SOURCES[name] for name, value in linear.gaussian_parts.items()))
    return to_latex(sp.MatMul(matrix("C"), beta, parts, evaluate=False).doit(deep=False))


_REASONS = {
    "C": "What the preactivation collects: reaction of the layer below and memory of what was learned.",
    "E": "What the feedback field collects.",
    "E_r": "What the true gradient field collects.",
    "field h": "Preactivation.",
    "field g": "Gradient.",
    "field g_tilde": "Pseudo-gradient.",
    "field z": "True gradient field.",
    "Phi": "Activities.",
    "G": "Gradients.",
    "G_tilde": "Gradients with pseudo-gradients.",
    "H": "Pseudo-gradients.",
    "response A": "A: the coefficient of the field that comes down through W(0)ᵀ.",
    "response B": "B: the coefficient of u in the gradient of the layer above.",
    "response B_tilde": "B̃: the coefficient of u in the pseudo-gradient of the layer above.",
}


def linear_definitions(linear: LinearEquations) -> list[tuple[str, str]]:
    """The rows of a document's table of definitions."""
    rows = [
        (r"n = TP", "all matrices are n × n over the joint index (t, μ)"),
        (to_latex(ERRORS), "diagonal matrix of the errors Δ_ν(s)"),
        ("J", "the matrix of ones"),
        (r"\bigl[M\bigr]_{<}", "blocks of M with s < t, zero elsewhere"),
        (r"C^{\ell},\ E^{\ell}", "couplings of h to pseudo-gradients and of the feedback field to activities"),
        (r"R^{\ell}", "resolvent: how h responds to a source"),
    ]
    used = {source for field in linear.fields.values() for source in field}
    rows += [(to_latex(SOURCES[name]), meaning) for name, meaning in _SOURCE_MEANINGS.items() if SOURCES[name] in used]
    if linear.eqs.rule.uses_gates:
        rows.append((r"\Gamma", "diagonal matrix of the gates φ̇(m)"))
    return rows


_SOURCE_MEANINGS = {
    "u": "Gaussian part of W(0) F", "r": "Gaussian part of W(0)ᵀ g", "zeta": "Gaussian part of W(0)ᵀ g̃", "q": "Gaussian field of V",
    "xi": "direct feedback vector",
}  # fmt: skip


def _eq(left: sp.Basic, right: sp.Basic) -> sp.Equality:
    return sp.Eq(left, right, evaluate=False)
