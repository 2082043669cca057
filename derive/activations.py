"""Activations: the built-in names, and any SymPy expression in `x`.

A new built-in is one line in `BUILTIN`. A user's own needs no line at all: `MLP(activation=x*exp(-x**2))`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sympy as sp
from sympy.concrete.expr_with_limits import ExprWithLimits

from .errors import BadInput
from .piecewise import steps_form
from .reserved import refuse_taken
from .symbols import alpha, recognised, x


def relu(q: sp.Expr) -> sp.Expr:
    """max(q, 0)."""
    return q * step(q)


def leaky_relu(q: sp.Expr, slope: sp.Expr = alpha) -> sp.Expr:
    """max(q, 0) + slope · min(q, 0)."""
    return slope * q + (1 - slope) * relu(q)


def step(q: sp.Expr) -> sp.Expr:
    """1 for q > 0, 0 for q < 0."""
    return sp.Heaviside(q)


def normal_cdf(q: sp.Expr) -> sp.Expr:
    """Φ(q), the standard normal distribution function."""
    return (1 + sp.erf(q / sp.sqrt(2))) / 2


def gelu(q: sp.Expr) -> sp.Expr:
    """q · Φ(q), exact (no tanh approximation)."""
    return q * normal_cdf(q)


def sigmoid(q: sp.Expr) -> sp.Expr:
    """1/(1 + e^{−q})."""
    return 1 / (1 + sp.exp(-q))


def softplus(q: sp.Expr) -> sp.Expr:
    """log(1 + e^q)."""
    return sp.log(1 + sp.exp(q))


def silu(q: sp.Expr) -> sp.Expr:
    """q · sigmoid(q)."""
    return q * sigmoid(q)


def mish(q: sp.Expr) -> sp.Expr:
    """q · tanh(softplus(q))."""
    return q * sp.tanh(softplus(q))


def elu(q: sp.Expr) -> sp.Expr:
    """q for q > 0, e^q − 1 otherwise."""
    return sp.Piecewise((q, q > 0), (sp.exp(q) - 1, True))


def hard_tanh(q: sp.Expr) -> sp.Expr:
    """q clipped to [−1, 1]."""
    return sp.Piecewise((-1, q < -1), (1, q > 1), (q, True))


def hermite(degree: int) -> Callable[[sp.Expr], sp.Expr]:
    """The probabilists' Hermite polynomial He_n, normalised to unit variance under N(0, 1)."""
    return lambda q: (
        sp.expand(
            sp.hermite_prob(degree, q) if hasattr(sp, "hermite_prob") else 2 ** sp.Rational(-degree, 2) * sp.hermite(degree, q / sp.sqrt(2))
        )
        / sp.sqrt(sp.factorial(degree))
    )


BUILTIN: dict[str, Callable[[sp.Expr], sp.Expr]] = {
    "linear": lambda q: q,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "abs": lambda q: q * sp.sign(q),
    "sign": sp.sign,
    "step": step,
    "relu2": lambda q: q**2 * step(q),
    "relu3": lambda q: q**3 * step(q),
    "square": lambda q: q**2,
    "cube": lambda q: q**3,
    "erf": sp.erf,
    "gelu": gelu,
    "gaussian": lambda q: sp.exp(-(q**2)),
    "sin": sp.sin,
    "cos": sp.cos,
    "rbf": lambda q: sp.sin(q) + sp.cos(q),
    "exp": sp.exp,
    "tanh": sp.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": silu,
    "mish": mish,
    "elu": elu,
    "hard_tanh": hard_tanh,
}
_PARAMETERS = {"leaky_relu": (alpha,)}


@dataclass(frozen=True)
class Activation:
    """φ, with what is needed to print, differentiate and integrate it.

    Attributes:
        name: a built-in's name when the expression is one ("relu" for Max(x, 0)), otherwise the expression as text.
        expr: φ(x), piecewise parts written with Heaviside steps where that is exact for every x.
        parameters: declared free symbols besides x.
    """

    name: str
    expr: sp.Expr
    parameters: tuple[sp.Symbol, ...] = ()

    def __call__(self, q: sp.Expr) -> sp.Expr:
        return self.derivative(0, q)

    def derivative(self, order: int, q: sp.Expr = x) -> sp.Expr:
        """φ^{(order)}(q), almost everywhere: no δ at kinks and jumps."""
        expr = self.expr
        for _ in range(order):
            expr = almost_everywhere_derivative(expr)
        return expr.subs(x, q)

    def __str__(self) -> str:
        return self.name


def almost_everywhere_derivative(expr: sp.Expr, variable: sp.Symbol = x) -> sp.Expr:
    """d expr/d variable with the δ's at kinks and jumps dropped."""
    derived = expr.diff(variable)
    return derived.replace(sp.DiracDelta, lambda *args: sp.Integer(0))


def activation(value: object, parameters: Sequence[sp.Symbol] = ()) -> Activation:
    """An activation from a name or from any SymPy expression in one variable.

    Args:
        value: a name in `BUILTIN`, an expression in `x` (any symbol of that name, or the only one that is not declared), or a function of a
            SymPy expression, such as `sympy.tanh`.
        parameters: the expression's other free symbols, which a numerical evaluation will be given as keywords.

    Raises:
        BadInput: an unknown name (with the nearest match), undeclared free symbols, a parameter whose name is taken, nothing that SymPy can read,
            no real function of a real variable, steps without end (floor), or an integral or sum that is not carried out.
    """
    if isinstance(value, str):
        if value not in BUILTIN:
            close = difflib.get_close_matches(value, BUILTIN, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known names: " + ", ".join(BUILTIN)
            raise BadInput(f"unknown activation {value!r}: {hint}")
        return Activation(value, BUILTIN[value](x), _PARAMETERS.get(value, ()))
    declared = tuple(parameters)
    if declared:
        refuse_taken(f"activation({value}, parameters=[{', '.join(map(str, declared))}])", declared)
    expr = recognised(_called(value) if callable(value) else value, () if x.name in {symbol.name for symbol in declared} else (x,))
    strangers = expr.free_symbols - {x, *declared}
    if len(strangers) == 1 and x not in expr.free_symbols:
        expr, strangers = expr.xreplace({strangers.pop(): x}), set()
    if strangers:
        names = ", ".join(sorted(map(str, strangers)))
        raise BadInput(
            f"the activation {expr} has free symbols other than x: {names}. Write it in derive's `x`, and declare parameters with "
            f"activation({expr}, parameters=[{names}])"
        )
    _refuse_unknown(expr)
    _refuse_unreal(expr)
    known = _known_name(expr)
    return Activation(known, BUILTIN[known](x), declared) if known else Activation(str(expr), expr, declared)


def _refuse_unknown(expr: sp.Expr) -> None:
    """Refuse what no derivation can take apart: steps without end, and integrals, sums and derivatives that are not carried out."""
    if endless := sorted(expr.atoms(sp.floor, sp.ceiling, sp.frac, sp.Mod), key=str):
        raise BadInput(
            f"the activation {expr} contains {endless[0]}, which has steps without end: averages are split at steps, which must be finitely many. "
            "Write those that matter with Heaviside, such as Heaviside(x) + Heaviside(x - 1), or as a Piecewise"
        )
    if left := sorted(expr.atoms(ExprWithLimits, sp.Derivative, sp.Limit), key=str):
        raise BadInput(
            f"the activation {expr} contains {left[0]}, which is not carried out: derivations need functions that they can differentiate and "
            "evaluate. Call .doit() on it, or write the function that it is, such as erf for the integral of exp(-x**2)"
        )


@lru_cache(maxsize=256)
def _refuse_unreal(expr: sp.Expr) -> None:
    """Refuse what is no real function: δ's, values that are complex or infinite everywhere, complex at some x."""
    if expr.has(sp.DiracDelta):
        raise BadInput(f"the activation {expr} contains a Dirac δ, which is no function of x: give an expression that has a value at every x")
    if expr.has(sp.zoo, sp.oo, sp.nan):
        raise BadInput(f"the activation {expr} is not finite: give an expression with a finite value at almost every x")
    parameters = expr.free_symbols - {x}
    if parameters and not expr.has(sp.I):
        return  # whether it is real is up to their values
    for at in (sp.Rational(-23, 10), sp.Rational(-1, 3), sp.Rational(1, 3), sp.Rational(23, 10)):
        value = expr.subs(x, at).xreplace(dict.fromkeys(parameters, sp.Rational(7, 5))).evalf(15, chop=True)
        if value.is_number and value.is_real is False:
            hint = "; for an odd root write sign(x)*Abs(x)**(1/3)" if expr.atoms(sp.Pow) and not expr.has(sp.I) else ""
            raise BadInput(f"the activation {expr} is complex at x = {float(at):.2g}: an activation must be real for all real x{hint}")


def _called(function: Callable[[sp.Expr], object]) -> object:
    try:
        return function(x)
    except Exception as error:
        raise BadInput(f"the activation {function!r} cannot be applied to a SymPy symbol ({error}): write it with SymPy's functions") from error


@lru_cache(maxsize=256)
def _known_name(expr: sp.Expr) -> str | None:
    """The built-in that `expr` is, if it is one."""
    form = sp.expand(steps_form(expr))
    for name, function in BUILTIN.items():
        if name not in _PARAMETERS and sp.expand(steps_form(function(x)) - form) == 0:
            return name
    return None
