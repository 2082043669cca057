"""From compositions of primitives to rules: what a derived gradient becomes, and what is refused."""

import pytest
import sympy as sp

from derive import (
    MLP,
    BadInput,
    Evolution,
    EvolvingFeedback,
    Rule,
    Training,
    activation_alignment,
    alpha,
    amp,
    backpropagation,
    beta,
    decay,
    dmft_equations,
    feedback_alignment,
    h,
    information_alignment,
    kappa,
    kolen_pollack,
    lam,
    lazy_kernel,
    null,
    omega,
    rho,
    self_feedback,
    sparse,
    symmetric_alignment,
    tied_gradient,
    weight_mirror,
)


@pytest.mark.parametrize(
    "rule, update",
    [
        (symmetric_alignment(), Evolution(decay=lam, pull=lam)),
        (kolen_pollack(), Evolution(decay=lam, copy=1)),
        (weight_mirror(), Evolution(decay=beta, outer=alpha * h)),
        (information_alignment(), Evolution(decay=beta, outer=alpha * h, null=kappa)),
        (activation_alignment(), Evolution(outer=lam * h - lam * omega)),
        (backpropagation(), Evolution(copy=1)),
        (feedback_alignment(), None),
        (EvolvingFeedback(2 * self_feedback + decay, rate=sp.Rational(1, 20)), Evolution(decay=0.1, pull=0.1)),
        (EvolvingFeedback(amp.configure(forward_activation="tanh", biased=True), rate=1), Evolution(outer=sp.tanh(h))),
    ],
)
def test_named_rules_are_compositions(rule, update):
    assert isinstance(rule, Rule) and rule.evolution == update
    assert rule.derivation().latex() and repr(rule)


def test_a_composition_is_a_rule():
    rule = EvolvingFeedback(2 * self_feedback + decay, rho=rho)
    assert rule.parameters == (rho,) and rule.evolution.decay == sp.Rational(1, 5)
    assert rule.feedback.independent == sp.sqrt(1 - rho**2)
    assert rho in lazy_kernel(rule, MLP(2, "linear")).expr.free_symbols
    assert EvolvingFeedback(decay, rho=[0, 1]).feedback.independent == (1, 0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: EvolvingFeedback(null.configure(reversed=True)), r"the term .*B W W\^T in the gradient of null has no infinite-width limit"),
        (lambda: EvolvingFeedback(amp.configure(centred=True)), "the term .* has no infinite-width limit"),
        (lambda: EvolvingFeedback(sparse.configure(backward_activation="tanh")), "the term .* has no infinite-width limit"),
        (lambda: EvolvingFeedback(null.configure(forward_activation="tanh")), "the term .* has no infinite-width limit"),
        (lambda: EvolvingFeedback(amp.configure(update_forward=True)), "moves W as well"),
        (lambda: EvolvingFeedback(20 * decay), "decay=4"),
        (lambda: EvolvingFeedback(decay, rho=2), "rho=2 is not a correlation"),
        (lambda: EvolvingFeedback(0.5), "no composition of primitives"),
        (lambda: dmft_equations(EvolvingFeedback(null), MLP(2), Training(outputs=3)), "no output index"),
        (lambda: Evolution(null=h), "null=h contains a field"),
    ],
)
def test_what_has_no_limit_is_refused_by_name(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_tied_gradients_come_at_the_tasks_rate():
    assert EvolvingFeedback(tied_gradient / 2 + decay, rate=0.01).evolution == Evolution(decay=0.02, copy=sp.Rational(1, 2))
