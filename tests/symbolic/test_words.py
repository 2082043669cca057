"""Matrix words: canonical forms against numbers, and the Leibniz rule against finite differences."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from derive.words import Letter, TraceSum, canonical, differentiate, transpose

SIZES = (2, 3, 4)
X, Y, Z = Letter("X", 0, 1), Letter("Y", 1, 2), Letter("Z", 2, 0)
D, E = Letter("D", 1, 1, diagonal=True), Letter("E", 1, 1, diagonal=True)
MATRICES = {
    letter.name: np.diag(random) if letter.diagonal else random.reshape(SIZES[letter.rows], SIZES[letter.columns])
    for letter, random in (
        (letter, np.random.default_rng(n).normal(size=SIZES[letter.rows] * (1 if letter.diagonal else SIZES[letter.columns])))
        for n, letter in enumerate((X, Y, Z, D, E))
    )
}


def value(word, matrices=MATRICES):
    """The trace of the product."""
    product = np.eye(SIZES[word[0].left])
    for letter in word:
        product = product @ (matrices[letter.name].T if letter.transposed else matrices[letter.name])
    return np.trace(product)


@st.composite
def words(draw):
    """Closed walks through the three spaces."""
    steps = {0: [X, Z.T], 1: [Y, X.T, D, E], 2: [Z, Y.T]}
    word = [draw(st.sampled_from(steps[0]))]
    for _ in range(draw(st.integers(0, 6))):
        word.append(draw(st.sampled_from(steps[word[-1].right])))
    back = {0: [], 1: [X.T], 2: [Z]}
    return tuple(word + back[word[-1].right])


@settings(max_examples=100, deadline=None)
@given(words(), st.integers(0, 20), st.booleans())
def test_canonical_form_is_one_for_all_rotations_and_the_transpose(word, turn, flip):
    other = transpose(word) if flip else word
    turn %= len(word)
    assert canonical(other[turn:] + other[:turn]) == canonical(word)
    # sums of up to eight products of numbers of order one: rounding only
    assert value(canonical(word)) == pytest.approx(value(word), rel=1e-10, abs=1e-10)


def test_diagonal_letters_commute_and_others_do_not():
    assert canonical((D, E, Y, Y.T)) == canonical((E, D, Y, Y.T))
    assert canonical((X.T, X, Y, Y.T)) == canonical((Y, Y.T, X.T, X))
    assert canonical((X.T, X, D, Y, Z, X, E)) != canonical((X.T, X, E, Y, Z, X, D))


def test_words_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="X maps from space 1, Z to space 2"):
        canonical((X, Z))


def test_a_sum_of_traces_has_the_derivative_of_its_terms():
    """SymPy's MatrixSymbol derivative of such a sum is zero; here it is Σ of the terms' derivatives, compared with a difference."""
    total = TraceSum.of([(sp.Rational(1, 2), (X, X.T)), (sp.Integer(-3), (X, Y, Z)), (sp.Integer(1), (Y.T, Y, Y.T, Y))])
    velocity = {X: [(sp.Integer(2), (Z.T, Y.T))], Y: [(sp.Integer(-1), (X.T, Z.T))]}
    rate = differentiate(total, velocity)
    M = MATRICES
    speed = {"X": 2 * M["Z"].T @ M["Y"].T, "Y": -M["X"].T @ M["Z"].T}
    number = lambda s, matrices: sum(float(c) * value(w, matrices) for c, w in s.pairs())
    moved = lambda h: M | {name: M[name] + h * v for name, v in speed.items()}
    h = 1e-5
    difference = (number(total, moved(h)) - number(total, moved(-h))) / (2 * h)
    assert number(rate, M) == pytest.approx(difference, rel=1e-7)  # the difference's own error is h² times third derivatives of order 1e2
    assert abs(difference) > 1
