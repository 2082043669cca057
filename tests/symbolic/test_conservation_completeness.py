"""The laws that are found are all there are: compared, on small networks, with every conserved polynomial of degree two."""

import numpy as np
import pytest
import sympy as sp
from polynomial_laws import PRIME, Case, count, equations, monomials, rank

from derive import DFA, FA, GD, MLP, conservation_laws, kolen_pollack, lam
from derive.conservation_check import SmallNetwork

RULES = {"FA": FA, "DFA": DFA, "GD": GD, "KP": lambda: kolen_pollack(0)}


def laws_of(case: Case):
    """What the symbolic search finds for the same network, unit scales."""
    act = "linear" if case.linear else {0: "tanh", 1: "relu", 2: "relu2"}[case.degree]
    rule = kolen_pollack(lam) if case.rule == "KP" and case.decay else RULES[case.rule]()
    return conservation_laws(rule, MLP(case.depth, act, sigma_b=1 if case.biased else 0), decay=lam if case.decay else 0)


def as_rows(case: Case, laws, frozen) -> np.ndarray:
    """Every entry of every law as a row of coefficients of monomials, modulo the prime; frozen weights put in."""
    place = {term: column for column, term in enumerate(map(frozenset_or_pair, monomials(case)))}
    entries = {name: sp.Matrix(*shape, lambda i, j, n=name: sp.Symbol(f"{n}[{i},{j}]")) for name, shape in case.moving().items()}
    names = {symbol: (name, i, j) for name, matrix in entries.items() for (i, j), symbol in np.ndenumerate(np.array(matrix))}
    rows = []
    for law in laws:
        network = SmallNetwork(law.flow, case.widths, 1, 0)
        network.__dict__["values"] = dict.fromkeys((symbol for c in law.found.total.terms.values() for symbol in c.free_symbols), sp.S.One)
        weights = entries | {name: sp.Matrix(matrix.tolist()) for name, matrix in (frozen | factors(case, frozen)).items()}
        total = sum((sp.Matrix(term) for term in evaluate(network, law, weights)[1:]), evaluate(network, law, weights)[0])
        for value in total:
            row = np.zeros(len(place), dtype=np.int64)
            for powers, coefficient in sp.Poly(sp.expand(value), *names).terms():
                inside = [symbol for symbol, power in zip(names, powers, strict=True) for _ in range(power)]
                numerator, denominator = int(coefficient.p), int(coefficient.q)
                row[place[frozenset_or_pair(tuple(names[s] for s in inside))]] = numerator * pow(denominator, -1, PRIME) % PRIME
            rows.append(row)
    return np.array(rows)


def evaluate(network, law, weights):
    """Terms of a law over given matrices; `SmallNetwork.at` is for numbers, so coefficients are put in here."""
    return [
        coefficient.subs(network.values) * network._word(word, law.kind, weights) for coefficient, word in law.found.total.pairs()
    ]  # fmt: skip


def factors(case: Case, frozen) -> dict[str, np.ndarray]:
    """C with F_{ℓ+1} C_ℓ = F_ℓ for square F, modulo the prime."""
    if case.rule != "DFA":
        return {}
    inverse = lambda F: np.array(sp.Matrix(F.tolist()).inv_mod(PRIME).tolist(), dtype=object)
    found = {}
    for l in range(1, case.depth):
        if case.widths[l + 1] == case.widths[-1]:
            found[f"C{l}"] = inverse(frozen[f"F{l + 1}"]).dot(frozen[f"F{l}"].astype(object)) % PRIME
    return found


def frozenset_or_pair(term):
    """A monomial whatever the order of its factors."""
    return tuple(sorted(term))


@pytest.mark.parametrize(
    "case, expected",
    [
        (Case((2, 3, 3), "FA"), 3),
        (Case((2, 3, 3), "FA", linear=True), 6),
        (Case((2, 2, 2, 2), "FA"), 4),
        (Case((2, 2, 2, 2), "FA", linear=True), 6),
        (Case((2, 2, 2, 2), "FA", degree=2), 4),
        (Case((2, 2, 2), "FA", biased=True), 2),
        (Case((2, 2, 2), "FA", biased=True, linear=True), 3),
        (Case((2, 2, 2), "FA", degree=0), 0),
        (Case((2, 2, 2), "FA", decay=3), 0),
        (Case((2, 2, 2, 2), "GD"), 4),
        (Case((2, 2, 2, 2), "GD", linear=True), 6),
        (Case((2, 2, 2), "GD", decay=3), 2),
        (Case((2, 2, 2, 2), "DFA"), 2),
        (Case((2, 2, 2, 2), "DFA", linear=True), 6),
    ],
    ids=str,
)
def test_no_law_is_missed_and_none_is_false(case, expected):
    """As many as conserved polynomials, each of them one, independent of one another. Layer laws are sums of neuron laws."""
    frozen = case.frozen(np.random.default_rng(5))
    laws = [law for law in laws_of(case) if not any(name.startswith("M") for name in law.letters)]
    found = as_rows(case, laws, frozen)
    conditions = equations(case, frozen)
    assert conditions.shape[1] - rank(conditions) == expected
    assert rank(found) == expected
    if len(found):
        stacked = np.array([[int(sum(int(a) * int(b) for a, b in zip(row, law, strict=True)) % PRIME) for row in conditions] for law in found])
        assert not stacked.any()


def test_dead_directions_are_the_laws_that_the_search_does_not_propose():
    """2-3-2 linear FA: B c = 0 for one c, so that the 2 entries of cᵀW are constant, and their 3 products, of which the matrix law has one."""
    case = Case((2, 3, 2), "FA", linear=True)
    frozen = case.frozen(np.random.default_rng(5))
    assert count(case, frozen) == 6 + 2 + 3 - 1
    assert rank(as_rows(case, laws_of(case), frozen)) == 6


def test_kolen_pollack_has_the_difference_and_its_products():
    """2-2-2 relu: W − B is constant (4 entries, 10 products) and each neuron has its law (2)."""
    case = Case((2, 2, 2), "KP")
    assert count(case, {}) == 4 + 10 + 2
    assert rank(as_rows(case, laws_of(case), {})) == 4 + 2


def test_a_false_law_is_noticed():
    """The law of linear units on units that are only homogeneous: not in the nullspace."""
    linear, relu = Case((2, 2, 2), "FA", linear=True), Case((2, 2, 2), "FA")
    frozen = relu.frozen(np.random.default_rng(5))
    rows = as_rows(relu, [law for law in laws_of(linear) if law.kind == "matrix"], frozen)
    conditions = equations(relu, frozen)
    residual = np.array([[sum(int(a) * int(b) for a, b in zip(row, law, strict=True)) % PRIME for row in conditions] for law in rows])
    assert residual.any(axis=1).sum() == 2, "the off-diagonal entries are false, the diagonal ones are the neurons' laws"
