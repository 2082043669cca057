"""LaTeX documents of the reductions of the mean-field equations: they parse strictly and compile without errors."""

import shutil
import subprocess

import pytest
from pylatexenc.latexwalker import LatexWalker

from derive import FA, GD, GLN, MLP, Hebb, dmft_equations, rho
from derive.expansion import small_feature_expansion
from derive.scalar import scalar_reduction

SUBJECTS = {
    "linear_gd": lambda: dmft_equations(GD(), MLP(3, "linear")).linear(),
    "linear_fa": lambda: dmft_equations(FA(rho), MLP(2, "linear")).linear(),
    "linear_gln": lambda: dmft_equations(GLN(), MLP(2, "relu")).linear(),
    "scalar_gd": lambda: scalar_reduction(GD()),
    "scalar_fa": lambda: scalar_reduction(FA(rho)),
    "scalar_hebb": lambda: scalar_reduction(Hebb()),
    "expansion_gd_square": lambda: small_feature_expansion(GD(), MLP(1, "square")),
    "expansion_fa_erf": lambda: small_feature_expansion(FA(rho), MLP(1, "erf")),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_documents_parse(name):
    source = SUBJECTS[name]().document()
    nodes, _, _ = LatexWalker(source, tolerant_parsing=False).get_latex_nodes()
    assert nodes
    assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; test_documents_parse still checks the sources")
@pytest.mark.parametrize("name", ["linear_fa", "scalar_fa", "expansion_fa_erf"])
def test_documents_compile(name, tmp_path):
    (tmp_path / "document.tex").write_text(SUBJECTS[name]().document())
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
