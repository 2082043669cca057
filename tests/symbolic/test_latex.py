"""LaTeX of kernels and equations: it parses everywhere, and compiles where a LaTeX is installed."""

import shutil
import subprocess

import pytest
from pylatexenc.latexwalker import LatexWalker, LatexWalkerParseError

from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    EvolvingFeedback,
    Hebb,
    Symbol,
    Training,
    amp,
    beta,
    decay,
    dmft_equations,
    exp,
    lam,
    lazy_kernel,
    null,
    rho,
    self_feedback,
    sparse,
    symmetric_alignment,
    x,
)
from derive.derivation import in_unicode

SUBJECTS = {
    "fa_relu_2": lambda: lazy_kernel(FA(rho), MLP(2, "relu")),
    "gd_gelu_1": lambda: lazy_kernel(GD(), MLP(1, "gelu")),
    "gln_erf_3": lambda: lazy_kernel(GLN(), MLP(3, "erf")),
    "fa_tanh_bias": lambda: lazy_kernel(FA(rho), MLP(2, "tanh", sigma_b=0.5)),
    "own_activation": lambda: lazy_kernel(GD(), MLP(1, x * exp(-(x**2)))),
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


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; test_documents_parse still checks the sources")
@pytest.mark.parametrize(
    "name",
    ["fa_relu_2", "gd_gelu_1", "fa_tanh_bias", "equations_FA", "equations_GLN", "training_all", "training_outputs", "learning_feedback", "loss"],
)
def test_documents_compile_without_errors(name, tmp_path):
    (tmp_path / "document.tex").write_text(SUBJECTS[name]().document())
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, [line for line in done.stdout.splitlines() if "Overfull" in line]


def test_a_broken_document_does_not_parse():
    with pytest.raises(LatexWalkerParseError):
        LatexWalker(r"\begin{align*} a &= \frac{b}{ \end{align*}", tolerant_parsing=False).get_latex_nodes()


@pytest.mark.parametrize(
    "tex, expected",
    [
        (r"\frac{- a + b}{\gamma_{0}}", "(- a + b)/γ_0"),
        (r"\Phi^{\ell - 1}_{\mu\nu}(t,s)", "Φ^(ℓ - 1)_μν(t,s)"),
        (r"\tilde g = z \dot\varphi(h)", "g̃ = z φ̇(h)"),
    ],
)
def test_unicode_of_formulas(tex, expected):
    assert in_unicode(tex) == expected
