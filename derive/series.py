"""Perturbation series of single-site fields in γ0, as sums of formal terms.

A term is a number × time functionals × kernel entries K_ij × one function of u_i for each index i × powers of the Gaussians w(0) and z̃(0).
Index 0 is the field's own example, the others are summed over the training examples. A time functional is what a step of training makes
of earlier ones: I_ν[X](t) = (η/P) Σ_{s<t} Δ_ν(s) X(s).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import sympy as sp

from .symbols import x

Series = dict[int, tuple["Term", ...]]


@dataclass(frozen=True, order=True)
class Node:
    """I_ν[Π children](t) = (η/P) Σ_{s<t} Δ_ν(s) Π children(s).

    Attributes:
        index: ν.
        children: time functionals inside the sum.
        order: 0 for the error's lazy part Δ⁽⁰⁾, 2 for its correction Δ⁽²⁾.
    """

    index: int
    children: tuple[Node, ...] = ()
    order: int = 0

    def relabelled(self, to: dict[int, int]) -> Node:
        return Node(to.get(self.index, self.index), tuple(sorted(child.relabelled(to) for child in self.children)), self.order)

    @property
    def indices(self) -> tuple[int, ...]:
        """All indices, this node's first."""
        return (self.index, *(i for child in self.children for i in child.indices))

    @property
    def corrected(self) -> bool:
        """Whether Δ⁽²⁾ enters."""
        return self.order == 2 or any(child.corrected for child in self.children)


@dataclass(frozen=True)
class Term:
    """One summand of a field; see the module's text.

    Attributes:
        number: coefficient.
        nodes: time functionals at the field's time.
        kernels: pairs (i, j) of K_ij, i ≤ j.
        functions: (index, expression in x).
        powers: powers of w(0) and z̃(0).
        later: time functionals at a second time, in averages of two fields.
    """

    number: sp.Expr
    nodes: tuple[Node, ...] = ()
    kernels: tuple[tuple[int, int], ...] = ()
    functions: tuple[tuple[int, sp.Expr], ...] = ()
    powers: tuple[int, int] = (0, 0)
    later: tuple[Node, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """All indices in use, sorted."""
        found = {i for node in (*self.nodes, *self.later) for i in node.indices}
        return tuple(sorted(found | {i for pair in self.kernels for i in pair} | {i for i, _ in self.functions} | {0}))

    @property
    def sorted_functions(self) -> tuple[tuple[sp.Expr, ...], tuple[int, ...]]:
        """The functions in an order of their own, and their indices: averages over permuted examples are one average."""
        pairs = sorted(self.functions, key=lambda pair: (sp.default_sort_key(pair[1]), pair[0]))
        return tuple(f for _, f in pairs), tuple(i for i, _ in pairs)

    def relabelled(self, to: dict[int, int]) -> Term:
        """With other names for the indices."""

        def at(i: int) -> int:
            return to.get(i, i)

        put = lambda nodes: tuple(sorted(node.relabelled(to) for node in nodes))
        pairs = tuple(sorted((min(at(i), at(j)), max(at(i), at(j))) for i, j in self.kernels))
        functions = tuple(sorted(((at(i), f) for i, f in self.functions), key=lambda pair: pair[0]))
        return replace(self, nodes=put(self.nodes), kernels=pairs, functions=functions, later=put(self.later))

    def canonical(self, roots: int = 1) -> Term:
        """Summed indices in the first of all orders, so that equal terms look equal."""
        dummies = [i for i in self.indices if i >= roots]
        names = range(roots, roots + len(dummies))
        candidates = [self.relabelled(dict(zip(order, names, strict=True))) for order in itertools.permutations(dummies)]
        return min(candidates, key=lambda t: (t.nodes, t.later, t.kernels, [(i, sp.default_sort_key(f)) for i, f in t.functions]))

    @property
    def key(self) -> Term:
        """The term without its coefficient."""
        return replace(self, number=sp.Integer(1))


def constant(number: sp.Expr | int = 1, powers: tuple[int, int] = (0, 0), function: sp.Expr | int = 1) -> Term:
    """number · w(0)^a z̃(0)^b · function(u₀)."""
    functions = () if function == 1 else ((0, sp.sympify(function)),)
    return Term(sp.sympify(number), functions=functions, powers=powers)


def multiply(first: Term, second: Term, roots: int = 1) -> Term:
    """The product of two terms with common roots 0…roots−1; summed indices are kept apart."""
    free = max(roots, max(first.indices) + 1)
    moved = second.relabelled({i: free + k for k, i in enumerate(i for i in second.indices if i >= roots)})
    functions = dict(first.functions)
    for index, f in moved.functions:
        functions[index] = functions.get(index, sp.Integer(1)) * f
    return Term(
        first.number * moved.number,
        tuple(sorted((*first.nodes, *moved.nodes))),
        tuple(sorted((*first.kernels, *moved.kernels))),
        tuple(sorted(((i, f) for i, f in functions.items() if f != 1), key=lambda pair: pair[0])),
        (first.powers[0] + moved.powers[0], first.powers[1] + moved.powers[1]),
        tuple(sorted((*first.later, *moved.later))),
    )


def product(first: Series, second: Series, highest: int) -> Series:
    """The product of two series up to an order."""
    result: Series = {}
    for i, left in first.items():
        for j, right in second.items():
            if i + j <= highest:
                terms = (multiply(a, b) for a in left for b in right)
                result[i + j] = (*result.get(i + j, ()), *terms)
    return {order: collect(terms) for order, terms in result.items()}


def collect(terms: Iterable[Term], roots: int = 1) -> tuple[Term, ...]:
    """Equal terms added up."""
    totals: dict[Term, sp.Expr] = {}
    for term in terms:
        term = term.canonical(roots)
        totals[term.key] = totals.get(term.key, sp.Integer(0)) + term.number
    return tuple(replace(key, number=value) for key, total in totals.items() if (value := sp.expand(total)) != 0)


def taylor(function: sp.Expr, shift: Series, highest: int) -> Series:
    """function(u + shift), a series whose shift starts at order 1."""
    result: Series = {0: (constant(function=function),)} if function != 0 else {}
    power: Series = {0: (constant(),)}
    derivative = function
    for k in range(1, highest + 1):
        derivative = sp.diff(derivative, x)
        power = product(power, shift, highest)
        if derivative == 0:
            break
        outer: Series = {0: (constant(sp.Rational(1, sp.factorial(k)), function=derivative),)}
        for order, terms in product(outer, power, highest).items():
            result[order] = collect((*result.get(order, ()), *terms))
    return result


def learn(inner: Series, order: int, share: sp.Expr, kernel: bool) -> tuple[Term, ...]:
    """The field of an order that training builds: Σ_ν [K_0ν] share (η/P) Σ_{s<t} Δ_ν(s) inner_ν(s), Δ = Δ⁽⁰⁾ + γ0² Δ⁽²⁾."""
    terms = []
    for correction in (0, 2):
        for term in inner.get(order - 1 - correction, ()):
            moved = term.relabelled({i: i + 1 for i in term.indices})
            node = Node(1, moved.nodes, correction)
            pairs = ((0, 1), *moved.kernels) if kernel else moved.kernels
            terms.append(replace(moved, number=share * moved.number, nodes=(node,), kernels=tuple(sorted(pairs))))
    return collect(terms)


def pair(first: Series, second: Series, order: int) -> tuple[Term, ...]:
    """first at (μ, t) times second at (ν, s) at an order, with roots 0 = μ and 1 = ν and the second's functionals in `later`."""
    terms = []
    for i, left in first.items():
        for j, right in second.items():
            if i + j == order:
                for a in left:
                    a2 = a.relabelled({k: k + 1 for k in a.indices if k > 0})
                    for b in right:
                        b2 = b.relabelled({k: k + 1 for k in b.indices})
                        terms.append(multiply(a2, replace(b2, nodes=(), later=b2.nodes), roots=2))
    return collect(terms, roots=2)
