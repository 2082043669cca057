"""How a rule's updates become steps: loss, momentum, weight decay, mini-batches, number of outputs; as data.

Every trained weight θ moves by θ ← θ + v, v ← β v + u − ηλ θ, u being the rule's update on the batch. So

    θ(t) = k(t) θ(0) + Σ_{s<t} k(t, s) u(s),

and the infinite-width limit is the one of plain steps with two weights in it: a random matrix that shrinks by k(t), and updates that count
k(t, s) times. Both solve the recursion θ(n+1) = (1 + β − ηλ) θ(n) − β θ(n−1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

from . import fields as F
from .derivation import Step, factor_latex, to_latex
from .errors import BadInput
from .fields import nu, s, t
from .loss import LOG_Z_LATEX, SQUARED, Loss, loss_of
from .symbols import eta, f, y

_n = sp.Symbol("n", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Training:
    """What is minimised, and how updates are turned into steps. By default full-batch steps on the squared loss of one output.

    Args:
        loss: a name ("squared", "logistic", "cross-entropy"), a `Loss`, or an expression in `f` and `y`.
        momentum: β, 0 ≤ β < 1.
        weight_decay: λ ≥ 0; every weight and bias that is trained shrinks by ηλ a step.
        batches: whether steps use mini-batches in a given order; ω_ν(s) = P/|batch| for the examples of step s, 0 for others.
        outputs: number of outputs, or a symbol for it. Errors and everything that comes back then carry an output index, and updates sum
            over it.

    Raises:
        BadInput: no such loss, rates out of range, or a loss that couples outputs with only one of them.
    """

    loss: Loss = SQUARED
    momentum: sp.Expr = sp.S.Zero
    weight_decay: sp.Expr = sp.S.Zero
    batches: bool = False
    outputs: sp.Expr = sp.S.One

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", loss_of(self.loss))
        for name in ("momentum", "weight_decay"):
            value = sp.nsimplify(sp.sympify(getattr(self, name)), rational=True)
            object.__setattr__(self, name, value)
            if value.is_negative or (name == "momentum" and value.is_number and not value < 1):
                raise BadInput(f"{name}={value} is out of range: momentum needs 0 <= momentum < 1, weight_decay >= 0")
            if value.free_symbols & {f, y}:
                raise BadInput(f"{name}={value} contains an output or a target: give a number or a parameter")

        object.__setattr__(self, "outputs", sp.sympify(self.outputs))
        if not (self.outputs.is_Symbol or (self.outputs.is_Integer and self.outputs >= 1)):
            raise BadInput(f"outputs={self.outputs} is not a number of outputs: give an integer >= 1, or a symbol")
        if self.loss.coupled and self.outputs == 1:
            raise BadInput(f"the {self.loss.name} loss normalises over the outputs of an example: give outputs=C, two at least (for two classes "
                           "with one output there is the logistic loss)")  # fmt: skip

    @property
    def many(self) -> bool:
        """Whether there are several outputs."""
        return self.outputs != 1

    @property
    def plain(self) -> bool:
        """Whether this is full-batch training on the squared loss without momentum or decay."""
        return self == Training()

    @property
    def shrink(self) -> sp.Expr:
        """ηλ, the share of itself that a weight loses in a step."""
        return eta * self.weight_decay

    # ---- the two weights ---------------------------------------------------------------------------------------------

    def memory(self, steps: sp.Expr) -> sp.Expr:
        """k(t, s) for steps = t − s: how often the update made at s counts at t. k = 0 at once, 1 one step later."""
        if self.momentum == 0 and self.weight_decay == 0:
            return sp.Integer(1)
        return self._impulse(*self.roots).subs(_n, steps)

    def kept(self, steps: sp.Expr) -> sp.Expr:
        """k(t) for steps = t: what is left of the initial weights, k(0) = 1 and k(1) = 1 − ηλ."""
        if self.weight_decay == 0:
            return sp.Integer(1)
        if self.momentum == 0:
            return (1 - self.shrink) ** steps
        return self.memory(steps + 1) - self.momentum * self.memory(steps)

    @property
    def roots(self) -> tuple[sp.Expr, sp.Expr]:
        """r₊ and r₋, the roots of r² − (1 + β − ηλ) r + β."""
        trace = 1 + self.momentum - self.shrink
        root = sp.sqrt(sp.factor(trace**2 - 4 * self.momentum)) if self.weight_decay != 0 else 1 - self.momentum
        return (trace + root) / 2, (trace - root) / 2

    def _impulse(self, first: sp.Expr, second: sp.Expr) -> sp.Expr:
        """k(n) with the roots put in."""
        if self.momentum == 0:
            # not yet there in the step that makes it: feedback weights that learn ask for this too
            return sp.Piecewise((sp.S.Zero, sp.Eq(_n, 0)), ((1 - self.shrink) ** (_n - 1), True))
        return _two_roots().subs({R_PLUS: first, R_MINUS: second}, simultaneous=True)

    # ---- for the equations -------------------------------------------------------------------------------------------

    @property
    def kept_at_t(self) -> sp.Expr:
        """k(t) as it stands in an equation."""
        return sp.Integer(1) if self.weight_decay == 0 else F.kept(t)

    def counted(self, example: sp.Expr) -> sp.Expr:
        """k(t, s) ω_ν(s) as it stands in an equation."""
        memory = sp.Integer(1) if self.momentum == 0 and self.weight_decay == 0 else F.memory(t, s)
        return memory * (F.share(example, s) if self.batches else 1)

    @property
    def equations(self) -> dict[str, sp.Equality]:
        """The two weights in closed form, with the roots by name where both are there."""
        eq = lambda left, right: sp.Eq(left, right, evaluate=False)
        both = self.momentum != 0 and self.weight_decay != 0
        k = self._impulse(*((R_PLUS, R_MINUS) if both else self.roots))
        found = {}
        if self.weight_decay != 0:
            left = k.subs(_n, t + 1) - self.momentum * k.subs(_n, t)
            found["initial weights left"] = eq(F.kept(t), left if both else self.kept(t))
        if self.momentum != 0 or self.weight_decay != 0:
            found["memory of updates"] = eq(F.memory(t, s), k.subs(_n, t - s))
        if both:
            found |= {"first root": eq(R_PLUS, self.roots[0]), "second root": eq(R_MINUS, self.roots[1])}
        return found

    def steps(self) -> list[Step]:
        """For a derivation: how the updates are made, and what it means for W(t)."""
        found = []
        if self.many:
            found.append(Step(MANY))
        if self.loss != SQUARED:
            found.append(Step(f"The loss is {self.loss.name}; rules see minus its derivative by the output.", None, self.loss.derivation().steps))
        if self.batches:
            found.append(Step("Steps use mini-batches in a given order: an update is an average over the batch of its step.", SHARE_LATEX))
        if self.momentum == 0 and self.weight_decay == 0:
            return found
        carried = rf"{factor_latex(self.momentum)}\, v + u" if self.momentum != 0 else "u"
        lost = rf" - {factor_latex(self.shrink)}\,\theta" if self.weight_decay != 0 else ""
        step = rf"\theta \leftarrow \theta + v,\qquad v \leftarrow {carried}{lost}"
        two = rf"\theta(t+1) = \bigl({to_latex(1 + self.momentum - self.shrink)}\bigr)\,\theta(t)"
        two += rf" - {factor_latex(self.momentum)}\,\theta(t-1) + u(t)" if self.momentum != 0 else " + u(t)"
        solved = tuple(Step(f"{name.capitalize()}.", equation) for name, equation in self.equations.items())
        return [
            *found,
            Step("Every trained weight θ takes the step v, made of the rule's update u.", step),
            Step("A linear recursion: of the initial weights a factor k(t) is left, of every update a factor k(t, s).", two, solved),
        ]

    def definitions(self) -> list[tuple[str, str]]:
        """Rows of a document's table."""
        rows = []
        if self.weight_decay != 0:
            rows.append((to_latex(F.kept(t)), "what weight decay leaves of the initial weights at step t"))
        if self.momentum != 0 or self.weight_decay != 0:
            rows.append((to_latex(F.memory(t, s)), "how much of the update made at s is in the weights at t"))
        if self.batches:
            rows.append((to_latex(F.share(nu, s)), "P over the size of the batch of step s for its examples, 0 for others"))
        if self.many:
            rows.append((r"\mu c,\ \nu d", f"example and output; outputs run from 1 to {self.outputs}"))
        if self.loss.coupled:
            rows.append((LOG_Z_LATEX, "normalisation over the outputs of one example"))
        return rows

    def title(self) -> str:
        """What differs from plain training, as the end of a title; empty if nothing does."""
        parts = [f"{self.loss.name} loss"] if self.loss != SQUARED else []
        parts += [f"momentum {self.momentum}"] if self.momentum != 0 else []
        parts += [f"weight decay {self.weight_decay}"] if self.weight_decay != 0 else []
        parts += ["mini-batches"] if self.batches else []
        parts += [f"{self.outputs} outputs"] if self.many else []
        return "".join(f", {part}" for part in parts)


MANY = (
    "Several outputs f_c, each with a readout vector (and a feedback vector) of its own: errors, feedback fields and gradients carry the index of "
    "their output, activities do not. An update sums over outputs, ΔW ∝ Σ_μ Σ_c Δ_μc g̃_μc φ_μ; also where the pseudo-gradient contains the "
    "error itself."
)
SHARE_LATEX = r"\omega_{\nu}(s) = P/|\mathcal B_s| \text{ if } \nu \in \mathcal B_s, \text{ else } 0"
PLAIN = Training()


R_PLUS, R_MINUS = sp.symbols("r_+ r_-")


@cache
def _two_roots() -> sp.Expr:
    """k(n) with k(n+2) = (r₊ + r₋) k(n+1) − r₊ r₋ k(n), k(0) = 0, k(1) = 1."""
    k = sp.Function("k")
    recursion = k(_n + 2) - (R_PLUS + R_MINUS) * k(_n + 1) + R_PLUS * R_MINUS * k(_n)
    return sp.simplify(sp.rsolve(recursion, k(_n), {k(0): 0, k(1): 1}))
