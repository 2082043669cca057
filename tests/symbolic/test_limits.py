"""Limits of the mean-field equations: taken for every rule, told line by line, and wrong ones noticed."""

import pytest

from derive import DFA, FA, GD, GLN, MLP, DeriveError, Feedback, Hebb, Rule, alpha, dmft_equations, dphi, h, rho, sqrt, z
from derive import dmft_limits as limits_module

NO_SLOPE = Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2)))
MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))


@pytest.mark.parametrize("rule", [GD(), FA(rho), FA([rho, 0.5]), DFA(), Hebb(), GLN(), NO_SLOPE, MIXTURE], ids=lambda r: r.name)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_all_limits_come_out(rule, activation):
    text = str(dmft_equations(rule, MLP(2, activation)).limits())
    assert "It is the lazy kernel." in text and "there are no responses: the two-layer theory" in text


def test_fa_without_alignment_loses_its_responses():
    text = str(dmft_equations(FA(rho), MLP(3, "relu")).limits())
    assert "rho → 0." in text and "A vanishes: the feedback path never applies W(0)ᵀ" in text
    assert "The feedback field simplifies." in text and "The preactivation loses a term." in text


def test_linear_and_scalar_limits_are_named_or_refused():
    assert "close on covariances" in str(dmft_equations(GD(), MLP(2, "relu")).limits())
    assert "no clock" in str(dmft_equations(Hebb(), MLP(2, "relu")).limits())
    assert "has gates" in str(dmft_equations(GLN(), MLP(2, "relu")).limits())


def test_a_wrong_limit_is_an_error(monkeypatch):
    monkeypatch.setattr(limits_module, "lazy_limit", lambda eqs: (rho,) * (eqs.net.depth + 1))
    with pytest.raises(DeriveError, match="but the lazy kernel is"):
        dmft_equations(GD(), MLP(1, "relu")).limits()
