"""Kunin's primitives: derived gradients against SymPy's own matrix derivative, autodiff of the generated R, and known identities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from pylatexenc.latexwalker import LatexWalker

from derive import BadInput, alpha, amp, beta, decay, null, self_feedback, sparse, tied_gradient, x
from derive.errors import DeriveError
from derive.matrix_calculus import Centred, Entrywise, Stop, gradient, open_stops, products
from derive.primitives import B, P, W, X
from numerics import jaxify

PRIMITIVES = {"decay": decay, "amp": amp, "null": null, "sparse": sparse, "self_feedback": self_feedback, "tied_gradient": tied_gradient}
SIGMA = X * X.T / P


def equal(left, right) -> bool:
    return products(left - right) == sp.ZeroMatrix(*left.shape)


@pytest.mark.parametrize(
    "name, on_B, on_W",
    [
        ("decay", 2 * B, 2 * W),
        ("amp", -SIGMA * W.T, -B.T * SIGMA),
        ("null", 2 * B * W * SIGMA * W.T, 2 * B.T * B * W * SIGMA),
        ("sparse", 2 * SIGMA * B, 2 * W * SIGMA),
        ("self_feedback", -W.T, -B.T),
    ],
)
def test_gradients_are_the_published_ones(name, on_B, on_W):
    free = PRIMITIVES[name].configure(update_forward=True)
    assert equal(free.gradient, on_B) and equal(free.forward_gradient, on_W)
    held = PRIMITIVES[name]
    assert equal(held.gradient, on_B) and held.forward_gradient == sp.ZeroMatrix(*W.shape)


@pytest.mark.parametrize("name", [name for name in PRIMITIVES if name != "tied_gradient"])
def test_gradients_are_those_of_sympys_own_matrix_derivative(name):
    """A second method for products of matrices: Trace.diff."""
    free = PRIMITIVES[name].configure(update_forward=True)
    scalar = open_stops(free.expr)
    for matrix, ours in ((B, free.gradient), (W, free.forward_gradient)):
        assert equal(sum((part.diff(matrix) for part in sp.Add.make_args(scalar) if part.has(matrix)), sp.ZeroMatrix(*matrix.shape)), ours)


def test_reversed_null_reconstructs_from_above():
    assert equal(null.configure(reversed=True).gradient, 2 * SIGMA * B * W * W.T)


OPTIONS = [
    dict(zip(("update_forward", "centred", "biased", "reversed", "forward_activation", "backward_activation"), values, strict=True))
    for values in itertools.product((False, True), (False, True), (False, True), (False, True), (None, "tanh"), (None, "relu"))
]


def arguments(seed=0):
    random = np.random.default_rng(seed)
    n, m, samples = 5, 4, 7
    shapes = {"W": (m, n), "B": (n, m), "X": (n, samples), "b": (m, 1), "task_gradient": (m, n)}
    return {name: jnp.asarray(random.normal(size=shape)) for name, shape in shapes.items()}


def worst_error(regulariser) -> float:
    """Of generated gradients against autodiff of the generated R, stop-gradients included."""
    module, values = jaxify(regulariser), arguments()
    given = {name: values[name] for name in ("W", "B", "X", *module.ARGUMENTS)}
    keywords = dict.fromkeys(module.PARAMETERS, 0.7)
    scalar = lambda W, B: module.regulariser(**(given | {"W": W, "B": B}), **keywords)
    found = jax.grad(scalar, argnums=(0, 1))(given["W"], given["B"])
    ours = module.forward_gradient(**given, **keywords), module.feedback_gradient(**given, **keywords)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(found, ours, strict=True))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_generated_gradients_are_those_of_autodiff(name):
    """On every seventh of the 64 kinds of layer, which has each option on and off; rounding of sums of about a hundred numbers of size one."""
    assert max(worst_error(PRIMITIVES[name].configure(**options)) for options in OPTIONS[::7]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIMITIVES)
def test_generated_gradients_are_those_of_autodiff_everywhere(name):
    assert max(worst_error(PRIMITIVES[name].configure(**options)) for options in OPTIONS) < 1e-12


def test_compositions_and_their_parameters():
    composed = (alpha * amp - beta * null / 2 + 3 * decay).configure(centred=True, forward_activation="tanh", biased=True)
    assert [str(p) for p in composed.parameters] == ["alpha", "beta"]
    assert worst_error(composed) < 1e-12


def test_a_missing_stop_gradient_is_noticed():
    """The same R without sg(W), as a deliberately wrong variant, leaks into W."""
    leaking = gradient(open_stops((decay + amp).expr), W)
    assert leaking != sp.ZeroMatrix(*W.shape) and (decay + amp).forward_gradient == sp.ZeroMatrix(*W.shape)


def test_named_compositions_are_squares():
    """Symmetric alignment is ‖B − Wᵀ‖², activation alignment E‖W x − Bᵀx‖², up to a constant; half of either is not."""
    square = lambda M: sum(sp.Trace(part) for part in sp.MatAdd.make_args(products(M.T * M)))
    for regulariser, target in ((2 * self_feedback + decay, square(B - W.T)), (2 * amp + sparse, square(W * X - B.T * X) / P)):
        assert equal(regulariser.gradient, gradient(target, B))
        assert not equal(regulariser.gradient, gradient(target / 2, B))


def test_algebra():
    assert 2 * self_feedback + decay == decay + self_feedback * 2
    assert float(jaxify(amp - amp).regulariser(1, 1, 1)) == 0.0
    assert (amp - amp).coefficients == () and (amp - amp).gradient == sp.ZeroMatrix(*B.shape)
    assert (0.1 * amp).coefficient("amp") == sp.Rational(1, 10)
    assert str(-amp + decay / 2) == "1/2*decay + -1*amp".replace("+ -", "- ")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: amp * null, "a product of regularisers is none"),
        (lambda: amp.configure(centred=True) + null, "differ: a composition sees one layer"),
        (lambda: amp.configure(forward_activation="tahn"), "did you mean 'tanh'"),
        (lambda: jaxify(sp.Symbol("X", real=True) * amp), "cannot be called 'X'"),
    ],
)
def test_what_is_no_composition_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_what_has_no_derivative_rule_is_refused():
    with pytest.raises(DeriveError, match="Inverse"):
        gradient(sp.Trace(sp.Inverse(B * W)), B)
    with pytest.raises(DeriveError, match="no multiple of one trace"):
        gradient(sp.Trace(B * W) ** 2, B)


def test_nodes():
    M = sp.MatrixSymbol("M", 2, 2)
    assert gradient(sp.Trace(Stop(M) * M), M) == M.T
    assert gradient(sp.Trace(Entrywise(x**2, M)), M) == sp.hadamard_product(sp.Identity(2), Entrywise(2 * x, M))
    assert gradient(sp.Trace(M.T * Centred(M)), M).has(Centred)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_documents_parse(name):
    configured = PRIMITIVES[name].configure(update_forward=True, centred=True, biased=True, forward_activation="tanh")
    for regulariser in (PRIMITIVES[name], configured):
        source = regulariser.document()
        assert LatexWalker(source, tolerant_parsing=False).get_latex_nodes()[0]
        assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})
