"""How a small-feature-learning expansion shows itself: terms as LaTeX, and the steps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import sympy as sp

from .derivation import Derivation, Step, factor_latex, to_latex
from .symbols import x

if TYPE_CHECKING:
    from .expansion import SmallFeatureExpansion
    from .series import Node, Term

LINE_WIDTH = 260  # characters of LaTeX in a line; sums and indices set much narrower than they are written
GREEK = (r"\mu", r"\nu", r"\alpha", r"\beta", r"\gamma", r"\delta")


def term_latex(term: Term, names: Mapping[int, str], known: Mapping[sp.Expr, str], averaged: bool = True) -> str:
    """One summand: coefficient, sum, functionals, kernel entries, functions."""
    summed = sorted({i for node in (*term.nodes, *term.later) for i in node.indices})
    pieces = [] if term.number == 1 else [factor_latex(term.number)]
    if summed:
        pieces.append(rf"\sum_{{{' '.join(names[i] for i in summed)}}}")
    pieces += [node_latex(node, names) + "(t)" for node in term.nodes] + [node_latex(node, names) + "(s)" for node in term.later]
    pieces += [rf"K^x_{{{names[i]}{names[j]}}}" for i, j in term.kernels]
    functions = " ".join(rf"{known.get(f) or _bracketed(f)}_{{{names[i]}}}" for i, f in term.functions)
    gaussians = "".join(_power(symbol, k) for symbol, k in zip(("w", r"\tilde z"), term.powers, strict=True))
    if functions and averaged:
        pieces.append(rf"\bigl\langle {functions} \bigr\rangle")
    elif functions:
        pieces.append(functions)
    return r"\,".join([*pieces, *([gaussians] if gaussians else [])]) or "1"


def node_latex(node: Node, names: Mapping[int, str]) -> str:
    r"""I_ν[…]; θ_ν where nothing is inside."""
    mark = "^{(2)}" if node.order == 2 else ""
    if not node.children:
        return rf"\theta{mark}_{{{names[node.index]}}}"
    return rf"I{mark}_{{{names[node.index]}}}\bigl[{' '.join(node_latex(child, names) for child in node.children)}\bigr]"


def _power(symbol: str, k: int) -> str:
    return "" if k == 0 else f"{symbol}(0)" if k == 1 else f"{symbol}(0)^{{{k}}}"


def _bracketed(f: sp.Expr) -> str:
    return rf"\left[{to_latex(f)}\right]"


def _known(expansion: SmallFeatureExpansion) -> dict[sp.Expr, str]:
    """φ, φ̇, … and p, p′, … (p only where it is not φ̇), and products of two at one example."""
    marks = (r"\varphi", r"\dot\varphi", r"\ddot\varphi", r"\dddot\varphi", r"\varphi^{(4)}")
    slopes = ("p", "p'", "p''", "p'''")
    found: dict[sp.Expr, str] = {}
    tables = ((expansion.activation, marks), (expansion.slope, slopes))
    single = [(sp.diff(f, x, k), name) for f, names in tables for k, name in enumerate(names)]
    for f, name in single:
        found.setdefault(f, name)
    for i, (f, name) in enumerate(single):
        for g, other in single[: i + 1]:
            found.setdefault(f * g, rf"\bigl({other}{name}\bigr)" if f != g else rf"\bigl({name}^2\bigr)")
    return found


def _sum(terms: tuple[Term, ...], roots: int, known: Mapping[sp.Expr, str], averaged: bool) -> str:
    names = dict(enumerate((*GREEK[:roots], *GREEK[2:])))
    lines: list[str] = []
    for term in terms:
        text = term_latex(term, names, known, averaged)
        text = text if not lines or text.startswith("-") else f"+ {text}"
        if lines and len(lines[-1]) + len(text) <= LINE_WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return r" \qquad ".join(lines) or "0"  # where `aligned` breaks a line


def expansion_equations(expansion: SmallFeatureExpansion) -> Mapping[str, str]:
    """Fields and averages order by order, as LaTeX."""
    known = _known(expansion)
    eqs = {}
    for field, name in (("h", "h"), ("w", "w"), ("z_tilde", r"\tilde z")):
        for order in (1, 2):
            terms = expansion.series[field].get(order, ())
            if terms:
                eqs[f"{field}{order}"] = rf"{name}_{{{order},\mu}}(t) = {_sum(terms, 1, known, averaged=False)}"
    for name, left, roots in (
        ("Phi0", r"\Phi^{(0)}_{\mu\nu}", 2), ("Phi2", r"\Phi^{(2)}_{\mu\nu}(t,s)", 2), ("G_tilde0", r"\tilde G^{(0)}_{\mu\nu}", 2),
        ("G_tilde2", r"\tilde G^{(2)}_{\mu\nu}(t,s)", 2), ("f0", r"f^{(0)}_{\mu}(t)", 1), ("f2", r"f^{(2)}_{\mu}(t)", 1),
    ):  # fmt: skip
        eqs[name] = f"{left} = {_sum(expansion.averages[name], roots, known, averaged=True)}"
    eqs["entk2"] = r"K^{(2)}_{\mu\nu}(t,s) = \Phi^{(2)}_{\mu\nu}(t,s) + K^x_{\mu\nu}\,\tilde G^{(2)}_{\mu\nu}(t,s)"
    return MappingProxyType(eqs)


def expansion_derivation(expansion: SmallFeatureExpansion) -> Derivation:
    """Order by order."""
    eqs = expansion.equations
    show = lambda *names: tuple(Step(f"{name}.", eqs[name]) for name in names if name in eqs)
    bound = expansion.eqs.bound
    steps = (
        Step("One hidden layer: there are no responses, and the discrete equations are driven by their own past.", None, tuple(
            Step(name.capitalize() + ".", to_latex(expansion.eqs.equations[name]))
            for name in ("preactivation", "readout gradient field", "readout feedback field") if name in expansion.eqs.equations
        )),
        Step(
            "Expand in γ0, with φ and p (the pseudo-gradient is g̃ = p(h) z̃) expanded around u.",
            rf"h = u + \gamma_0 h_1 + \gamma_0^2 h_2 + \dots,\quad \Delta = \Delta^{{(0)}} + \gamma_0^2 \Delta^{{(2)}} + \dots,\quad "
            rf"\varphi = {to_latex(bound.forward)},\quad \tilde g = {to_latex(bound.pseudo_gradient)}",
        ),
        Step("What a step of training makes of earlier ones is written with functionals of the errors.",
             r"\theta_\nu(t) = \tfrac{\eta}{P}\sum_{s<t}\Delta^{(0)}_\nu(s),\qquad I_\nu[X](t) = \tfrac{\eta}{P}\sum_{s<t}\Delta^{(0)}_\nu(s)\,X(s)"),
        Step("The fields, order by order.", None, show("h1", "h2", "w1", "w2", "z_tilde1", "z_tilde2")),
        Step("Every order n of h is even or odd in (w(0), z̃(0)) with n, so odd orders of averages vanish. The Gaussians w(0), z̃(0) have",
             rf"\langle w\tilde z\rangle = {to_latex(expansion.share)},\qquad \langle \tilde z^2\rangle = {to_latex(expansion.variance)}"),
        Step("Kernels.", None, show("Phi0", "Phi2", "G_tilde0", "G_tilde2", "entk2")),
        Step("Output, from third order of ⟨w φ⟩; the correction of the error is minus that of f and enters with the lazy kernel.", None, show("f0", "f2")),
        Step("The Gaussian averages, in entries S_ij of their covariance.", None, tuple(m.step for m in expansion.moments)),
    )  # fmt: skip
    return Derivation(expansion.title(), steps)


def expansion_definitions(expansion: SmallFeatureExpansion) -> list[tuple[str, str]]:
    """The rows of a document's table of definitions."""
    rows = [
        (r"\varphi, \dot\varphi, \ddot\varphi", "the activation and its derivatives, at u"),
        (r"\theta_\nu(t)", "η/P times the sum of the lazy errors of example ν before t"),
        (r"I_\nu[X](t)", "η/P times the sum of Δ_ν(s) X(s) over s < t"),
        (r"\theta^{(2)}_\nu", "the same sum of the errors' correction"),
        (r"w(0), \tilde z(0)", "readout weight and feedback field at initialisation"),
        (r"\langle\cdot\rangle", "average over u, Gaussian with covariance K^x; sums run over training examples"),
    ]
    if expansion.slope not in (sp.diff(expansion.activation, x),):
        rows.append(("p", "the factor of the feedback field in the pseudo-gradient"))
    return rows
