"""From a regulariser to a learning rule with an infinite-width limit.

The feedback weights descend R, B ← B − rate ∂R/∂B, in mean-field scaling: projections are divided by √N, batch averages of outer products
too. The derived gradient is read term by term; what keeps B(t) a sum of random matrices and outer products becomes an `Evolution`:

    B → decay    Wᵀ → pull    (∇L)ᵀ → copy    X (WX)ᵀ, X f(WX)ᵀ → φ hᵀ, φ f(h)ᵀ    X (BᵀX)ᵀ → φ ωᵀ    B WX (WX)ᵀ → ψ hᵀ

Every other term is refused by name; dense networks take it through the regulariser's own generated gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import sympy as sp

from .derivation import Derivation, Step, plain, to_latex
from .errors import BadInput
from .evolution import Evolution
from .matrix_calculus import Entrywise, products, terms
from .primitives import B, P, Regulariser, W, X, bias, n, task_gradient
from .rules import Feedback, Rule, _correlations, symbolic
from .symbols import dphi, h, omega, x, z

PREACTIVATION = W * X


def lower(regulariser: Regulariser, rate: sp.Expr) -> Evolution:
    """The update −rate ∂R/∂B (tied gradients excepted, which come at the task's rate) as data for solvers and networks.

    Args:
        regulariser: R.
        rate: step size.

    Raises:
        BadInput: W takes part, or a term of the gradient for which no infinite-width limit is known here; the message shows it.
    """
    if regulariser.layer.update_forward:
        raise BadInput(
            f"{regulariser} moves W as well (update_forward=True): the infinite-width limit is derived for feedback weights alone; "
            "drop it, or train networks with train_network"
        )
    found = dict.fromkeys(("decay", "pull", "copy", "outer", "null"), sp.S.Zero)
    for coefficient, factors in terms(regulariser.gradient):
        name, value = _lowered(sp.MatMul(*factors).doit(), factors)
        if not name:
            raise BadInput(
                f"the term {plain(coefficient * sp.MatMul(*factors).doit())} in the gradient of {regulariser} has no infinite-width limit "
                "that is known here: leave it out, or train networks with train_network"
            )
        signed = {"decay": coefficient, "copy": coefficient / rate, "null": coefficient * P, "outer": -coefficient * P * value}
        found[name] += rate * signed.get(name, -coefficient)
    return Evolution(**found)


def _lowered(word: sp.MatrixExpr, factors: list[sp.MatrixExpr]) -> tuple[str, sp.Expr]:
    """Which part of an `Evolution` a product belongs to (empty: none), and the field v of an outer product."""
    simple = {B: "decay", W.T: "pull", task_gradient.T: "copy"}
    if word in simple:
        return simple[word], sp.S.Zero
    for place in range(1, len(factors)):
        left, right = sp.MatMul(*factors[:place]).doit(), products(sp.MatMul(*factors[place:]).doit().T)
        if left.shape != (n, P):
            continue
        learned = _field(right)
        if left == X and learned is not None:
            return "outer", learned
        if left == products(B * PREACTIVATION) and learned == h:
            return "null", sp.S.Zero
    return "", sp.S.Zero


def _field(matrix: sp.MatrixExpr) -> sp.Expr | None:
    """A matrix of fields of the layer above, examples as columns, as a single-site expression; None if it is none of them."""
    known = {PREACTIVATION: h, bias * sp.OneMatrix(1, P): sp.S.Zero, B.T * X: omega}
    if matrix in known:
        return known[matrix]
    if isinstance(matrix, Entrywise):
        inside = _field(_without_bias(matrix.args[1]))
        return None if inside is None else matrix.args[0].subs(x, inside)
    return None


def _without_bias(matrix: sp.MatrixExpr) -> sp.MatrixExpr:
    """In networks the preactivation h contains the bias."""
    return sp.MatAdd(*(part for part in sp.MatAdd.make_args(matrix) if not part.has(bias))).doit()


@dataclass(frozen=True, init=False, repr=False)
class EvolvingFeedback(Rule):
    """A rule whose feedback weights descend a local regulariser while the network learns the task.

    Args:
        regulariser: a composition of primitives, such as 2*self_feedback + decay.
        rate: step size of B ← B − rate ∂R/∂B. Tied gradients come at the task's own rate: their coefficient is the share of ΔWᵀ that B
            receives.
        rho: correlation of B(0) with W(0)ᵀ; a number, an expression, or one for each hidden layer.
        name: how it is called in titles and tables; the composition by default.
        pseudo_gradient: g̃ as an expression; φ̇(h) z by default.

    Attributes:
        regulariser, rate: as given.

    Raises:
        BadInput: a correlation outside [0, 1], or a term without an infinite-width limit.

    Example:
        >>> rule = EvolvingFeedback(2*self_feedback + decay)

    Source: Kunin et al. 2020; Akrout et al. 2019 (weight mirror); Kolen & Pollack 1994.
    """

    regulariser: Regulariser = field(default_factory=Regulariser)
    rate: sp.Expr = sp.S.One

    def __init__(
        self,
        regulariser: Regulariser,
        rate: object = sp.Rational(1, 10),
        rho: object = 0,
        *,
        name: str | None = None,
        pseudo_gradient: sp.Expr | None = None,
    ) -> None:
        if not isinstance(regulariser, Regulariser):
            raise BadInput(f"{regulariser!r} is no composition of primitives: write it with decay, amp, null, sparse, self_feedback")
        correlation, step = _correlations(rho), sp.nsimplify(sp.sympify(rate), rational=True)
        rest = tuple(sp.sqrt(1 - r**2) for r in correlation) if isinstance(correlation, tuple) else sp.sqrt(1 - correlation**2)
        evolution = lower(regulariser, step) if regulariser.coefficients else None
        own = dphi(h) * z if pseudo_gradient is None else pseudo_gradient
        super().__init__(name or f"evolving feedback, {regulariser}", own, Feedback(0, correlation, rest, 0, evolution, symbolic(correlation)))
        object.__setattr__(self, "regulariser", regulariser)
        object.__setattr__(self, "rate", step)

    def derivation(self) -> Derivation:
        """From the regulariser to the update of the feedback weights."""
        evolution, steps = self.evolution, list(self.regulariser.derivation())
        if evolution is None:
            return Derivation(self.name, (Step("The composition is empty: the feedback weights stay what they are."),))
        read = [
            Step(f"{meaning}: {name} = {plain(value)}.")
            for name, meaning in MEANINGS.items()
            if (value := getattr(evolution, name)) != 0
        ]
        steps.append(Step(
            "One step down R, in mean-field scaling. Each term is a multiple of a matrix that is known at infinite width.",
            r"B \leftarrow B - \bigl(" + to_latex(self.rate) + r"\bigr)\,\frac{\partial\mathcal R}{\partial B}", tuple(read),
        ))  # fmt: skip
        return Derivation(self.name, tuple(steps))

    def __repr__(self) -> str:
        return f"EvolvingFeedback({self.regulariser}, rate={self.rate}): {self.name}"


MEANINGS = {
    "decay": "forgetting, of B itself",
    "pull": "from the forward weights Wᵀ",
    "copy": "from the forward weights' own update ΔWᵀ",
    "outer": "from outer products φ vᵀ, v",
    "null": "from outer products ψ hᵀ with the reconstruction ψ = B h/√N",
}
