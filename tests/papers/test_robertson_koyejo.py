"""The paper's plain networks are the ones that the laws are about, and its saved results hold."""

from pathlib import Path

import numpy as np
import pytest

from papers.claims import Paper
from papers.robertson_koyejo_2023 import networks, run
from papers.robertson_koyejo_2023.networks import Setup, direction, start

FOLDER = Path(run.__file__).parent


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_backpropagation_is_the_gradient(activation, loss):
    """The one rule that a finite difference can judge: direction = −∂loss/∂weights."""
    setup = Setup((4, 5, 3, 2), activation, "gd", biased=True, loss=loss)
    weights = start(setup, 0)
    inputs, targets = run.data(setup, examples=6)
    moved = direction(setup, weights, inputs, targets)
    at = lambda changed: networks.loss(setup, networks.forward(setup, weights | changed, inputs)[0][-1], targets)
    for name, change in moved.items():
        place = np.unravel_index(np.abs(change).argmax(), change.shape)
        nudge = np.zeros_like(change)
        nudge[place] = 1e-6
        slope = (at({name: weights[name] + nudge}) - at({name: weights[name] - nudge})) / 2e-6
        # rounding of the loss over 2e-6, and the cubic term
        assert change[place] == pytest.approx(-slope, rel=1e-6, abs=1e-9)


def test_feedback_alignment_uses_b_and_direct_feedback_f():
    """Against matrices written out for two hidden layers; replacing B by W gives gradient descent, and a different direction otherwise."""
    inputs, targets = run.data(Setup((4, 5, 3, 2)), examples=6)
    fa, gd, dfa = (Setup((4, 5, 3, 2), "relu", rule) for rule in ("fa", "gd", "dfa"))
    weights = start(fa, 0)
    tied = weights | {"B1": weights["W1"], "B2": weights["W2"]}
    for name, change in direction(gd, weights, inputs, targets).items():
        np.testing.assert_allclose(direction(fa, tied, inputs, targets)[name], change, rtol=1e-12)
    assert np.abs(direction(fa, weights, inputs, targets)["W0"] - direction(gd, weights, inputs, targets)["W0"]).max() > 1e-3
    direct = start(dfa, 0)
    hs, activities = networks.forward(dfa, direct, inputs)
    e = (targets - hs[-1]) / 6
    np.testing.assert_allclose(direction(dfa, direct, inputs, targets)["W0"], ((hs[0] > 0) * (direct["F1"].T @ e)) @ inputs.T, rtol=1e-12)
    np.testing.assert_allclose(direction(dfa, direct, inputs, targets)["M1"], e @ activities[1].T, rtol=1e-12)


def test_a_law_and_a_control_on_a_short_run():
    """What the studies do, in short: |ΔQ| of first order in the step for the law, of order zero for the control."""
    ratios = []
    for make, setup in (run.LAWS["FA, ReLU"], run.BROKEN["tanh with the law of ReLU"]):
        module = run.jaxify(make())
        inputs, targets = run.data(setup)
        ends = []
        for eta in (0.02, 0.01):
            first, *_, last = networks.train(setup, start(setup, 0), inputs, targets, eta, round(1 / eta))
            ends.append(abs(float(run.value(module, last, 0) - run.value(module, first, 0))))
        ratios.append(ends[1] / ends[0])
    assert ratios[0] == pytest.approx(0.5, abs=0.05)
    assert ratios[1] > 0.9


def test_the_layer_that_is_further_off_is_so_in_absolute_terms():
    """A layer that is 20 % off with a large error is not hidden by one that is 1 % off with a small one."""
    scatter = np.linspace(-1, 1, 8)[:, None] * [0.5, 0.001]
    found = run.further_off(1 + np.array([-0.2, 0.01]) + scatter)
    assert found.value == pytest.approx(0.8) and found.se == pytest.approx(np.std(scatter[:, 0], ddof=1) / np.sqrt(8))
    assert not Paper.read(FOLDER).claims["infinite layer"].holds(found.value)


def test_saved_results_hold_for_every_claim():
    paper = Paper.read(FOLDER)
    measured = paper.results()
    assert set(measured) == set(paper.claims)
    assert [name for name, claim in paper.claims.items() if not claim.holds(measured[name].value)] == []
    assert all((FOLDER / "figures" / claim.figure).exists() for claim in paper.claims.values())
