"""LaTeX documents of the reductions of the mean-field equations: they parse strictly and compile without errors."""

import re
import shutil
import subprocess

import pytest
from pylatexenc.latexwalker import LatexWalker

from derive import (
    DFA,
    FA,
    GD,
    GLN,
    MLP,
    Hebb,
    conservation_laws,
    dmft_equations,
    exp,
    information_alignment,
    rho,
    sigma_b,
    teacher_student,
    weight_mirror,
    x,
)
from derive.expansion import small_feature_expansion
from derive.latex_lines import broken, fitted, width
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
# Subjects whose formulas are wider than a page.
WIDE = {
    "expansion_own": lambda: small_feature_expansion(FA(rho), MLP(1, x * exp(-(x**2)))),
    "laws_rates": lambda: conservation_laws(FA(rho), MLP(3, "relu", sigma_b=1), rates=True),
    "laws_dfa": lambda: conservation_laws(DFA(), MLP(2, "relu", sigma_b=sigma_b)),
    "laws_mirror": lambda: conservation_laws(weight_mirror(), MLP(2, "relu", sigma_b=sigma_b)),
    "laws_information": lambda: conservation_laws(information_alignment(), MLP(2, "relu", sigma_b=sigma_b)),
    "primitives_information": lambda: information_alignment().regulariser,
    "online_relu": lambda: teacher_student(GD(), "relu"),
    "online_gelu": lambda: teacher_student(GD(), "gelu"),
}
SUBJECTS |= WIDE


@pytest.mark.parametrize("name", SUBJECTS)
def test_documents_parse(name):
    source = SUBJECTS[name]().document()
    nodes, _, _ = LatexWalker(source, tolerant_parsing=False).get_latex_nodes()
    assert nodes
    assert source.isascii(), sorted({sign for sign in source if not sign.isascii()})


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; test_documents_parse still checks the sources")
@pytest.mark.parametrize("name", ["linear_fa", "scalar_fa", "expansion_fa_erf", *WIDE])
def test_documents_compile_and_fit_the_page(name, tmp_path):
    (tmp_path / "document.tex").write_text(SUBJECTS[name]().document())
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    too_wide = [line for line in done.stdout.splitlines() if (found := re.match(r"Overfull .hbox \((.*?)pt", line)) and float(found.group(1)) > 5]
    assert not too_wide


def test_long_lines_break_between_terms_factors_and_inside_brackets():
    """Every line is balanced but for brackets of fixed size, which may stand on two lines, and has its width."""
    numbered = lambda letter, sign: sign.join(f"{letter}_{{{n}}}" for n in range(1, 31))
    assert broken("a + b", 100) == ["a + b"]
    terms = broken("Q = " + numbered("a", " - "), 200)
    assert " ".join(terms) == "Q = " + numbered("a", " - ") and all(line.startswith("- ") for line in terms[1:])
    factors = broken(numbered("W", " "), 200)
    assert " ".join(line.removeprefix(r"\cdot ") for line in factors) == numbered("W", " ") and all(line.startswith(r"\cdot ") for line in factors[1:])
    inside = broken(rf"\eta \left({numbered('a', ' + ')}\right)^{{2}} b", 200)
    assert inside[0].startswith(r"\eta \Bigl(a_{1}") and inside[-1].endswith(r"a_{30}\Bigr)^{2} b") and r"\left" not in "".join(inside)
    fraction = broken(rf"\frac{{{numbered('a', ' + ')}}}{{2 P}}", 200)
    assert fraction[0].startswith(r"\frac{1}{2 P} \Bigl[a_{1} + a_{2}") and fraction[-1].endswith(r"\Bigr]")
    power = broken(rf"x e^{{- {numbered('a', ' - ')}}}", 200)
    assert power[0].startswith(r"x \exp\Bigl(- a_{1}")
    root = broken(rf"\sqrt{{{numbered('a', ' + ')}}}", 200)
    assert root[-1].endswith(r"\Bigr]^{1/2}")
    average = broken(rf"\left\langle {numbered('a', ' + ')} \right\rangle", 200)
    assert average[0].startswith(r"\Bigl\langle a_{1}") and average[-1].endswith(r"\Bigr\rangle")
    for lines in (terms, factors, inside, fraction, power, root, average):
        assert len(lines) > 2 and all(line.count("{") == line.count("}") for line in lines) and max(map(width, lines)) < 215


def test_rows_that_fit_stay_as_they_are_and_a_long_left_side_stands_alone():
    fits = "a &= b + c \\\\\nd + e &= f"
    assert fitted(fits) == fits == fitted(fits, depth=4)
    left, right = (" + ".join(f"{letter}_{{{n}}}" for n in range(1, 17)) for letter in "ab")
    first, *others = fitted(f"{left} &= {right}").split(" \\\\\n")
    assert first == f"&{left}" and others[0].startswith(r"&\quad = b_{1}")
