"""Normal form of piecewise functions: equal functions look equal, and the form is the function."""

from __future__ import annotations

import pytest
import sympy as sp

from derive.activations import activation, elu, hard_tanh, relu
from derive.errors import BadInput
from derive.piecewise import steps_form
from derive.symbols import alpha, x

H = sp.Heaviside


@pytest.mark.parametrize(
    "expr",
    [
        sp.Max(x, 0), x * H(x), (x + sp.Abs(x)) / 2, sp.Piecewise((x, x > 0), (0, True)), sp.Piecewise((0, x <= 0), (x, True)),
        x * (1 + sp.sign(x)) / 2, -sp.Min(-x, 0), x - sp.Min(x, 0), x * H(x) ** 3, x * H(x, 0), x * H(3 * x), x * (1 - H(-x)),
        sp.Max(sp.Max(x, 0), 0), sp.Piecewise((x, (x > 0) & (x < 5)), (0, x <= 0), (x, True)),
    ],
)  # fmt: skip
def test_relu_in_every_spelling(expr):
    assert steps_form(expr) == x * H(x)
    assert activation(expr).name == "relu"


def test_powers_and_clipping():
    assert steps_form(sp.Max(x, 0) ** 2) == x**2 * H(x)
    assert steps_form(sp.Abs(x) ** 3) == 2 * x**3 * H(x) - x**3
    assert steps_form(sp.Min(sp.Max(x, -1), 1)) == steps_form(hard_tanh(x))
    assert activation(sp.Max(sp.Min(x, 1), -1)).name == "hard_tanh"
    assert activation(sp.Piecewise((x, x >= 0), (sp.exp(x) - 1, True))).name == "elu"
    assert steps_form(sp.Max(alpha, x)) == sp.expand(alpha + (x - alpha) * H(x - alpha))
    assert steps_form(sp.Piecewise((x, x > 0), (alpha * x, True))) == sp.expand(alpha * x + (1 - alpha) * x * H(x))


FUNCTIONS = [
    sp.Max(x**2 - 2, 0), sp.Max(x, x**3), sp.Abs(sp.Abs(x) - 1), sp.Max(x, 0) * sp.Max(x, -1), sp.Min(sp.Max(x, 0), 6) / 6,
    sp.exp(-sp.Abs(x - 1)), sp.sin(sp.Max(x, 0)), sp.sign(x**2 - 1) * x, elu(x), hard_tanh(2 * x), relu(x - 1) + relu(-x),
    sp.Piecewise((x, sp.Abs(x) < 1), (x**2, True)),
]  # fmt: skip


@pytest.mark.parametrize("expr", FUNCTIONS)
def test_the_form_is_the_function(expr):
    """Equal at points off the breakpoints, and made of steps only."""
    form = steps_form(expr)
    assert not form.has(sp.Max, sp.Min, sp.Abs, sp.sign, sp.Piecewise)
    for point in ("-2.3", "-1.2", "-0.7", "-0.1", "0.2", "0.8", "1.1", "1.6", "3.1", "7.2"):
        assert abs(sp.N((form - expr).subs(x, sp.Rational(point)), 30)) < 1e-25


def test_wrong_forms_are_told_apart():
    """Negative control: neighbouring functions do not come out as ReLU."""
    for expr in (sp.Max(x, 1), sp.Max(x, -x), sp.Max(2 * x, 0), sp.Max(x - sp.Rational(1, 100), 0), sp.Max(-x, 0)):
        assert steps_form(expr) != x * H(x)
        assert activation(expr).name != "relu"


def test_what_cannot_be_split_is_left_alone():
    assert steps_form(sp.tanh(x)) == sp.tanh(x)
    unordered = sp.Max(x, alpha * x)
    assert steps_form(unordered) == unordered


def test_undefined_piecewise_is_refused():
    with pytest.raises(BadInput, match="undefined"):
        steps_form(sp.Piecewise((x, x > 0)))
