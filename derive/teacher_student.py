"""Online learning of a two-layer student from a two-layer teacher: the closed equations of the order parameters, derived.

Fresh standard normal inputs x in D dimensions, one for each step; teacher and student

    y = Σ_m A_m g(ρ_m) + σ ζ,  ρ_m = B_m·x/√D,      ŷ = Σ_k v_k g(λ_k),  λ_k = w_k·x/√D,      e = y − ŷ.

A rule whose pseudo-gradient is p(h) z changes w_k by (η/√D) e p(λ_k) z_k x and v_k by (η/D) e g(λ_k), with z_k = c v_k + F_k: c is the share
that is transported, F the frozen feedback (all of it: for DFA the direct vector). In time t = steps/D, and as D → ∞, the order parameters
Q_ik = w_i·w_k/D, R_im = w_i·B_m/D and v_k follow ordinary differential equations, because the fields (λ, ρ) are Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .activations import Activation
from .derivation import Derivation
from .errors import BadInput, DeriveError
from .latex import Documented
from .network import MLP
from .online_integrals import FIELD_INTEGRALS, I2, I3, I4, J2, Integral, mean_of
from .rules import ACTIVITY, Rule
from .symbols import Delta, eta, h, kappa, x, z

i, k, j, l = sp.symbols("i k j l", integer=True, positive=True)  # students
m, n, p = sp.symbols("m n p", integer=True, positive=True)  # teachers
K, M = sp.symbols("K M", integer=True, positive=True)
Q, R, T, v, A, F = (sp.IndexedBase(name, real=True) for name in ("Q", "R", "T", "v", "A", "F"))
lam, rho = sp.IndexedBase("lambda", real=True), sp.IndexedBase("rho", real=True)
sigma = sp.Symbol("sigma", nonnegative=True)
e, zeta = sp.symbols("e zeta", real=True)
_small = sp.Symbol("epsilon", positive=True)  # 1/√D
STUDENTS, TEACHERS = (i, k, j, l), (m, n, p)


class g(sp.Function):
    """The activation of student and teacher, before it is put in."""

    is_real = True


class p_(sp.Function):
    """The factor p(h) of the rule's pseudo-gradient p(h) z."""

    is_real = True

    def _latex(self, printer: sp.printing.printer.Printer) -> str:
        return rf"p\left({printer._print(self.args[0])}\right)"

    def _sympystr(self, printer: sp.printing.printer.Printer) -> str:
        return f"p({printer._print(self.args[0])})"


class Rate(sp.Function):
    """d(·)/dt of an order parameter, t = steps/D."""

    nargs = 1
    is_real = True

    def _latex(self, printer: sp.printing.printer.Printer) -> str:
        return rf"\frac{{d {printer._print(self.args[0])}}}{{dt}}"

    def _sympystr(self, printer: sp.printing.printer.Printer) -> str:
        return f"d{printer._print(self.args[0])}/dt"


@dataclass(frozen=True)
class Average:
    """One term of a rate: Σ_summed coefficient · integral.

    Attributes:
        coefficient: a product of parameters and order parameters.
        integral: I2(…), I3(…), I4(…), J2(…) of fields, or 1.
        summed: the indices that are summed over.
    """

    coefficient: sp.Expr
    integral: sp.Expr
    summed: tuple[sp.Symbol, ...] = ()

    @property
    def expr(self) -> sp.Expr:
        """The term, with what does not depend on the summed indices in front of the sum."""
        outside, inside = self.coefficient.as_independent(*self.summed, as_Add=False) if self.summed else (self.coefficient, sp.S.One)
        limits = [(index, 1, K if index in STUDENTS else M) for index in self.summed]
        return outside * sp.Sum(inside * self.integral, *limits) if limits else outside * self.integral


# ---- the update, D → ∞ ----------------------------------------------------------------------------------------------

Vector = Mapping[tuple, sp.Expr]  # {("w", i): coefficient, ("B", m): …, ("x",): …}


def inner(first: Vector, second: Vector) -> sp.Expr:
    """a·b/D of vectors that are combinations of w_k, B_m and x; x·x = D up to its fluctuations of order √D."""
    return sp.expand(sum((c * d * _inner_of(a, b) for a, c in first.items() for b, d in second.items()), sp.S.Zero))


def _inner_of(a: tuple, b: tuple) -> sp.Expr:
    kinds = a[0] + b[0]
    if kinds == "xx":
        return sp.S.One
    if "x" in kinds:
        kind, index = b if a[0] == "x" else a
        return _small * (lam if kind == "w" else rho)[index]  # w·x/D = λ/√D
    if kinds == "BB":
        return T[a[1], b[1]]
    return Q[a[1], b[1]] if kinds == "ww" else R[a[1], b[1]] if kinds == "wB" else R[b[1], a[1]]


def updated(index: sp.Symbol, feedback: sp.Expr) -> Vector:
    """w_index after one step."""
    push = eta * _small * e * feedback * p_(lam[index])
    return {("w", index): 1 - kappa * _small**2, ("x",): push}


def rate(change: sp.Expr) -> sp.Expr:
    """D times the change in one step, as D → ∞.

    Raises:
        DeriveError: the limit is infinite.
    """
    scaled = sp.expand(change / _small**2)
    if not scaled.is_polynomial(_small):
        raise DeriveError(f"the change of an order parameter in one step is not O(1/D): {change}")
    return sp.expand(scaled.subs(_small, 0))


# ---- averages over the sample -----------------------------------------------------------------------------------------


def averaged(expr: sp.Expr) -> tuple[Average, ...]:
    """⟨expr⟩ over fields and noise, e = Σ_m A_m g(ρ_m) − Σ_k v_k g(λ_k) + σ ζ put in."""
    terms: list[Average] = []
    for (power,), coefficient in sp.Poly(expr, e).terms():
        for weight in sp.Add.make_args(sp.expand(coefficient)):
            outside, fields = _split_fields(weight)
            terms += [_named(outside * value, fields * factor, summed) for value, factor, summed in error_power(power)]
    return _joined(terms)


def error_power(power: int) -> list[tuple[sp.Expr, sp.Expr, tuple[sp.Symbol, ...]]]:
    """⟨e^power⟩ over the noise as terms (coefficient, product of g's, summed indices)."""
    first = [(A[n], g(rho[n]), (n,)), (-v[j], g(lam[j]), (j,)), (sigma * zeta, sp.S.One, ())]
    again = [(A[p], g(rho[p]), (p,)), (-v[l], g(lam[l]), (l,)), (sigma * zeta, sp.S.One, ())]
    if power == 0:
        return [(sp.S.One, sp.S.One, ())]
    if power > 2:
        raise BadInput(f"the update contains e^{power}: rules whose pseudo-gradient contains the error are not treated here")
    product = first if power == 1 else [(a * b, s * t, (*u, *w)) for a, s, u in first for b, t, w in again]
    # ⟨ζ⟩ = 0, ⟨ζ²⟩ = 1
    noiseless = [(sp.expand(c).coeff(zeta, 0) + sp.expand(c).coeff(zeta, 2), s, u) for c, s, u in product]
    return [term for term in noiseless if term[0] != 0]


def _split_fields(weight: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A product as (what is fixed, what depends on the sample)."""
    factors = sp.Mul.make_args(weight)
    random = [f for f in factors if f.has(g, p_) or f.has(lam, rho)]
    return sp.Mul(*(f for f in factors if f not in random)), sp.Mul(*random)


def _named(coefficient: sp.Expr, fields: sp.Expr, summed: tuple[sp.Symbol, ...]) -> Average:
    """⟨fields⟩ as one of the four integrals."""
    factors = [f for f in sp.Mul.make_args(fields) if f != 1]
    slopes = [f.args[0] for f in factors if isinstance(f, p_)]
    values = [f.args[0] for f in factors if isinstance(f, g)]
    linear = [f for f in factors if isinstance(f, sp.Indexed)]
    order = lambda fs: sorted(fs, key=lambda f: (f.base == rho, (*STUDENTS, *TEACHERS).index(f.indices[0])))
    slopes, values = order(slopes), order(values)
    kind = (len(slopes), len(linear), len(values))
    found = {(0, 0, 0): None, (0, 0, 2): I2, (1, 1, 1): I3, (2, 0, 2): I4, (2, 0, 0): J2}
    if kind not in found or len(factors) != sum(kind):
        raise DeriveError(f"the average of {fields} is none of I2, I3, I4, J2")
    integral = found[kind]
    return Average(coefficient, sp.S.One if integral is None else integral(*slopes, *linear, *values), summed)


def _joined(terms: Iterable[Average]) -> tuple[Average, ...]:
    """Terms that differ only in the names of their summed indices, as one."""
    total: dict[tuple, sp.Expr] = {}
    for term in terms:
        students, teachers = iter((j, l)), iter((n, p))
        names = {index: sp.Dummy() for index in term.summed}
        final = {names[index]: next(students if index in STUDENTS else teachers) for index in term.summed}
        put = lambda expr, names=names, final=final: expr.xreplace(names).xreplace(final)
        key = (put(term.integral), tuple(sorted((final[d] for d in names.values()), key=(*STUDENTS, *TEACHERS).index)))
        total[key] = total.get(key, sp.S.Zero) + put(term.coefficient)
    return tuple(Average(sp.expand(value), *key) for key, value in total.items() if value != 0)


# ---- the result -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherStudent(Documented):
    """The closed equations of online learning.

    Attributes:
        rule: the learning rule of the first layer; the readout follows its gradient.
        act: the activation g of student and teacher.
        slope: p(x), with pseudo-gradient p(h) z.
        transported: c in z_k = c v_k + F_k.
        frozen: whether there is a frozen feedback F.
        small_rate: whether what is of order η² is dropped: η → 0 at a fixed η t.
        nodes: of the quadrature of integrals without closed form, in each dimension.

    Source: Refinetti, d'Ascoli, Ohana & Goldt 2021, section 2; Saad & Solla 1995.
    """

    rule: Rule
    act: Activation
    slope: sp.Expr
    transported: sp.Expr
    frozen: bool
    small_rate: bool = False
    nodes: int = 24

    def feedback(self, index: sp.Symbol) -> sp.Expr:
        """z_index = c v_index + F_index."""
        return self.transported * v[index] + (F[index] if self.frozen else 0)

    @cached_property
    def step(self) -> Mapping[str, sp.Expr]:
        """D times the change of R_im, Q_ik and v_i in one step, D → ∞, before the average over the sample."""
        before, after = {("w", k): sp.S.One}, {("w", i): sp.S.One}
        teacher, new_i, new_k = {("B", m): sp.S.One}, updated(i, self.feedback(i)), updated(k, self.feedback(k))
        readout = _small**2 * (eta * e * g(lam[i]) - kappa * v[i])
        return MappingProxyType({
            "R": rate(inner(new_i, teacher) - inner(after, teacher)),
            "Q": rate(inner(new_i, new_k) - inner(after, before)),
            "v": rate(readout),
        })  # fmt: skip

    @cached_property
    def terms(self) -> Mapping[str, tuple[Average, ...]]:
        """The rates of R_im, Q_ik, v_i and the generalisation error "eg" as sums of averages."""
        kept = lambda expr: sp.expand(expr).coeff(eta, 0) + eta * sp.expand(expr).coeff(eta, 1) if self.small_rate else expr
        found = {name: averaged(kept(expr)) for name, expr in self.step.items()}
        found["eg"] = tuple(Average(t.coefficient / 2, t.integral, t.summed) for t in averaged(e**2) if sigma not in t.coefficient.free_symbols)
        return MappingProxyType(found)

    @cached_property
    def integrals(self) -> Mapping[str, Integral]:
        """Those of I2, I3, I4 and J2 that the equations contain, for this activation."""
        value, slope = self.act.derivative(0), self.slope
        functions = {"I2": (value, value), "I3": (slope, x, value), "I4": (slope, slope, value, value), "J2": (slope, slope)}
        used = {type(term.integral).__name__ for terms in self.terms.values() for term in terms}
        return MappingProxyType({name: Integral(name, of) for name, of in functions.items() if name in used})

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """By name: "R", "Q", "v" (rates), "eg", and the integrals with a closed form, in the entries C_ab of their fields' covariance."""
        left = {"R": Rate(R[i, m]), "Q": Rate(Q[i, k]), "v": Rate(v[i]), "eg": sp.Symbol("epsilon_g")}
        found = {name: _eq(left[name], sp.Add(*(term.expr for term in terms))) for name, terms in self.terms.items()}
        for name, integral in self.integrals.items():
            fields = (sp.Symbol(f"chi_{a + 1}") for a in range(integral.size))
            found[name] = _eq(FIELD_INTEGRALS[name](*fields), integral.expr if integral.closed else mean_of(integral))
        return MappingProxyType(found)

    def at(self, students: int, teachers: int, T_value: sp.Matrix | None = None) -> Mapping[str, sp.Expr]:
        """Rates and error for given K and M, sums written out and closed forms put in.

        Args:
            students, teachers: K and M.
            T_value: the teachers' overlaps; symbols T[m, n] if not given.

        Returns:
            {"R[1,2]": rate, …, "Q[1,1]": …, "v[1]": …, "eg": …}, in Q[i, k] with i ≤ k, R[i, m], v[i], A[m], F[i] and parameters.

        Raises:
            NoClosedForm: an integral has none.
        """
        from .teacher_student_explicit import written_out

        return written_out(self, students, teachers, T_value)

    def derivation(self) -> Derivation:
        """From the update to the closed equations, with the integrals."""
        from .teacher_student_text import online_derivation

        return online_derivation(self)

    def title(self) -> str:
        """One line: rule and activation."""
        return f"Online learning of a teacher, {self.rule.name}, g = {self.act}" + self.small_rate * ", small learning rate"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        from .teacher_student_text import online_definitions

        return online_definitions(self)

    def source(self) -> str:
        """A JAX module with the integrals, the rates and the error, for any K and M: what `numerics.solve_online` runs."""
        from .codegen.online import online_source

        return online_source(self)

    def __repr__(self) -> str:
        from .derivation import in_unicode, to_latex

        lines = [f"  {in_unicode(to_latex(self.equations[name]))}" for name in self.terms]
        return "\n".join([self.title(), *lines, *(f"  {name}: {integral.form}" for name, integral in self.integrals.items())])


def teacher_student(rule: Rule, activation: object, *, small_rate: bool = False, nodes: int = 24) -> TeacherStudent:
    """Derive the order-parameter equations of online learning with a rule and an activation.

    Args:
        rule: one whose pseudo-gradient is a function of h times z: GD, DFA, FA, mixtures, FA without slope.
        activation: a name or any expression in x ("erf" is erf(x); Saad & Solla's is erf(x/sqrt(2))). Integrals of smooth activations without
            closed form are summed numerically, those of relu and its like are integrals over closed forms.
        small_rate: drop what is of order η²: I4 and the output noise, hence most of the cost where I4 has no closed form.
        nodes: of the quadrature of integrals without closed form, in each dimension.

    Raises:
        BadInput: a rule with gates, learning feedback weights, or another pseudo-gradient; nodes < 8.

    Example:
        >>> ts = teacher_student(DFA(), erf(x/sqrt(2)))
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 8:
        raise BadInput(f"nodes={nodes!r} are too few for a quadrature: give an integer nodes >= 8")
    bound = rule.bind(MLP(depth=1, activation=activation))
    if rule.uses_gates or rule.evolution is not None:
        raise BadInput(f"rule {rule.name!r} has gates or learning feedback weights: online equations are derived for frozen and transported feedback")
    gradient = sp.expand(bound.pseudo_gradient)
    slope = gradient.diff(z)
    if gradient.has(Delta) or slope.has(z) or sp.expand(gradient - slope * z) != 0:
        raise BadInput(
            f"rule {rule.name!r}: the pseudo-gradient {bound.pseudo_gradient} is not a function of h times z, so that the order parameters' "
            "equations need averages of more than four fields; give a rule such as GD(), FA() or DFA()"
        )
    path = bound.path[0]
    if rule.forward != ACTIVITY:
        raise BadInput(f"rule {rule.name!r} changes the forward map to {rule.forward}: online equations are derived for phi(h)")
    frozen = any(value != 0 for value in (path.initial, path.independent, path.direct))
    return TeacherStudent(rule, bound.net.activation, slope.subs(h, x), path.transported, frozen, bool(small_rate), nodes)


def _eq(left: sp.Basic, right: sp.Basic) -> sp.Equality:
    return sp.Eq(left, right, evaluate=False)


__all__ = ["Average", "TeacherStudent", "teacher_student"]
