"""Lazy kernels: what must follow from a rule does follow, symbolically; and bad input is refused by name."""

import numpy as np
import pytest
import sympy as sp

from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    BadInput,
    Delta,
    Feedback,
    Hebb,
    K_mumu,
    K_munu,
    K_nunu,
    Rule,
    activation,
    alpha,
    dphi,
    expectation,
    h,
    lazy_kernel,
    m,
    phi,
    rho,
    sigma_b,
    sigma_w,
    sqrt,
    u,
    v,
    x,
    z,
)  # fmt: skip
from derive.derivation import plain
from derive.lazy import INPUT
from derive.lazy_text import Compact
from derive.symbols import latex_name
from numerics import Problem, jaxify, solve_dmft, solve_lazy

CLOSED = ["linear", "relu", "erf", "square"]
DEPTHS = [1, 2, 3]


def contributions(rule, depth=3, activation="relu", **scales):
    return lazy_kernel(rule, MLP(depth, activation, **scales)).contributions


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", CLOSED)
def test_fa_weighs_layer_by_power_of_rho(activation, depth):
    gd, fa = contributions(GD(), depth, activation), contributions(FA(rho), depth, activation)
    for layer in range(depth + 1):
        assert (
            fa[layer] == sp.expand_mul(rho ** (depth - layer)) * gd[layer]
            or sp.simplify(fa[layer] - rho ** (depth - layer) * gd[layer]) == 0
        )


def test_fa_weight_off_by_one_layer_is_not_the_kernel():
    gd, fa = contributions(GD()), contributions(FA(rho))
    values = {rho: 0.5, K_mumu: 1.0, K_munu: 0.3, K_nunu: 0.8}
    share = float((fa[1] / gd[1]).subs(values))
    assert share == pytest.approx(0.5**2) and share != pytest.approx(0.5**3)


@pytest.mark.parametrize("rule", [DFA(), Hebb(), FA(0)], ids=str)
def test_rules_without_aligned_feedback_keep_the_last_layer_only(rule):
    kernel = lazy_kernel(rule, MLP(3, "erf"))
    assert kernel.contributions[:3] == (0, 0, 0)
    assert kernel.expr == kernel.nngp


def test_gd_and_fa_at_rho_one_agree():
    assert contributions(GD()) == contributions(FA(1))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ["relu", "erf", "linear"])
def test_gln_is_depth_plus_one_times_gates_to_the_depth(activation, depth):
    kernel = lazy_kernel(GLN(), MLP(depth, activation))
    slope = kernel.net.activation.derivative(1)
    gamma = expectation(slope.subs(x, u) * slope.subs(x, v), [[K_mumu, K_munu], [K_munu, K_nunu]], variables=(u, v)).expr
    assert sp.simplify(kernel.expr - (depth + 1) * K_munu * gamma**depth) == 0


def test_per_layer_correlations_multiply_along_the_way_down():
    r1, r2, r3 = sp.symbols("rho_1:4")
    gd, fa = contributions(GD()), contributions(FA([r1, r2, r3]))
    for layer, weight in enumerate([r1 * r2 * r3, r2 * r3, r3, 1]):
        assert sp.simplify(fa[layer] - weight * gd[layer]) == 0


def test_linear_network_has_the_textbook_kernel():
    assert sp.expand(lazy_kernel(GD(), MLP(4, "linear")).expr - 5 * K_munu) == 0
    assert sp.expand(lazy_kernel(FA(rho), MLP(2, "linear")).expr - K_munu * (1 + rho + rho**2)) == 0


def test_weights_and_biases_enter_as_in_ntk_parametrisation():
    """Two-layer linear network, by hand: Σ¹ = w²K + b², Σ² = w²Σ¹ + b², K = Σ² + w²Σ¹."""
    w, b = sp.symbols("sigma_w sigma_b", positive=True)
    first = w**2 * K_munu + b**2
    expected = w**2 * first + b**2 + w**2 * first
    assert sp.expand(lazy_kernel(GD(), MLP(1, "linear", sigma_w=w, sigma_b=b)).expr - expected) == 0


def test_users_own_rules_take_the_same_road():
    """FA without φ̇ pulls E[φ̇(u)] once per layer; φ² in place of φ̇ pulls E[φ̇(u) φ(v)²]."""
    plain = Rule("FA without slope", z, Feedback(initial=rho, independent=sqrt(1 - rho**2)))
    kernel = lazy_kernel(plain, MLP(1, "relu"))
    assert sp.simplify(kernel.contributions[0] - rho * K_munu / 2) == 0
    squared = Rule("phi squared", phi(h) ** 2 * z, Feedback(transported=1))
    linear = lazy_kernel(squared, MLP(1, "linear"))
    assert sp.simplify(linear.contributions[0] - K_nunu * K_munu) == 0


def test_mixture_of_gd_and_dfa_keeps_the_aligned_share():
    mixture = Rule("mixture", dphi(h) * z, Feedback(transported=alpha, direct=sqrt(1 - alpha**2)))
    gd, mixed = contributions(GD(), 2), contributions(mixture, 2)
    assert sp.simplify(mixed[0] - alpha**2 * gd[0]) == 0 and mixed[2] == gd[2]


def test_a_pseudo_gradient_that_is_not_linear_in_feedback_needs_its_variance():
    """g̃ = φ̇ z³: E[∂g̃/∂z̃] = 3 E[z̃²], and z̃ has variance 1 at the readout."""
    cubic = Rule("cubic", dphi(h) * z**3, Feedback(transported=1))
    gd, found = contributions(GD(), 1), contributions(cubic, 1)
    assert sp.simplify(found[0] - 3 * gd[0]) == 0


def test_derivation_shows_why_layers_vanish():
    text = str(lazy_kernel(DFA(), MLP(2, "relu")).derivation())
    assert "c_2 = 0, the feedback field is independent of W(0)" in text
    text = str(lazy_kernel(Hebb(), MLP(2, "relu")).derivation())
    assert "does not contain the feedback field" in text
    text = str(lazy_kernel(GLN(), MLP(2, "relu")).derivation())
    assert "Gamma_munu**2*K_munu" in text and "3 Γ_μν^2 K^x_μν" in text
    text = str(lazy_kernel(FA(rho), MLP(2, "relu")).derivation())
    assert "K_eNTK_0_munu = K_munu*dotPhi_1_munu*dotPhi_2_munu*rho**2" in text and "Price's theorem" in text


def test_unclosed_expectations_stay_by_name():
    kernel = lazy_kernel(GD(), MLP(2, "tanh"))
    assert not kernel.closed and "quadrature" in repr(kernel)
    assert lazy_kernel(GD(), MLP(2, "relu")).closed


def test_updates_in_the_derivation_have_the_factors_of_the_kernel():
    """W and b enter h as σ_w W a/√N + σ_b b, so that their updates bring a factor each and the kernel has σ_w²Φ + σ_b²."""
    for net in (MLP(1, "relu"), MLP(2, "relu", sigma_w=sigma_w, sigma_b=sigma_b)):
        update = plain(lazy_kernel(GD(), net).derivation().steps[1].equation)
        assert update.startswith("Ẇ^ℓ = (γ_0 σ_w)/(P√(N)) ∑") and "ḃ^ℓ = (γ_0 σ_b)/P ∑" in update


def test_only_the_parameters_that_matter_are_asked_for():
    assert lazy_kernel(FA(rho), MLP(2, "relu")).parameters == (rho,)
    assert lazy_kernel(DFA(), MLP(2, "relu")).parameters == ()
    leaky = lazy_kernel(FA(rho), MLP(1, "leaky_relu")).parameters
    assert set(leaky) == {alpha, rho}


@pytest.mark.parametrize(
    "form",
    [sp.Max(x, 0), x * sp.Heaviside(x), sp.Piecewise((x, x > 0), (0, True)), (x + sp.Abs(x)) / 2],
    ids=["Max", "Heaviside", "Piecewise", "Abs"],
)
def test_relu_is_recognised_in_every_form(form):
    assert MLP(1, form).activation.name == "relu"
    assert lazy_kernel(GD(), MLP(2, form)).expr == lazy_kernel(GD(), MLP(2, "relu")).expr


@pytest.mark.parametrize(
    "forward, slope, same",
    [
        (h * sp.Heaviside(h), sp.Heaviside(h), "relu"),
        (h * sp.sign(h), sp.sign(h), "abs"),
        (phi(h) * sp.Heaviside(h), dphi(h) * sp.Heaviside(h), sp.sin(x) * sp.Heaviside(x)),
    ],
    ids=["relu", "abs", "phi"],
)
def test_steps_in_a_forward_map_of_ones_own(forward, slope, same):
    """Its slope is that of an activation written the same way, without δ; kernel and solver then are those of gradient descent."""
    rule, net = Rule("own", slope * z, Feedback(transported=1), forward=forward), MLP(2, sp.sin(x))
    assert sp.expand(rule.slope - slope) == 0 and rule.propagates_gradient
    X = np.array([[1.0, 0.3], [-0.4, 1.1], [1.3, -0.9]])
    own, known = (jaxify(lazy_kernel(*each))(X) for each in ((rule, net), (GD(), MLP(2, same))))
    np.testing.assert_allclose(own, known, atol=1e-9)
    problem = Problem(X, [1.0, -1.0, 0.5], steps=2)
    own, known = (solve_dmft(problem, *each, samples=32).f for each in ((rule, net), (GD(), MLP(2, same))))
    np.testing.assert_allclose(own, known, atol=1e-9)


def test_where_units_jump_and_move_training_does_not_follow_the_kernel():
    """Outputs feel the units that cross the jump: f of solve_dmft at γ0 = 0.01 is far from what the slope almost everywhere would give."""
    for rule, net in ((GD(), MLP(1, "step")), (FA(0), MLP(2, "sign")), (Hebb(), MLP(1, "step")), (DFA(), MLP(1, x + sp.sign(x)))):
        assert lazy_kernel(rule, net).closed and not lazy_kernel(rule, net).left_out
    surrogate = Rule("surrogate", z / (1 + sp.Abs(h)) ** 2, Feedback(transported=1))
    forward = Rule("forward", z, Feedback(transported=1), forward=h + sp.Heaviside(h - 1))
    for rule, net in ((surrogate, MLP(1, "step")), (GD(), MLP(2, x + sp.sign(x))), (forward, MLP(1, "linear"))):
        assert "and the rule moves h" in repr(lazy_kernel(rule, net))
        with pytest.raises(BadInput, match=r"units jump at h = [01], and the rule moves h"):
            solve_lazy(Problem(np.eye(2), [1.0, -1.0], steps=2), rule, net)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FA(1.2), r"rho=1\.2.*is not a correlation: FA needs 0 <= rho <= 1"),
        (lambda: FA([0.5, -0.1]), r"rho=-0\.1"),
        (lambda: MLP(0, "relu"), "depth=0"),
        (lambda: MLP(2.5, "relu"), r"depth=2\.5"),
        (lambda: MLP(1, "rleu"), "did you mean 'relu'"),
        (lambda: MLP(1, sp.erf(sp.Symbol("gain") * x)), "declare parameters"),
        (lambda: MLP(1, x + sp.floor(x)), r"contains floor\(x\), which has steps without end.*Heaviside"),
        (lambda: MLP(1, sp.ceiling(2 * x)), "steps without end"),
        (lambda: MLP(1, sp.Mod(x, 1)), "steps without end"),
        (lambda: MLP(1, sp.Integral(sp.exp(-(u**2)), (u, 0, x))), r"contains Integral.*not carried out.*\.doit\(\)"),
        (lambda: MLP(1, sp.Sum(x**u, (u, 0, 3))), "contains Sum.*not carried out"),
        (lambda: MLP(1, sp.Derivative(sp.tanh(x), x)), "contains Derivative.*not carried out"),
        (lambda: MLP(1, "relu", sigma_w=0), "sigma_w=0"),
        (lambda: MLP(1, "relu", sigma_b=-1), "sigma_b=-1"),
        (lambda: Rule("empty path", dphi(h) * z), "feedback path is empty"),
        (lambda: Rule("odd", z, Feedback(direct=1), forward=phi(h) * Delta), "contains Delta, the error signal; allowed here: h, m"),
        (lambda: lazy_kernel(FA([0.1, 0.2]), MLP(3, "relu")), "2 per-layer coefficients"),
        (lambda: lazy_kernel(Rule("delta", Delta * z, Feedback(transported=1)), MLP(1, "relu")), "depends on the error signal"),
        (lambda: lazy_kernel(Rule("coupled", sp.tanh(h + m) * z, Feedback(transported=1)), MLP(1, "relu")), "couples the fields"),
        (lambda: lazy_kernel("GD", MLP(1, "relu")), "rule='GD'"),
        (lambda: lazy_kernel(GD(), "relu"), "net='relu'"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize(
    ("pseudo_gradient", "activation", "feedback", "message"),
    [
        (dphi(h) * sp.Max(z, 0), "relu", Feedback(transported=1), "depends on its own features"),
        (dphi(h) * z**3 + h, "erf", Feedback(initial=1), "depends on its own features"),
        (dphi(h) * z**3 + Delta * h**2, "erf", Feedback(initial=1), "contains the error signal"),
        # even in h, odd in z, feedback that is independent of the forward weights, one layer
        (dphi(h) * sp.Max(z, 0), "erf", Feedback(transported=1), None),
        (dphi(h) * z**3, "relu", Feedback(transported=1), None),
        (dphi(h) * sp.Max(z, 0), "relu", Feedback(independent=1), None),
        (dphi(h) * z + h, "relu", Feedback(transported=1), None),
    ],
)
def test_feedback_must_be_independent_of_features_where_it_is_not_linear(pseudo_gradient, activation, feedback, message):
    """z = ζ + B φ(h) with B = ⟨∂g̃/∂h⟩ of the layer above; of the layer below the readout z is the readout, whatever g̃."""
    rule = Rule("own", pseudo_gradient, feedback)
    assert lazy_kernel(rule, MLP(1, activation)).contributions[-1] != 0
    if message is None:
        assert lazy_kernel(rule, MLP(2, activation)).contributions[-1] != 0
    else:
        with pytest.raises(BadInput, match=message):
            lazy_kernel(rule, MLP(2, activation))


def test_declared_parameters_are_accepted():
    gain = sp.Symbol("gain", positive=True)
    kernel = lazy_kernel(GD(), MLP(1, activation(sp.erf(gain * x), parameters=[gain])))
    assert kernel.parameters == (gain,)


@pytest.mark.parametrize(("rule", "activation", "depth"), [(FA(rho), "relu", 3), (GD(), "erf", 2), (FA(rho), "gelu", 2)])
def test_operations_are_estimated_without_writing_the_kernel_out(rule, activation, depth):
    net = MLP(depth, activation, sigma_w=sp.Symbol("sigma_w", positive=True))
    kernel = lazy_kernel(rule, net)
    assert 0.5 < kernel.operations / sp.count_ops(kernel.expr) < 2
    deep = lazy_kernel(rule, MLP(12, activation))
    assert deep.operations > 10**6 and len(deep.document()) < 10**5


def test_gates_of_any_activation_give_the_kernel_of_the_theory():
    """K = (L+1) K^x Γ^L with Γ = E[φ̇(m)φ̇(m')] in one piece, so that the formula does not grow with the depth."""
    kernel = lazy_kernel(GLN(), MLP(5, "leaky_relu"))
    gamma = sp.Symbol("Gamma_munu", real=True)
    assert Compact(kernel).total == 6 * K_munu * gamma**5
    (dual,) = {dual for dual in kernel.duals if dual.f != x}
    assert sp.expand(kernel.expr - 6 * K_munu * dual.on(INPUT) ** 5) == 0
    assert latex_name(sp.Symbol("dotPhi1_2_munu")) == r"\dot\Phi^{(1),2}_{\mu\nu}" and latex_name(sp.Symbol("Gamma2_munu")) == r"\Gamma^{(2)}_{\mu\nu}"
