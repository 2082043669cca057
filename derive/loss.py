"""Loss functions as data: an expression in an example's outputs and targets, and the error signal derived from it.

Training minimises (1/P) Σ_μ Σ_c loss(f_μc, y_μc), c running over the outputs; learning rules see Δ_μc, minus the derivative by f_μc.
Outputs may be coupled through log Z_μ = log Σ_c exp f_μc.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE

from .derivation import Derivation, Step, to_latex
from .errors import BadInput
from .latex import Documented, aligned
from .symbols import Delta, f, log_Z, recognised, y


class over_outputs(sp.Function):
    """Σ_c, the sum over the outputs of one example."""

    nargs = 1
    is_real = True

    def _latex(self, printer: LatexPrinter, exp: str | None = None) -> str:
        text = rf"\sum_c {printer.parenthesize(self.args[0], PRECEDENCE['Mul'])}"
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"


@dataclass(frozen=True)
class Loss(Documented):
    """A loss, summed over outputs and averaged over examples.

    Args:
        name: how it is called.
        expr: what one output adds, in `f`, `y` and, where outputs are coupled, `log_Z` = log Σ_c exp f_c.

    Raises:
        BadInput: other symbols, an expression that does not depend on the output, or a Piecewise without a value somewhere.

    Example:
        >>> Loss("absolute value", Abs(y - f))
    """

    name: str
    expr: sp.Expr

    def __post_init__(self) -> None:
        expr = sp.nsimplify(recognised(self.expr, (f, y, log_Z)), rational=True)
        object.__setattr__(self, "expr", expr)
        strangers = expr.free_symbols - {f, y, log_Z}
        if strangers:
            names = ", ".join(sorted(map(str, strangers)))
            raise BadInput(f"loss {self.name!r}: {expr} contains {names}: write it in f (output), y (target) and log_Z, with numbers for the rest")
        for pieces in expr.atoms(sp.Piecewise):
            if pieces.args[-1].cond is not sp.true:
                raise BadInput(f"loss {self.name!r}: {pieces} has no value outside its conditions: end it with (value, True)")
        if self.error == 0:
            raise BadInput(f"loss {self.name!r}: {expr} does not depend on the output f, so there is nothing to learn")

    @property
    def coupled(self) -> bool:
        """Whether the outputs of one example share a normalisation, so that at least two are needed."""
        return log_Z in self.expr.free_symbols

    @cached_property
    def error(self) -> sp.Expr:
        """Δ = −∂loss/∂f: by the chain rule −∂_f loss − Σ_c ∂loss/∂log Z · ∂log Z/∂f, ∂log Z/∂f = exp(f − log Z)."""
        own, shared = _tidy(-_derivative(self.expr, f)), _tidy(_derivative(self.expr, log_Z))
        return own if shared == 0 else own - sp.exp(f - log_Z) * over_outputs(shared)

    def title(self) -> str:
        """One line: what it is."""
        return f"Loss {self.name}: {self.expr}"

    def latex(self) -> str:
        """Loss and error signal."""
        return aligned([sp.Eq(sp.Symbol("loss"), self.expr, evaluate=False), sp.Eq(Delta, self.error, evaluate=False)])

    def derivation(self) -> Derivation:
        """The error signal from the loss."""
        steps = [Step("What one output adds to the loss.", self.expr)]
        if self.coupled:
            steps.append(Step("The outputs of an example are coupled through its normalisation.", LOG_Z_LATEX))
            steps.append(Step("∂log Z/∂f_c is the probability that the outputs give to class c.", sp.exp(f - log_Z)))
        steps.append(Step("The error signal is minus the derivative by the output.", sp.Eq(Delta, self.error, evaluate=False)))
        return Derivation(self.title(), tuple(steps))

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols and their meaning."""
        rows = [("f,\\ y", "output and target of one example"), (to_latex(Delta), "error signal")]
        return [*rows, (LOG_Z_LATEX, "normalisation over the outputs of one example")] if self.coupled else rows

    def source(self) -> str:
        """A readable Python module with loss and error signal, for solvers and finite networks."""
        from .codegen.loss import loss_source

        return loss_source(self)

    def __repr__(self) -> str:
        return f"Loss({self.name!r}, {self.expr}): Delta = {self.error}"


LOG_Z_LATEX = r"\log Z = \log \sum_c e^{f_c}"


def _derivative(expr: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """The derivative almost everywhere: kinks give no δ."""
    found = expr.diff(symbol).replace(sp.DiracDelta, lambda *_: sp.Integer(0))
    if found.has(sp.Derivative, sp.Subs):
        raise BadInput(f"the loss {expr} has no derivative by {symbol} in closed form: {found}; write it with Abs, Max, Piecewise or smooth functions")
    return found


def _tidy(expr: sp.Expr) -> sp.Expr:
    """Simplified, piece by piece, unless that splits signs into cases."""
    folded = sp.piecewise_fold(expr)
    if isinstance(folded, sp.Piecewise):
        return sp.Piecewise(*((_tidy(value), condition) for value, condition in folded.args))
    simpler = sp.simplify(expr)
    return expr if simpler.has(sp.Piecewise) and not expr.has(sp.Piecewise) else simpler


SQUARED = Loss("squared", (y - f) ** 2 / 2)
LOGISTIC = Loss("logistic", sp.log(1 + sp.exp(-y * f)))
CROSS_ENTROPY = Loss("cross-entropy", y * (log_Z - f))
LOSSES = {loss.name: loss for loss in (SQUARED, LOGISTIC, CROSS_ENTROPY)}


def loss_of(value: object) -> Loss:
    """A loss by name, as it is, or from an expression in f and y.

    Raises:
        BadInput: none of these.
    """
    if isinstance(value, Loss):
        return value
    if isinstance(value, str):
        if value not in LOSSES:
            raise BadInput(f"loss={value!r} is not known: give one of {', '.join(LOSSES)}, or Loss(name, expression in f and y)")
        return LOSSES[value]
    if isinstance(value, sp.Expr):
        return Loss(str(value), value)
    raise BadInput(f"loss={value!r} is not a loss: give one of {', '.join(LOSSES)}, or Loss(name, expression in f and y)")
