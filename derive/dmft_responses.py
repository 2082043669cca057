"""Which response functions a rule has: a search in the graph of who depends on whom.

The nodes are the single-site fields of a layer; an arrow says that one field's equation contains the other. A response ⟨∂a/∂b⟩ can be
non-zero only if a path leads from b to a. The arrow from the activities F(h) back into the feedback field exists only if the learned weights
are transported or if B̃ itself is non-zero one layer up, so the search starts at the readout, where B̃ = 0, and takes the least fixed point.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import sympy as sp

from . import fields as F
from .fields import ell, mu, nu, s, t
from .symbols import h, z

if TYPE_CHECKING:
    from .dmft import DMFTEquations, Response

Graph = Mapping[str, tuple[str, ...]]


def dependency_graph(eqs: DMFTEquations, reaction: bool) -> Graph:
    """Arrows field → fields whose equations contain it.

    Args:
        reaction: whether B̃ ≠ 0 is assumed, which feeds the activities back into z̃.
    """
    used = eqs.rule.pseudo_gradient.free_symbols
    arrows: dict[str, list[str]] = {
        "u": ["h"],
        "h": ["F(h)", "g"],
        "g̃": ["h"],
        "r": ["z"],
        "z": ["g"],
        "F(h)": ["z"],
        "g": [],
        "z̃": [],
        "ζ": [],
    }
    if h in used:
        arrows["h"].append("g̃")
    if z in used:
        arrows["z̃"].append("g̃")
    if eqs.carried != 0:
        arrows["ζ"].append("z̃")
    if eqs.owns_matrix:
        arrows["q"] = ["z̃"]
    learned = eqs.rule.evolution is not None and (eqs.rule.evolution.memory(t, s) != 0 or eqs.rule.evolution.outer != 0)
    if eqs.coefficient("transported") != 0 or learned or (reaction and eqs.carried != 0):
        arrows["F(h)"].append("z̃")
    if eqs.mirrors:
        # ω ends here: the layer below sees its overlaps with g̃ and h alone
        arrows |= {"p": ["ω"], "ω": []}
        arrows["u"].append("ω")
    if eqs.null != 0:
        arrows |= {"ϑ": ["ψ"], "χ": ["ψ"], "ψ": ["z̃"]}
        arrows["F(h)"].append("ψ")
    return {source: tuple(targets) for source, targets in arrows.items()}


def chain(graph: Graph, source: str, target: str) -> tuple[str, ...]:
    """The shortest path from source to target, empty if there is none."""
    queue, parents = deque([source]), {source: ""}
    while queue:
        node = queue.popleft()
        if node == target:
            path = [node]
            while parents[path[-1]]:
                path.append(parents[path[-1]])
            return tuple(reversed(path))
        for following in graph.get(node, ()):
            if following not in parents:
                parents[following] = node
                queue.append(following)
    return ()


def find_responses(eqs: DMFTEquations) -> tuple[Response, ...]:
    """A, B̃, for rules that do not follow the gradient ∂F/∂r and B, and those of feedback weights that learn from what they carry."""
    if eqs.net.depth == 1:
        return ()
    at_rest = chain(dependency_graph(eqs, reaction=False), "u", "g̃")
    graph = dependency_graph(eqs, reaction=bool(at_rest))
    found = [_forward_response(eqs, graph), _backward_response(eqs, at_rest)]
    if not eqs.follows_gradient:
        found += [_observed_forward_response(eqs, graph), _observed_backward_response(eqs, graph)]
    return tuple(found + _responses_of_learning_feedback(eqs, graph))


def _responses_of_learning_feedback(eqs: DMFTEquations, graph: Graph) -> list[Response]:
    """What feedback weights that learn from ω or ψ add: V is met from both sides, and preactivations come down beside the pseudo-gradients."""
    below, above = (ell, mu, t), (ell, nu, s)
    features, preactivation = eqs.forward(*below), F.field_h(ell + 1, mu, t)
    pairs: list[tuple[type, sp.Expr, sp.Expr, str, str]] = []
    if eqs.mirrors and eqs.owns_matrix:
        pairs.append((F.A_V, features, F.field_q(*above), "q", "F(h)"))
        pairs.append((F.B_V, eqs.g_tilde(ell + 1, mu, t), F.field_p(ell + 1, nu, s), "p", "g̃"))
    if eqs.null != 0 and eqs.on_initial != 0:
        pairs.append((F.D, features, F.field_theta(*above), "ϑ", "F(h)"))
        pairs.append((F.E, preactivation, F.field_u(ell + 1, nu, s), "u", "h"))
    if eqs.null != 0 and eqs.mirrors and eqs.owns_matrix:
        pairs.append((F.D_V, features, F.field_chi(*above), "χ", "F(h)"))
        pairs.append((F.E_V, preactivation, F.field_p(ell + 1, nu, s), "p", "h"))
    found = []
    for kind, of, to, source, target in pairs:
        path = chain(graph, source, target)
        why = "" if path else "p enters ω alone, and of ω the layer below sees overlaps, no layer the field itself"
        found.append(_response(kind(ell, mu, nu, t, s), of, to, path, why))
    return found


def _response(kernel: sp.Expr, of: sp.Expr, to: sp.Expr, path: tuple[str, ...], why_zero: str) -> Response:
    from .dmft import Response

    return Response(kernel, sp.Eq(kernel, F.average(F.partial(of, to)), evaluate=False), path, why_zero)


def _forward_response(eqs: DMFTEquations, graph: Graph) -> Response:
    """A = ⟨∂F(h)/∂ζ⟩: the activities react to the field that comes down through W(0)ᵀ."""
    zeta = "ζ" if not eqs.follows_gradient else "r"
    path = chain(graph, "ζ", "F(h)")
    why = ""
    if eqs.carried == 0:
        why = "the feedback path never applies W(0)ᵀ (its coefficient on W(0) is 0), so no field of the dynamics comes down through W"
    elif not path:
        why = "the pseudo-gradient does not contain the feedback field, so h never depends on it"
    kernel = F.A(ell, mu, eqs.nu_back, t, s)
    names = tuple(zeta if node == "ζ" else node for node in path) if not why else ()
    return _response(kernel, eqs.forward(ell, mu, t), eqs.zeta(ell, eqs.nu_back, s), names, why)


def _backward_response(eqs: DMFTEquations, path: tuple[str, ...]) -> Response:
    """B̃ = ⟨∂g̃/∂u⟩: the pseudo-gradients above react to the field that goes up through W(0)."""
    why = ""
    if eqs.carried == 0:
        why = "the feedback path never applies W(0)ᵀ, so nothing conjugate to the forward products enters it"
    elif not path:
        why = (
            "the pseudo-gradient contains h neither directly nor through the feedback field: at the readout z̃ is frozen, and from there "
            "down, layer by layer, nothing in z̃ depends on u"
        )
    kernel = eqs.B_tilde(ell, eqs.mu_back, nu, t, s)
    return _response(kernel, eqs.g_tilde(ell + 1, eqs.mu_back, t), F.field_u(ell + 1, nu, s), path if not why else (), why)


def _observed_forward_response(eqs: DMFTEquations, graph: Graph) -> Response:
    """⟨∂F(h)/∂r⟩, which must vanish: the true gradient is observed, not used."""
    class_ = F._kind(F.Kernel, "A_r", r"\bar A")
    path = chain(graph, "r", "F(h)")
    why = "" if path else "the true gradient is only observed: r enters z and g, and neither enters any update, so h never depends on r"
    return _response(class_(ell, mu, eqs.nu_back, t, s), eqs.forward(ell, mu, t), F.field_r(ell, eqs.nu_back, s), path, why)


def _observed_backward_response(eqs: DMFTEquations, graph: Graph) -> Response:
    """B = ⟨∂g/∂u⟩, needed for the observed true gradient."""
    path = chain(graph, "u", "g")
    return _response(F.B(ell, eqs.mu_back, nu, t, s), F.field_g(ell + 1, eqs.mu_back, t), F.field_u(ell + 1, nu, s), path, "")
