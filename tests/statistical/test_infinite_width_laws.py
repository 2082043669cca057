"""Laws at infinite width: neuron by neuron on the solver's single-site fields, and layers against networks."""

import jax
import numpy as np
import pytest

from derive import FA, GD, MLP, BadInput, Rational, at_infinite_width, conservation_laws, kolen_pollack, leaky_relu, x
from numerics import Problem, jaxify, solve_dmft, track_laws

RANDOM = np.random.default_rng(3)
P = Problem(RANDOM.normal(size=(5, 9)), np.array([1.0, -1, 1, 1, -1]), gamma0=1.0, eta=0.4, steps=15)
C0 = P.eta * P.gamma0 / P.P
LEAK = 0.1
NET = MLP(1, leaky_relu(x, Rational(1, 10)))


def law(rule, net, kind, layer=1):
    return next(each for each in conservation_laws(rule, net) if (each.kind, each.layer) == (kind, layer))


def fields(rule):
    """h, w, g̃ and what ½‖W_i‖² is, at all times and samples, from a solution with one hidden layer of leaky ReLU."""
    solution = solve_dmft(P, rule, NET, samples=256, replicas=1, method="sampling")
    features, gradient, pseudo = (np.asarray(kernel[1].left[0]) for kernel in (solution.Phi, solution.G, solution.H))
    h = np.where(features > 0, features, features / LEAK)
    slopes = np.where(h > 0, 1.0, LEAK)
    half = 0.5 * np.einsum("tps,pq,tqs->ts", h, np.linalg.inv(P.Kx), h)
    return solution, features, gradient[:, 0] / slopes[:, 0], pseudo, pseudo[:, 0] / slopes[:, 0], half


@pytest.mark.parametrize("rule", [FA(0), FA(0.4), GD()], ids=lambda rule: rule.name)
def test_every_neuron_keeps_its_constant(rule):
    """½‖W_i‖² − w_i b_i (½w_i² for GD) moves by the derived sum, in the solver's own discrete time: rounding only, of fields kept in single precision."""
    solution, features, w, pseudo, b, half = fields(rule)
    q = half - (w * w / 2 if rule.name == "GD" else w * b)
    pair = lambda field: np.einsum("tps,tqs->stpq", field, field)
    drift = jaxify(at_infinite_width(law(rule, NET, "neuron"))).drift
    K = P.Kx[None]
    each = jax.vmap(lambda own, below: drift(C0, P.y - solution.f, {0: K, 1: below}, {1: own}))(pair(pseudo), pair(features))
    predicted = np.asarray(each)[:, :-1].T
    size = np.abs(half - half[0]).max()
    assert np.abs(q - q[0] - predicted).max() < 1e-6 * size
    assert np.abs(half - half[0] - predicted).max() > 0.1 * size, "without the feedback term it is no constant"


@pytest.mark.slow
def test_layers_drift_is_that_of_networks():
    """Φ and H of the infinite-width solution against networks of width 300: z-scores, and the next layer's prediction as a control."""
    net = MLP(2, "relu")
    laws = [each for each in conservation_laws(FA(0), net) if each.kind == "layer"]
    solution = solve_dmft(P, FA(0), net, samples=1024, replicas=2)
    Phi, H = ({l: kernel.equal_time() for l, kernel in kernels.items()} for kernels in (solution.Phi, solution.H))
    theory = np.array([jaxify(at_infinite_width(each)).drift(C0, P.y - solution.f, Phi, H)[-1] for each in laws])
    runs = np.array([[run.drift[-1] / 300 for run in track_laws(laws, P, 300, seed)] for seed in range(6)])
    error = runs.std(0, ddof=1) / np.sqrt(len(runs))
    # six networks (5 degrees of freedom), two layers, and their own correction of order 1/300
    assert (np.abs(runs.mean(0) - theory) < 4 * error + 0.02 * theory).all()
    assert (np.abs(runs.mean(0) - 1.3 * theory) > 4 * error + 0.02 * theory).all(), "30 % more would be seen"


def test_what_has_no_form_in_order_parameters_is_refused():
    with pytest.raises(BadInput, match="no form in order parameters"):
        at_infinite_width(law(FA(0), MLP(1, "linear"), "matrix"))
    with pytest.raises(BadInput, match="feedback weights that move"):
        at_infinite_width(law(kolen_pollack(0), MLP(1, "relu"), "layer"))
    with pytest.raises(BadInput, match="give numbers"):
        from derive import sigma_w

        at_infinite_width(law(FA(0), MLP(1, "relu", sigma_w=sigma_w), "layer"))


def test_it_prints_and_derives():
    found = at_infinite_width(law(FA(0), NET, "layer"))
    assert "q(t) - q(0)" in repr(found) and "H^1" in repr(found)
    assert len(found.derivation()) == 3 and found.document().isascii()
