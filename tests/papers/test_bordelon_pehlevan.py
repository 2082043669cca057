"""The pieces that turn arrays into claims about Bordelon & Pehlevan 2023, on data whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from derive import DFA, FA, MLP, lazy_kernel, rho
from numerics import Problem, jaxify, solve_dmft, solve_lazy
from papers.bordelon_pehlevan_2023 import densities, measures, setting, statistics, studies_lazy, studies_rich
from papers.bordelon_pehlevan_2023.setting import Size, record

RANDOM = np.random.default_rng(0)
TINY = Size(train=4, test=6, steps=5, samples=64, replicas=2, width=32, seeds=2)


@pytest.mark.parametrize(("power", "offset", "expected"), [(0.5, 0.0, -0.5), (0.5, 1.0, 0.0)], ids=["right", "wrong theory"])
def test_width_slope(power, offset, expected):
    theory = np.ones((3, 2))
    networks = {N: theory + offset + N**-power * RANDOM.normal(size=(200, 3, 2)) for N in (256, 1024, 4096)}
    slope, error = statistics.width_slope({N: statistics.relative_errors(f, theory) for N, f in networks.items()})
    assert abs(slope - expected) < 4 * error < 0.1


def test_descent_weighs_by_the_fall_of_the_loss():
    shares = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(statistics.descent(shares, np.array([4.0, 1.0, 0.0])), [0.75, 0.25])


def test_time_to():
    assert statistics.time_to(np.array([1.0, 0.6, 0.2]), 0.4) == pytest.approx(1.5)
    assert np.isnan(statistics.time_to(np.array([1.0, 0.9]), 0.4))


def test_closed_form_of_lazy_training():
    p = TINY.problem()
    solution = solve_lazy(p, FA(0.3), MLP(1, "erf"))
    kernel = jaxify(lazy_kernel(FA(rho), MLP(1, "erf")))
    np.testing.assert_allclose(studies_lazy.lazy_outputs(p, kernel, 0.3), solution.f_test[-1], atol=1e-10)  # round-off
    assert np.abs(studies_lazy.lazy_outputs(p, kernel, 0.5) - solution.f_test[-1]).max() > 1e-3


def test_linear_movement_and_its_slope():
    step = 1e-5
    moved, slope = studies_rich.linear_movement(0.4, 2.0)
    beside, _ = studies_rich.linear_movement(0.4 + step, 2.0)
    assert (beside - moved) / step == pytest.approx(slope, rel=1e-4)  # the step's size
    p = Problem(np.ones((1, 1)), np.ones(1), gamma0=2.0, eta=0.05, steps=200)
    Phi = solve_dmft(p, FA(0.4), MLP(1, "linear")).Phi[1]
    assert Phi.block(-1, -1).item() - Phi.block(0, 0).item() == pytest.approx(moved, rel=0.04)  # Euler steps: η times kernel
    assert abs(studies_rich.linear_movement(0.6, 2.0)[0] / moved - 1) > 0.08


def courses(**slow: float):
    """Losses that fall faster with γ0, but oscillate with gates at γ0 = 4; rates by `rule` at γ0 = 4 on request."""
    t, data = np.arange(40.0), {}
    for name in measures.RULES:
        for g in (0.1, 0.5, 1.0, 2.0, 4.0):
            loss = np.exp(-(slow.get(name, 0.2 * (1 + g)) if g == 4 else 0.2 * (1 + g)) * t)
            loss = loss + 0.3 * (np.arange(40) % 2) if (name, g) == ("gln", 4.0) else loss
            for solver in ("dmft", "network"):
                data |= {f"{name}.{g:g}.{solver}.{what}": loss for what in ("loss", "test_loss", "test_loss_se")}
                data[f"{name}.{g:g}.{solver}.alignment"] = np.zeros((2, 40))
            data[f"{name}.{g:g}.Phi_change"] = np.full((3, 3), g)
    return data


def test_what_is_left_out_of_the_comparison_over_gamma0_is_said():
    found = measures.gammas(courses())
    assert found["gamma-curves"].value == 0 and found["gamma-time"].value < 0
    assert found["gamma-curves"].note.endswith("; 24 of 25 curves, without gln at γ0 = 4")
    assert found["gamma-time"].note == "48 of 50 curves, without gln at γ0 = 4"


def test_a_curve_that_is_never_fitted_is_no_sooner_one():
    found = measures.gammas(courses(fa=0.01))
    assert found["gamma-time"].value == np.inf and found["gamma-time"].note.startswith("46 of 50 curves")


def gated(gates_matter: bool):
    """Normals whose scale depends on the gates, or on chance."""
    m = RANDOM.normal(size=(2, 3, 4000))
    scale = np.where((m if gates_matter else RANDOM.normal(size=m.shape)) > 0, 3.0, 1.0)
    return {"gln.network.end.m1": m, "gln.network.end.h1": scale * RANDOM.normal(size=m.shape)}


def test_gaussian_given_gates():
    value, error = densities.given_gates(gated(True), "gln", "network", "h1")
    assert abs(value) < 4 * error < 0.3
    wrong, _ = densities.given_gates(gated(False), "gln", "network", "h1")
    assert wrong > 10 * error  # a mixture that the gates do not explain
    whole, error = densities.excess(gated(True)["gln.network.end.h1"])
    assert whole > 10 * error


def test_excess_of_known_distributions():
    value, error = densities.excess(RANDOM.normal(size=(8, 2, 4000)))
    assert abs(value) < 4 * error
    assert densities.excess(RANDOM.uniform(size=(8, 2, 40000)))[0] == pytest.approx(-1.2, abs=0.05)


def test_equal_and_different_samples():
    sample = lambda scale, n: scale * RANDOM.normal(size=(2, 1, n))
    data = {"x.dmft.end.h1": sample(1.0, 4000), "x.network.end.h1": sample(1.0, 8000), "x.network.start.h1": sample(1.3, 8000)}
    assert densities.kolmogorov(data, "x", "h1", "end", "end") < 1.95 < densities.kolmogorov(data, "x", "h1", "end", "start")


def test_initial_cosines_of_the_theory():
    rule, net = FA(0.5), MLP(3, "tanh")
    p = TINY.problem(steps=1, X_test=None, y_test=None)
    cosine = solve_dmft(p, rule, net, samples=4096, replicas=2).alignment[:, 0]
    expected = measures._initial_cosine("fa.tanh.3", 3)
    np.testing.assert_allclose(expected, [0.125, 0.25, 0.5])
    np.testing.assert_allclose(cosine, expected, atol=0.05)  # 1/√8192 = 0.011 a sample of correlation
    assert np.abs(cosine - expected / 0.5).max() > 0.2


def test_record_has_an_error_for_every_number():
    p = TINY.problem()
    arrays = record("a", solve_dmft(p, DFA(), MLP(2, "erf"), **TINY.theory))
    assert {name for name in arrays if not name.endswith("_se")} == {name.removesuffix("_se") for name in arrays if name.endswith("_se")}
    assert arrays["a.shares"].shape == (3, 5) and arrays["a.moved"].shape == (2, 5)


def test_other_data_enter_every_study(monkeypatch):
    plain = TINY.problem()
    monkeypatch.setattr(setting, "_source", list(setting._source))
    asked = []
    answer = {"X": np.eye(3), "y": np.array([1.0, -1.0, 1.0])}
    monkeypatch.setattr(setting, "_examples", lambda *request: asked.append(request) or answer)
    setting.use("mnist:somewhere")
    assert TINY.problem().P == 3 and asked == [("mnist:somewhere", *setting.LARGEST), ("mnist:somewhere", 4, 6)] and plain.P == 4
