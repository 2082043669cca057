"""Deep linear networks under direct feedback alignment: weak weight alignment, proved, and what follows from it.

    h_l = W_l h_{l−1}, h_0 = x, e = h_L − y,   ΔW_l = −η F_l e h_{l−1}ᵀ,   F_L = 1,   W_l(0) = 0

Then W_1 = F_1 A_1, W_l = F_l A_l F_{l−1}ᵀ exactly, at all times and for any data, with small matrices A_l that move by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .derivation import Derivation, Step
from .errors import BadInput, DeriveError
from .latex import Documented

D, C = sp.symbols("D n_L", integer=True, positive=True)
tau = sp.Symbol("tau", nonnegative=True)
rate = sp.Symbol("eta", positive=True)
P = sp.Symbol("P", positive=True)  # stands for S Sᵀ, S = ⟨y xᵀ⟩: only powers of it occur
alpha, beta = sp.symbols("alpha beta", positive=True)
p = sp.Symbol("p", nonnegative=True)  # share of labels that are replaced
kappa_M = sp.Symbol("kappa", positive=True)


@dataclass(frozen=True)
class DeepLinear(Documented):
    """A deep linear network with L weight matrices, DFA from zero weights.

    Attributes:
        layers: L ≥ 2.

    Source: Refinetti et al. 2021, section 3.
    """

    layers: int

    # ---- symbols ------------------------------------------------------------------------------------------------------

    def F(self, l: int) -> sp.MatrixExpr:
        """Feedback F_l, n_l × n_L; the identity at the output."""
        return sp.Identity(C) if l == self.layers else sp.MatrixSymbol(f"F_{l}", sp.Symbol(f"n_{l}", integer=True, positive=True), C)

    def A(self, l: int) -> sp.MatrixSymbol:
        """Alignment matrix A_l, n_L × n_L; n_L × D for l = 1."""
        return sp.MatrixSymbol(f"A_{l}", C, D if l == 1 else C)

    def G(self, l: int) -> sp.MatrixSymbol:
        """G_l = F_lᵀ F_l."""
        return sp.MatrixSymbol(f"G_{l}", C, C)

    def weights(self, l: int) -> sp.MatrixExpr:
        """W_l = F_l A_l F_{l−1}ᵀ; without the last factor for l = 1."""
        return self.F(l) * self.A(l) if l == 1 else self.F(l) * self.A(l) * self.F(l - 1).T

    def grouped(self, expr: sp.MatrixExpr) -> sp.MatrixExpr:
        """F_lᵀ F_l as G_l."""
        factors = list(sp.MatMul(expr).doit().args) if isinstance(expr, sp.MatMul) else [expr]
        found: list[sp.Expr] = []
        for factor in factors:
            layer = next((l for l in range(1, self.layers) if factor == self.F(l)), None)
            if layer is not None and found and found[-1] == self.F(layer).T:
                found[-1] = self.G(layer)
            else:
                found.append(factor)
        return sp.MatMul(*found).doit() if found else expr

    # ---- the proof ----------------------------------------------------------------------------------------------------

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """By name: "W1"…, the weights; "a1"…, with h_l = F_l a_l; "dA1"…, the reduced dynamics; "delta1"…, BP's errors.

        Raises:
            DeriveError: a step of the induction does not hold.
        """
        x, e, error = sp.MatrixSymbol("x", D, 1), sp.MatrixSymbol("e", C, 1), {}
        eq = lambda left, right: sp.Eq(left, right, evaluate=False)
        found: dict[str, sp.Equality] = {}
        below, hidden = x, x
        for l in range(1, self.layers + 1):
            name = sp.MatrixSymbol(f"a_{l}", C, 1)
            # h_l = W_l h_{l−1} = F_l a_l
            activity = self.grouped((self.weights(l) * hidden).doit())
            reduced = self.A(l) * x if l == 1 else (self.A(l) * self._gram(l - 1) * below).doit()
            if activity != (self.F(l) * reduced).doit():
                raise DeriveError(f"h_{l} = {activity} is not F_{l} a_{l}")
            # ΔW_l = −η F_l e h_{l−1}ᵀ must be F_l ΔA_l F_{l−1}ᵀ
            step = (-rate * self.F(l) * e * hidden.T).doit()
            inner = (-rate * e * below.T).doit()
            kept = (self.F(l) * inner if l == 1 else self.F(l) * inner * self.F(l - 1).T).doit()
            if sp.MatAdd(step, -kept).doit() != sp.ZeroMatrix(*step.shape):
                raise DeriveError(f"the step of W_{l} leaves the form F_l A_l F_(l−1)ᵀ: {step} against {kept}")
            found[f"W{l}"] = eq(sp.MatrixSymbol(f"W_{l}", *self.weights(l).shape), self.weights(l))
            found[f"a{l}"] = eq(name, reduced)
            found[f"dA{l}"] = eq(sp.MatrixSymbol(rf"\Delta A_{l}", *inner.shape), inner)
            below, hidden = name, (self.F(l) * name).doit()
        for l in range(1, self.layers):
            error[l] = self.backpropagated(l)
            found[f"delta{l}"] = eq(sp.MatrixSymbol(rf"\delta_{l}", self.F(l).shape[0], 1), error[l])
        return MappingProxyType(found)

    def _gram(self, l: int) -> sp.MatrixExpr:
        return sp.Identity(C) if l == self.layers else self.G(l)

    def backpropagated(self, l: int) -> sp.MatrixExpr:
        """W_{l+1}ᵀ ⋯ W_Lᵀ e in terms of the A's: F_l A_{l+1}ᵀ G_{l+1} ⋯ A_Lᵀ e. DFA's own is F_l e."""
        product = sp.MatrixSymbol("e", C, 1)
        for upper in range(self.layers, l, -1):
            product = (self.weights(upper).T * product).doit()
        return self.grouped(product)

    # ---- first instants -----------------------------------------------------------------------------------------------

    @cached_property
    def early(self) -> Mapping[int, sp.Expr]:
        """A_l, l ≥ 2, at the start (e = −y, G = 1) as c τ^k P^n with τ = η × steps, P = S Sᵀ and S = ⟨y xᵀ⟩; A_1 = τ S.

        dA_l/dτ = ⟨y a_{l−1}ᵀ⟩ = S A_1ᵀ A_2 ⋯ A_{l−1}, since A_2, A_3, … are powers of the symmetric P.
        """
        found: dict[int, sp.Expr] = {}
        driven = tau * P  # S A_1ᵀ
        for l in range(2, self.layers + 1):
            found[l] = sp.integrate(driven, (tau, 0, tau))
            driven = driven * found[l]
        return MappingProxyType(found)

    def conditioning(self, l: int) -> sp.Expr:
        """κ(A_l) at the start as a power of κ(P)."""
        if not 2 <= l <= self.layers:
            raise BadInput(f"l={l}: the alignment matrices that can be ill-conditioned are those of layers 2…{self.layers}")
        return sp.Symbol("kappa_P", positive=True) ** sp.degree(self.early[l], P)

    # ---- what is shown ------------------------------------------------------------------------------------------------

    def title(self) -> str:
        """One line."""
        return f"Deep linear network, {self.layers} layers, DFA from zero weights: weak weight alignment"

    def derivation(self) -> Derivation:
        """The induction, with every layer's equations."""
        eqs = self.equations
        of = lambda prefix: tuple(Step(f"layer {name[len(prefix):]}", eqs[name]) for name in eqs if name.startswith(prefix))
        steps = (
            Step("The form holds at the start, where all weights are 0. Suppose it holds; then h_l = F_l a_l, with G_l = F_lᵀ F_l", None, of("a")),
            Step("A step changes W_l by −η F_l e h_{l−1}ᵀ = F_l (−η e a_{l−1}ᵀ) F_{l−1}ᵀ, which has the same form", None, of("dA")),
            Step("So at all times, for any data and any order of examples", None, of("W")),
            Step("The error that backpropagation would deliver; DFA's is F_l e, parallel to it where the products of A's and G's are ∝ 1", None, of("delta")),
            Step("At the start e = −y: deeper layers align later, and are worse conditioned", r",\quad ".join(
                f"A_{l} = {sp.latex(expr)}" for l, expr in self.early.items())),
        )  # fmt: skip
        return Derivation(self.title(), steps)

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols and their meaning."""
        return [("F_l", "feedback of layer l; the identity at the output"), ("G_l", "F_lᵀ F_l"), ("A_l", "alignment matrices, small"),
                ("e", "error, output less target"), ("P", "S Sᵀ, S the mean of y xᵀ"), (r"\tau", "η × steps")]  # fmt: skip

    def source(self) -> str:
        """A JAX module with one step of the reduced dynamics: what `numerics.solve_deep_linear` runs."""
        from .codegen.deep_linear import deep_linear_source

        return deep_linear_source(self)

    def __repr__(self) -> str:
        from .derivation import in_unicode, to_latex

        return "\n".join([self.title(), *(f"  {in_unicode(to_latex(eq))}" for eq in self.equations.values())])


def deep_linear(layers: int) -> DeepLinear:
    """Weak weight alignment of a deep linear network with this many weight matrices.

    Raises:
        BadInput: fewer than 2 layers.
    """
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 2:
        raise BadInput(f"layers={layers!r}: feedback alignment needs at least 2 weight matrices")
    return DeepLinear(layers)


def alignment_of_targets() -> sp.Expr:
    """The first instants' alignment of layer 2, tr P/(√n_L ‖P‖), for independent inputs and targets with covariance [[1, α(1−β)], [·, α²]].

    For x independent of y the mean of P is ∝ Cov(y); it is largest, 1, for isotropic targets.
    """
    covariance = sp.Matrix([[1, alpha * (1 - beta)], [alpha * (1 - beta), alpha**2]])
    return sp.simplify(covariance.trace() / (sp.sqrt(2) * sp.sqrt(sp.expand((covariance * covariance.T).trace()))))


def label_noise(classes: sp.Expr = C) -> tuple[sp.Expr, sp.Expr]:
    """Covariance of one-hot targets around their mean when each label is replaced by a uniform class with probability p, all classes alike.

    Given its class, a target has mean m = (1 − p) e_c + p/C and covariance diag(m) − m mᵀ, which is averaged over c. For inputs of mean 0, n of
    them, corrupted labels make P = S Sᵀ, on average, (1 − p)² P + (⟨|x|²⟩/n) × this covariance: what is learnt first is weaker and more
    isotropic.

    Args:
        classes: C.

    Returns:
        Diagonal and other entries.
    """
    other = p / classes
    own = 1 - p + other
    # of C classes the given one is this, another, or (off the diagonal) neither of both
    diagonal = (own * (1 - own) + (classes - 1) * other * (1 - other)) / classes
    mixed = -(2 * own * other + (classes - 2) * other**2) / classes
    return sp.factor(diagonal), sp.factor(mixed)


def gradient_alignment_bound() -> sp.Expr:
    """The smallest cosine of M e and e over all e, M symmetric and positive with condition number κ.

    With orthonormal feedback backpropagation's error is F_l M e, M = A_{l+1}ᵀ ⋯ A_Lᵀ, and DFA's is F_l e. The worst e lies in the plane of the
    extreme eigenvectors, with squared shares s and 1 − s; s is found where the cosine is stationary.
    """
    share = sp.Symbol("s", positive=True)
    cosine = (share + kappa_M * (1 - share)) / sp.sqrt(share + kappa_M**2 * (1 - share))
    (worst,) = sp.solve(sp.numer(sp.together(sp.diff(cosine, share))), share)
    return sp.sqrt(sp.factor(sp.simplify(cosine.subs(share, worst) ** 2)))


__all__ = ["DeepLinear", "alignment_of_targets", "deep_linear", "gradient_alignment_bound", "label_noise"]
