"""What feedback weights under a composition of primitives do to a linear layer with Gaussian input, W held fixed.

Batch averages become Σ = E[x xᵀ], and the descent of R a linear equation for B. In the eigenbases of Σ (eigenvalues l_i) and of
C = W Σ Wᵀ (eigenvalues μ_j) every entry relaxes on its own,

    dB_ij/dt = drive_i (Wᵀ)_ij − rate_ij B_ij,      B_ij(t) = gain_ij (1 − e^{−rate_ij t}) (Wᵀ)_ij + e^{−rate_ij t} B_ij(0),

with gain = drive/rate. Rates, drive and fixed point are read off the derived gradient; fixed point, angles and the time course follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .derivation import Derivation, Step, plain, to_latex
from .errors import BadInput
from .latex import Documented
from .matrix_calculus import products, terms
from .primitives import B, P, Regulariser, W, X, n, task_gradient

Sigma = sp.MatrixSymbol("Sigma", n, n)
C = W * Sigma * W.T
# Eigenvalues of Σ and of C, time, and an entry of Wᵀ, of B and of B(0) in the eigenbases.
l, mu = sp.symbols("l mu", nonnegative=True)
time = sp.Symbol("t", nonnegative=True)
w_mode, b_start = sp.symbols("w b_0", real=True)
# Step size of noisy updates and variance of their noise.
step, spread = sp.symbols("eta v", positive=True)
_FACTORS = {"left": {(): sp.S.One, (Sigma,): l}, "right": {(): sp.S.One, (W, Sigma, W.T): mu}}


def averaged(expr: sp.MatrixExpr) -> sp.MatrixExpr:
    """Batch averages as expectations over Gaussian inputs of second moment Σ: X Xᵀ → P Σ."""
    total: sp.MatrixExpr = sp.ZeroMatrix(*expr.shape)
    for coefficient, factors in terms(expr):
        kept: list[sp.MatrixExpr] = []
        for factor in factors:
            if kept and kept[-1] == X and factor == X.T:
                kept[-1], coefficient = Sigma, coefficient * P
            else:
                kept.append(factor)
        if any(factor.has(X) for factor in kept):
            raise BadInput(
                f"the term {plain(coefficient * sp.MatMul(*factors).doit())} is no function of second moments: the theory of linear layers "
                "takes compositions without activations, centring and biases"
            )
        total += coefficient * sp.MatMul(*kept).doit()
    return products(total)


@dataclass(frozen=True)
class AlignmentTheory(Documented):
    """The dynamics of B of one linear layer under a composition of primitives.

    Attributes:
        regulariser: the composition; B descends it, dB/dt = −∂R/∂B.

    Raises:
        BadInput: W takes part (see `CoTraining`), tied gradients, or terms that do not diagonalise with Σ and C.

    Source: Kunin et al. 2020, section 4 (fixed points and stability); derived here.
    """

    regulariser: Regulariser

    def __post_init__(self) -> None:
        if self.regulariser.layer.update_forward:
            raise BadInput(f"{self.regulariser} moves W too: its dynamics is that of CoTraining(…)")
        if self.regulariser.gradient.has(task_gradient):
            raise BadInput(f"{self.regulariser} contains tied gradients, which are the task's: B − Wᵀ decays at the rate of decay, nothing else is local")
        self.parts  # noqa: B018  refuses what does not diagonalise

    @cached_property
    def gradient(self) -> sp.MatrixExpr:
        """∂R/∂B averaged over Gaussian inputs."""
        return averaged(self.regulariser.gradient)

    @cached_property
    def parts(self) -> tuple[tuple[tuple[sp.Expr, tuple, tuple], ...], tuple[tuple[sp.Expr, tuple], ...]]:
        """(coefficient, left, right) of the terms left · B · right, and (coefficient, left) of the terms −left · Wᵀ."""
        linear, driving = [], []
        for coefficient, factors in terms(self.gradient):
            anchor = B if B in factors else W.T
            place = factors.index(anchor) if anchor in factors else 0
            left, right = tuple(factors[:place]), tuple(factors[place + 1 :])
            if left not in _FACTORS["left"] or right not in _FACTORS["right"] or (anchor != B and right):
                word = plain(coefficient * sp.MatMul(*factors).doit())
                raise BadInput(f"the term {word} does not diagonalise in the eigenbases of Sigma and W Sigma W^T: leave it out")
            if anchor == B:
                linear.append((coefficient, left, right))
            else:
                driving.append((-coefficient, left))
        return tuple(linear), tuple(driving)

    # ---- modes -------------------------------------------------------------------------------------------------------

    @cached_property
    def rate(self) -> sp.Expr:
        """Of the mode (i, j), as a function of l and mu."""
        return sp.Add(*(c * _FACTORS["left"][left] * _FACTORS["right"][right] for c, left, right in self.parts[0]))

    @cached_property
    def drive(self) -> sp.Expr:
        """What pulls the mode along (Wᵀ)_ij, as a function of l."""
        return sp.Add(*(c * _FACTORS["left"][left] for c, left in self.parts[1]))

    @cached_property
    def gain(self) -> sp.Expr:
        """(B*)_ij/(Wᵀ)_ij; NaN where nothing happens."""
        return sp.cancel(self.drive / self.rate) if self.rate != 0 else sp.nan

    @cached_property
    def mode(self) -> sp.Expr:
        """B_ij(t), by solving its differential equation."""
        if self.rate == 0:
            return b_start + self.drive * w_mode * time
        course, r, source = sp.Function("course"), sp.Symbol("r", positive=True), sp.Symbol("s", real=True)
        solved = sp.dsolve(course(time).diff(time) + r * course(time) - source, course(time), ics={course(0): b_start})
        return sp.expand(solved.rhs).subs({r: self.rate, source: self.drive * w_mode})

    # ---- the fixed point ---------------------------------------------------------------------------------------------

    @cached_property
    def fixed_point(self) -> sp.MatrixExpr:
        """B*, of directions that relax at all.

        Raises:
            BadInput: B occurs with factors on both sides, so that only modes have a closed form; or nothing holds B.
        """
        linear, driving = self.parts
        source = sum((c * sp.MatMul(*left, W.T) for c, left in driving), sp.ZeroMatrix(*B.shape)).doit()
        if not linear:
            raise BadInput(f"{self.regulariser}: no term of the gradient contains B, which then grows without end or not at all")
        if all(not right for _, _, right in linear):
            return _solved([(c, left) for c, left, _ in linear], source, n, before=True)
        if all(not left for _, left, _ in linear):
            return _solved([(c, right) for c, _, right in linear], source, W.shape[0], before=False)
        raise BadInput(f"{self.regulariser}: B stands between matrices on both sides, so that B* has no closed product; use gain, mode by mode")

    # ---- angles ------------------------------------------------------------------------------------------------------

    @cached_property
    def random_angle(self) -> sp.Expr:
        """tan² of the angle of B(t) and Wᵀ for one eigenvalue l of Σ and no mu, B(0) independent of W and of the same norm.

        Raises:
            BadInput: rates depend on mu.
        """
        if self.rate.has(mu):
            raise BadInput(f"{self.regulariser}: rates depend on W itself through mu; use the compiled angle(t, B0, W, Sigma)")
        along = sp.expand(self.mode.subs(b_start, 0) / w_mode)
        return sp.simplify((self.mode.subs(w_mode, 0) / b_start / along) ** 2)

    @cached_property
    def overlap(self) -> Mapping[str, sp.Expr]:
        """Under Σ = l 1, per eigenvalue mu of C: the terms of ⟨B*, Wᵀ⟩, |B*|² and |W|² (whose mode's square is mu/l)."""
        square = mu / l
        return MappingProxyType({"BW": square * self.gain, "BB": square * self.gain**2, "WW": square})

    # ---- noise in the weights ----------------------------------------------------------------------------------------

    @cached_property
    def weight_noise_variance(self) -> sp.Expr:
        """Stationary variance of a mode when every step of size η adds η ξ with E[ξ²] = v: V = (1 − η rate)² V + η² v, solved for V."""
        V = sp.Symbol("V", positive=True)
        (solution,) = sp.solve(sp.Eq(V, (1 - step * self.rate) ** 2 * V + step**2 * spread), V)
        return sp.factor(solution)

    # ---- presentation ------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Of the composition."""
        return self.regulariser.parameters

    @cached_property
    def equations(self) -> Mapping[str, str]:
        """All results as LaTeX, by name."""
        found = {
            "ode": r"\frac{dB}{dt} = " + to_latex(products(-self.gradient)),
            "rate": r"r_{ij} = " + to_latex(self.rate),
            "gain": r"\frac{B^{*}_{ij}}{W^{\top}_{ij}} = " + to_latex(self.gain),
            "mode": r"B_{ij}(t) = " + to_latex(self.mode),
            "weight noise": r"V_{ij} = " + to_latex(self.weight_noise_variance),
        }
        try:
            found["fixed point"] = r"B^{*} = " + to_latex(self.fixed_point)
        except BadInput:
            found["fixed point"] = r"B^{*} = \sum_{ij} \frac{B^{*}_{ij}}{W^{\top}_{ij}}\, e_i\, W^{\top}_{ij}\, f_j^{\top}"
        if not self.rate.has(mu):
            found["angle"] = r"\tan^2\theta(t) = " + to_latex(self.random_angle)
        return MappingProxyType(found)

    def title(self) -> str:
        """One line."""
        return f"Feedback weights of a linear layer under {self.regulariser}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols."""
        return [
            (r"\Sigma", "second moment of the inputs, with eigenvalues l_i and eigenvectors e_i"),
            ("C", "second moment of the outputs, W Σ Wᵀ, with eigenvalues μ_j and eigenvectors f_j"),
            ("w,\\ b,\\ b_{0}", "entries (i, j) of Wᵀ, B(t), B(0) in these bases"),
            (r"V_{ij}", "variance of a mode under noise of variance v in every update of size η"),
        ]

    def derivation(self) -> Derivation:
        """From R to fixed point, rates and time course."""
        equations, source = self.equations, Derivation("", tuple(self.regulariser.derivation()))
        steps = [
            Step("The gradient of R is derived from its primitives.", to_latex(self.regulariser.gradient), tuple(source)),
            Step("Averages over many Gaussian inputs are Σ, and B descends R.", equations["ode"]),
            Step("B stands between functions of Σ and of C, so that every entry relaxes alone in their eigenbases.", equations["rate"]),
            Step("Solving its linear differential equation with B(0) given,", equations["mode"]),
            Step("and for long times,", equations["gain"]),
            Step("as matrices,", equations["fixed point"]),
            Step("Noise of variance v in every step of size η is in balance with the contraction (1 − ηr)².", equations["weight noise"]),
        ]
        if "angle" in equations:
            steps.append(Step("For B(0) independent of W and of equal norm the two parts of B(t) are orthogonal.", equations["angle"]))
        return Derivation(self.title(), tuple(steps))

    def source(self) -> str:
        """A JAX module: rates, gains, fixed_point, feedback(t, B0, W, Sigma), angle(t, B0, W, Sigma), weight_noise_variance."""
        from .codegen.alignment import alignment_source

        return alignment_source(self)

    def __repr__(self) -> str:
        return "\n".join([self.title(), *(f"  {name}: {plain(equation)}" for name, equation in self.equations.items())])


def _solved(parts: list[tuple[sp.Expr, tuple]], source: sp.MatrixExpr, size: sp.Expr, before: bool) -> sp.MatrixExpr:
    """B from M B = source (before) or B M = source, M being the sum of the parts; common factors are cancelled."""
    if len(parts) == 1:
        coefficient, factors = parts[0]
        if not factors:
            return products(source / coefficient)
        inverse = sp.MatMul(*factors).doit().inverse()
        return products(((inverse * source if before else source * inverse) / coefficient).doit())
    M = sum((c * (sp.MatMul(*factors) if factors else sp.Identity(size)) for c, factors in parts), sp.ZeroMatrix(size, size)).doit()
    return sp.MatMul(sp.Inverse(M), source) if before else sp.MatMul(source, sp.Inverse(M))


def alignment_theory(regulariser: Regulariser) -> AlignmentTheory:
    """The dynamics of feedback weights under a composition: `AlignmentTheory(regulariser)`, whose documentation says more."""
    if not isinstance(regulariser, Regulariser):
        raise BadInput(f"{regulariser!r} is no composition of primitives: write it with decay, amp, null, sparse, self_feedback")
    return AlignmentTheory(regulariser)
