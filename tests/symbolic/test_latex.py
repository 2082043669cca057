"""LaTeX of kernels and equations: it parses everywhere, and compiles where a LaTeX is installed."""

import ast
import shutil
import subprocess
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import sympy as sp
from pylatexenc.latexwalker import LatexWalker, LatexWalkerParseError

import derive
from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    EvolvingFeedback,
    Feedback,
    Hebb,
    Rule,
    Symbol,
    Training,
    amp,
    beta,
    conservation_laws,
    decay,
    dmft_equations,
    dphi,
    exp,
    h,
    information_alignment,
    lam,
    lazy_kernel,
    null,
    rho,
    self_feedback,
    sparse,
    symmetric_alignment,
    x,
    z,
)
from derive.derivation import factor_latex, in_unicode, to_latex
from derive.latex import broken_sum, document, named_parts, text
from derive.loss import over_outputs

SUBJECTS = {
    "fa_relu_2": lambda: lazy_kernel(FA(rho), MLP(2, "relu")),
    "gd_gelu_1": lambda: lazy_kernel(GD(), MLP(1, "gelu")),
    "gln_erf_3": lambda: lazy_kernel(GLN(), MLP(3, "erf")),
    "fa_tanh_bias": lambda: lazy_kernel(FA(rho), MLP(2, "tanh", sigma_b=0.5)),
    "own_activation": lambda: lazy_kernel(GD(), MLP(1, x * exp(-(x**2)))),
    "gln_leaky_relu": lambda: lazy_kernel(GLN(), MLP(4, "leaky_relu")),
    "sum_of_terms": lambda: lazy_kernel(Rule("own", dphi(h) * sp.tanh(z) + z**3, Feedback(initial=rho, independent=beta)), MLP(2, "tanh")),
    "online_erf": lambda: derive.teacher_student(DFA(), "erf"),
    "training_all": lambda: dmft_equations(
        symmetric_alignment(), MLP(2, "tanh", sigma_b=0.5), Training("logistic", momentum=beta, weight_decay=lam, batches=True)
    ),
    "training_outputs": lambda: dmft_equations(FA(rho), MLP(3, "relu"), Training("cross-entropy", outputs=Symbol("C"))),
    "learning_feedback": lambda: dmft_equations(
        EvolvingFeedback(decay + self_feedback + amp + sparse + null, rho=rho), MLP(3, "tanh", sigma_b=0.5), Training(weight_decay=lam, batches=True)
    ),
    "loss": lambda: Training("cross-entropy", outputs=2).loss,
    **{
        f"equations_{rule.name.split('(')[0]}": (lambda rule=rule: dmft_equations(rule, MLP(3, "relu")))
        for rule in (GD(), FA(rho), DFA(), Hebb(), GLN())
    },
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_documents_parse(name):
    """Strict parsing raises on unbalanced braces and environments; no Unicode is left that plain LaTeX cannot set."""
    source = SUBJECTS[name]().document()
    nodes, _, _ = LatexWalker(source, tolerant_parsing=False).get_latex_nodes()
    assert nodes
    assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})
    assert "munu" not in source and "dotPhi" not in source


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; test_documents_parse still checks the sources")
@pytest.mark.parametrize(
    "name",
    ["fa_relu_2", "gd_gelu_1", "fa_tanh_bias", "gln_leaky_relu", "sum_of_terms", "online_erf", "equations_FA", "equations_GLN", "training_all",
     "training_outputs", "learning_feedback", "loss"],
)
def test_documents_compile_without_errors(name, tmp_path):
    printed = compiles(SUBJECTS[name]().document(), tmp_path)
    assert "Overfull" not in printed, [line for line in printed.splitlines() if "Overfull" in line]


def compiles(source, tmp_path):
    """What pdflatex prints."""
    (tmp_path / "document.tex").write_text(source)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_a_broken_document_does_not_parse():
    with pytest.raises(LatexWalkerParseError):
        LatexWalker(r"\begin{align*} a &= \frac{b}{ \end{align*}", tolerant_parsing=False).get_latex_nodes()


@pytest.mark.parametrize(
    "tex, expected",
    [
        (r"\frac{- a + b}{\gamma_{0}}", "(- a + b)/γ_0"),
        (r"\Phi^{\ell - 1}_{\mu\nu}(t,s)", "Φ^(ℓ - 1)_μν(t,s)"),
        (r"\tilde g = z \dot\varphi(h)", "g̃ = z φ̇(h)"),
        (r"\sqrt[3]{h^{2} + 1} \dot\varphi(h)", "(h^2 + 1)^(1/3) φ̇(h)"),
        (r"\frac{1}{\sqrt[4]{h}} + \sqrt{\frac{h}{2}}", "1/(h^(1/4)) + √(h/2)"),
        (r"\left(q + 1\right)^{\frac{3}{2}}", "(q + 1)^(3/2)"),
        (r"e^{- \frac{h^{2}}{10}} + e^{\frac{t}{10}} \left(q\right)", "e^(- h^2/10) + e^(t/10) (q)"),
        (r"6 e^{2 \sqrt{2} \theta} + e^{- \frac{3 \sqrt{2} \theta}{2}}", "6 e^(2 √(2) θ) + e^(- (3 √(2) θ)/2)"),
        (r"e^{e^{t}} + e^{f_{\mu}(t)} + x^{2n} + x^{\left(n\right)} + q^{\theta_{end}}", "e^(e^t) + e^(f_μ(t)) + x^(2n) + x^(n) + q^θ_end"),
        (r"\frac{a}{\frac{b}{c}} + \frac{1}{2\pi}", "a/(b/c) + 1/(2π)"),
        (r"\left[\begin{matrix}q_{\mu\mu} & \frac{a}{b}\\q & 1\end{matrix}\right]", "[q_μμ, a/b; q, 1]"),
        (r"\begin{pmatrix} Q & R \\ R^{\top} & T \end{pmatrix}", "[Q, R; R^⊤, T]"),
        (r"\begin{cases} t & \text{for}\: t > 0 \\q & \text{otherwise} \end{cases}", "{t for t > 0; q otherwise}"),
        (r"\sum_{\substack{1 \leq j \leq K\\1 \leq l \leq K}} v_{j}", "∑_(1 ≤j ≤K, 1 ≤l ≤K) v_j"),
    ],
)
def test_unicode_of_formulas(tex, expected):
    assert in_unicode(tex) == expected


def test_a_sum_before_a_bracketed_sum_is_bracketed():
    """(a + …)·(b + …): a reader must not take it for a + …·(b + …)."""
    first, second = (sp.Add(*sp.symbols(f"{letter}_1:30", positive=True)) for letter in "ab")
    lines = broken_sum(first * second)
    assert lines[0].startswith(r"\Bigl[") and any(line.endswith(r"\Bigr]") for line in lines[:-1])
    lines = broken_sum(sp.Add(*first.args[:3]) * second)
    assert lines[0].startswith(r"\left(") and r"\right) \cdot \Bigl[" in lines[0]
    A, B, C = (sp.MatrixSymbol(name, 3, 3) for name in "ABC")
    ordered = "".join(broken_sum(A * sp.MatAdd(*(sp.MatrixSymbol(f"X_{i}", 3, 3) for i in range(40))) * (B + C)))
    assert ordered.startswith(r"A \cdot \Bigl[X_{0}") and ordered.endswith(r"\Bigr] \cdot \left(B + C\right)")
    assert factor_latex(x - 1) == r"\left(x - 1\right)" and factor_latex(-x) == "- x"
    assert factor_latex(sp.Sum(lam, (lam, 1, 2))).startswith(r"\left(")
    assert to_latex(over_outputs(x + 1) ** 2) == r"\left(\sum_c \left(x + 1\right)\right)^{2}"


def test_named_parts_put_back_are_the_whole():
    whole = derive.teacher_student(DFA(), "erf").integrals["I4"].expr
    short, parts = named_parts(whole)
    assert short.xreplace({name: part for part, name in parts.items()}).equals(whole) and len(parts) == 5
    assert max(map(len, broken_sum(short))) < 200 < max(map(len, broken_sum(whole)))


def test_all_signs_of_derivations_can_be_set(tmp_path):
    """Every sign in a string of `derive`, as text and in a formula's symbol."""
    modules = (ast.parse(path.read_text(encoding="utf-8")) for path in Path(derive.__file__).parent.rglob("*.py"))
    strings = (node.value for module in modules for node in ast.walk(module) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    signs = sorted({sign for string in strings for sign in string if not sign.isascii()})
    assert "∥" in signs
    sentences = [f"a {sign} b{sign}" + f", {sign}_1" * (unicodedata.category(sign)[0] == "L") for sign in signs]
    derivation = derive.Derivation("all signs", tuple(derive.Step(sentence, Symbol("β̃")) for sentence in sentences))
    source = document(SimpleNamespace(definitions=lambda: [("ξ", "ß")], title=lambda: "β ⟹ 𝔸", latex=derivation.latex, derivation=lambda: derivation))
    assert source.isascii()
    if shutil.which("pdflatex"):
        compiles(source, tmp_path)


def test_names_with_underscores_stay_names():
    """Before, leaky_relu was leak$y_r$elu; single letters with a subscript are formulas."""
    assert text("activation leaky_relu, sigma_w = 2, B_1W_2 and W_0") == r"activation leaky\_relu, sigma\_w = 2, $B_1$$W_2$ and $W_0$"


def test_what_is_not_conserved_is_defined():
    laws = conservation_laws(information_alignment(), MLP(1, "linear"))
    assert not laws and dict(laws.definitions()).keys() >= {"W_{0}", "W_{1}", "B_{1}"}
