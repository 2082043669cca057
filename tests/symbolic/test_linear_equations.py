"""Linear units: the closed matrix equations, evaluated with numpy, against the exact solver; text and refusals."""

import numpy as np
import pytest
import sympy as sp

from derive import DFA, FA, GD, GLN, MLP, BadInput, Feedback, Hebb, Rule, alpha, dmft_equations, dphi, h, m, rho, sqrt, x, z
from derive.linear import Past
from numerics import Problem
from numerics.linear import solve_linear

T, P = 5, 2
MIXTURE = Rule("GD and DFA", dphi(h) * z, Feedback(transported=sp.Rational(3, 5), direct=sp.Rational(4, 5)))
X = np.array([[1.0, -0.4, 0.8], [0.3, 0.9, -1.1]])
PROBLEM = Problem(X, np.array([1.0, -0.6]), gamma0=1.4, eta=0.25, steps=T)


def numeric(expr, values):
    """A matrix expression as a numpy array; `values` maps names of matrix symbols to arrays."""
    go = lambda e: numeric(e, values)
    if isinstance(expr, sp.MatrixSymbol):
        return values[expr.name]
    if isinstance(expr, sp.Identity):
        return np.eye(T * P)
    if isinstance(expr, sp.ZeroMatrix):
        return np.zeros((T * P, T * P))
    if isinstance(expr, Past):
        return go(expr.args[0]) * np.kron(np.tri(T, k=-1), np.ones((P, P)))
    if isinstance(expr, sp.Transpose):
        return go(expr.arg).T
    if isinstance(expr, sp.Inverse):
        return np.linalg.inv(go(expr.arg))
    if isinstance(expr, sp.HadamardProduct):
        return np.multiply.reduce([go(a) for a in expr.args])
    if isinstance(expr, sp.MatAdd):
        return sum(go(a) for a in expr.args)
    if isinstance(expr, sp.MatMul):
        result = np.eye(T * P)
        for factor in expr.args:
            result = result @ go(factor) if isinstance(factor, sp.MatrixExpr) else result * float(factor.subs(CONSTANTS))
        return result
    raise AssertionError(f"no value for {expr}")


CONSTANTS = {sp.Symbol("c_0", positive=True): PROBLEM.eta * PROBLEM.gamma0 / P}


def iterate(rule, depth, drop=()):
    """Sweep over the closed equations from zero until they hold: causality ends it after finitely many sweeps."""
    linear = dmft_equations(rule, MLP(depth, "linear")).linear()
    eqs, n = linear.equations, T * P
    one, none = np.ones((n, n)), np.zeros((n, n))
    kernels = [{} for _ in range(depth + 2)]
    kernels[0]["Phi"] = np.kron(np.ones((T, T)), PROBLEM.Kx)
    kernels[depth + 1] = {"G": one, "G_tilde": one, "H": one}
    get = lambda layer, name: kernels[layer].get(name, none)
    names = {"A": "A", "B": "B", "B_tilde": r"\tilde B", "Phi": r"\Phi", "G": "G", "G_tilde": r"\tilde G", "H": "H"}
    delta, f = np.zeros(n), np.zeros(n)
    for _ in range(4 * T * depth + 4):
        for layer in range(1, depth + 1):
            values = {"J": one, "D": np.diag(delta)}
            for name, tex in names.items():
                for shift, label in ((-1, r"\ell-1"), (0, r"\ell"), (1, r"\ell+1")):
                    values[rf"{tex}^{{{label}}}"] = get(layer + shift, name) if layer + shift <= depth + 1 else none
            for name in ("C", "E", "E_r", "R"):
                if name in eqs:
                    values[f"{name}^{{\\ell}}"] = numeric(eqs[name].rhs, values)
            for name in ("Phi", "G", "G_tilde", "H"):
                if name in eqs:
                    kernels[layer][name] = numeric(eqs[name].rhs, values)
            for name in ("A", "B", "B_tilde"):
                if f"response {name}" in eqs and name not in drop:
                    target = layer if name == "A" else layer - 1
                    if name != "A" or layer < depth:
                        kernels[target][name] = numeric(eqs[f"response {name}"].rhs, values)
            if layer == depth:
                f = np.diag(numeric(eqs["output"].rhs, values)) / PROBLEM.gamma0
        delta = np.tile(PROBLEM.y, T) - f
    return f.reshape(T, P), kernels


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rule", [GD(), FA(sp.Rational(3, 5)), DFA(), Hebb(), MIXTURE], ids=lambda r: r.name)
def test_closed_equations_hold_on_the_exact_solution(rule, depth):
    f, kernels = iterate(rule, depth)
    solution = solve_linear(PROBLEM, rule, MLP(depth, "linear"))
    assert np.max(np.abs(f - solution.f)) < 1e-11  # rounding of n × n inverses
    for layer in range(1, depth + 1):
        assert np.allclose(kernels[layer]["Phi"], solution.Phi[layer].dense().reshape(T * P, -1), atol=1e-10)
        assert np.allclose(kernels[layer]["G"], solution.G[layer].dense().reshape(T * P, -1), atol=1e-10)


@pytest.mark.parametrize("dropped", ["A", "B"])
def test_dropping_a_response_changes_the_solution(dropped):
    f, _ = iterate(GD(), 2, drop=(dropped,))
    assert np.max(np.abs(f - solve_linear(PROBLEM, GD(), MLP(2, "linear")).f)) > 1e-3


def test_gd_equations_are_those_of_the_literature():
    eqs = dmft_equations(GD(), MLP(3, "linear")).linear().equations
    n = sp.Symbol("n", integer=True, positive=True)
    C, E = (sp.MatrixSymbol(rf"{name}^{{\ell}}", n, n) for name in "CE")
    R = sp.MatrixSymbol(r"R^{\ell}", n, n)
    assert eqs["R"].rhs == sp.Inverse(sp.Identity(n) - C * E)
    assert eqs["response A"].rhs == R * C and eqs["response B"].rhs == E * R


def test_derivation_and_latex_say_what_was_done():
    linear = dmft_equations(FA(rho), MLP(2, "linear")).linear()
    text = str(linear.derivation())
    assert "nilpotent" in text and "the coefficient of u in the pseudo-gradient of the layer above" in text
    assert r"\begin{align*}" in linear.latex() and r"\tilde G^{\ell+1}" in linear.latex()
    assert linear.derivation().latex().count(r"\begin{enumerate}") >= 2
    assert "A vanishes" in str(dmft_equations(DFA(), MLP(2, "linear")).linear().derivation())


def test_gated_networks_are_linear_given_their_gates():
    linear = dmft_equations(GLN(), MLP(2, "relu")).linear()
    assert r"\Gamma" in linear.latex() and "given the gates" in str(linear.derivation())
    with pytest.raises(BadInput, match="has gates"):
        linear.source()


def test_which_networks_are_linear_given_their_gates_and_which_gates_are_signs():
    signs = lambda activation: GLN().bind(MLP(2, activation)).sign_gates
    assert signs("relu") and signs("leaky_relu") and signs(abs(x)) and signs(sp.Max(x, 0) - 2 * x)
    for smooth in ("tanh", "erf", "hard_tanh", sp.Max(x - 1, 0)):  # the slopes of the last two change elsewhere
        assert not signs(smooth) and GLN().bind(MLP(2, smooth)).linear_given_gates
    gated_fa = Rule("gated FA", dphi(m) * z, Feedback(independent=1), forward=dphi(m) * h)
    bent = Rule("bent", 2 * dphi(m) * h * z, Feedback(transported=1), forward=dphi(m) * h**2)
    for rule in (GD(), gated_fa, bent):
        assert not rule.bind(MLP(2, "relu")).linear_given_gates
    assert "SIGN_GATES" not in GLN().bind(MLP(1, "tanh")).source()


def test_nonlinear_units_and_rules_are_refused():
    with pytest.raises(BadInput, match="not linear in h"):
        dmft_equations(GD(), MLP(2, "tanh")).linear()
    with pytest.raises(BadInput, match="not linear in h and z"):
        dmft_equations(Rule("cubic", z**3, Feedback(direct=1)), MLP(2, "linear")).linear()


def test_source_is_readable_and_needs_no_library():
    text = dmft_equations(FA([alpha, rho]), MLP(2, "linear")).linear().source()
    assert "def forward_coupling(A, Phi, Delta, c0, *, alpha, rho):" in text and "sympy" not in text
    assert "sqrt" in dmft_equations(FA(sqrt(rho)), MLP(2, "linear")).linear().source()
