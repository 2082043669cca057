"""Write the module of online learning: the Gaussian integrals as functions of covariances, and the rates as einsums over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import sympy as sp

from ..online_integrals import Integral, entries, entry
from ..symbols import eta, h, kappa, x
from ..teacher_student import lam, sigma
from .emit import _quoted, _tuple, parameter_names, signature
from .lower import SAFE_FUNCTIONS, Coangle, Divide
from .printer import JnpPrinter, imports

if TYPE_CHECKING:
    from ..teacher_student import Average, TeacherStudent

SLOPES = {"I2": 0, "I3": 1, "I4": 2, "J2": 2}  # how many of an integral's fields carry the slope p
SCALARS = {eta: "eta", sigma: "sigma", kappa: "kappa"}
RESERVED = ("Q", "R", "T", "v", "A", "F", "h", "s", "C", "K", "jnp", "math", "safe", "quadrature", "correlated", *SCALARS.values(), "order")

HELPERS = '''def fields(Q, R, T):
    """The covariance of (λ, ρ)."""
    return jnp.block([[Q, R], [R.T, T]])


def covariances(C, sizes):
    """C_ab, a ≤ b, each field on an axis of its own; field a runs over the first sizes[a] rows of C."""

    def entry(a, b):
        value = jnp.diagonal(C)[:sizes[a]] if a == b else C[:sizes[a], :sizes[b]]
        return value.reshape([sizes[k] if k in (a, b) else 1 for k in range(len(sizes))])

    return [entry(a, b) for a in range(len(sizes)) for b in range(a, len(sizes))]


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
    at = (
        (C11, C12, D13, D14, C22, D23, D24, C33, C34, C44),
        (C22, C12, D23, D24, C11, D13, D14, C33, C34, C44),
        (C11, C12, D14, D13, C22, D24, D23, C44, C34, C33),
        (C22, C12, D24, D23, C11, D14, D13, C44, C34, C33),
    )
    together = lambda entries: jnp.stack(jnp.broadcast_arrays(*entries))
    slopes = I4_slope(*map(together, zip(*at, strict=True)){passed})
    rate = jnp.sum(together((C13, C23, C14, C24))*slopes, axis=0)
    return start + jnp.sum(2*s*weight*rate, axis=-1)


def I4_error({names}{keywords}):
    """How much I4 changes when its quadrature is doubled."""
    entries = ({names})
    return jnp.abs(I4(*entries{passed}) - I4(*entries{passed}, order=2*ORDER))'''

SUM = '''def {name}({names}{keywords}, order=ORDER):
    """{doc}"""
{lines}


def {name}_error({names}{keywords}):
    """How much {name} changes with half as many nodes again."""
    entries = ({names})
    return jnp.abs({name}(*entries{passed}) - {name}(*entries{passed}, order=ORDER + ORDER//2))'''


class Root(sp.Function):
    """√(PQ − R²), the root of a covariance's determinant: 0 where rounding makes that negative."""

    nargs = 3

    @classmethod
    def eval(cls, P: sp.Expr, Q: sp.Expr, R: sp.Expr) -> sp.Expr | None:
        return sp.S.Zero if P == Q == R == 0 else None


class OnlinePrinter(JnpPrinter):
    """Prints roots of determinants and angles made of them in the forms that stay accurate where fields coincide."""

    functions: ClassVar[dict[type, str]] = {**JnpPrinter.functions, **SAFE_FUNCTIONS}

    def _print_Root(self, expr: Root) -> str:
        return f"safe.sqrt(jnp.maximum(safe.det2({', '.join(map(self._print, expr.args))}), 0.0))"


def online_source(ts: TeacherStudent) -> str:
    """Integrals, rates and error of online learning, for any K and M.

    Returns:
        Python source: NAME, PARAMETERS, FROZEN (whether there is a frozen feedback F), FEEDBACK (the transported share is a function), the
        functions I2, I3, I4, J2 of covariances, rates(Q, R, v, F, T, A, eta, sigma, kappa) → (dQ, dR, dv), error(Q, R, v, T, A),
        activation(h), slope(h), transported(), and where integrals are computed numerically COMPUTED, how many slopes and how many other
        functions each averages, and I4_error (I2_error, …).

    Raises:
        NoClosedForm: an integral that is neither closed nor an integral over closed forms.
        BadInput: a function that the printer does not know.
    """
    free = {*ts.act.parameters, *ts.slope.free_symbols, *sp.sympify(ts.transported).free_symbols} - {x}
    names = parameter_names(sorted(free, key=str), RESERVED)
    writer = _Writer(ts, names)
    keywords = tuple(names.values())
    constants = [f"NAME = {_quoted(ts.rule.name)}", f"PARAMETERS = {_tuple(map(_quoted, keywords))}", f"FROZEN = {ts.frozen}"]
    if computed := {name: (SLOPES[name], of.size - SLOPES[name]) for name, of in ts.integrals.items() if not of.closed}:
        constants += [f"ORDER = {ts.nodes}", f"COMPUTED = {computed}"]
    body = "\n\n\n".join([
        "\n".join(constants),
        HELPERS,
        *(text for name in ("I2", "I3", "J2", "I4") if name in ts.integrals for text in writer.integral(ts.integrals[name])),
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
        keywords = f", *, {', '.join(self.keywords)}" if self.keywords else ""
        names = ", ".join(symbol.name for symbol in entries(integral.size))
        if integral.smooth:
            lines = self._sum(integral, names)
            return [SUM.format(name=integral.name, names=names, keywords=keywords, passed=self.passed, doc=f"⟨{shown}⟩.", lines=lines)]
        path = integral.path
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

    def _sum(self, integral: Integral, names: str) -> str:
        """The body of an integral that is summed numerically."""
        if integral.size == 4:
            slope, value = (self._function(integral.functions[place]) for place in (0, -1))
            return f"    p, g = {slope}, {value}\n    return correlated.four(p, g, {names}, order)"
        first, cross, last = (entry(*at).name for at in ((1, 1), (1, integral.size), (integral.size, integral.size)))
        terms = []
        for term in integral.sums:
            front = "" if term.coefficient == 1 else f"{self.printer.doprint(term.coefficient)}*"
            # these are cheap beside I4, so that they may be more exact
            terms.append(f"{front}correlated.pair({self._function(term.left)}, {self._function(term.right)}, {first}, {cross}, {last}, 2*order)")
        return f"    return full({' + '.join(terms)}, {names})"

    def _function(self, f: sp.Expr) -> str:
        """A function of x as a lambda; g and p by their names."""
        known = {self.ts.act.expr: "activation", self.ts.slope: "slope"}
        if f in known:
            return f"lambda h: {known[f]}(h{self.passed})" if self.passed else known[f]
        value = self.printer.doprint(f.subs(x, h))
        return f"lambda h: {value}" if f.has(x) else f"lambda h: jnp.full_like(h, {value})"

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
            # the first function has no kink left, so that angles of three fields are those of 2, 3 and 4; they hold C23, C24 and C34
            angles = {angle for angle in slope.regular.atoms(sp.atan2) if {entry(2, 3), entry(2, 4), entry(3, 4)} <= angle.free_symbols}
            factor = self._factor((4, 3, 2), "G") if angles else {}
            if angles:
                lines += ["    # C = G Gᵀ in the order [4, 3, 2]", self._cholesky((4, 3, 2), factor)]
            regular = slope.regular.xreplace({angle: in_factors(angle, (4, 3, 2), factor) for angle in angles})
            found, value = self._lines(regular, "r")
            lines, terms = [*lines, *found], [value]
        for number, (k, weight, expr) in enumerate(slope.conditional):
            order = [k, *(a for a in (4, 3, 2, 1) if a != k)]
            factor = self._factor(order, "L")
            lines += [f"    # C = L Lᵀ in the order {order}; the rows without their first entry are those of the covariance given χ{k} = 0"]
            lines += [self._cholesky(order, factor)]
            found, value = self._lines(in_factors(expr, order[1:], factor), f"d{number}_")
            density = self.printer.doprint(weight / sp.sqrt(2 * sp.pi))
            lines += found
            terms.append(f"({value})*safe.divide({density}, L{k}{k})")
        return "\n".join([*lines, f"    return {' + '.join(terms)}"])

    def _factor(self, order: Sequence[int], name: str) -> dict[tuple[int, int], sp.Symbol]:
        """Symbols of the entries of a Cholesky factor for fields in this order."""
        factor = {(a, b): sp.Symbol(f"{name}{a}{b}", **{"positive" if a == b else "real": True}) for n, a in enumerate(order) for b in order[: n + 1]}
        self.printer.names.update({symbol: symbol.name for symbol in factor.values()})
        return factor

    def _cholesky(self, order: Sequence[int], factor: Mapping[tuple[int, int], sp.Symbol]) -> str:
        """Their assignment."""
        names = ", ".join(_row(factor[a, b] for b in order[: n + 1]) for n, a in enumerate(order))
        rows = ", ".join(_row(entry(a, b) for b in order[: n + 1]) for n, a in enumerate(order))
        return f"    {names} = safe.cholesky(({rows}))"

    # ---- rates -------------------------------------------------------------------------------------------------------

    def rates(self) -> str:
        """dQ, dR and dv."""
        calls, body = _Calls(self.passed), []
        for name, axes in (("Q", "ik"), ("R", "im"), ("v", "i")):
            body += [f"    d{name} = (", *(f"        {line}" for line in self._terms(self.ts.terms[name], axes, calls)), "    )"]
        return "\n".join([
            f"def rates({signature('Q, R, v, F, T, A, eta, sigma, kappa', self.keywords)}):",
            '    """d/dt of Q, R and v."""', *calls.lines(), *body, "    return dQ, dR, dv",
        ])  # fmt: skip

    def error(self) -> str:
        """The generalisation error."""
        calls = _Calls(self.passed)
        terms = self._terms(self.ts.terms["eg"], "", calls)
        return "\n".join([
            f"def error({signature('Q, R, v, T, A', self.keywords)}):",
            '    """The generalisation error, half the mean square against the noiseless teacher."""',
            *calls.lines(), "    return (", *(f"        {line}" for line in terms), "    )",
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
    """The arrays of integrals that a function needs: each integral once, over all fields, and slices of it."""

    def __init__(self, passed: str) -> None:
        self.passed = passed
        self.known: dict[str, tuple[int, int]] = {}

    def name(self, integral: sp.Expr) -> tuple[str, str]:
        """(axes, slice) of an integral's array; slopes are those of students."""
        kind, slopes = type(integral).__name__, SLOPES[type(integral).__name__]
        self.known[kind] = (slopes, len(integral.args))
        parts = [":" if a < slopes else ":K" if f.base == lam else "K:" for a, f in enumerate(integral.args)]
        slices = "" if set(parts) == {":"} else f"[{', '.join(parts)}]"
        return "".join(str(f.indices[0]) for f in integral.args), f"{kind}_all{slices}"

    def lines(self) -> list[str]:
        """Assignments."""
        calls = []
        for kind, (slopes, size) in self.known.items():
            sizes = ", ".join(["K"] * slopes + ["len(C)"] * (size - slopes))
            calls.append(f"    {kind}_all = {kind}(*covariances(C, ({sizes})){self.passed})")
        return ["    K, C = len(v), fields(Q, R, T)", *calls]


def _row(symbols: Iterable[sp.Symbol]) -> str:
    names = [symbol.name for symbol in symbols]
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def in_factors(expr: sp.Expr, fields: Sequence[int], factor: Mapping[tuple[int, int], sp.Symbol]) -> sp.Expr:
    """A closed form in (conditional) covariances C_ab of fields by the Cholesky factor: roots of determinants become products, which cancel in angles.

    Where two fields coincide the angles given one and given the other are noise, but complementary; written like this they stay so. Angles are named
    before the factor's positive entries come in, because SymPy makes atan2(c, positive) an arctan(c/positive), which is lost at 0/0.
    """
    product = lambda a, b: sp.Add(*(factor[a, c] * factor[b, c] for c in fields if (a, c) in factor and (b, c) in factor))
    put = {entry(a, b): product(a, b) for a in fields for b in fields if a <= b}
    simple = lambda e: sp.sqrt(sp.factor(sp.expand(e.base))) ** (2 * e.exp)
    opened = expr.replace(sp.atan2, _coangle).xreplace(put).replace(_is_root, simple)

    def cancelled(c: sp.Expr, s: sp.Expr) -> sp.Expr:
        return Coangle(*sp.fraction(sp.cancel(sp.factor(sp.expand(c)) / s)))

    return opened.replace(Coangle, cancelled)


def _is_root(expr: sp.Expr) -> bool:
    return isinstance(expr, sp.Pow) and expr.exp.is_Rational and expr.exp.q == 2


def _coangle(y: sp.Expr, c: sp.Expr) -> sp.Expr:
    """The angle by that from −c to (c, s), s a root in covariances: the engine writes atan2(s, −c), or atan2(c, s) = atan2(s, −c) − π/2."""
    is_determinant = lambda e: any(_is_root(f) and f.has(*entries(4)) for f in sp.Mul.make_args(e))
    return Coangle(-c, y) if is_determinant(y) else Coangle(y, c) - sp.pi / 2


# ---- forms that stay accurate where fields coincide --------------------------------------------------------------------


def stable(expr: sp.Expr) -> sp.Expr:
    """Roots of determinants, angles and quotients in the forms of `numerics.safe`; values are unchanged."""
    expr = expr.replace(_is_root, _root)
    expr = expr.replace(sp.atan2, _angle)
    return expr.replace(lambda e: isinstance(e, sp.Mul | sp.Pow), _quotient)


def _root(power: sp.Pow) -> sp.Expr:
    split = _determinant(power.base)
    return power if split is None else Root(*split) ** (2 * power.exp)


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
    return Coangle(-c, y) if isinstance(y, Root) else sp.atan2(y, c)


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
