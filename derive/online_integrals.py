"""The Gaussian integrals of online learning, I₂, I₃, I₄ and J₂, for any activation, by the Gaussian engine.

With jointly Gaussian fields χ, an activation g and the factor p of the rule's pseudo-gradient (p = g′ for GD and DFA):

    I₂ = ⟨g(χ₁) g(χ₂)⟩   I₃ = ⟨p(χ₁) χ₂ g(χ₃)⟩   I₄ = ⟨p(χ₁) p(χ₂) g(χ₃) g(χ₄)⟩   J₂ = ⟨p(χ₁) p(χ₂)⟩

Where there is no closed form, smooth functions are summed numerically (`sums`). An I₄ of functions with kinks is brought to one integral over
closed forms: scale the covariances between {1, 2} and {3, 4} by τ. At τ = 0 the average factorises, and by Price's theorem
dI₄/dτ = Σ C_ij ⟨∂_i ∂_j ⋯⟩, whose integrands have one kink less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import sympy as sp

from .closed_form import Mean
from .derivation import Step
from .errors import BadInput, NoClosedForm
from .gaussian import expectation
from .integrand import Term, normal_form
from .piecewise import KINKED, steps_form
from .symbols import GAUSSIAN, x

NAMES = ("I2", "I3", "I4", "J2")
# Powers of fields beside exponentials and error functions of four fields up to which a closed form is derived; at 2 it takes 12 s and fills a page.
# Terms add up, and a parameter in such a function costs as much as a power.
LONGEST = 2
# The power of x beside kinks up to which an I₄ is taken. From x⁴ on its closed forms have cubes of determinants that vanish where fields coincide.
HIGHEST = 3


def entry(i: int, j: int) -> sp.Symbol:
    """C_ij, the covariance of the fields i and j, counted from 1."""
    i, j = min(i, j), max(i, j)
    return sp.Symbol(f"C{i}{j}", positive=True) if i == j else sp.Symbol(f"C{i}{j}", real=True)


def entries(n: int) -> tuple[sp.Symbol, ...]:
    """C11, C12, …, Cnn: the upper triangle by rows."""
    return tuple(entry(i, j) for i in range(1, n + 1) for j in range(i, n + 1))


def field_integral(name: str, tex: str) -> type[sp.Function]:
    """An integral as a function of the fields that it averages, e.g. I3(λ_i, λ_k, ρ_n)."""

    def _latex(self: sp.Function, printer: sp.printing.printer.Printer, exp: str | None = None) -> str:
        power = rf"^{{{exp}}}" if exp else ""
        return rf"{tex}{power}\left({', '.join(map(printer._print, self.args))}\right)"

    return type(name, (sp.Function,), {"is_real": True, "_latex": _latex, "__doc__": field_integral.__doc__})


I2, I3, I4, J2 = (field_integral(name, f"{name[0]}_{name[1]}") for name in NAMES)
FIELD_INTEGRALS: Mapping[str, type[sp.Function]] = {"I2": I2, "I3": I3, "I4": I4, "J2": J2}


@dataclass(frozen=True)
class Integral:
    """E[Π_i functions_i(χ_i)] in the entries C_ij of the fields' covariance.

    Attributes:
        name: one of I2, I3, I4, J2.
        functions: expressions in x, one for each field.
    """

    name: str
    functions: tuple[sp.Expr, ...]

    @property
    def size(self) -> int:
        """How many fields are averaged."""
        return len(self.functions)

    @property
    def integrand(self) -> sp.Expr:
        """The product of functions of u, v, w, s."""
        return sp.Mul(*(f.subs(x, variable) for f, variable in zip(self.functions, GAUSSIAN, strict=False)))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """How it was derived."""
        if self.closed:
            return _average(self.functions).steps
        return self.sum_steps if self.smooth else self.path.steps

    @property
    def closed(self) -> bool:
        """Whether the engine finds a closed form."""
        return self.obstruction is None

    @property
    def smooth(self) -> bool:
        """Whether no function has kinks or jumps."""
        return not any(f.has(*KINKED) for f in self.functions)

    @property
    def form(self) -> str:
        """How it is computed, in words."""
        if self.obstruction is None:
            return "closed form"
        return f"{'numerical quadrature' if self.smooth else 'an integral over closed forms'} ({self.obstruction.reason})"

    @cached_property
    def obstruction(self) -> NoClosedForm | None:
        """Why there is no closed form; None if there is one."""
        try:
            if self.size == 4:
                self._refuse_long()
            _average(self.functions)
        except NoClosedForm as error:
            return error
        return None

    def _refuse_long(self) -> None:
        """Raise for four kinks, and for a closed form that nobody can read and that takes longer to evaluate than a quadrature."""
        if all(f.has(*KINKED) and steps_form(f).has(*KINKED) for f in self.functions):
            raise NoClosedForm(self.integrand, "a four-dimensional orthant probability")
        if not self.smooth:
            return
        length = 0
        for term in normal_form(self.integrand, GAUSSIAN[:4]):
            degree, fields = sum(term.powers), _transcendental(term)
            length += degree + _parameters(term) if degree and len(fields) == 4 else 0
            if fields and max(degree, length) > LONGEST:
                besides = "" if degree > LONGEST else ", with parameters or in several terms"
                raise NoClosedForm(self.integrand, f"powers of degree {degree} times exponentials or error functions of four fields{besides}")

    @cached_property
    def sums(self) -> tuple[PairAverage, ...]:
        """An average of two or three fields as averages of two, by Stein's lemma ⟨χ₂ f⟩ = Σ_j C_2j ⟨∂_j f⟩."""
        first, *middle, last = self.functions
        if not middle:
            return (PairAverage(sp.S.One, first, last),)
        if middle != [x]:
            raise BadInput(f"{self.name} of {self.functions}: Stein's lemma needs a field itself in the middle")
        terms = PairAverage(entry(1, 2), sp.diff(first, x), last), PairAverage(entry(2, 3), first, sp.diff(last, x))
        return tuple(term for term in terms if 0 not in (term.left, term.right))

    @property
    def sum_steps(self) -> tuple[Step, ...]:
        """How a smooth average without closed form becomes sums over nodes."""
        reason = self.obstruction.reason if self.obstruction else ""
        start = f"No closed form ({reason}). "
        if self.size == 4:
            return (
                Step(
                    start + "Write χ = L u with C = L Lᵀ; sum over u₁, u₂, and given these use Mehler's series for χ₃ and χ₄",
                    r"\sum_{j_1 j_2} w_{j_1} w_{j_2}\, p(\chi_1) p(\chi_2) \sum_k \rho^k a_k b_k,\quad "
                    r"a_k = \sum_j w_j h_k(x_j)\, g(L_{31} x_{j_1} + L_{32} x_{j_2} + L_{33} x_j)",
                ),
            )
        fields = dict.fromkeys((1, self.size))
        value = sp.Add(*(term.coefficient * Mean(term.integrand(*fields)) for term in self.sums))
        steps = [] if self.size == 2 else [Step("Stein's lemma, ⟨χ₂ f⟩ = Σ_j C_2j ⟨∂_j f⟩", value)]
        return (*steps, Step(start + "Write χ = L u with C = L Lᵀ and sum over the nodes of u", None))

    @property
    def expr(self) -> sp.Expr:
        """The closed form.

        Raises:
            NoClosedForm: there is none; `.path` has an integral over closed forms, `.sums` what is summed numerically.
        """
        if self.obstruction is not None:
            raise self.obstruction
        return _average(self.functions).expr

    @cached_property
    def path(self) -> PricePath:
        """The average as a value at τ = 0 and a derivative in closed form.

        Raises:
            NoClosedForm: the pieces have none either.
        """
        if self.obstruction is None:
            raise BadInput(f"{self.name} of {self.functions} has a closed form: use .expr")
        advice = "; with kinks it is not summed numerically either, which would converge slowly: take a smooth activation, or relu, leaky_relu, abs"
        if self.name == "I4":
            advice += ", or small_rate=True, which drops this integral"
        if self.size != 4:
            raise NoClosedForm(self.obstruction.what, self.obstruction.reason + advice)
        try:
            return price_path(self)
        except NoClosedForm as error:
            raise NoClosedForm(error.what, error.reason + advice) from None


@dataclass(frozen=True)
class PairAverage:
    """coefficient · ⟨left(χ_first) right(χ_last)⟩, both functions of x."""

    coefficient: sp.Expr
    left: sp.Expr
    right: sp.Expr

    def integrand(self, first: int, last: int) -> sp.Expr:
        """The product as a function of the fields with these numbers."""
        return self.left.subs(x, GAUSSIAN[first - 1]) * self.right.subs(x, GAUSSIAN[last - 1])


@dataclass(frozen=True)
class Slope:
    """⟨∂₁ ∂₃ Π functions⟩ as a sum: a conditional average for every δ function, the rest as it is.

    Attributes:
        regular: closed form in C11 … C44, 0 if nothing is regular.
        conditional: (k, weight, expr): the δ of field k, whose density at 0 is weight/√(2π C_kk), leaves `expr` in the conditional covariances
            `entry(i, j)` of the other fields given χ_k = 0.
    """

    regular: sp.Expr
    conditional: tuple[tuple[int, sp.Expr, sp.Expr], ...]


@dataclass(frozen=True)
class PricePath:
    """I₄ = J₂(1, 2) I₂(3, 4) + ∫₀¹ dτ Σ_{i∈{1,2}, j∈{3,4}} C_ij ⟨∂_i ∂_j ⋯⟩_τ.

    Attributes:
        start: J₂(1, 2) I₂(3, 4).
        slope: ⟨∂₁ ∂₃ ⋯⟩; the other three by exchanging 1 with 2 and 3 with 4.
        steps: the derivation.
    """

    start: sp.Expr
    slope: Slope
    steps: tuple[Step, ...]


def price_path(integral: Integral) -> PricePath:
    """Derive the path of an I₄; its functions must be (p, p, g, g)."""
    p, same, g, other = integral.functions
    if p != same or g != other:
        raise BadInput(f"{integral.name} of {integral.functions}: a path needs the functions (p, p, g, g)")
    steps = {f: _in_steps(f, highest) for f, highest in ((p, HIGHEST - 1), (g, HIGHEST))}
    low, high = _average((p, p)), _average((g, g))
    start = _renamed(low.expr, {1: 1, 2: 2}) * _renamed(high.expr, {1: 3, 2: 4})
    slope, slope_steps = _slope((sp.diff(steps[p], x), p, sp.diff(steps[g], x), g))
    reason = integral.obstruction.reason if integral.obstruction else ""
    derived = (
        Step(
            f"No closed form ({reason}). Scale the covariances between the fields {{1, 2}} and {{3, 4}} by τ; at τ = 0 the two pairs are independent",
            start,
            (Step("⟨p p⟩", low.expr, low.steps), Step("⟨g g⟩", high.expr, high.steps)),
        ),
        Step(
            "Price's theorem: the derivative in a covariance C_ij is the average of the mixed derivative, so that along the path",
            r"I_4 = J_2 I_2 + \int_0^1 d\tau \sum_{i\in\{1,2\},\,j\in\{3,4\}} C_{ij} "
            r"\left\langle \partial_i \partial_j\, p(\chi_1) p(\chi_2) g(\chi_3) g(\chi_4) \right\rangle_\tau",
        ),
        Step("The average of the mixed derivative in fields 1 and 3; the other three by exchanging 1 with 2 and 3 with 4", None, slope_steps),
    )
    return PricePath(start, slope, derived)


def _in_steps(f: sp.Expr, highest: int) -> sp.Expr:
    """A function with steps Θ(x − t) alone, of which SymPy differentiates all: of a Piecewise it drops the δ.

    Raises:
        NoClosedForm: thresholds of unknown order, exponentials and error functions besides, whose averages take minutes, or powers above x^highest.
    """
    steps = steps_form(f)
    if steps.has(*(kinked for kinked in KINKED if kinked is not sp.Heaviside)):
        raise NoClosedForm(f, "kinks whose places cannot be found or ordered")
    for term in normal_form(f.subs(x, GAUSSIAN[0]), GAUSSIAN[:1]):
        if any(map(any, term.quadratic)) or any(kink.noise != 0 for kink in term.kinks):
            raise NoClosedForm(f, "exponentials or error functions beside kinks, in an average of four fields")
        if sum(term.powers) > highest:
            raise NoClosedForm(f, f"powers above x^{highest} beside kinks, whose average loses all digits where fields nearly coincide")
    return steps


def _transcendental(term: Term) -> set[int]:
    """The fields in a term's Gaussians, steps and error functions."""
    vectors = [*term.quadratic, *(kink.direction for kink in term.kinks)]
    return {k for vector in vectors for k, part in enumerate(vector) if part != 0}


def _parameters(term: Term) -> int:
    """How many parameters its exponentials and error functions contain."""
    parts = [*term.linear, *(part for row in term.quadratic for part in row)]
    parts += [part for kink in term.kinks for part in (*kink.direction, kink.noise)]
    return len(set().union(*(sp.sympify(part).free_symbols for part in parts)))


def _slope(functions: tuple[sp.Expr, ...]) -> tuple[Slope, tuple[Step, ...]]:
    """Split off the δ functions of the first and third factor."""
    split = [_without_delta(f) if k in (0, 2) else (f, sp.S.Zero) for k, f in enumerate(functions)]
    regular = tuple(rest for rest, _ in split)
    kinks = [k for k, (_, weight) in enumerate(split) if weight != 0]
    if len(kinks) > 1:
        raise NoClosedForm(sp.Mul(*functions), "δ functions of two fields: the activation jumps, which makes I₄ infinite")
    if all(f.has(*KINKED) for f in regular):
        raise NoClosedForm(sp.Mul(*functions), "a four-dimensional orthant probability")
    steps: list[Step] = []
    conditional: list[tuple[int, sp.Expr, sp.Expr]] = []
    for k in kinks:
        average = _average(tuple(f for i, f in enumerate(regular) if i != k))
        labels = [i + 1 for i in range(4) if i != k]
        value = _renamed(average.expr, dict(zip((1, 2, 3), labels, strict=True)))
        weight = split[k][1]
        conditional.append((k + 1, weight, value))
        reason = f"δ(χ_{k + 1}) leaves its density at 0, {weight}/√(2π C_{k + 1}{k + 1}), and the average given χ_{k + 1} = 0; in the conditional covariances"
        steps.append(Step(reason, value, average.steps))
    value = sp.S.Zero
    if all(f != 0 for f in regular):
        average = _average(regular)
        value = average.expr
        steps.append(Step("What has no δ", value, average.steps))
    return Slope(value, tuple(conditional)), tuple(steps)


def _without_delta(f: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A function without its δ at 0, and the δ's weight.

    Raises:
        NoClosedForm: δ's elsewhere, or derivatives of δ.
    """
    expanded = sp.expand(f)
    for delta in expanded.atoms(sp.DiracDelta):
        if delta.args != (x,):
            raise NoClosedForm(f, f"a kink or jump away from 0 ({delta})")
    weight = sp.Add(*(term.coeff(sp.DiracDelta(x)).subs(x, 0) for term in sp.Add.make_args(expanded)))
    return expanded.replace(sp.DiracDelta, lambda *_: sp.S.Zero), weight


@cache
def _average(functions: tuple[sp.Expr, ...]):
    """The engine's closed form in C11 … Cnn."""
    n = len(functions)
    variables = GAUSSIAN[:n]
    integrand = sp.Mul(*(f.subs(x, variable) for f, variable in zip(functions, variables, strict=True)))
    cov = sp.Matrix(n, n, lambda i, j: entry(i + 1, j + 1))
    return expectation(integrand, cov, variables=variables)


def _renamed(expr: sp.Expr, label: Mapping[int, int]) -> sp.Expr:
    """Fields renumbered in the covariance's entries."""
    return expr.xreplace({entry(i, j): entry(label[i], label[j]) for i in label for j in label if i <= j})


def mean_of(integral: Integral) -> sp.Expr:
    """E[integrand], unevaluated."""
    return Mean(integral.integrand)
