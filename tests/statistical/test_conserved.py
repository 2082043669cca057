"""Laws along the training of networks: of first order in the step as a flow's constants are, and exact with the steps' own terms."""

import numpy as np
import pytest

from derive import DFA, FA, GD, GLN, MLP, conservation_laws, kolen_pollack, lam, rho
from numerics import Problem, jaxify, track_laws

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(10, 6)), RANDOM.normal(size=10)
CASES = {
    "FA relu biases": (FA(0.3), MLP(2, "relu", sigma_b=0.5)),
    "DFA relu, ghosts": (DFA(), MLP(2, "relu")),
    "Kolen-Pollack": (kolen_pollack(0), MLP(1, "relu")),
}
MORE = {
    "FA linear": (FA(0), MLP(2, "linear")),
    "GD relu": (GD(), MLP(2, "relu")),
    "DFA linear, product feedback": (DFA(), MLP(2, "linear", sigma_w=1.2)),
    "GLN": (GLN(), MLP(2, "tanh")),
}
ALL = CASES | MORE
SOME_SLOW = [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


def problem(eta, steps, **more):
    return Problem(X, Y, gamma0=1.0, eta=eta, steps=steps, **more)


@pytest.mark.parametrize("name", SOME_SLOW)
def test_drift_falls_with_the_step_as_eulers_error_does(name):
    """At fixed η·T the drift of a constant of the flow is O(η). Slopes from three step sizes, which second order in η bends.

    Most by relu's kinks: units that are held at theirs cross it O(1/η) times, each crossing a jump in the velocity, and that is felt where
    a law's drift is a small difference of two. There slopes from η = 0.05 on are off by up to 0.12, at these steps by up to 0.04 (the first
    four networks), elsewhere by at most 0.005.
    """
    rule, net = ALL[name]
    laws = conservation_laws(rule, net)
    etas = 0.0125 / 2 ** np.arange(3)
    runs = [track_laws(laws, problem(eta, round(1 / eta)), width=16) for eta in etas]
    for k, law in enumerate(laws):
        drifts = [np.linalg.norm(run[k].drift[-1]) for run in runs]
        if law.found.linear:  # W − B is constant in every step
            assert max(drifts) < 1e-12
            continue
        slope = np.polyfit(np.log(etas), np.log(drifts), 1)[0]
        assert abs(slope - 1) < 0.1, (law, slope)


@pytest.mark.parametrize("batches", [None, [[0, 3, 8], [1, 3, 5], [7, 2, 9]]], ids=["full", "batches"])
@pytest.mark.parametrize("name", SOME_SLOW)
def test_every_step_adds_what_the_identity_says(name, batches):
    """Q(k+1) − Q(k) = ½‖ΔW‖² (− p⟨ΔW, ΔB⟩ where B moves): rounding only, batches or not."""
    rule, net = ALL[name]
    for tracked in track_laws(conservation_laws(rule, net), problem(0.3, 12, batches=batches), width=16):
        assert tracked.identity_error < 1e-12
        assert np.isfinite(tracked.values).all()


def test_the_laws_drift_grows_and_is_small_against_what_the_weights_do():
    laws = conservation_laws(FA(0.3), MLP(2, "relu"))
    drift = track_laws(laws, problem(0.05, 60), width=16)[0].drift
    assert (np.diff(drift) >= 0).all(), "½‖ΔW‖² is never negative"
    assert drift[-1] > 1e-4


def test_the_law_of_another_activation_is_violated():
    """The relu network's law in a tanh network: its drift does not fall with the step."""
    law = conservation_laws(FA(0.3), MLP(1, "relu"))[0]
    tanh_flow = conservation_laws(FA(0.3), MLP(1, "tanh")).flow
    false = type(law)(tanh_flow, law.found)
    coarse, fine = (track_laws([false], problem(eta, round(1 / eta)), width=16)[0] for eta in (0.1, 0.025))
    assert abs(fine.drift[-1]) > 0.7 * abs(coarse.drift[-1]) > 0.01
    assert fine.identity_error > 1e-4


def test_leaving_the_biases_out_violates():
    law = conservation_laws(FA(0.3), MLP(1, "relu", sigma_b=1))[0]
    bare = conservation_laws(FA(0.3), MLP(1, "relu"))[0]
    false = type(law)(law.flow, bare.found)
    coarse, fine = (track_laws([false], problem(eta, round(1 / eta)), width=16)[0] for eta in (0.1, 0.025))
    assert abs(fine.drift[-1]) > 0.7 * abs(coarse.drift[-1]) > 0.01


def test_what_training_does_not_have_is_refused():
    with pytest.raises(ValueError, match="weight decay lambda"):
        track_laws(conservation_laws(GD(), MLP(1, "relu"), decay=lam), problem(0.1, 2))
    with pytest.raises(ValueError, match="no laws to track"):
        track_laws(conservation_laws(FA(0), MLP(1, "tanh")), problem(0.1, 2))
    with pytest.raises(ValueError, match="rho is symbolic"):
        track_laws(conservation_laws(FA(rho), MLP(1, "relu")), problem(0.1, 2))


def test_generated_values_are_the_expressions():
    """Against the definition, written in numpy, with parameters, biases and decay."""
    rng = np.random.default_rng(1)
    W0, W1, B1, b0 = rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), rng.normal(size=(2, 4)), rng.normal(size=(4, 1))
    laws = conservation_laws(FA(0), MLP(1, "linear", sigma_b=1), rates=True)
    args = {"W0": W0, "W1": W1, "B1": B1, "b0": b0[:, 0], "eta_0": 0.3, "eta_1": 0.7}
    layer, neuron, matrix = (jaxify(law).value(**args) for law in laws)
    full = (W0 @ W0.T + b0 @ b0.T) / 0.3 - (W1.T @ B1 + B1.T @ W1) / 0.7
    np.testing.assert_allclose(matrix, full, rtol=1e-12)
    np.testing.assert_allclose(neuron, np.diag(full) / 2, rtol=1e-12)
    np.testing.assert_allclose(layer, np.trace(full) / 2, rtol=1e-12)
    decaying = conservation_laws(kolen_pollack(lam), MLP(1, "relu"), decay=lam)[0]
    expected = np.exp(2 * 0.1 * 3) * (np.sum(W0**2) - np.sum(B1**2)) / 2
    np.testing.assert_allclose(jaxify(decaying).value(W0=W0, B1=B1, t=3.0, **{jaxify(decaying).PARAMETERS[0]: 0.1}), expected, rtol=1e-12)
