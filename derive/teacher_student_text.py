"""The derivation of the online equations in order, with the reasons: what `TeacherStudent` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from .closed_form import Mean
from .derivation import Derivation, Step, to_latex
from .online_integrals import mean_of
from .teacher_student import Q, R, g, i, k, lam, m, v

if TYPE_CHECKING:
    from .teacher_student import TeacherStudent

_REASONS = {
    "R": "Overlap with the teacher", "Q": "Overlap of students; the last factors come from x·x/D → 1", "v": "Readout",
    "eg": "Generalisation error against the noiseless teacher, half the mean square",
}  # fmt: skip


def online_derivation(ts: TeacherStudent) -> Derivation:
    """From one step of the rule to the closed equations."""
    feedback = to_latex(ts.feedback(k))
    slope = to_latex(ts.slope)
    left = {"R": R[i, m], "Q": Q[i, k], "v": v[i]}
    changes = tuple(Step(_REASONS[name], rf"D\,\Delta {to_latex(left[name])} = {to_latex(change)}") for name, change in ts.step.items())
    averages = tuple(Step(_REASONS[name], ts.equations[name]) for name in ts.terms)
    integrals = tuple(
        Step(f"{name}, in the entries C_ab of its fields' covariance", sp.Eq(mean_of(integral), integral.expr, evaluate=False), integral.steps)
        if integral.closed
        else Step(f"{name}: {integral.form}", mean_of(integral), integral.steps)
        for name, integral in ts.integrals.items()
    )
    return Derivation(
        ts.title(),
        (
            Step(
                "One step on a fresh example x ~ N(0, 1) in D dimensions, with output noise σζ and weight decay κ",
                r"w_k \leftarrow \bigl(1 - \tfrac{\kappa}{D}\bigr) w_k + \frac{\eta}{\sqrt D}\, e\, p(\lambda_k)\, z_k\, x,\quad "
                r"v_k \leftarrow \bigl(1 - \tfrac{\kappa}{D}\bigr) v_k + \frac{\eta}{D}\, e\, g(\lambda_k)",
            ),
            Step(
                f"{ts.rule.name}: the pseudo-gradient is p(h) z, and the feedback is a transported and a frozen part",
                rf"p(x) = {slope},\quad z_k = {feedback},\quad g(x) = {to_latex(ts.act.expr)}",
            ),
            Step(
                "Inner products of the updated vectors; w·x = √D λ, B·x = √D ρ, and x·x = D with fluctuations of order √D. "
                "D times the change in one step, D → ∞",
                None,
                changes,
            ),
            Step(
                "Changes are O(1/D) and there are D steps in a unit of time: fluctuations average out, and the rate is the mean over fields and noise. "
                "Put in the error; the noise has mean 0 and variance 1, and the fields are Gaussian with covariance",
                r"e = \sum_n A_n g(\rho_n) - \sum_j v_j g(\lambda_j) + \sigma\zeta,\qquad "
                r"\operatorname{Cov}(\lambda, \rho) = \begin{pmatrix} Q & R \\ R^{\top} & T \end{pmatrix}",
                averages,
            ),
            Step("The Gaussian integrals for this activation", None, integrals),
        ),
    )


def online_definitions(ts: TeacherStudent) -> list[tuple[str, str]]:
    """The rows of a document's table of definitions."""
    rows = [
        ("D,\\ t", "input dimension, which goes to infinity; steps/D"),
        ("K,\\ M", "numbers of student and teacher units"),
        (to_latex(sp.sqrt(sp.Symbol("D")) * lam[k]), "w_k·x, the student's field; √D ρ_m = B_m·x the teacher's"),
        (to_latex(Q[i, k]), "w_i·w_k/D"),
        (to_latex(R[i, m]), "w_i·B_m/D; T_mn = B_m·B_n/D is fixed"),
        ("v_i,\\ A_m", "readout weights of student and teacher"),
        ("\\eta,\\ \\sigma,\\ \\kappa", "learning rate, standard deviation of the output noise, weight decay"),
        (to_latex(Mean(g(sp.Symbol("chi")))), "average over fields"),
    ]
    if ts.frozen:
        rows.append(("F_i", "frozen feedback"))
    return rows
