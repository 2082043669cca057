"""Conservation laws: what is found, proved, and refuted; every law and every rate against exact arithmetic in a small network."""

import pytest
import sympy as sp
from pylatexenc.latexwalker import LatexWalker

from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    Abs,
    BadInput,
    Hebb,
    Max,
    Rational,
    activation,
    activation_alignment,
    conservation_laws,
    dphi,
    feedback_alignment,
    h,
    information_alignment,
    kappa,
    kolen_pollack,
    lam,
    m,
    rho,
    sigma_b,
    sigma_w,
    sign,
    sign_concordant,
    symmetric_alignment,
    tanh,
    w,
    weight_mirror,
    x,
    z,
)
from derive.conservation_check import rate_error
from derive.homogeneity import units
from derive.latex import document
from derive.rules import Feedback, Rule
from derive.words import TraceSum


def kinds(laws):
    return sorted((law.kind, law.layer) for law in laws)


def both(*layers, extra=()):
    return sorted([(kind, layer) for kind in ("layer", "neuron", *extra) for layer in layers])


# rule, network, options, laws expected as (kind, layer)
CASES = {
    "FA relu": (FA(rho), MLP(2, "relu"), {}, both(1, 2)),
    "FA linear": (FA(rho), MLP(2, "linear"), {}, both(1, 2, extra=("matrix",))),
    "FA relu biases": (FA(rho), MLP(2, "relu", sigma_w, sigma_b), {}, both(1, 2)),
    "FA leaky relu": (FA(0), MLP(1, "leaky_relu"), {}, both(1)),
    "FA relu squared": (FA(rho), MLP(2, "relu2"), {}, both(1, 2)),
    "FA |x|^(3/2)": (FA(rho), MLP(1, Abs(x) ** Rational(3, 2)), {}, both(1)),
    "FA rates": (FA(rho), MLP(2, "relu"), {"rates": True}, both(1, 2)),
    "GD relu": (GD(), MLP(3, "relu"), {}, both(1, 2, 3)),
    "GD linear decay": (GD(), MLP(1, "linear"), {"decay": lam}, both(1, extra=("matrix",))),
    "GLN tanh gates": (GLN(), MLP(2, "tanh"), {}, both(1, 2)),
    "sign-concordant": (sign_concordant(), MLP(1, "relu"), {}, both(1)),
    "sign symmetry": (GD(), MLP(2, "relu"), {"feedback": sign(w)}, both(1, 2)),
    "own gradient field": (FA(0), MLP(1, "relu2"), {"feedback": tanh(w), "rates": True}, both(1)),
    "Kolen-Pollack": (kolen_pollack(0), MLP(1, "relu"), {}, sorted([*both(1), ("matrix", 1)])),
    "Kolen-Pollack decay": (kolen_pollack(lam), MLP(2, "relu"), {"decay": lam}, sorted([*both(1, 2), ("matrix", 1), ("matrix", 2)])),
    "DFA relu": (DFA(), MLP(2, "relu"), {}, both(1, 2)),
    "DFA linear": (DFA(), MLP(3, "linear"), {}, both(1, 2, 3, extra=("matrix",))),
    "FA and DFA mixed": (Rule("mixed", dphi(h) * z, Feedback(transported=rho, direct=1)), MLP(2, "relu"), {}, both(1, 2)),
    "FA tanh": (FA(rho), MLP(2, "tanh"), {}, []),
    "FA decay": (FA(rho), MLP(1, "relu"), {"decay": lam}, []),
    "FA without slope": (Rule("no slope", z, Feedback(independent=1)), MLP(1, "relu"), {}, []),
    "Hebb": (Hebb(), MLP(1, "linear"), {}, []),
    "symmetric alignment": (symmetric_alignment(lam), MLP(1, "linear"), {}, []),
    "weight mirror": (weight_mirror(), MLP(1, "relu"), {}, []),
    "information alignment": (information_alignment(), MLP(1, "linear"), {}, []),
    "activation alignment": (activation_alignment(), MLP(1, "relu", sigma_b=1), {}, []),
    "feedback weights that may learn and do not": (feedback_alignment(), MLP(1, "relu"), {}, both(1)),
    "Kolen-Pollack, unequal decay": (kolen_pollack(lam), MLP(1, "relu"), {}, []),
}


@pytest.mark.parametrize("name", CASES)
def test_laws_are_found_and_hold_exactly(name):
    rule, net, options, expected = CASES[name]
    laws = conservation_laws(rule, net, **options)
    assert kinds(laws) == expected
    # rational arithmetic is exact; otherwise 50 digits are carried, of which a potential's finite difference costs half
    tolerance = sp.Float("1e-40") if net.activation.name in ("tanh", "Abs(x)**(3/2)") else 0
    for law in laws:
        assert law.check(seed=3) <= (sp.Float("1e-20") if options.get("feedback") == tanh(w) else tolerance), law
        assert str(law.proof()).rstrip().endswith(("= 0", "= const")), law
    for found in laws.violations:
        assert found.check(seed=3) <= (sp.Float("1e-40") if "feedback" in options else tolerance), found
        assert found.total, "a violation has a rate that is not zero"


def test_layer_law_is_the_papers():
    """½‖W_l‖² − p⟨W_{l+1}, B_{l+1}⟩ over the layers' learning rates, with biases."""
    law = conservation_laws(FA(rho), MLP(1, "relu3", sigma_b=1), rates=True)[0]
    D, N1, C = sp.symbols("D N1 C", integer=True, positive=True)
    W0, W1, B1, b0 = (sp.MatrixSymbol(n, *s) for n, s in (("W0", (N1, D)), ("W1", (C, N1)), ("B1", (C, N1)), ("b0", (N1, 1))))
    eta_0, eta_1 = sp.symbols("eta_0 eta_1", positive=True)
    squares = sp.Trace(W0 * W0.T) + sp.Trace(b0 * b0.T)
    assert sp.expand(law.expr - (squares / (2 * eta_0) - 3 * sp.Trace(B1 * W1.T) / eta_1)) == 0
    assert law.kind == "layer" and law.letters == ("B1", "W0", "W1", "b0") and law.parameters == (eta_0, eta_1)


def test_matrix_law_and_gradient_descent_as_its_special_case():
    D, N1, C = sp.symbols("D N1 C", integer=True, positive=True)
    W0, W1, B1 = (sp.MatrixSymbol(n, *s) for n, s in (("W0", (N1, D)), ("W1", (C, N1)), ("B1", (C, N1))))
    fa, gd = (conservation_laws(rule, MLP(1, "linear"))[-1] for rule in (FA(0), GD()))
    assert fa.kind == gd.kind == "matrix"
    assert fa.expr == W0 * W0.T - B1.T * W1 - W1.T * B1
    assert gd.expr == W0 * W0.T - W1.T * W1


def test_decay_makes_laws_exponential():
    law = conservation_laws(kolen_pollack(lam), MLP(1, "relu"), decay=lam)[0]
    assert law.rate == 2 * lam and law.expr.has(sp.exp(2 * lam * sp.Symbol("t", real=True)))
    assert "multiple of Q" in str(law.proof())


def test_degree_is_derived_from_the_expression():
    for act, degree in ((2 * Max(x, 0), 1), (x * Abs(x), 2), ("square", 2), (x**5, 5), (activation(Abs(x) ** kappa, [kappa]), kappa)):
        assert conservation_laws(FA(0), MLP(1, act)).flow.activity.degree == degree
    for act in ("tanh", "gelu", "elu", x + x**2, Max(x - 1, 0), Max(x, 0) + 1):
        assert conservation_laws(FA(0), MLP(1, act)).flow.activity.degree is None


def test_violation_of_tanh_is_the_part_that_is_not_homogeneous():
    """Q′ = η Σ_μ eᵀB(D h − a): with D = φ̇(h), zero if φ̇(h)h = φ(h)."""
    found = conservation_laws(FA(0), MLP(1, "tanh")).violations[0]
    words = {tuple(letter.name for letter in word): value for value, word in found.total.pairs()}
    assert sorted(map(sorted, words)) == [["B1", "D1", "d2", "h1"], ["B1", "a1", "d2"]]
    assert sum(words.values()) == 0
    assert found.obstacles == ("tanh is not homogeneous",)


def test_a_rule_without_slope_is_not_said_to_have_other_units():
    found = conservation_laws(Rule("no slope", z, Feedback(transported=1)), MLP(2, "relu")).violations[0]
    assert found.obstacles == ("the rule leaves out the slope of the units",)
    found = conservation_laws(Rule("half a slope", z * (dphi(h) + 1), Feedback(transported=1)), MLP(1, "relu")).violations[0]
    assert found.obstacles == ("the rule's slope is not that of the units",)


@pytest.mark.parametrize(
    "slope, forward, because",
    [
        (1, (1 + m**2) * h, "the rule leaves out the slope of the units"),
        (1, m * h, "the rule leaves out the slope of the units"),
        (dphi(m), dphi(m) ** 2 * h, "the rule's slope is not that of the units"),
    ],
)
def test_a_gate_that_the_slope_lacks_is_no_degree(slope, forward, because):
    """d h = p a holds for each gate with another p: every neuron and example would have a law of its own."""
    laws = conservation_laws(Rule("gated", slope * z, Feedback(transported=1), forward=forward), MLP(1, "tanh"))
    assert not laws and laws.flow.activity.degree is None
    assert because in laws.violations[0].obstacles
    assert units(dphi(m), 3 * dphi(m) * h).degree == sp.Rational(1, 3)


@pytest.mark.parametrize(
    "rule, net, decay",
    [
        (kolen_pollack(0), MLP(2, "relu"), 0),
        (kolen_pollack(0), MLP(2, "tanh"), 0),
        (kolen_pollack(Rational(1, 20)), MLP(2, "relu"), Rational(1, 20)),
    ],
    ids=["relu", "tanh", "decay"],
)
def test_what_a_linear_law_implies_is_not_among_what_is_not_conserved(rule, net, decay):
    """W − B is constant or decays, so do its products (W − B)(W − B)ᵀ: their rate is zero or a multiple of themselves."""
    laws = conservation_laws(rule, net, decay=decay)
    assert any(law.found.linear for law in laws) and laws.violations
    for found in laws.violations:
        assert found.total and set(found.total.terms) - set(found.candidate.total.terms), found
        assert found.check() < 1e-40


def test_checks_are_exact_with_decimal_numbers():
    (law, *_) = conservation_laws(FA(rho), MLP(1, Max(x, 0) + 0.1 * x))
    assert law.check() == 0 and law.check().is_Rational


# ---- wrong laws are noticed by the judge -----------------------------------------------------------------------------------


def wrong(law, change):
    return rate_error(law.flow, law.kind, change(law.found.total), TraceSum({}), None, 3, 0)


def test_wrong_degree_missing_bias_and_wrong_network_are_noticed():
    """Relative errors of order one, where the laws themselves give exactly zero."""
    law = conservation_laws(FA(0), MLP(1, "relu2", sigma_b=1))[0]
    halved = lambda total: TraceSum({word: c / (2 if any(x.name == "W1" for x in word) else 1) for word, c in total.terms.items()})
    without_bias = lambda total: TraceSum({word: c for word, c in total.terms.items() if all(x.name != "b0" for x in word)})
    assert wrong(law, lambda total: total) == 0
    assert wrong(law, halved) > 0.01
    assert wrong(law, without_bias) > 0.01
    elsewhere = conservation_laws(FA(0), MLP(1, "tanh", sigma_b=1)).flow
    assert rate_error(elsewhere, law.kind, law.found.total, TraceSum({}), None, 3, 0) > 0.01


def test_a_false_product_law_of_symmetric_alignment_is_not_proposed():
    """‖W−B‖² decays only where W rests; a search that tests rates on single words would accept it."""
    assert conservation_laws(symmetric_alignment(lam), MLP(2, "linear"), decay=lam) == []


def test_exact_identity_of_a_finite_step():
    law = conservation_laws(FA(0), MLP(1, "relu", sigma_b=1))[0]
    assert {tuple(x.name for x in word): c for c, word in law.discrete.pairs()} == {
        ("dW0", "dW0"): Rational(1, 2),
        ("db0", "db0"): Rational(1, 2),
    }
    gd = conservation_laws(GD(), MLP(1, "relu"))[0]
    assert {tuple(x.name for x in word): c for c, word in gd.discrete.pairs()} == {
        ("dW0", "dW0"): Rational(1, 2),
        ("dW1", "dW1"): -Rational(1, 2),
    }
    with pytest.raises(BadInput, match="no exact identity"):
        _ = conservation_laws(kolen_pollack(lam), MLP(1, "relu"), decay=lam)[0].discrete


def test_product_feedback_needs_the_factor():
    """With any other matrix in place of C, F₂C₁ = F₁, the first pair's law fails: here with twice C."""
    law = next(law for law in conservation_laws(DFA(), MLP(2, "linear")) if law.auxiliary == ("C1",))
    assert law.check() == 0
    assert wrong(law, lambda total: TraceSum({word: c * (2 if any(x.name == "C1" for x in word) else 1) for word, c in total.terms.items()})) > 0.01
    ghost = conservation_laws(DFA(), MLP(2, "relu"))[0]
    assert ghost.auxiliary == ("M1",) and ghost.check() == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rates": [1]}, "1 learning rates for 2"),
        ({"rates": [1, -1]}, "rates contain -1"),
        ({"feedback": x}, "does not contain w"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadInput, match=message):
        conservation_laws(FA(0), MLP(1, "relu"), **options)


def test_wrong_widths_are_named():
    with pytest.raises(BadInput, match="give 3 widths"):
        conservation_laws(FA(0), MLP(1, "relu"))[0].check(widths=(2, 2))


@pytest.mark.parametrize("name", ["FA relu biases", "sign symmetry", "Kolen-Pollack decay", "DFA relu", "FA tanh", "weight mirror"])
def test_documents_parse(name):
    """Strict parsing raises on unbalanced braces and environments; no Unicode is left that plain LaTeX cannot set."""
    rule, net, options, _ = CASES[name]
    laws = conservation_laws(rule, net, **options)
    for subject in (laws, *laws[:1], *laws.violations[:1]):
        source = document(subject)
        assert LatexWalker(source, tolerant_parsing=False).get_latex_nodes()[0]
        assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})


def test_laws_print():
    laws = conservation_laws(DFA(), MLP(2, "relu"))
    assert "ghost readout" in repr(laws) and "not conserved" in repr(laws) and len(repr(laws).splitlines()[0]) < 100
    assert "none" in repr(conservation_laws(FA(0), MLP(1, "tanh")))
    assert laws.latex().count(r"\text{const}") == len(laws)
    assert laws.document() == document(laws)
