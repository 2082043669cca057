"""Losses and steps as data: error signals by derivation, weights of the past in closed form, and what they do to the equations."""

import numpy as np
import pytest
import sympy as sp

from derive import (
    FA,
    GD,
    MLP,
    Abs,
    BadInput,
    Evolution,
    Feedback,
    Loss,
    Max,
    Piecewise,
    Rational,
    Rule,
    Training,
    alpha,
    beta,
    dmft_equations,
    dphi,
    eta,
    f,
    h,
    lam,
    log_Z,
    rho,
    symmetric_alignment,
    weight_mirror,
    y,
    z,
)  # fmt: skip
from derive import fields as F
from derive.fields import c, d, ell, mu, nu, s, t
from derive.loss import LOSSES
from numerics import jaxify
from numerics.objective import Objective

C = sp.Symbol("C", integer=True, positive=True)
CASES = [(beta, 0), (0, lam), (beta, lam), (Rational(9, 10), Rational(1, 10))]


@pytest.mark.parametrize("momentum, decay", CASES)
def test_weights_of_the_past_are_those_of_the_steps(momentum, decay):
    """Carry θ as coefficients on θ(0) and on the updates u(0), u(1), … through θ ← θ + v, v ← β v + u − ηλ θ."""
    training = Training(momentum=momentum, weight_decay=decay)
    theta, v = {"start": sp.Integer(1)}, {}
    for now in range(5):
        expected = {"start": training.kept(sp.Integer(now)), **{made: training.memory(sp.Integer(now - made)) for made in range(now)}}
        assert all(sp.simplify(theta.get(key, 0) - value) == 0 for key, value in expected.items()), now
        keys = {*theta, *v, now}
        v = {key: momentum * v.get(key, 0) - eta * decay * theta.get(key, 0) + int(key == now) for key in keys}
        theta = {key: theta.get(key, 0) + v[key] for key in keys}


HUBER = Loss("Huber", Piecewise(((f - y) ** 2 / 2, Abs(f - y) < 1), (Abs(f - y) - Rational(1, 2), True)))
CASEWISE = Loss("cases", f / 9 + Piecewise((3 * sp.log(f - y), (f - y > 1) & (f < 9)), (0, sp.Eq(f, y)), ((f - y) ** 2, f > y), (y * f, True)))
OWN = (Loss("hinge", Max(0, 1 - y * f)), Loss("absolute", Abs(y - f)), Loss("perceptron", Piecewise((-y * f, y * f < 0), (0, True))), HUBER, CASEWISE)


@pytest.mark.parametrize("loss", [*LOSSES.values(), *OWN], ids=lambda e: e.name)
def test_error_signals_are_minus_the_slope_of_the_generated_loss(loss):
    random = np.random.default_rng(1)
    outputs, targets = random.normal(size=(4, 3)) * 3, np.eye(3)[[0, 2, 1, 1]] * 2 - (0 if loss.coupled else 1)
    module, step = jaxify(loss.source()), 1e-6
    for k in range(3):
        shift = step * np.eye(3)[k]
        slope = np.sum(module.loss(outputs + shift, targets) - module.loss(outputs - shift, targets), axis=-1) / (2 * step)
        # central differences: step² and rounding / step
        np.testing.assert_allclose(module.error(outputs, targets)[:, k], -slope, atol=2e-9)
    far = np.array([[800.0, -800.0, 0.0]])
    assert np.all(np.isfinite(module.error(far, targets[:1])))


def test_shipped_losses_are_what_is_derived():
    for name, loss in LOSSES.items():
        assert Objective.of(name).source == loss.source()


def test_default_training_leaves_the_equations_alone():
    for rule in (GD(), FA(rho), symmetric_alignment()):
        net = MLP(2, "tanh", sigma_b=Rational(1, 2))
        plain, spelled = dmft_equations(rule, net), dmft_equations(rule, net, Training(loss=(y - f) ** 2 / 2, momentum=0))
        assert plain.equations == spelled.equations
        assert not any(equation.atoms(F.TimeFunction) for equation in plain.equations.values())


def test_momentum_decay_and_batches_weigh_what_was_learned():
    eqs = dmft_equations(GD(), MLP(2, "tanh"), Training(momentum=beta, weight_decay=lam, batches=True)).equations
    u, kept, weight = F.field_u(ell, mu, t), F.kept(t), F.memory(t, s) * F.share(nu, s) * F.error(nu, s)
    right = sp.expand(eqs["preactivation"].rhs)
    assert right.coeff(u) == kept
    learned = F.c0 * sp.Sum(weight * F.Phi(ell - 1, mu, nu, t, s) * F.field_g(ell, nu, s), (nu, 1, F.P), (s, 0, t - 1))
    assert right.coeff(F.c0) * F.c0 == learned
    assert {"initial weights left", "memory of updates", "first root"} <= set(eqs)
    # frozen feedback does not decay, the transported weights do
    fa = dmft_equations(FA(rho), MLP(2, "tanh"), Training(weight_decay=lam)).equations
    assert not fa["feedback field"].rhs.has(kept) and fa["gradient field"].rhs.has(kept)


def test_the_loss_enters_through_the_error_only():
    plain, logistic = (dmft_equations(GD(), MLP(2, "tanh"), Training(loss=loss)).equations for loss in ("squared", "logistic"))
    assert {name for name in plain if plain[name] != logistic[name]} == {"error"}
    target = F.target[mu]
    assert sp.simplify(logistic["error"].rhs - target / (1 + sp.exp(target * F.output(mu, t)))) == 0


def test_learning_feedback_takes_in_weights_that_decay():
    """B's coefficient on W(0)ᵀ, iterated, against the equation's sum."""
    rate, decay, step = Rational(1, 5), Rational(1, 10), Rational(1, 2)
    training = Training(weight_decay=decay)
    terms = dmft_equations(symmetric_alignment(rate, rho=Rational(3, 10)), MLP(2, "tanh"), training)
    b, left = Rational(3, 10), sp.Integer(1)
    for now in range(4):
        found = terms.on_initial.subs(t, now).doit().replace(F.kept, lambda when: training.kept(when)).subs(eta, step)
        assert sp.simplify(found - b) == 0
        b, left = (1 - rate) * b + rate * left, left * (1 - step * decay)


def test_learning_feedback_takes_in_updates_that_decay():
    """B's weight of the update made at 0, iterated, against the equation's sum: the update is in W one step after it was made."""
    rate, decay, step, share = Rational(1, 5), Rational(1, 10), Rational(1, 2), Rational(1, 3)
    evolution = Evolution(decay=rate, pull=rate, copy=share)
    for training in (Training(weight_decay=decay), Training(weight_decay=decay, momentum=Rational(1, 4))):
        rule = Rule("both", dphi(h) * z, Feedback(independent=1, evolution=evolution))
        terms = dmft_equations(rule, MLP(2, "tanh"), training)
        weight = [training.memory(sp.Integer(now)).subs(eta, step) for now in range(5)]
        assert sp.simplify(weight[0]) == 0 and sp.simplify(weight[1] - 1) == 0
        b = sp.S.Zero
        for now in range(4):
            spelled = terms.feedback_memory.subs({s: 0, t: now}).doit().replace(F.memory, lambda at, made, each=training: each.memory(at - made))
            assert sp.simplify(spelled.subs(eta, step) - b) == 0
            b = (1 - rate) * b + rate * weight[now] + share * (weight[now + 1] - weight[now])


def test_outputs_index_what_comes_back_and_nothing_else():
    eqs = dmft_equations(FA(rho), MLP(2, "tanh"), Training(loss="cross-entropy", outputs=C)).equations
    one, two = F.with_output(mu, c), F.with_output(nu, d)
    learned = F.error(two, s) * F.Phi(ell - 1, mu, nu, t, s) * F.field_g_tilde(ell, two, s)
    assert sp.expand(eqs["preactivation"].rhs).coeff(F.c0) == sp.Sum(learned, (nu, 1, F.P), (d, 1, C), (s, 0, t - 1))
    assert eqs["G_tilde"].lhs == F.G_tilde(ell, one, two, t, s) and eqs["Phi"].lhs == F.Phi(ell, mu, nu, t, s)
    assert eqs["response A"].lhs == F.A(ell, mu, two, t, s) and eqs["response B_tilde"].lhs == F.B_tilde(ell, one, nu, t, s)
    two_outputs = dmft_equations(GD(), MLP(1, "tanh"), Training(loss="cross-entropy", outputs=2)).equations["error"].rhs
    probability = sp.exp(F.output(one, t)) / sp.Sum(sp.exp(F.output(F.with_output(mu, d), t)), (d, 1, 2))
    assert sp.simplify(two_outputs - F.target[mu, c] + probability * sp.Sum(F.target[mu, d], (d, 1, 2))) == 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Loss("no output", y**2), "does not depend on the output"),
        (lambda: Loss("stranger", (y - f) ** 2 * h), "contains h"),
        (lambda: Loss("gap", Piecewise((f, f > 1), (-f, f < y))), "has no value outside its conditions: end it with .value, True."),
        (lambda: Training(loss="hinge"), "loss='hinge' is not known"),
        (lambda: Training(loss=3), "loss=3 is not a loss"),
        (lambda: Training(momentum=1), "momentum=1 is out of range"),
        (lambda: Training(weight_decay=-1), "weight_decay=-1 is out of range"),
        (lambda: Training(loss="cross-entropy"), "give outputs=C"),
        (lambda: Training(outputs=0), "outputs=0"),
        (lambda: dmft_equations(GD(), MLP(1), "adam"), "training='adam'"),
        (lambda: dmft_equations(weight_mirror(), MLP(2), Training(outputs=3)), "no output index"),
        (lambda: dmft_equations(GD(), MLP(2), Training(momentum=beta)).limits(), "these have momentum beta"),
        (lambda: dmft_equations(GD(), MLP(2, "linear"), Training(loss="logistic")).linear(), "these have logistic loss"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_documents_tell_how_training_goes():
    training = Training(loss="logistic", momentum=beta, weight_decay=lam, batches=True)
    rule = Rule("learning", dphi(h) * z, Feedback(independent=1, evolution=Evolution(decay=alpha, copy=1)))
    text = str(dmft_equations(rule, MLP(2, "tanh"), training).derivation())
    for part in ("v ←β v + u", "ω_ν(s) = P/|", "y/(exp(f*y) + 1)", "r_+", "k(t,s)"):
        assert part in text, part
    assert log_Z in LOSSES["cross-entropy"].expr.free_symbols
