"""The Gaussian expectation engine: E[F(u, v, …)] for jointly Gaussian variables with a symbolic covariance.

    expectation(relu(u)*relu(v), [[a, c], [c, b]]).expr      # a closed form, derived; or NoClosedForm

The integrand is brought to a normal form (`derive/integrand.py`), exponentials are absorbed by tilting and powers removed by Stein's
lemma (`derive/wick.py`), and what remains is integrated by Price's theorem and put together (`derive/closed_form.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy as sp

from .closed_form import ClosedForm, Mean
from .derivation import Derivation, Step, to_latex
from .errors import BadInput, NoClosedForm
from .integrand import Term, normal_form
from .symbols import GAUSSIAN, x
from .wick import Gaussian, Scalars

MAX_VARIABLES = 4


class Expectation:
    """The closed form of a Gaussian expectation; behaves as its expression.

    Attributes:
        expr: the closed form.
        steps: how it was derived.
    """

    __slots__ = ("expr", "integrand", "steps")
    expr: sp.Expr
    steps: tuple[Step, ...]
    integrand: sp.Expr

    def __init__(self, expr: sp.Expr, steps: Iterable[Step] = (), integrand: sp.Expr = sp.S.Zero) -> None:
        object.__setattr__(self, "expr", expr)
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "integrand", integrand)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Expectation is frozen: cannot set {name}")

    def derivation(self) -> Derivation:
        """The steps, printable and exportable."""
        return Derivation(f"E[{self.integrand}]", self.steps)

    def latex(self) -> str:
        """LaTeX of the closed form."""
        return to_latex(self.expr)

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.latex()}$"

    def __repr__(self) -> str:
        return str(self.expr)

    def _sympy_(self) -> sp.Expr:
        return self.expr

    def _print(self, printer: Any) -> Any:
        """What any of SymPy's printers makes of the closed form."""
        return printer._print(self.expr)

    # SymPy's printers ask for these by name; without them they would take the object for sympy.stats.Expectation.
    _latex = _sympystr = _sympyrepr = _pretty = _pythoncode = _numpycode = _mpmathcode = _print

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__slots__:
            raise AttributeError(name)
        return getattr(self.expr, name)

    def __eq__(self, other: object) -> bool:
        return bool(self.expr == getattr(other, "expr", other))

    def __hash__(self) -> int:
        return hash(self.expr)

    def __reduce__(self) -> tuple:
        return Expectation, (self.expr, self.steps, self.integrand)

    def __float__(self) -> float:
        return float(self.expr)

    def __complex__(self) -> complex:
        return complex(self.expr)

    def __bool__(self) -> bool:
        return bool(self.expr != 0)

    def __neg__(self) -> sp.Expr:
        return -self.expr

    def __add__(self, other: Any) -> sp.Expr:
        return self.expr + sp.sympify(other)

    def __sub__(self, other: Any) -> sp.Expr:
        return self.expr - sp.sympify(other)

    def __mul__(self, other: Any) -> sp.Expr:
        return self.expr * sp.sympify(other)

    def __truediv__(self, other: Any) -> sp.Expr:
        return self.expr / sp.sympify(other)

    def __pow__(self, other: Any) -> sp.Expr:
        return self.expr ** sp.sympify(other)

    def __radd__(self, other: Any) -> sp.Expr:
        return sp.sympify(other) + self.expr

    def __rsub__(self, other: Any) -> sp.Expr:
        return sp.sympify(other) - self.expr

    def __rmul__(self, other: Any) -> sp.Expr:
        return sp.sympify(other) * self.expr

    def __rtruediv__(self, other: Any) -> sp.Expr:
        return sp.sympify(other) / self.expr


def covariance(*variables: sp.Symbol) -> sp.Matrix:
    """The symbolic covariance matrix of some variables: positive variances S_uu, real covariances S_uv.

    Shapes:
        n variables → n × n.
    """
    if not variables:
        raise BadInput("covariance() of no variables: give the Gaussian variables, as in covariance(u, v)")

    def entry(i: int, j: int) -> sp.Symbol:
        names = f"S_{variables[min(i, j)]}{variables[max(i, j)]}"
        return sp.Symbol(names, positive=True) if i == j else sp.Symbol(names, real=True)

    return sp.Matrix(len(variables), len(variables), entry)


def expectation(
    expr: Any, cov: Any, variables: Sequence[sp.Symbol] | None = None, mean: Any = None,
) -> Expectation:  # fmt: skip
    """E[expr] for jointly Gaussian variables, in closed form, with its derivation.

    Args:
        expr: the integrand, e.g. relu(u)*erf(v): polynomials, exponentials of quadratics, sin, cos, sinh, cosh, steps, sign, |·|, Max,
            Min, Piecewise, erf, products of these and linear combinations.
        cov: n × n covariance (n ≤ 4) of symbols, numbers or expressions, or {(u, u): …, (u, v): …, (v, v): …}.
        variables: which symbols are Gaussian, in the order of `cov`. Default: those of u, v, w, s in `expr`.
        mean: their means, a sequence or {variable: mean}; zero if not given.

    Raises:
        NoClosedForm: the integrand or an integral has none; `.reason` names the obstruction.
        BadInput: a covariance that is none, variables that do not fit, or an infinite expectation.

    Source: Stein 1981; Price 1958; THEORY section 3, "Dual activations".
    """
    integrand = _exact(getattr(expr, "expr", expr))
    matrix, named = _covariance(cov)
    chosen = _variables(integrand, matrix.rows, variables if variables is not None else named)
    means = _means(mean, chosen)
    if matrix.free_symbols & set(chosen) or any(m.free_symbols & set(chosen) for m in means):
        raise BadInput(f"the covariance {matrix.tolist()} or mean contains the Gaussian variables {chosen} themselves: rename one of them")
    real = tuple(sp.Symbol(v.name, real=True) for v in chosen)
    inner = integrand.subs(dict(zip(chosen, real, strict=True)), simultaneous=True)
    return _Problem(inner, real, matrix, means).solve()


class _Problem:
    """One expectation, from checked input to closed form; its method `solve` is the whole lowering."""

    def __init__(self, integrand: sp.Expr, variables: tuple[sp.Symbol, ...], cov: sp.Matrix, mean: tuple[sp.Expr, ...]) -> None:
        self.integrand, self.variables, self.cov, self.mean = integrand, variables, cov, mean
        self.steps: list[Step] = []

    def solve(self) -> Expectation:
        reduced, kept = self._drop_dependent()
        variables = tuple(self.variables[k] for k in kept)
        if not variables:  # nothing is random
            self.steps.append(Step("Every variable is its mean", sp.Eq(Mean(self.integrand), reduced, evaluate=False)))
            return Expectation(reduced, self.steps, self.integrand)
        terms = self._named(lambda: normal_form(reduced, variables))
        self._record(terms, variables)
        symbols = _Symbols()
        cov = sp.Matrix(len(kept), len(kept), lambda i, j: symbols(self.cov[kept[i], kept[j]], i == j))
        mean = tuple(symbols(self.mean[k], False) for k in kept)
        result = self._named(lambda: ClosedForm(terms, variables, cov, mean))
        put = lambda e: e.xreplace(symbols.back) if isinstance(e, sp.Basic) else e
        self.steps += [_map_step(step, put) for step in result.steps]
        self.steps += [Step(reason, put(equation)) for reason, equation in result.remarks.items()]
        value = put(result.expr)
        self.steps.append(Step("Sum of all terms", sp.Eq(Mean(self.integrand), value, evaluate=False)))
        return Expectation(value, self.steps, self.integrand)

    def _named(self, compute: Any) -> Any:
        """Errors name the whole integrand."""
        try:
            return compute()
        except NoClosedForm as error:
            raise NoClosedForm(f"E[{self.integrand}]", error.reason) from None

    def _drop_dependent(self) -> tuple[sp.Expr, list[int]]:
        """Write variables that are certain given earlier ones (|correlation| 1, zero variance) through those."""
        kept: list[int] = []
        integrand = self.integrand
        scalars = Scalars(self.cov)
        law = Gaussian(scalars, tuple(tuple(map(scalars, self.cov.row(i))) for i in range(self.cov.rows)), ())
        for k, variable in enumerate(self.variables):
            if sp.expand(scalars.polynomial(law.det([*kept, k]).numer, factor=False)) != 0:
                kept.append(k)
                continue
            gain = self.cov.extract(kept, kept).LUsolve(self.cov.extract(kept, [k])) if kept else ()
            centred = (g * (self.variables[i] - self.mean[i]) for g, i in zip(gain, kept, strict=True))
            combination = self.mean[k] + sp.Add(*centred)
            integrand = integrand.subs(variable, combination)
            self.steps.append(Step("The covariance is singular", sp.Eq(variable, combination, evaluate=False)))
        return integrand, kept

    def _record(self, terms: tuple[Term, ...], variables: tuple[sp.Symbol, ...]) -> None:
        if any(kink.noise != 0 for term in terms for kink in term.kinks):
            self.steps.append(
                Step(
                    "An error function is a sign smeared by independent standard normal noise ξ, erf(κs) = E[sign(s + ξ/(√2 κ))]; "
                    "a step is half of one plus a sign",
                    r"\operatorname{erf}(\kappa s) = \mathbb{E}_\xi\left[\operatorname{sign}\left(s + \xi/(\sqrt{2}\kappa)\right)\right]",
                )
            )
        elif any(term.kinks for term in terms):
            self.steps.append(Step("Write kinks with signs", r"\Theta(s) = \tfrac12 + \tfrac12\operatorname{sign}(s)"))
        self.steps.append(Step(f"The integrand is a sum of {len(terms)} terms, jointly Gaussian with covariance", self.cov))


class _Symbols:
    """Symbols for covariance entries that are neither a symbol nor rational, so that each stays in one piece."""

    def __init__(self) -> None:
        self.symbol_of: dict[sp.Expr, sp.Dummy] = {}
        self.back: dict[sp.Dummy, sp.Expr] = {}

    def __call__(self, entry: sp.Expr, positive: bool) -> sp.Expr:
        if entry.is_Symbol or entry.is_Rational:
            return entry
        if entry not in self.symbol_of:
            dummy = sp.Dummy(f"e{len(self.back)}", positive=True) if positive else sp.Dummy(f"e{len(self.back)}", real=True)
            self.symbol_of[entry], self.back[dummy] = dummy, entry
        return self.symbol_of[entry]


def _map_step(step: Step, function: Any) -> Step:
    return Step(step.reason, function(step.equation), tuple(_map_step(child, function) for child in step.children))


# Checking arguments -----------------------------------------------------------------------------------------------


def _exact(value: Any) -> sp.Expr:
    """SymPy expression, floats turned into the rationals that they print as."""
    try:
        e = sp.sympify(value)
    except sp.SympifyError as error:
        raise BadInput(f"{value!r} is no expression that SymPy can read: give one such as relu(u)*relu(v)") from error
    if not isinstance(e, sp.Expr) or e.has(sp.nan, sp.zoo, sp.oo):
        raise BadInput(f"{value!r} is no finite scalar expression: give a SymPy expression such as relu(u)*relu(v)")
    return sp.nsimplify(e, rational=True) if e.has(sp.Float) else e


def _covariance(cov: Any) -> tuple[sp.Matrix, tuple[sp.Symbol, ...] | None]:
    """The matrix, and the variables if `cov` names them."""
    named = None
    if isinstance(cov, Mapping):
        named = tuple(dict.fromkeys(name for pair in cov for name in pair))
        named = tuple(sorted(named, key=lambda v: (GAUSSIAN.index(v), "") if v in GAUSSIAN else (len(GAUSSIAN), str(v))))
        missing = [(p, q) for i, p in enumerate(named) for q in named[i:] if (p, q) not in cov and (q, p) not in cov]
        if missing:
            raise BadInput(f"the covariance has no entry for {missing[0]}: give one for each pair of {named}")
        cov = [[cov.get((p, q), cov.get((q, p))) for q in named] for p in named]
    try:
        matrix = sp.Matrix(cov)
    except (TypeError, ValueError) as error:
        raise BadInput(f"covariance {cov!r} is no matrix: give a square nested list, a Matrix or a dictionary") from error
    if matrix.rows != matrix.cols or matrix.rows == 0:
        raise BadInput(f"a covariance of shape {matrix.shape}: it must be square, as [[a, c], [c, b]]")
    if matrix.rows > MAX_VARIABLES:
        raise BadInput(f"{matrix.rows} Gaussian variables: the engine takes at most {MAX_VARIABLES}")
    matrix = matrix.applyfunc(_exact)
    for i in range(matrix.rows):
        for j in range(i):
            if sp.expand(matrix[i, j] - matrix[j, i]) != 0:
                raise BadInput(
                    f"covariance entries ({i}, {j}) = {matrix[i, j]} and ({j}, {i}) = {matrix[j, i]} differ: it must be symmetric"
                )
            if (matrix[i, i] * matrix[j, j] - matrix[i, j] ** 2).is_negative:
                raise BadInput(f"covariance {matrix[i, j]} exceeds what variances {matrix[i, i]} and {matrix[j, j]} allow")
        if matrix[i, i].is_negative:
            raise BadInput(f"variance {matrix[i, i]} at position {i} is negative: a covariance has variances >= 0 on its diagonal")
    if all(entry.is_number for entry in matrix) and not matrix.is_positive_semidefinite:
        raise BadInput(f"{matrix.tolist()} is no covariance: it is not positive semidefinite")
    return matrix, named


def _variables(expr: sp.Expr, n: int, given: Sequence[sp.Symbol] | None) -> tuple[sp.Symbol, ...]:
    if given is not None:
        chosen = tuple(given) if isinstance(given, Iterable) else (given,)
        if len(chosen) != n or len(set(chosen)) != n or not all(isinstance(v, sp.Symbol) for v in chosen):
            raise BadInput(f"variables {chosen} for a {n} × {n} covariance: give {n} different symbols")
        return chosen
    used = tuple(v for v in GAUSSIAN if v in expr.free_symbols)
    if len(used) == n:
        return used
    if set(used) <= set(GAUSSIAN[:n]) and (used or not expr.free_symbols):
        return GAUSSIAN[:n]
    if not used and len(expr.free_symbols) == n:
        return tuple(sorted(expr.free_symbols, key=str))
    if not used and n == 1 and x in expr.free_symbols:
        return (x,)
    raise BadInput(
        f"cannot tell which {n} of {sorted(expr.free_symbols, key=str)} are Gaussian: give variables=[…] in the order of the covariance"
    )


def _means(mean: Any, variables: tuple[sp.Symbol, ...]) -> tuple[sp.Expr, ...]:
    if mean is None:
        return (sp.Integer(0),) * len(variables)
    if isinstance(mean, Mapping):
        strangers = set(mean) - set(variables)
        if strangers:
            raise BadInput(f"a mean for {strangers}, which are not among the variables {variables}")
        return tuple(_exact(mean.get(v, 0)) for v in variables)
    means = tuple(map(_exact, mean)) if isinstance(mean, Iterable) else (_exact(mean),)
    if len(means) != len(variables):
        raise BadInput(f"{len(means)} means for {len(variables)} variables {variables}: give one for each")
    return means
