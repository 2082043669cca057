"""Modes of two-layer linear networks: the closed forms against the equation that they solve, and against the readout's own equation."""

import mpmath
import numpy as np
import pytest
import sympy as sp

from derive import two_layer_modes
from derive.two_layer import a, s
from numerics import jaxify

MODES = two_layer_modes()


def test_the_law_agrees_with_the_readouts_own_equation():
    """dg/dt = (s − f) a for g(a) with da/dt = s − f: chain rule."""
    error = s - MODES.strength
    assert sp.expand(MODES.velocity - error) == 0
    assert sp.expand(MODES.readout.diff(a) * error - error * a) == 0


def test_the_derivation_prints_rates_as_text():
    text = str(MODES.derivation())
    assert "ȧ = -a**3/2 + s" in text and "\\" not in text


def test_time_is_the_integral_of_one_over_the_velocity():
    """Against quadrature in 30 digits."""
    with mpmath.workdps(30):
        for target, fraction in ((0.7, 0.3), (2, 0.95)):
            end = fraction * (2 * mpmath.mpf(target)) ** (mpmath.mpf(1) / 3)
            expected = mpmath.quad(lambda q, target=target: 1 / (target - q**3 / 2), [0, end])
            found = MODES.time.subs({s: sp.Float(target, 30), a: sp.Float(end, 30)}).evalf(25)
            assert abs(found - expected) < 1e-12 * expected


def test_limits():
    assert sp.simplify(MODES.strength.subs(a, MODES.limit) - s) == 0
    assert sp.simplify(MODES.late_rate - sp.Rational(3, 2) * (2 * s) ** sp.Rational(2, 3)) == 0
    assert float((MODES.half_time * s ** sp.Rational(2, 3)).subs(s, 3)) == pytest.approx(1.18144, abs=5e-6)
    assert MODES.final_cosine((2.0,), 1) == pytest.approx(1)


def test_generated_functions():
    functions = jaxify(MODES)
    amplitudes = np.linspace(0.1, 1.0, 5)
    np.testing.assert_allclose(functions.strength(amplitudes), amplitudes**3 / 2, rtol=1e-14)
    times = [float(MODES.time.subs({a: each, s: 1.5})) for each in amplitudes]
    np.testing.assert_allclose(functions.time(amplitudes, 1.5), times, rtol=1e-12)
