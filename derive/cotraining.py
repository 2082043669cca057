"""Stability when regularisers move W and B together, and the noise of stochastic batches: what becomes of B under other conditions.

`CoTraining` takes a linear layer with white inputs, Σ = σ² 1, whose W descends R as well. Along one pair of singular vectors W and B are
numbers w and b, and the derived gradients a planar system whose fixed points and Jacobians SymPy finds.

`batch_noise` takes W fixed and batches of N_b fresh Gaussian inputs. The batch's second moment is Σ + E with
E[E M E] = (Σ M Σ + tr(Σ M) Σ)/N_b for symmetric M (Wick), and the stationary fluctuations of the modes follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .alignment import AlignmentTheory, Sigma, averaged, l
from .derivation import Derivation, Step, factor_latex, plain, to_latex
from .errors import BadInput
from .latex import Documented
from .matrix_calculus import products, terms
from .primitives import B, Regulariser, W, n

w, b = sp.symbols("w b", real=True)
variance = sp.Symbol("sigma^2", positive=True)  # σ², the second moment of white inputs
# η, N_b, r_j, μ_j, N_j, Σ_k μ_k N_k, tr(A Σ Aᵀ) at B*, |b*_j|², the rate at μ = 0; dummies, so that no parameter can be one of them.
NOISE = tuple(sp.Dummy(name, positive=True) for name in ("eta", "N_b", "r_j", "mu_j", "N_j", "S", "U", "b^2_j", "r_0"))


@dataclass(frozen=True)
class CoTraining(Documented):
    """W and B of one linear layer descending R together, for white inputs.

    Attributes:
        regulariser: the composition; it is configured with update_forward=True.

    Source: Kunin et al. 2020, section 4 (instability of the weight mirror); derived here.
    """

    regulariser: Regulariser

    def __post_init__(self) -> None:
        if not self.regulariser.layer.update_forward:
            object.__setattr__(self, "regulariser", self.regulariser.configure(update_forward=True))
        self.flow  # noqa: B018  refuses what is no function of second moments

    @cached_property
    def gradients(self) -> tuple[sp.MatrixExpr, sp.MatrixExpr]:
        """∂R/∂W and ∂R/∂B averaged over Gaussian inputs of second moment Σ."""
        return averaged(self.regulariser.forward_gradient), averaged(self.regulariser.gradient)

    @cached_property
    def flow(self) -> tuple[sp.Expr, sp.Expr]:
        """(dw/dt, db/dt) along one pair of singular vectors, Σ = σ² 1."""
        numbers = {W: w, W.T: w, B: b, B.T: b, Sigma: variance}
        scalar = lambda expr: sp.Add(*(c * sp.Mul(*(numbers[factor] for factor in factors)) for c, factors in terms(expr)))
        return -scalar(self.gradients[0]), -scalar(self.gradients[1])

    @cached_property
    def jacobian(self) -> sp.Matrix:
        """Of the flow, as a function of w and b."""
        return sp.Matrix(self.flow).jacobian([w, b])

    @cached_property
    def fixed_points(self) -> tuple[tuple[sp.Expr, sp.Expr], ...]:
        """(w, b) at which nothing moves, for generic coefficients."""
        found = sp.solve(self.flow, [w, b], dict=True)
        return tuple((sp.simplify(point.get(w, w)), sp.simplify(point.get(b, b))) for point in found)

    def eigenvalues(self, point: tuple[sp.Expr, sp.Expr]) -> tuple[sp.Expr, ...]:
        """Growth rates of small deviations from a fixed point."""
        at = self.jacobian.subs({w: point[0], b: point[1]})
        return tuple(sp.factor(sp.simplify(value)) for value, count in at.eigenvals().items() for _ in range(count))

    @property
    def is_linear(self) -> bool:
        """Whether the flow is, so that its only fixed point is 0 unless a growth rate vanishes."""
        return not self.jacobian.free_symbols & {w, b}

    def knife_edge(self, parameter: sp.Symbol) -> tuple[sp.Expr, ...]:
        """Values of a parameter at which a growth rate around 0 vanishes: on one side of it W and B die, on the other they grow."""
        at_zero = self.eigenvalues((sp.S.Zero, sp.S.Zero))
        found = {value for rate in at_zero for value in sp.solve(rate, parameter)}
        return tuple(sorted(found, key=str))

    @cached_property
    def balance_rate(self) -> sp.Expr | None:
        """κ with d/dt (W Wᵀ − BᵀB) = −κ (W Wᵀ − BᵀB) for matrices and any Σ, or None if there is none.

        What is odd under the exchange of W and Bᵀ decays whatever else happens: alignment is forced.
        """
        dW, dB = (products(-each) for each in self.gradients)
        imbalance = products(W * W.T - B.T * B)
        change = products(dW * W.T + W * dW.T - dB.T * B - B.T * dB)
        rate = -dict((tuple(factors), c) for c, factors in terms(change)).get((W, W.T), sp.S.Zero)
        return rate if products(change + rate * imbalance) == sp.ZeroMatrix(*imbalance.shape) else None

    @cached_property
    def equations(self) -> Mapping[str, str]:
        """All results as LaTeX, by name."""
        found = {
            "flow": r"\frac{dw}{dt} = " + to_latex(self.flow[0]) + r",\qquad \frac{db}{dt} = " + to_latex(self.flow[1]),
        }
        for index, point in enumerate(self.fixed_points):
            rates = ",\\ ".join(to_latex(value) for value in self.eigenvalues(point))
            found[f"fixed point {index}"] = rf"(w, b) = \left({to_latex(point[0])},\ {to_latex(point[1])}\right):\quad \lambda = {rates}"
        if self.balance_rate is not None:
            found["balance"] = rf"\frac{{d}}{{dt}}\left(W W^{{T}} - B^{{T}} B\right) = -{factor_latex(self.balance_rate)}\left(W W^{{T}} - B^{{T}} B\right)"
        return MappingProxyType(found)

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Of the composition."""
        return self.regulariser.parameters

    def source(self) -> str:
        """A JAX module: flow(w, b, sigma2), and eigenvalues(w, b, sigma2) of its Jacobian."""
        from .codegen.alignment import cotraining_source

        return cotraining_source(self)

    def title(self) -> str:
        """One line."""
        return f"W and B of a linear layer together under {self.regulariser}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols."""
        return [("w, b", "W and B along one pair of singular vectors"), (r"\sigma^{2}", "second moment of white inputs"), (r"\lambda", "growth rates")]

    def derivation(self) -> Derivation:
        """From R to the growth rates."""
        equations = self.equations
        steps = [
            Step("Both gradients of R, averaged over Gaussian inputs.", r"\frac{dW}{dt} = " + to_latex(products(-self.gradients[0]))),
            Step("and", r"\frac{dB}{dt} = " + to_latex(products(-self.gradients[1]))),
            Step("Along one pair of singular vectors, for white inputs,", equations["flow"]),
            *(Step("At a fixed point the Jacobian has the eigenvalues", equations[name]) for name in equations if name.startswith("fixed")),
        ]
        if "balance" in equations:
            steps.append(Step("For matrices and any second moment of the inputs, by the product rule,", equations["balance"]))
        return Derivation(self.title(), tuple(steps))

    def __repr__(self) -> str:
        return "\n".join([self.title(), *(f"  {name}: {plain(equation)}" for name, equation in self.equations.items())])


@dataclass(frozen=True)
class BatchNoise(Documented):
    """Stationary fluctuations of B around B* under batches of fresh Gaussian inputs.

    The update is B ← B − η (mean gradient + Z) with Z = A E Wᵀ, A = A₀ + B A₁ the same for all terms with Σ. Per column j in the eigenbasis
    of C, N_j = E|B_j − B*_j|² solves a linear system.

    Attributes:
        theory: of the composition.

    Raises:
        BadInput: batches enter otherwise than through −a Σ Wᵀ + B W Σ Wᵀ.
    """

    theory: AlignmentTheory

    def __post_init__(self) -> None:
        if not self.vanishes:
            self.factor  # noqa: B018  refuses what is not of this form

    @cached_property
    def sampled(self) -> tuple[tuple[sp.Expr, tuple, tuple], ...]:
        """(coefficient, left, right) of the terms left · Σ · right of the gradient."""
        found = []
        for coefficient, factors in terms(self.theory.gradient):
            if Sigma in factors:
                place = factors.index(Sigma)
                found.append((coefficient, tuple(factors[:place]), tuple(factors[place + 1 :])))
        return tuple(found)

    @cached_property
    def vanishes(self) -> bool:
        """Whether every batch's gradient is zero at B*: no batch enters, or all agree there."""
        if not self.sampled:
            return True
        if any(left for _, left, _ in self.sampled):
            return False
        residual = sum((c * sp.MatMul(*right) for c, _, right in self.sampled), sp.ZeroMatrix(*B.shape)).doit()
        return products(products(residual).xreplace({B: self.theory.fixed_point})) == sp.ZeroMatrix(*B.shape)

    @cached_property
    def factor(self) -> tuple[sp.Expr, sp.Expr]:
        """(a, ν) with Z = −(a − ν B W) E Wᵀ."""
        a, nu = sp.S.Zero, sp.S.Zero
        for coefficient, left, right in self.sampled:
            if right != (W.T,) or left not in ((), (B, W)):
                raise BadInput(
                    f"{self.theory.regulariser}: batches enter its gradient as {plain(coefficient * sp.MatMul(*left, Sigma, *right).doit())}; "
                    "the stationary noise is derived for amp, null and decay, and where it vanishes"
                )
            a, nu = (a - coefficient, nu) if not left else (a, nu + coefficient)
        return a, nu

    @cached_property
    def column(self) -> sp.Equality:
        """The balance of one column: N_j = (1 − η r_j)² N_j + η² E|Z_j|²."""
        eta, batch, r, mu_j, N, total, spread, star, held = NOISE
        _, nu = self.factor
        # A Σ Wᵀ at B = B* + D is ν D C − d B*: E|·_j|² = d² |b*_j|² + ν² μ_j² N_j, the cross term having mean zero
        noise = (mu_j * (spread + nu**2 * total) + held**2 * star + nu**2 * mu_j**2 * N) / batch
        return sp.Eq(N, (1 - eta * r) ** 2 * N + eta**2 * noise, evaluate=False)

    @cached_property
    def white_floor(self) -> sp.Expr:
        """tan² of the angle that is left for white inputs without null: n inputs, batches of N_b, step η.

        Raises:
            BadInput: the composition contains null; then only the compiled system is exact.
        """
        if self.vanishes:
            return sp.S.Zero
        _, _, r, mu_j, N, _, spread, star, held = NOISE
        a, nu = self.factor
        if nu != 0:
            raise BadInput(f"{self.theory.regulariser}: with null the columns' noise is coupled; use the compiled floor(eta, batch, W, Sigma)")
        # tr(A Σ Aᵀ) = a² σ² n; |b*_j|² = (gain)² w_j², μ_j = σ² w_j², and N_j is the deviation orthogonal to W up to 1/(n m)
        size = sp.Symbol("w2", positive=True)
        rate, gain = self.theory.rate, self.theory.gain
        values = {r: rate, mu_j: l * size, spread: a**2 * l * n, star: gain**2 * size, held: rate}
        (solution,) = sp.solve(self.column.subs(values), N)
        return sp.factor(sp.simplify(solution / (gain**2 * size)))

    @cached_property
    def equations(self) -> Mapping[str, str]:
        """All results as LaTeX, by name."""
        if self.vanishes:
            return MappingProxyType({"noise": r"Z\big|_{B = B^{*}} = 0,\qquad \theta = 0"})
        found = {"balance": to_latex(self.column.lhs) + " = " + to_latex(self.column.rhs)}
        if self.factor[1] == 0:
            found["white"] = r"\tan^2\theta = " + to_latex(self.white_floor)
        return MappingProxyType(found)

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Of the composition."""
        return self.theory.parameters

    def source(self) -> str:
        """A JAX module: floor(W, Sigma, eta, batch), the angle that is left and the columns' deviations."""
        from .codegen.alignment import noise_source

        return noise_source(self)

    def title(self) -> str:
        """One line."""
        return f"Batch noise of feedback weights under {self.theory.regulariser}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols."""
        return [
            ("N_{j}", "mean square deviation of column j of B in the eigenbasis of C"), (r"\eta", "step size"), ("N_{b}", "examples in a batch"),
            (r"r_{j}", "rate of column j"), (r"\mu_{j}", "eigenvalue of C"), ("S", "sum of μ_k N_k"), ("U", "trace of A Σ Aᵀ at the fixed point"),
            ("b^{2}_{j}", "square of column j at the fixed point"), ("d", "rate of forgetting"),
        ]  # fmt: skip

    def derivation(self) -> Derivation:
        """Wick's theorem for the batch's second moment, and the balance of contraction and noise."""
        steps = [Step("The gradient whose averages are taken over a batch.", to_latex(self.theory.gradient))]
        if self.vanishes:
            reason = "Batches do not enter." if not self.sampled else "At the fixed point it is zero for every batch: the noise is multiplicative and dies out."
            return Derivation(self.title(), (*steps, Step(reason)))
        steps += [
            Step(
                "A batch's second moment is Σ + E; by Wick's theorem, for symmetric M,",
                r"\mathbb{E}[E M E] = \frac{1}{N_b}\left(\Sigma M \Sigma + \operatorname{tr}(\Sigma M)\,\Sigma\right)",
            ),
            Step("The noise of the gradient is A E Wᵀ with A = ν B W − a; the mean gradient at B* + D is D (ν C + d), so that A Σ Wᵀ = ν D C − d B*."),
            Step("Column by column the contraction (1 − ηr)² and the noise are in balance.", self.equations["balance"]),
        ]
        if "white" in self.equations:
            steps.append(Step("For white inputs, solved; the deviation is orthogonal to W up to 1/(n m).", self.equations["white"]))
        return Derivation(self.title(), tuple(steps))

    def __repr__(self) -> str:
        return "\n".join([self.title(), *(f"  {name}: {plain(equation)}" for name, equation in self.equations.items())])
