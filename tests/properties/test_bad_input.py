"""Bad input gets an error that names the value, the reason and the remedy."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import DiracDelta, I, Symbol, acos

from derive import FA, GD, MLP, activation, conservation_laws, dmft_equations, exp, kolen_pollack, lazy_kernel, log, oo, rho, sin, sqrt, x
from derive import small_feature_expansion as expansion
from derive.errors import BadInput
from numerics import Problem, solve_dmft, solve_lazy, train_finite

X, y = np.ones((3, 2)), np.ones(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.array([[1.0, np.nan]]), "y": [1.0]}, r"X\[0, 1\] is nan"),
        ({"X": np.ones(3)}, r"X has shape \(3,\).*reshape"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "at least one example"),
        ({"X": [["a", "b"]]}, "not an array of real numbers"),
        ({"y": np.ones(4)}, "y has 4 entries but X has 3 rows"),
        ({"y": np.ones((3, 2, 2))}, r"targets are \(examples,\) or \(examples, outputs\)"),
        ({"y": np.ones((3, 1))}, "give y.ravel()"),
        ({"eta": 0}, "eta=0 cannot be a learning rate"),
        ({"eta": -0.1}, "eta=-0.1"),
        ({"eta": "fast"}, "eta='fast' is not a number"),
        ({"gamma0": 0.0}, "gamma0=0.0.*solve_lazy"),
        ({"gamma0": np.inf}, "gamma0=inf"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"X_test": np.ones((2, 3))}, "D=3 columns but X has D=2"),
        ({"y_test": np.ones(2)}, "y_test is given without X_test"),
        ({"X_test": np.ones((2, 2)), "y_test": np.ones(3)}, "y_test has 3 entries but X_test has 2 rows"),
        ({"y": [1, 0, 1], "loss": "logistic"}, r"y\[1\] is 0: .* labels y = ±1.*give 2\*y - 1"),
        ({"y": [1, -1, 0.5], "loss": "logistic"}, r"y\[2\] is 0\.5: .*np.sign\(y\)"),
        ({"X_test": X, "y_test": [1, 0, 1], "loss": "logistic"}, r"y_test\[1\] is 0: .*give 2\*y_test - 1"),
        ({"y": [[1, 0], [1, -1], [0, 1]], "loss": "cross-entropy"}, r"y\[1\] is \[1.0, -1.0\]: .*one-hot"),
        ({"y": [[1, 0], [0, 1], [1, 1]], "loss": "cross-entropy"}, r"y\[2\] is \[1.0, 1.0\]: .*probabilities of classes"),
    ],
)
def test_problem(arguments, message):
    with pytest.raises(ValueError, match=message):
        Problem(**{"X": X, "y": y, **arguments})


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (solve_dmft, {"samples": 0}, "samples=0"),
        (solve_dmft, {"samples": 10.5}, "samples=10.5"),
        (solve_dmft, {"replicas": -1}, "replicas=-1"),
        (solve_dmft, {"sampling": "halton"}, "sampling='halton'.*'sobol'"),
        (solve_dmft, {"tol": 2.0}, "tol=2.0.*rank_tol"),
        (solve_dmft, {"tol": 0.01, "replicas": 1}, "replicas=1"),
        (solve_dmft, {"rank_tol": 2.0}, "rank_tol=2.0"),
        (solve_dmft, {"method": "guess"}, "method='guess'.*'exact'"),
        (solve_dmft, {"max_samples": 0}, "max_samples=0"),
        (solve_dmft, {"dtype": "int32"}, "dtype='int32'"),
        (solve_dmft, {"capacity": 0}, "capacity=0"),
        (solve_dmft, {"chunk": -1}, "chunk=-1"),
        (train_finite, {"width": "wide"}, "width='wide'"),
        (train_finite, {"seeds": True}, "seeds=True"),
        (train_finite, {"seeds": np.True_}, "seeds=np.True_"),
        (train_finite, {"width": np.inf}, "width=inf"),
        (train_finite, {"seed": -1}, "seed=-1 is not a seed"),
        (train_finite, {"snapshots": 5}, r"snapshots=5 is not a list of times: give for example snapshots=\[0, -1\]"),
        (solve_dmft, {"seed": True}, "seed=True is not a seed"),
        (solve_dmft, {"seed": 1.0}, "seed=1.0 is not a seed"),
        (solve_dmft, {"seed": 2**63}, r"seed=9223372036854775808 is not a seed.*2\*\*63"),
        (solve_dmft, {"kernels_at": 5}, r"kernels_at=5 is not a list of times: give for example kernels_at=\[0, -1\]"),
    ],
)
def test_solvers(solver, options, message):
    with pytest.raises(ValueError, match=message):
        solver(Problem(X, y), GD(), MLP(1), **options)


@pytest.mark.parametrize("solver", [solve_dmft, solve_lazy, train_finite])
@pytest.mark.parametrize(
    ("rule", "net", "message"),
    [
        (GD, MLP(1), r"call it, GD\(\)"),
        ("GD", MLP(1), "rule='GD' is not a learning rule"),
        (GD(), "tanh", "net='tanh' is not a network"),
        (Problem(X, y), MLP(1), r"rule=Problem\(P=3, D=2, .*\(problem, rule, network\)"),
    ],
)
def test_arguments_in_another_order_or_not_called(solver, rule, net, message):
    problem = GD() if isinstance(rule, Problem) else Problem(X, y)
    with pytest.raises(ValueError, match=message):
        solver(problem, rule, net)


@pytest.mark.parametrize("derived", [lazy_kernel, dmft_equations, conservation_laws, expansion])
def test_derivations_too(derived):
    with pytest.raises(ValueError, match=r"call it, GD\(\)"):
        derived(GD, MLP(1))
    with pytest.raises(ValueError, match="net='tanh' is not a network"):
        derived(GD(), "tanh")


@pytest.mark.filterwarnings("error")
def test_the_loss_of_outputs_that_diverged_is_no_number():
    """Without warnings: solvers say what happened."""
    p = Problem(np.eye(2), np.ones(2))
    assert p.loss(np.array([1e200, 0.0])) == np.inf and np.isnan(p.loss(np.array([np.inf, np.nan])))


def test_a_problem_is_shown_in_one_line():
    assert repr(Problem(X, y)) == "Problem(P=3, D=2, γ0=1, η=0.1, T=200)"
    assert repr(Problem(X, X / 2, X_test=X, momentum=0.5, loss="cross-entropy")).endswith("C=2, P_test=3, momentum=0.5, loss='cross-entropy')")


@pytest.mark.parametrize("name", ["h", "z", "m", "Delta", "x", "t", "q_munu", "q_mumu", "K_munu", "self", "block", "Phi_1_munu", "E1", "f2", "erf"])
def test_parameters_with_a_name_that_is_taken(name):
    taken = Symbol(name, real=True)
    with pytest.raises(BadInput, match=rf"the parameter {name} has a name that is taken .*rename"):
        activation(sin(taken * x), parameters=[taken])


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (I * x, "is complex at x = "),
        (exp(I * x), "is complex at x = "),
        (sqrt(x), r"is complex at x = -2.3.*sign\(x\)\*Abs\(x\)"),
        (log(x), "is complex at x = -2.3"),
        (acos(x), "is complex at x = -2.3"),
        (DiracDelta(x), "Dirac δ"),
        (oo, "is not finite"),
    ],
    ids=str,
)
def test_activations_that_are_no_real_functions(phi, message):
    with pytest.raises(BadInput, match=message):
        MLP(1, phi)


@pytest.mark.parametrize("solver", [solve_dmft, solve_lazy, train_finite])
@pytest.mark.parametrize("rule", [FA(rho), FA([0.5, rho]), kolen_pollack(rho=rho, decay=0.1)], ids=["FA", "one layer", "Kolen-Pollack"])
def test_correlations_out_of_range(solver, rule):
    with pytest.raises(ValueError, match="rho=2 is not a correlation: FA needs 0 <= rho <= 1"):
        solver(Problem(X, y), rule, MLP(2), parameters={"rho": 2.0})
