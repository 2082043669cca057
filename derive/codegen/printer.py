"""SymPy → JAX source, one expression at a time.

A whitelist: what has no method here is refused, by name. Functions that overflow, or whose unused branch does, are
printed in the form that does not: log(1 + e^q) as logaddexp, 1/(1 + e^{−q}) as expit, e^q − 1 as expm1, a Piecewise as
`where` over clamped arguments.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import ClassVar

import sympy as sp
from sympy.printing.precedence import PRECEDENCE, precedence
from sympy.printing.printer import Printer

from ..errors import BadInput

# SymPy function → the name under which generated code calls it.
FUNCTIONS: dict[type, str] = {
    sp.exp: "jnp.exp", sp.log: "jnp.log", sp.sin: "jnp.sin", sp.cos: "jnp.cos", sp.tan: "jnp.tan",
    sp.sinh: "jnp.sinh", sp.cosh: "jnp.cosh", sp.tanh: "jnp.tanh", sp.asinh: "jnp.arcsinh", sp.atan: "jnp.arctan",
    sp.acosh: "jnp.arccosh", sp.atanh: "jnp.arctanh", sp.asin: "jnp.arcsin", sp.acos: "jnp.arccos",
    sp.sign: "jnp.sign", sp.Abs: "jnp.abs", sp.floor: "jnp.floor", sp.ceiling: "jnp.ceil",
    sp.erf: "erf", sp.erfc: "erfc", sp.erfinv: "erfinv", sp.loggamma: "gammaln", sp.atan2: "safe.arctan2",
}  # fmt: skip
CONSTANT_FUNCTIONS: dict[type, str] = {
    sp.exp: "math.exp", sp.log: "math.log", sp.sin: "math.sin", sp.cos: "math.cos", sp.tanh: "math.tanh",
    sp.atan: "math.atan",
}  # fmt: skip
SPECIAL = ("erf", "erfc", "erfinv", "expit", "gammaln", "logsumexp")


class JnpPrinter(Printer):
    """Prints real expressions; `names` maps symbols to the identifiers of the module that is being written."""

    functions: ClassVar[dict[type, str]] = FUNCTIONS

    def __init__(self, names: dict[sp.Symbol, str]) -> None:
        super().__init__()
        self.names = dict(names)

    def emptyPrinter(self, expr: object) -> str:
        """Refuse what no method below prints."""
        kind = type(expr).__name__
        raise BadInput(
            f"cannot generate JAX code for {expr}: {kind} is not among the functions the printer knows "
            f"({', '.join(sorted(f.__name__ for f in FUNCTIONS))}, Heaviside, Max, Min, Piecewise); use those"
        )

    def paren(self, expr: sp.Expr, level: int, strict: bool = False) -> str:
        """`expr`, in parentheses where its precedence asks for them."""
        text = self._print(expr)
        own = precedence(expr)
        return f"({text})" if own < level or (not strict and own <= level) else text

    # ---- numbers and symbols -----------------------------------------------------------------------------------------

    def _print_Symbol(self, expr: sp.Symbol) -> str:
        if expr not in self.names:
            raise BadInput(
                f"cannot generate JAX code: the symbol {expr} is neither a field nor a declared parameter "
                f"(known: {', '.join(sorted(self.names.values()))}); declare it in the activation or the rule"
            )
        return self.names[expr]

    _print_Dummy = _print_Symbol

    def _print_Integer(self, expr: sp.Integer) -> str:
        return str(expr.p)

    def _print_Rational(self, expr: sp.Rational) -> str:
        return f"{expr.p}/{expr.q}"

    def _print_Float(self, expr: sp.Float) -> str:
        return repr(float(expr))

    def _print_Pi(self, expr: sp.Expr) -> str:
        return "math.pi"

    def _print_Exp1(self, expr: sp.Expr) -> str:
        return "math.e"

    def _constant(self, expr: sp.Expr) -> str:
        """A number that is computed once, in Python: exact as long as it prints as one."""
        if not expr.is_extended_real or not expr.is_finite:
            raise BadInput(f"cannot generate JAX code for the constant {expr}: it is not a finite real number")
        return self._print(expr)

    # ---- sums, products, powers --------------------------------------------------------------------------------------

    def _print_Add(self, expr: sp.Add) -> str:
        terms = list(expr.as_ordered_terms())
        exponential = next((t for t in terms if isinstance(t, sp.exp) and not t.is_number), None)
        if exponential is not None and sp.S.NegativeOne in terms:
            # e^q − 1 loses all digits at small q
            terms = [t for t in terms if t not in (exponential, sp.S.NegativeOne)]
            pieces = [f"jnp.expm1({self._print(exponential.exp)})"]
        else:
            pieces = []
        pieces += [self.paren(t, PRECEDENCE["Add"], strict=True) for t in terms]
        text = pieces[0]
        for piece in pieces[1:]:
            text += f" - {piece[1:]}" if piece.startswith("-") else f" + {piece}"
        return text

    def _print_Mul(self, expr: sp.Mul) -> str:
        stepped = _masked(expr)
        if stepped is not None:
            return self._print_Piecewise(stepped)
        constants = [a for a in expr.args if a.is_number]
        factors = [a for a in expr.as_ordered_factors() if not a.is_number]
        constant = sp.Mul(*constants)
        sign = ""
        if constant.could_extract_minus_sign():
            sign, constant = "-", -constant
        above, below = self._split(factors) if factors else ([], [])
        if not factors:
            return sign + self._constant_product(constant)
        numerator = "*".join(above)
        if constant != 1:
            front = self._constant_product(constant)
            simple = constant.is_Integer or isinstance(constant, sp.NumberSymbol)
            if constant == sp.Rational(1, 2) and above:
                numerator = f"{numerator}/2"
            else:
                numerator = "*".join([front if simple else f"({front})", *above])
        numerator = numerator or "1"
        if not below:
            return sign + numerator
        return sign + numerator + "/" + (below[0] if len(below) == 1 else f"({'*'.join(below)})")

    def _constant_product(self, constant: sp.Expr) -> str:
        """A number as numerator/denominator of Python floats."""
        if not constant.is_Mul:
            return self._constant(constant)
        above, below = [], []
        for factor in constant.as_ordered_factors():
            if factor.is_Rational:
                above += [str(factor.p)] if factor.p != 1 else []
                below += [str(factor.q)] if factor.q != 1 else []
            elif factor.is_Pow and factor.exp.is_number and factor.exp.is_negative:
                below.append(self.paren(1 / factor, PRECEDENCE["Mul"]))
            else:
                above.append(self.paren(factor, PRECEDENCE["Mul"]))
        top = "*".join(above) or "1"
        if not below:
            return top
        return f"{top}/" + (below[0] if len(below) == 1 else f"({'*'.join(below)})")

    def _split(self, factors: list[sp.Expr]) -> tuple[list[str], list[str]]:
        """Factors as printed numerator and denominator, with logistic and rectified products recognised."""
        factors, logistic = _logistic_factors(factors)
        factors, rectified = _rectified_factors(factors)
        above = [_power(f"jnp.maximum({self._print(q)}, 0.0)", n) for q, n in rectified]
        below = []
        for factor in factors:
            if factor.is_Pow and factor.exp.is_number and factor.exp.is_negative:
                below.append(self.paren(1 / factor, PRECEDENCE["Mul"]))
            else:
                above.append(self.paren(factor, PRECEDENCE["Mul"], strict=True))
        above += [_power(f"expit({self._print(q)})", n) for q, n in logistic]
        return above, below

    def _print_Pow(self, expr: sp.Pow) -> str:
        base, exponent = expr.base, expr.exp
        if not expr.is_number:
            rest, logistic = _logistic_factors([expr])
            if logistic and not rest:
                text = "*".join(_power(f"expit({self._print(q)})", n) for q, n in logistic)
                return text if len(logistic) == 1 else f"({text})"
        if exponent.is_number and exponent.is_negative:
            return f"1/{self.paren(1 / expr, PRECEDENCE['Mul'])}"
        if exponent == sp.Rational(1, 2):
            return f"{self._root(base)}({self._print(base)})"
        if exponent.is_Rational and exponent.q == 2:
            whole = (exponent.p - 1) // 2
            return f"({_power(self.paren(base, PRECEDENCE['Pow']), whole)}*{self._root(base)}({self._print(base)}))"
        if exponent.is_Integer:
            return f"{self.paren(base, PRECEDENCE['Pow'])}**{exponent}"
        return f"{self.paren(base, PRECEDENCE['Pow'])}**({self._print(exponent)})"

    def _root(self, base: sp.Expr) -> str:
        """The square root to call: JAX's own has an infinite slope at 0, which a later factor 0 turns into NaN."""
        if base.is_number:
            return "math.sqrt"
        return "jnp.sqrt" if base.is_positive and not base.is_Symbol else "safe.sqrt"

    # ---- functions ---------------------------------------------------------------------------------------------------

    def _print_Function(self, expr: sp.Function) -> str:
        kind = type(expr)
        if kind not in self.functions:
            return self.emptyPrinter(expr)
        if expr.is_number:
            if kind in CONSTANT_FUNCTIONS:
                return f"{CONSTANT_FUNCTIONS[kind]}({self._print(expr.args[0])})"
            return repr(float(sp.N(expr, 30)))
        return f"{self.functions[kind]}({', '.join(self._print(a) for a in expr.args)})"

    def _print_log(self, expr: sp.log) -> str:
        argument = expr.args[0]
        if argument.is_Add and not expr.is_number:
            rest = argument - 1
            if isinstance(rest, sp.exp):
                return f"jnp.logaddexp({self._print(rest.exp)}, 0.0)"
            if sp.S.One in argument.args:
                return f"jnp.log1p({self._print(rest)})"
        return self._print_Function(expr)

    def _print_Heaviside(self, expr: sp.Heaviside) -> str:
        return f"jnp.heaviside({self._print(expr.args[0])}, 0.5)"

    def _print_Max(self, expr: sp.Max) -> str:
        return self._fold("jnp.maximum", expr)

    def _print_Min(self, expr: sp.Min) -> str:
        return self._fold("jnp.minimum", expr)

    def _fold(self, name: str, expr: sp.Expr) -> str:
        first, *rest = sorted(expr.args, key=lambda a: (a.is_number, sp.default_sort_key(a)))
        text = self._print(first)
        for other in rest:
            text = f"{name}({text}, {self._print(sp.Float(other) if other.is_Integer else other)})"
        return text

    def _print_Piecewise(self, expr: sp.Piecewise) -> str:
        """Nested `where`; each branch sees its argument clamped to where it holds, so that it stays finite."""
        symbol = _switching_symbol(expr)
        pairs = list(expr.args)
        if pairs[-1].cond is not sp.true:
            raise BadInput(f"the Piecewise {expr} has no value outside its conditions: end it with (value, True)")
        if all(value.is_number for value, _ in pairs):
            constant = lambda value: f"jnp.full_like({self.names[symbol]}, {self._print(value)})"
        else:
            constant = self._print
        taken: sp.Set = sp.S.EmptySet
        pieces = []
        for value, condition in pairs:
            where = condition.as_set() - taken if condition is not sp.true else sp.S.Reals - taken
            taken = taken + where
            pieces.append((self._clamped(value, symbol, where, constant), condition))
        text = pieces[-1][0]
        for value, condition in reversed(pieces[:-1]):
            text = f"jnp.where({self._condition(condition)}, {value}, {text})"
        return text

    def _clamped(self, value: sp.Expr, symbol: sp.Symbol, where: sp.Set, plain: Callable[[sp.Expr], str]) -> str:
        if not value.has(symbol) or not _can_blow_up(value):
            return plain(value)
        if not isinstance(where, sp.Interval):
            raise BadInput(f"the branch {value} holds on {where}: give conditions that are intervals of {symbol}")
        name, inside = self.names[symbol], []
        if where.start is not sp.S.NegativeInfinity:
            inside.append(f"{name} {'>' if where.left_open else '>='} {self._print(where.start)}")
        if where.end is not sp.S.Infinity:
            inside.append(f"{name} {'<' if where.right_open else '<='} {self._print(where.end)}")
        if not inside:
            return plain(value)
        edge = where.end if where.start is sp.S.NegativeInfinity else where.start
        holds = inside[0] if len(inside) == 1 else " & ".join(f"({i})" for i in inside)
        # not minimum(h, edge): its slope at the edge is one half
        inner = JnpPrinter({**self.names, symbol: f"jnp.where({holds}, {name}, {self._print(edge)})"})
        return inner._print(value)

    def _condition(self, condition: sp.Basic) -> str:
        if isinstance(condition, sp.And | sp.Or):
            joint = " & " if isinstance(condition, sp.And) else " | "
            return joint.join(f"({self._condition(c)})" for c in sorted(condition.args, key=sp.default_sort_key))
        if isinstance(condition, sp.StrictLessThan | sp.LessThan | sp.StrictGreaterThan | sp.GreaterThan):
            return f"{self._print(condition.lhs)} {condition.rel_op} {self._print(condition.rhs)}"
        raise BadInput(
            f"cannot generate JAX code for the condition {condition}: give inequalities between real expressions"
        )


def _power(text: str, exponent: int) -> str:
    return text if exponent == 1 else f"{text}**{exponent}"


def _logistic_factors(factors: list[sp.Expr]) -> tuple[list[sp.Expr], list[tuple[sp.Expr, int]]]:
    """Take e^{kq}/(1 + e^q)^n, 0 ≤ k ≤ n, out of a product as expit(q)^k expit(−q)^{n−k}; neither overflows."""
    rest = list(factors)
    found: list[tuple[sp.Expr, int]] = []
    for factor in factors:
        if not (factor.is_Pow and factor.exp.is_Integer and factor.exp.is_negative):
            continue
        inside = factor.base - 1
        if not isinstance(inside, sp.exp):
            continue
        q, n = inside.exp, -int(factor.exp)
        rest.remove(factor)
        k = 0
        for other in [f for f in rest if isinstance(f, sp.exp)]:
            ratio = sp.cancel(other.exp / q)
            if ratio.is_Integer and 0 < ratio <= n:
                rest.remove(other)
                k = int(ratio)
                break
        found += [(q, k)] if k else []
        found += [(-q, n - k)] if n > k else []
    return rest, found


def _rectified_factors(factors: list[sp.Expr]) -> tuple[list[sp.Expr], list[tuple[sp.Expr, int]]]:
    """Take q^n Heaviside(q) out of a product as max(q, 0)^n."""
    rest = list(factors)
    found: list[tuple[sp.Expr, int]] = []
    for factor in factors:
        if not isinstance(factor, sp.Heaviside):
            continue
        q = factor.args[0]
        for other in rest:
            base, exponent = other.as_base_exp()
            if base == q and exponent.is_Integer and exponent.is_positive:
                rest.remove(factor)
                rest.remove(other)
                found.append((q, int(exponent)))
                break
    return rest, found


def _masked(expr: sp.Mul) -> sp.Piecewise | None:
    """A product with a step as a Piecewise, where the other factors could overflow on the step's dark side."""
    steps = [a for a in expr.args if isinstance(a, sp.Heaviside) and len(a.free_symbols) == 1]
    for step in steps:
        rest = expr / step
        if rest.free_symbols & step.free_symbols and _can_blow_up(rest):
            return sp.Piecewise((rest, step.args[0] > 0), (sp.S.Zero, True))
    return None


def _can_blow_up(expr: sp.Expr) -> bool:
    """Whether a value outside the domain of use could be inf or nan (so that 0 × it is nan)."""
    risky = (sp.exp, sp.log, sp.sinh, sp.cosh, sp.tan, sp.asin, sp.acos, sp.acosh, sp.atanh, sp.erfinv, sp.loggamma)
    powers = [p for p in expr.atoms(sp.Pow) if not p.is_number]
    return expr.has(*risky) or any(not (p.exp.is_Integer and p.exp.is_positive) for p in powers)


def _switching_symbol(expr: sp.Piecewise) -> sp.Symbol:
    symbols = set().union(*(condition.free_symbols for _, condition in expr.args))
    if len(symbols) != 1:
        found = ", ".join(sorted(map(str, symbols)))
        raise BadInput(f"the Piecewise {expr} switches on {found}: conditions must be intervals of one variable")
    return symbols.pop()


def python_name(symbol: sp.Symbol) -> str:
    """The keyword under which generated functions take a parameter: the symbol's name, `lambda_` for `lambda`.

    Raises:
        BadInput: a name that is no Python identifier.
    """
    name = symbol.name + "_" if keyword.iskeyword(symbol.name) else symbol.name
    if not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII):
        raise BadInput(
            f"the parameter {symbol.name!r} cannot be a keyword argument: name the symbol with letters, digits and _"
        )
    return name


def imports(body: str) -> list[str]:
    """The import lines that a generated body needs, each group with an empty line after it."""
    used = lambda name: re.search(rf"(?<![\w.]){name}", body)
    special = [name for name in SPECIAL if re.search(rf"(?<![\w.]){name}\(", body)]
    jax = ["import jax.numpy as jnp"] if used(r"jnp\.") else []
    jax += [f"from jax.scipy.special import {', '.join(special)}"] if special else []
    own = [name for name in ("correlated", "quadrature", "safe") if used(rf"{name}\.")]
    groups = [["import math"] if used(r"math\.") else [], jax, [f"from numerics import {', '.join(own)}"] if own else []]
    return [line for group in groups if group for line in (*group, "")]
