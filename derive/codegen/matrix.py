"""Matrix expressions as JAX source: products, transposes, entrywise functions, stop-gradients."""

from __future__ import annotations

import sympy as sp

from ..errors import BadInput
from ..matrix_calculus import Centred, Entrywise, Stop, open_stops
from ..primitives import B, LocalLayer, P, Regulariser, W, X, bias, m, task_gradient
from ..symbols import x
from .printer import JnpPrinter, imports, python_name

NAMES = {W: "W", B: "B", X: "X", bias: "b", task_gradient: "task_gradient"}
RESERVED = ("W", "B", "X", "b", "y", "v", "task_gradient", "jnp", "math", "safe", "stop_gradient", "centred", "multiply")
HELPERS = {
    "centred": '''def centred(M):
    """M minus its mean over examples (columns)."""
    return M - jnp.mean(M, axis=1, keepdims=True)''',
    "multiply": '''def multiply(*factors):
    """The product, in the cheapest order."""
    return jnp.linalg.multi_dot(factors, precision="highest")''',
}


class MatrixWriter:
    """Matrix expressions → text; scalars go to `JnpPrinter`.

    Args:
        names: parameters → keyword names.
    """

    def __init__(self, names: dict[sp.Symbol, str]) -> None:
        self.names = names
        self.scalars = JnpPrinter({**names, P: "X.shape[1]"})

    def write(self, expr: sp.Basic) -> str:
        """One expression.

        Raises:
            BadInput: a kind of matrix expression that is not known here.
        """
        if isinstance(expr, sp.MatrixSymbol):
            return NAMES.get(expr, expr.name)
        if isinstance(expr, Stop):
            return f"stop_gradient({self.write(expr.args[0])})"
        if isinstance(expr, Centred):
            return f"centred({self.write(expr.args[0])})"
        if isinstance(expr, Entrywise):
            return self._entrywise(expr)
        if isinstance(expr, sp.Transpose):
            return f"{self._atom(expr.arg)}.T"
        if isinstance(expr, sp.HadamardProduct):
            return " * ".join(map(self._atom, expr.args))
        if isinstance(expr, sp.OneMatrix):
            rows, columns = ("X.shape[1]" if size == P else str(size) for size in expr.shape)
            return f"jnp.ones(({rows}, {columns}), X.dtype)"
        if isinstance(expr, sp.ZeroMatrix):
            return f"jnp.zeros_like({'B' if expr.shape == B.shape else 'W'})"
        if isinstance(expr, sp.MatAdd):
            return " + ".join(map(self.write, expr.args))
        if isinstance(expr, sp.MatMul):
            coefficient, factors = expr.as_coeff_matrices()
            product = f"multiply({', '.join(map(self.write, factors))})" if len(factors) > 1 else self._atom(factors[0])
            return product if coefficient == 1 else f"({self.scalars.doprint(coefficient)}) * {product}"
        raise BadInput(f"cannot generate JAX code for {expr}: {type(expr).__name__} is not among the matrix expressions known here")

    def _atom(self, expr: sp.MatrixExpr) -> str:
        text = self.write(expr)
        return f"({text})" if isinstance(expr, sp.MatAdd | sp.HadamardProduct | sp.MatMul) else text

    def _entrywise(self, expr: Entrywise) -> str:
        function, inside = expr.args
        if not function.has(x):
            return f"jnp.full_like({self.write(inside)}, {self.scalars.doprint(function)})"
        return f"(lambda q: {JnpPrinter({x: 'q', **self.names}).doprint(function)})({self.write(inside)})"

    def scalar(self, expr: sp.Expr) -> str:
        """A sum of multiples of traces, tr(AᵀC) as the sum of A ∘ C."""
        parts = []
        expanded = sp.expand(expr)
        for term in sp.Add.make_args(expanded) if expanded != 0 else ():
            (trace,) = [factor for factor in sp.Mul.make_args(term) if isinstance(factor, sp.Trace)]
            coefficient = term / trace
            product = f"jnp.trace({self.write(trace.arg)})"
            parts.append(product if coefficient == 1 else f"({self.scalars.doprint(coefficient)}) * {product}")
        return " + ".join(parts) or "0.0"


def regulariser_source(regulariser: Regulariser) -> str:
    """A module with R, ∂R/∂B and ∂R/∂W of a composition as functions of W (m, n), B (n, m), X (n, P) and, where used, b (m, 1).

    Raises:
        BadInput: a parameter whose name the generated code uses itself.
    """
    names = {symbol: python_name(symbol) for symbol in regulariser.parameters}
    for symbol, name in names.items():
        if name in RESERVED:
            raise BadInput(f"the parameter {symbol} cannot be called {name!r} in generated code, where that name is taken: rename the symbol")
    used = {name for name, _ in regulariser.coefficients}
    optional = [*(["b"] if regulariser.layer.biased else []), *(["task_gradient"] if "tied_gradient" in used else [])]
    arguments = ", ".join(["W", "B", "X", *optional, *(["*", *names.values()] if names else [])])
    writer = MatrixWriter(names)
    held, free = (_projections(regulariser.layer, values) for values in (False, True))
    functions = [
        _function("regulariser", arguments, "R, samples being the columns of X.", writer, held, regulariser.expr),
        _function("feedback_gradient", arguments, "∂R/∂B, everything else held fixed.", writer, free, regulariser.gradient),
        _function(
            "forward_gradient", arguments, "∂R/∂W; zero where W is held by stop-gradients.", writer, free, regulariser.forward_gradient
        ),
    ]
    helpers = [text for name, text in HELPERS.items() if any(f"{name}(" in function for function in functions)]
    constants = f'NAME = "{regulariser}"\nPARAMETERS = {tuple(names.values())!r}\nARGUMENTS = {tuple(optional)!r}'
    body = "\n\n\n".join([constants, *helpers, *functions])
    head = f'"""The local regulariser {regulariser} and its gradients. Generated by derive.codegen."""'
    groups = imports(body)
    if "stop_gradient(" in body:
        groups.insert(-1, "from jax.lax import stop_gradient")
    return "\n".join([head, "", *groups, body, ""])


def _projections(layer: LocalLayer, values: bool) -> dict[sp.MatrixExpr, sp.MatrixSymbol]:
    """Preactivations of activated projections, and the names under which a function computes them once."""
    found = {}
    for name, projection in (("y", layer.y), ("v", layer.v)):
        if isinstance(projection, Entrywise):
            inside = projection.args[1]
            found[open_stops(inside) if values else inside] = sp.MatrixSymbol(name, m, P)
    return found


def _function(name: str, arguments: str, doc: str, writer: MatrixWriter, projections: dict, value: sp.Basic) -> str:
    short = value.xreplace(projections)
    lines = [f"{symbol} = {writer.write(inside)}" for inside, symbol in projections.items() if short.has(symbol)]
    write = writer.write if isinstance(value, sp.MatrixExpr) else writer.scalar
    body = "\n".join(f"    {line}" for line in [*lines, f"return {write(short)}"])
    return f'def {name}({arguments}):\n    """{doc}"""\n{body}'
