"""Write the module of online learning: the Gaussian integrals as functions of covariances, and the rates as einsums over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import sympy as sp

from ..errors import BadInput
from ..online_integrals import Integral, entries, entry
from ..symbols import eta, h, kappa, x
from ..teacher_student import STUDENTS, TEACHERS, lam, sigma
from .emit import _quoted, _tuple, parameter_names, signature
from .lower import SAFE_FUNCTIONS, Coangle, Divide
from .printer import JnpPrinter, imports

if TYPE_CHECKING:
    from ..teacher_student import Average, TeacherStudent

ORDER = 24  # nodes of the quadrature of an I4 without closed form
SCALARS = {eta: "eta", sigma: "sigma", kappa: "kappa"}
RESERVED = ("Q", "R", "T", "v", "A", "F", "h", "s", "jnp", "math", "safe", "quadrature", *SCALARS.values(), "order")

HELPERS = '''def covariances(Q, R, T, fields):
    """C_ab, a ≤ b, of fields such as ("λi", "ρn"); every entry has one axis for each index, in order of appearance."""
    axes = "".join(dict.fromkeys(index for _, index in fields))

    def entry(a, b):
        if a[0] == "ρ" and b[0] == "λ":
            a, b = b, a
        block = Q if b[0] == "λ" else R if a[0] == "λ" else T
        kept = "".join(sorted({a[1], b[1]}, key=axes.index))
        placed = jnp.einsum(f"{a[1]}{b[1]}->{kept}", block)
        sizes = dict(zip(kept, placed.shape, strict=True))
        return placed.reshape([sizes.get(axis, 1) for axis in axes])

    return [entry(a, b) for k, a in enumerate(fields) for b in fields[k:]]


def full(value, *entries):
    """The value on all axes of the entries."""
    return jnp.broadcast_to(value, jnp.broadcast_shapes(*(entry.shape for entry in entries)))'''

PATH = '''def I4({names}{keywords}, order=ORDER):
    """⟨p p g g⟩ = ⟨p p⟩⟨g g⟩ + ∫₀¹ dτ Σ C_ij ⟨∂_i ∂_j p p g g⟩ with the covariances between {{1, 2}} and {{3, 4}} scaled by τ = 1 − s²."""
    start = I4_start({names}{passed})
    {names} = (jnp.asarray(entry)[..., None] for entry in ({names}))
    s, weight = quadrature.legendre(1, order)
    tau = 1 - s**2
    D13, D14, D23, D24 = tau*C13, tau*C14, tau*C23, tau*C24
    rate = (
        C13*I4_slope(C11, C12, D13, D14, C22, D23, D24, C33, C34, C44{passed})
        + C23*I4_slope(C22, C12, D23, D24, C11, D13, D14, C33, C34, C44{passed})
        + C14*I4_slope(C11, C12, D14, D13, C22, D24, D23, C44, C34, C33{passed})
        + C24*I4_slope(C22, C12, D24, D23, C11, D14, D13, C44, C34, C33{passed})
    )
    return start + jnp.sum(2*s*weight*rate, axis=-1)


def I4_error({names}{keywords}):
    """How much I4 changes when its quadrature is doubled."""
    entries = ({names})
    return jnp.abs(I4(*entries{passed}) - I4(*entries{passed}, order=2*ORDER))'''


class Root(sp.Function):
    """√(PQ − R²), the root of a covariance's determinant: 0 where rounding makes that negative."""

    nargs = 3


class Cross(sp.Function):
    """ab − cd from (a, b, c, d)."""

    nargs = 4


class OnlinePrinter(JnpPrinter):
    """Prints roots of determinants and angles made of them in the forms that stay accurate where fields coincide."""

    functions: ClassVar[dict[type, str]] = {**JnpPrinter.functions, **SAFE_FUNCTIONS, Cross: "safe.cross"}

    def _print_Root(self, expr: Root) -> str:
        return f"safe.sqrt(jnp.maximum(safe.det2({', '.join(map(self._print, expr.args))}), 0.0))"


def online_source(ts: TeacherStudent) -> str:
    """Integrals, rates and error of online learning, for any K and M.

    Returns:
        Python source: NAME, PARAMETERS, FROZEN (whether there is a frozen feedback F), FEEDBACK (the transported share is a function), the
        functions I2, I3, I4, J2 of covariances, rates(Q, R, v, F, T, A, eta, sigma, kappa) → (dQ, dR, dv), error(Q, R, v, T, A),
        activation(h), slope(h), transported(), and I4_error where I4 is integrated numerically.

    Raises:
        NoClosedForm: an integral that is neither closed nor an integral over closed forms.
        BadInput: a function that the printer does not know.
    """
    free = {*ts.act.parameters, *ts.slope.free_symbols, *sp.sympify(ts.transported).free_symbols} - {x}
    names = parameter_names(sorted(free, key=str), RESERVED)
    writer = _Writer(ts, names)
    keywords = tuple(names.values())
    constants = [f"NAME = {_quoted(ts.rule.name)}", f"PARAMETERS = {_tuple(map(_quoted, keywords))}", f"FROZEN = {ts.frozen}"]
    if not ts.integrals["I4"].closed:
        constants.append(f"ORDER = {ORDER}")
    body = "\n\n\n".join([
        "\n".join(constants),
        HELPERS,
        *(text for name in ("I2", "I3", "J2", "I4") for text in writer.integral(ts.integrals[name])),
        writer.rates(),
        writer.error(),
        writer.plain("activation", "h", "g(h).", ts.act.expr.subs(x, h)),
        writer.plain("slope", "h", "p(h), with pseudo-gradient p(h) z.", ts.slope.subs(x, h)),
        writer.plain("transported", "", "c, with z = c v + F.", sp.sympify(ts.transported)),
    ])  # fmt: skip
    header = [
        f'"""Online learning of a teacher by a student: {ts.rule.name}, g(x) = {ts.act.expr}.',
        "",
        "Rates of Q (K, K), R (K, M) and v (K,) for teachers T (M, M), A (M,) and frozen feedback F (K,). A determinant of covariances that",
        "rounding makes negative counts as 0. Generated by derive.codegen.",
        '"""',
    ]
    return "\n".join([*header, "", *imports(body), "", body, ""])


class _Writer:
    """Prints the functions of one module."""

    def __init__(self, ts: TeacherStudent, names: dict[sp.Symbol, str]) -> None:
        self.ts, self.keywords = ts, tuple(names.values())
        self.passed = "".join(f", {name}={name}" for name in self.keywords)
        symbols = {symbol: symbol.name for symbol in entries(4)}
        self.printer = OnlinePrinter({**symbols, **SCALARS, h: "h", **names})

    def plain(self, name: str, arguments: str, doc: str, expr: sp.Expr) -> str:
        """A function of one expression."""
        value = self.printer.doprint(expr)
        if arguments and not expr.has(h):
            value = f"jnp.full_like(h, {value})"
        return f'def {name}({signature(arguments, self.keywords)}):\n    """{doc}"""\n    return {value}'

    # ---- integrals ---------------------------------------------------------------------------------------------------

    def integral(self, integral: Integral) -> list[str]:
        """The functions of one integral."""
        shown = " ".join(f"[{f}](χ{a + 1})" for a, f in enumerate(integral.functions))
        if integral.closed:
            return [self.closed(integral.name, integral.size, f"⟨{shown}⟩.", integral.expr)]
        path = integral.path
        names = ", ".join(symbol.name for symbol in entries(4))
        keywords = f", *, {', '.join(self.keywords)}" if self.keywords else ""
        return [
            self.closed("I4_start", 4, "⟨p p⟩⟨g g⟩, the integral for independent pairs {1, 2} and {3, 4}.", path.start),
            self._slope(path.slope),
            PATH.format(names=names, keywords=keywords, passed=self.passed),
        ]

    def closed(self, name: str, size: int, doc: str, expr: sp.Expr) -> str:
        """A closed form in the entries of a covariance."""
        symbols = [symbol.name for symbol in entries(size)]
        lines, value = self._lines(expr)
        return "\n".join([
            f"def {name}({signature(', '.join(symbols), self.keywords)}):", f'    """{doc}"""',
            *lines, f"    return full({value}, {', '.join(symbols)})",
        ])  # fmt: skip

    def _lines(self, expr: sp.Expr, prefix: str = "t") -> tuple[list[str], str]:
        """Assignments of repeated parts, and the value."""
        parts, (value,) = sp.cse(stable(expr), sp.numbered_symbols(prefix))
        self.printer.names.update({symbol: symbol.name for symbol, _ in parts})
        return [f"    {symbol} = {self.printer.doprint(part)}" for symbol, part in parts], self.printer.doprint(value)

    def _slope(self, slope) -> str:
        """⟨∂₁ ∂₃ p p g g⟩ at one covariance."""
        symbols = [symbol.name for symbol in entries(4)]
        lines = [f"def I4_slope({signature(', '.join(symbols), self.keywords)}):", '    """⟨p\'(χ1) p(χ2) g\'(χ3) g(χ4)⟩."""']
        terms = []
        if slope.regular != 0:
            found, value = self._lines(slope.regular, "r")
            lines, terms = [*lines, *found], [value]
        for number, (k, weight, expr) in enumerate(slope.conditional):
            conditional = {entry(a, b): sp.Symbol(f"B{a}{b}", real=True) for a in range(1, 5) for b in range(a, 5) if k not in (a, b)}
            lines.append(f"    # covariances given χ{k} = 0")
            for symbol, name in conditional.items():
                a, b = int(symbol.name[1]), int(symbol.name[2])
                variance = f"C{k}{k}"
                lines.append(f"    {name} = safe.divide(safe.cross({variance}, {symbol}, {entry(k, a)}, {entry(k, b)}), {variance})")
                self.printer.names[name] = name.name
            found, value = self._lines(expr.xreplace(conditional), f"d{number}_")
            lines += found
            terms.append(f"({value})*safe.divide({self.printer.doprint(weight / sp.sqrt(2 * sp.pi))}, safe.sqrt(C{k}{k}))")
        return "\n".join([*lines, f"    return {' + '.join(terms)}"])

    # ---- rates -------------------------------------------------------------------------------------------------------

    def rates(self) -> str:
        """dQ, dR and dv."""
        calls, body = _Calls(self.passed), []
        for name, axes in (("Q", "ik"), ("R", "im"), ("v", "i")):
            body += [f"    d{name} = (", *(f"        {line}" for line in self._terms(self.ts.terms[name], axes, calls)), "    )"]
        return "\n".join([
            f"def rates({signature('Q, R, v, F, T, A, eta, sigma, kappa', self.keywords)}):",
            '    """d/dt of Q, R and v."""', *calls.lines, *body, "    return dQ, dR, dv",
        ])  # fmt: skip

    def error(self) -> str:
        """The generalisation error."""
        calls = _Calls(self.passed)
        terms = self._terms(self.ts.terms["eg"], "", calls)
        return "\n".join([
            f"def error({signature('Q, R, v, T, A', self.keywords)}):", '    """The generalisation error, half the mean square against the noiseless teacher."""',
            *calls.lines, "    return (", *(f"        {line}" for line in terms), "    )",
        ])  # fmt: skip

    def _terms(self, terms: Sequence[Average], axes: str, calls: _Calls) -> list[str]:
        lines: list[str] = []
        for term in terms:
            for part in sp.Add.make_args(sp.expand(term.coefficient)):
                lines.append(self._einsum(part, term.integral, axes, calls))
        return [line if number == 0 or line.startswith("-") else f"+ {line}" for number, line in enumerate(lines)]

    def _einsum(self, coefficient: sp.Expr, integral: sp.Expr, axes: str, calls: _Calls) -> str:
        """Σ coefficient · integral as one einsum."""
        arrays = [factor for factor in sp.Mul.make_args(coefficient) if factor.has(sp.Indexed)]
        number = coefficient / sp.Mul(*arrays)
        operands: list[tuple[str, str]] = []
        for array in arrays:
            base, power = array.as_base_exp()
            operands += [("".join(map(str, base.indices)), str(base.base))] * int(power)
        if integral != 1:
            operands.append(calls.name(integral))
        text = self.printer.doprint(number)
        front = {"1": "", "-1": "-"}.get(text, f"{text}*")
        return f'{front}jnp.einsum("{",".join(at for at, _ in operands)}->{axes}", {", ".join(name for _, name in operands)})'


class _Calls:
    """Names for the arrays of integrals that a function needs, and the lines that compute them."""

    def __init__(self, passed: str) -> None:
        self.passed, self.lines = passed, []
        self.known: dict[sp.Expr, tuple[str, str]] = {}

    def name(self, integral: sp.Expr) -> tuple[str, str]:
        """(axes, name) of an integral's array."""
        if integral not in self.known:
            kind = type(integral).__name__
            fields = [("λ" if f.base == lam else "ρ") + str(f.indices[0]) for f in integral.args]
            axes = "".join(dict.fromkeys(f[1] for f in fields))
            if len({*axes} & {str(index) for index in (*STUDENTS, *TEACHERS)}) != len(axes):
                raise BadInput(f"unknown indices in {integral}")
            name = f"{kind}_{''.join(f[1] for f in fields)}"
            listed = ", ".join(f'"{f}"' for f in fields)
            self.lines.append(f"    {name} = {kind}(*covariances(Q, R, T, ({listed})){self.passed})")
            self.known[integral] = (axes, name)
        return self.known[integral]


# ---- forms that stay accurate where fields coincide --------------------------------------------------------------------


def stable(expr: sp.Expr) -> sp.Expr:
    """Roots of determinants, angles and quotients in the forms of `numerics.safe`; values are unchanged."""
    is_root = lambda e: isinstance(e, sp.Pow) and e.exp.is_Rational and e.exp.q == 2
    expr = expr.replace(is_root, lambda e: _root(e) if _determinant(e.base) else e)
    expr = expr.replace(sp.atan2, _angle)
    return expr.replace(lambda e: isinstance(e, sp.Mul | sp.Pow), _quotient)


def _root(power: sp.Pow) -> sp.Expr:
    P, Q, R = _determinant(power.base)
    return Root(_product_difference(P), _product_difference(Q), _product_difference(R)) ** (2 * power.exp)


def _determinant(radicand: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr] | None:
    """(P, Q, R) of an expression written as P·Q − R²."""
    if not isinstance(radicand, sp.Add) or len(radicand.args) != 2:
        return None
    negative = [t for t in radicand.args if t.could_extract_minus_sign()]
    if len(negative) != 1:
        return None
    R = sp.sqrt(-negative[0])
    R = R.replace(sp.Abs, lambda q: q)
    whole = [f for f in sp.Mul.make_args(radicand - negative[0]) if not f.is_number]
    number = sp.Mul(*(f for f in sp.Mul.make_args(radicand - negative[0]) if f.is_number))
    if len(whole) != 2 or (R.is_Pow and not R.exp.is_Integer):
        return None
    return number * whole[0], whole[1], R


def _angle(y: sp.Expr, c: sp.Expr) -> sp.Expr:
    """atan2(s, −c) as the angle of which `numerics.safe` knows the value at coincident and at zero fields."""
    if isinstance(y, Root):
        return Coangle(_product_difference(-c), y)
    return sp.atan2(y, c)


def _product_difference(expr: sp.Expr) -> sp.Expr:
    """ab − cd with four entries as one function without cancellation."""
    if not isinstance(expr, sp.Add) or len(expr.args) != 2:
        return expr
    negative = [t for t in expr.args if t.could_extract_minus_sign()]
    if len(negative) != 1:
        return expr
    sides = [_two_factors(t) for t in (expr - negative[0], -negative[0])]
    return expr if None in sides else Cross(*sides[0], *sides[1])


def _two_factors(term: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
    if isinstance(term, sp.Pow) and term.exp == 2 and term.base.is_Symbol:
        return term.base, term.base
    factors = term.args if isinstance(term, sp.Mul) else ()
    return (factors[0], factors[1]) if len(factors) == 2 and all(f.is_Symbol for f in factors) else None


def _quotient(expr: sp.Expr) -> sp.Expr:
    """Quotients whose denominator vanishes for zero fields through `safe.divide`."""
    numerator, denominator = sp.Integer(1), sp.Integer(1)
    for factor in sp.Mul.make_args(expr):
        base, power = factor.as_base_exp()
        if power.is_number and power.is_negative and base.free_symbols and base.subs(dict.fromkeys(base.free_symbols, 0)) == 0:
            denominator /= factor
        else:
            numerator *= factor
    return expr if denominator == 1 else Divide(numerator, denominator)
