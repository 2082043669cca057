"""Kunin's primitives: what feedback weights may be asked to do, as symbolic regularisers of one layer, and their compositions.

    y = W x + b,   v = Bᵀ x            the forward and the backward projection of the layer's input
    r = B y                            the reconstruction of the input

Samples are the columns of X. Regularisers act on the layer alone: x, b and, unless the forward weights take part, W are held by
stop-gradients. What feedback weights do under a composition is its gradient, which is derived, never stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from .activations import Activation, activation
from .derivation import Derivation, Step, plain
from .errors import BadInput
from .latex import Documented, aligned
from .matrix_calculus import Centred, Entrywise, Stop, gradient, open_stops
from .symbols import x

n, m, P = sp.symbols("n m P", integer=True, positive=True)
# Sizes and symbols: W is m × n, B is n × m; the last is the gradient that the task's loss has for W.
W, B, X = sp.MatrixSymbol("W", m, n), sp.MatrixSymbol("B", n, m), sp.MatrixSymbol("X", n, P)
bias = sp.MatrixSymbol("b", m, 1)
task_gradient = sp.MatrixSymbol(r"\nabla_{W}\mathcal{L}", m, n)


@dataclass(frozen=True)
class LocalLayer:
    """How a layer's projections are formed before a regulariser sees them.

    Args:
        update_forward: whether regularisers also move W.
        forward_activation, backward_activation: applied to y and to v; None for preactivations.
        centred: subtract the batch's mean from the input of the backward projection, so that amp sees a covariance.
        biased: whether y contains the bias b (held fixed).
        reversed: null reconstructs v from the layer above, r = Wᵀ v, instead of x from y.

    Source: Kunin et al. 2020, the published code's options of the same meaning.
    """

    update_forward: bool = False
    forward_activation: Activation | None = None
    backward_activation: Activation | None = None
    centred: bool = False
    biased: bool = False
    reversed: bool = False

    def __post_init__(self) -> None:
        for name in ("forward_activation", "backward_activation"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Activation):
                object.__setattr__(self, name, activation(value))

    @property
    def W(self) -> sp.MatrixExpr:
        """The forward weights as regularisers see them."""
        return W if self.update_forward else Stop(W)

    @property
    def y(self) -> sp.MatrixExpr:
        """Forward projections, m × P."""
        projected = self.W * Stop(X) + (Stop(bias) * sp.OneMatrix(1, P) if self.biased else sp.ZeroMatrix(m, P))
        return _activated(self.forward_activation, projected.doit())

    @property
    def v(self) -> sp.MatrixExpr:
        """Backward projections, m × P."""
        return _activated(self.backward_activation, B.T * (Centred(Stop(X)) if self.centred else Stop(X)))

    @property
    def reconstruction(self) -> sp.MatrixExpr:
        """r = B y, or Wᵀ v if reversed, n × P."""
        return self.W.T * self.v if self.reversed else B * self.y


def _activated(function: Activation | None, matrix: sp.MatrixExpr) -> sp.MatrixExpr:
    return matrix if function is None else Entrywise(function(x), matrix)


def _power(matrix: sp.MatrixExpr) -> sp.Expr:
    """Mean square norm over the batch."""
    return sp.Trace(matrix.T * matrix) / P


@dataclass(frozen=True)
class Primitive:
    """One regulariser.

    Attributes:
        name: in text and code.
        build: R from a layer.
        meaning: one sentence.
    """

    name: str
    build: Callable[[LocalLayer], sp.Expr]
    meaning: str


PRIMITIVES = {
    each.name: each
    for each in (
        Primitive("decay", lambda layer: sp.Trace(layer.W.T * layer.W) + sp.Trace(B.T * B), "Small weights cost less."),
        Primitive("amp", lambda layer: -sp.Trace(layer.y.T * layer.v) / P, "Forward and backward projections of the input agree in sign."),
        Primitive("null", lambda layer: _power(layer.reconstruction), "The reconstruction of the input is small: its null space grows."),
        Primitive("sparse", lambda layer: _power(layer.y) + _power(layer.v), "Projections are small."),
        Primitive("self_feedback", lambda layer: -sp.Trace(B * layer.W), "Feedback weights point along the transposed forward weights."),
        Primitive("tied_gradient", lambda layer: sp.Trace(B * Stop(task_gradient)), "Feedback weights get the forward weights' own gradient."),
    )
}


@dataclass(frozen=True)
class Regulariser(Documented):
    """A linear combination of primitives: what the feedback weights of a layer descend.

    Sums, differences and multiples of regularisers are regularisers.

    Attributes:
        coefficients: (name of a primitive, coefficient), in the order of `PRIMITIVES`.
        layer: how projections are formed.

    Example:
        >>> fb = 2*self_feedback + decay      # ‖B − Wᵀ‖² up to a constant

    Source: Kunin et al. 2020, section 3.
    """

    coefficients: tuple[tuple[str, sp.Expr], ...] = ()
    layer: LocalLayer = LocalLayer()

    # ---- composition -------------------------------------------------------------------------------------------------

    def __add__(self, other: Regulariser) -> Regulariser:
        if not isinstance(other, Regulariser):
            return NotImplemented
        if self.coefficients and other.coefficients and self.layer != other.layer:
            raise BadInput(f"{self.layer} and {other.layer} differ: a composition sees one layer; call configure() on the sum")
        total = dict(self.coefficients)
        for name, value in other.coefficients:
            total[name] = total.get(name, sp.S.Zero) + value
        kept = tuple((name, total[name]) for name in PRIMITIVES if total.get(name, 0) != 0)
        return Regulariser(kept, self.layer if self.coefficients else other.layer)

    def __mul__(self, factor: object) -> Regulariser:
        if isinstance(factor, Regulariser):
            raise BadInput(f"({self}) * ({factor}): a product of regularisers is none; multiply by numbers or symbols")
        exact = sp.nsimplify(sp.sympify(factor), rational=True)
        return Regulariser(tuple((name, exact * value) for name, value in self.coefficients if exact != 0), self.layer)

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> Regulariser:
        return self * (1 / sp.sympify(divisor))

    def __neg__(self) -> Regulariser:
        return -1 * self

    def __sub__(self, other: Regulariser) -> Regulariser:
        return self + -other

    def configure(self, **options: Any) -> Regulariser:
        """The same composition on a layer with these options; see `LocalLayer`."""
        return replace(self, layer=replace(self.layer, **options))

    def coefficient(self, name: str) -> sp.Expr:
        """Of a primitive, zero if it is not there."""
        return dict(self.coefficients).get(name, sp.S.Zero)

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """Free symbols of the coefficients and activations, sorted by name."""
        free = {symbol for _, value in self.coefficients for symbol in value.free_symbols}
        for function in (self.layer.forward_activation, self.layer.backward_activation):
            free |= set(function.parameters) if function else set()
        return tuple(sorted(free, key=str))

    # ---- what follows ------------------------------------------------------------------------------------------------

    @property
    def expr(self) -> sp.Expr:
        """R(x_l, x_{l+1}, W, B), with its stop-gradients."""
        return sp.Add(*(value * PRIMITIVES[name].build(self.layer) for name, value in self.coefficients))

    @property
    def gradient(self) -> sp.MatrixExpr:
        """∂R/∂B, n × m."""
        return gradient(self.expr, B)

    @property
    def forward_gradient(self) -> sp.MatrixExpr:
        """∂R/∂W, m × n; zero where W is held by stop-gradients."""
        return gradient(self.expr, W)

    def source(self) -> str:
        """A JAX module: regulariser, feedback_gradient and forward_gradient as functions of W, B, X."""
        from .codegen.matrix import regulariser_source

        return regulariser_source(self)

    def title(self) -> str:
        """One line."""
        return f"The local regulariser {self}"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols."""
        table = [
            ("X", "inputs of the layer, one example a column (n rows, P columns)"),
            ("W", "forward weights (m rows, n columns)"),
            ("B", "feedback weights (n rows, m columns)"),
            (r"\operatorname{sg}", "stop-gradient: a constant where derivatives are concerned"),
        ]
        named = {name for name, _ in self.coefficients}
        if self.layer.centred:
            table.append((r"\Pi", "projector that subtracts the mean over examples"))
        if self.layer.biased:
            table.append(("b", "bias of the layer above"))
        return table + ([(r"\nabla_{W}\mathcal{L}", "gradient of the task's loss")] if "tied_gradient" in named else [])

    def latex(self) -> str:
        """R and its gradients."""
        return aligned(self._equations())

    def _equations(self) -> list[sp.Basic | str]:
        from .derivation import to_latex

        lines = [r"\mathcal R = " + to_latex(self.expr), r"\frac{\partial\mathcal R}{\partial B} = " + to_latex(self.gradient)]
        if self.layer.update_forward:
            lines.append(r"\frac{\partial\mathcal R}{\partial W} = " + to_latex(self.forward_gradient))
        return lines

    def derivation(self) -> Derivation:
        """Each primitive's regulariser and gradient, and their sum."""
        from .derivation import to_latex

        steps = []
        for name, value in self.coefficients:
            alone = Regulariser(((name, sp.S.One),), self.layer)
            inner = [Step("Differentiated by B, everything under sg held fixed.", r"\frac{\partial\mathcal R}{\partial B} = " + to_latex(alone.gradient))]
            if self.layer.update_forward:
                inner.append(Step("Differentiated by W.", r"\frac{\partial\mathcal R}{\partial W} = " + to_latex(alone.forward_gradient)))
            said = f"{name}, with coefficient {value}. {PRIMITIVES[name].meaning}"
            steps.append(Step(said, r"\mathcal R = " + to_latex(alone.expr), tuple(inner)))
        steps.append(Step("The sum of these.", r"\frac{\partial\mathcal R}{\partial B} = " + to_latex(self.gradient)))
        return Derivation(self.title(), tuple(steps))

    def __str__(self) -> str:
        parts = [name if value == 1 else f"{f'({value})' if value.is_Add else value}*{name}" for name, value in self.coefficients]
        return " + ".join(parts).replace("+ -", "- ") or "0"

    def __repr__(self) -> str:
        lines = [f"Regulariser {self}", f"  R = {plain(open_stops(self.expr))}", f"  dR/dB = {plain(self.gradient)}"]
        if self.layer.update_forward:
            lines.append(f"  dR/dW = {plain(self.forward_gradient)}")
        return "\n".join(lines)


decay, amp, null, sparse, self_feedback, tied_gradient = (Regulariser(((name, sp.S.One),)) for name in PRIMITIVES)
