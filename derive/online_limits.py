"""Limits of the online equations: the first instants from zero weights, and linear units at a small learning rate.

Both are derived from the general equations with symbolic K and M: sums over units contract to |A|², |F|² and the like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .derivation import Derivation, Step
from .errors import BadInput, DeriveError
from .latex import Documented
from .online_integrals import FIELD_INTEGRALS, entry
from .scalar_integrals import time_of_polynomial
from .symbols import eta
from .teacher_student import STUDENTS, A, Average, F, Q, R, T, TeacherStudent, i, k, kappa, lam, m, sigma, v

t = sp.Symbol("t", nonnegative=True)
A2, F2 = sp.Symbol("|A|^2", positive=True), sp.Symbol("|F|^2", positive=True)
a, a_end, beta = sp.Symbol("a", nonnegative=True), sp.Symbol("a_end", positive=True), sp.Symbol("beta", positive=True)
S = sp.IndexedBase("S", real=True)  # S_m = Σ_n T_mn A_n
_delta = sp.KroneckerDelta


@dataclass(frozen=True)
class State:
    """Order parameters as expressions; `T` gives the teachers' overlaps."""

    Q: Callable[[sp.Expr, sp.Expr], sp.Expr]
    R: Callable[[sp.Expr, sp.Expr], sp.Expr]
    v: Callable[[sp.Expr], sp.Expr]
    T: Callable[[sp.Expr, sp.Expr], sp.Expr]

    def covariance(self, first: sp.Indexed, second: sp.Indexed) -> sp.Expr:
        """Cov of two fields."""
        p, q = first.indices[0], second.indices[0]
        if first.base == lam:
            return self.Q(p, q) if second.base == lam else self.R(p, q)
        return self.R(q, p) if second.base == lam else self.T(p, q)

    def put(self, ts: TeacherStudent, term: Average) -> sp.Expr:
        """A term's summand with this state in it."""
        coefficient = term.coefficient.replace(lambda e: isinstance(e, sp.Indexed) and e.base == v, lambda e: self.v(*e.indices))
        coefficient = coefficient.replace(lambda e: isinstance(e, sp.Indexed) and e.base == R, lambda e: self.R(*e.indices))
        coefficient = coefficient.replace(lambda e: isinstance(e, sp.Indexed) and e.base == Q, lambda e: self.Q(*e.indices))
        if term.integral == 1:
            return coefficient
        name = next(name for name, kind in FIELD_INTEGRALS.items() if isinstance(term.integral, kind))
        fields = term.integral.args
        entries = {entry(p + 1, q + 1): self.covariance(fields[p], fields[q]) for p in range(len(fields)) for q in range(p, len(fields))}
        return coefficient * ts.integrals[name].expr.subs(entries, simultaneous=True)


def contracted(expr: sp.Expr, summed: tuple[sp.Symbol, ...]) -> sp.Expr:
    """Σ_summed expr, with Σ A² = |A|², Σ F² = |F|², Σ_n T_mn A_n = S_m, Σ A S = β².

    Raises:
        DeriveError: a sum of another kind.
    """
    total = sp.S.Zero
    for term in sp.Add.make_args(sp.expand(expr)):
        for index in sorted(summed, key=lambda q: not term.has(_delta(q, q)), reverse=True):
            term = _one_sum(term, index)
        total += term
    return sp.expand(total)


def _one_sum(term: sp.Expr, index: sp.Symbol) -> sp.Expr:
    if term == 0:
        return term
    deltas = [d for d in term.atoms(_delta) if index in d.args]
    if deltas:
        other = next(q for q in deltas[0].args if q != index)
        return term.subs(deltas[0], 1).subs(index, other)
    outside, inside = term.as_independent(index, as_Add=False)
    sums = {A[index] ** 2: A2, F[index] ** 2: F2, A[index] * S[index]: beta**2}
    if inside in sums:
        return outside * sums[inside]
    others = [e for e in inside.atoms(sp.Indexed) if e.base == T]
    if len(others) == 1 and inside == A[index] * others[0]:
        return outside * S[next(q for q in others[0].indices if q != index)]
    raise DeriveError(f"the sum over {index} of {inside} is not among those that are known")


# ---- the first instants -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EarlyTime(Documented):
    """The order parameters just after a start from w = v = 0, teachers orthonormal: leading powers of t.

    Attributes:
        ts: the equations.
        R, Q, v: R_im to O(t), Q_ik to O(t²), v_i to O(t²).
        drop: ε_g(0) − ε_g(t), leading order; 0 where nothing moves.
        start: ε_g(0).

    Source: Refinetti et al. 2021, section 2.
    """

    ts: TeacherStudent
    R: sp.Expr
    Q: sp.Expr
    v: sp.Expr
    start: sp.Expr
    drop: sp.Expr

    @property
    def aligned(self) -> bool:
        """Whether v starts out parallel to F: v_i = F_i times something that is the same for all i."""
        return self.v != 0 and not sp.simplify(self.v / F[i]).has(i)

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """By name: R, Q, v, eg."""
        error = sp.Symbol("epsilon_g")
        eq = lambda left, right: sp.Eq(left, right, evaluate=False)
        return MappingProxyType({"R": eq(R[i, m], self.R), "Q": eq(Q[i, k], self.Q), "v": eq(v[i], self.v), "eg": eq(error, self.start - self.drop)})

    def title(self) -> str:
        """One line: rule and activation."""
        return f"First instants from zero weights, {self.ts.rule.name}, g = {self.ts.act}"

    def derivation(self) -> Derivation:
        """How powers of t were found."""
        eqs = self.equations
        steps = [
            Step("Put Q = R = v = 0 and T = 1 into the rates: only averages over the teacher are left, and R grows first", eqs["R"]),
            Step("With that R the readout sees the teacher", eqs["v"]),
            Step("Overlaps of students, noise of the steps included", eqs["Q"]),
            Step("The error falls by the product of both, to leading order", eqs["eg"]),
        ]
        if self.aligned:
            steps.append(Step("v is parallel to F: alignment comes before any fall of the error of the same order"))
        return Derivation(self.title(), tuple(steps))

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols and their meaning."""
        return [("t", "steps/D"), (r"\eta,\ \sigma", "learning rate, output noise"), ("|A|^2,\\ |F|^2", "squared norms of teacher readout and feedback")]

    def __repr__(self) -> str:
        return "\n".join([self.title(), *(f"  {eq.lhs} = {eq.rhs}" for eq in self.equations.values())])


def early_time(ts: TeacherStudent) -> EarlyTime:
    """Expand the equations in t from w = v = 0, orthonormal teachers, without weight decay.

    Raises:
        BadInput: an activation whose integrals have no expansion at zero weights (a kink), or no closed form, or one that is not odd, so that
            sums other than |A|² and |F|² appear.
    """
    overlap = lambda p, q: sp.Integer(1) if p == q else _delta(p, q)
    nothing = State(lambda p, q: sp.S.Zero, lambda p, q: sp.S.Zero, lambda p: sp.S.Zero, overlap)
    first_R = _integrated(ts, "R", nothing, 0)
    first_Q = _integrated(ts, "Q", nothing, 0)
    moved = State(_renaming(first_Q, i, k), _renaming(first_R, i, m), lambda p: sp.S.Zero, overlap)
    second_v, second_Q = _integrated(ts, "v", moved, 1), _integrated(ts, "Q", moved, 1)
    late = State(moved.Q, moved.R, _renaming(second_v, i), overlap)
    start = _series(ts, "eg", nothing, 0)
    drop = sp.expand(start - _series(ts, "eg", late, 3))
    return EarlyTime(ts, first_R, second_Q, second_v, start, sp.factor(drop))


def _renaming(expr: sp.Expr, *indices: sp.Symbol) -> Callable[..., sp.Expr]:
    return lambda *values: expr.xreplace(dict(zip(indices, values, strict=True)))


def _integrated(ts: TeacherStudent, name: str, state: State, order: int) -> sp.Expr:
    """∫ rate dt, the rate to O(t^order)."""
    return sp.factor(sp.integrate(_series(ts, name, state, order), t))


def _series(ts: TeacherStudent, name: str, state: State, order: int) -> sp.Expr:
    """A rate or the error in powers of t."""
    total = sp.S.Zero
    for term in ts.terms[name]:
        summand = state.put(ts, Average(term.coefficient.subs(kappa, 0), term.integral, term.summed))
        for power in range(order + 1):
            coefficient = sp.diff(summand, t, power).subs(t, 0) / sp.factorial(power)
            if coefficient.has(sp.nan, sp.zoo, sp.oo):
                raise BadInput(f"g = {ts.act}: its integrals have no expansion at zero weights; start from small ones and integrate")
            try:
                total += t**power * contracted(_linear_in_deltas(coefficient), term.summed)
            except DeriveError as error:
                raise BadInput(
                    f"g = {ts.act}: its first instants from zero weights depend on more than |A|² and |F|² ({error}), as where g is not odd: the error "
                    "then sees the average of g, or products of several teacher units. Give an odd g such as erf, or integrate with solve_online"
                ) from error
    return sp.expand(total)


def _linear_in_deltas(expr: sp.Expr) -> sp.Expr:
    """f(δ) = f(0) + δ (f(1) − f(0)) for every Kronecker delta."""
    for delta in sorted(expr.atoms(_delta), key=str):
        expr = expr.subs(delta, 0) + delta * (expr.subs(delta, 1) - expr.subs(delta, 0))
    return sp.expand(sp.simplify(expr))


# ---- linear units -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearOnline(Documented):
    """Linear units from zero weights with frozen feedback, to leading order in η: everything is a function of one number a(t).

    Attributes:
        ts: the equations.
        speed: da/dt.
        time: t(a).
        eg: ε_g(a).

    Source: Refinetti et al. 2021; β² = Σ A_m T_mn A_n.
    """

    ts: TeacherStudent
    speed: sp.Expr
    time: sp.Expr
    eg: sp.Expr

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """By name: Q, R, v, speed, time, end, eg."""
        eq = lambda left, right: sp.Eq(left, right, evaluate=False)
        return MappingProxyType({
            "Q": eq(Q[i, k], _linear_state().Q(i, k)), "R": eq(R[i, m], _linear_state().R(i, m)), "v": eq(v[i], _linear_state().v(i)),
            "speed": eq(sp.Derivative(sp.Function("a")(t), t), self.speed), "time": eq(t, self.time), "eg": eq(sp.Symbol("epsilon_g"), self.eg),
            "end": eq(a_end, sp.cbrt(2 * beta / F2)),
        })  # fmt: skip

    def title(self) -> str:
        """One line: rule."""
        return f"Linear students of a linear teacher, {self.ts.rule.name}, zero start, small learning rate"

    def derivation(self) -> Derivation:
        """The ansatz, and that it closes."""
        eqs = self.equations
        steps = (
            Step("Drop what is of order η². Try v ∥ F and w_k ∥ F_k Σ_m A_m B_m", None, tuple(Step(name, eqs[name]) for name in ("Q", "R", "v"))),
            Step("All three rates are then those of one number, and nothing is left over", eqs["speed"]),
            Step("Separate variables; a ends where the speed vanishes", eqs["time"], (Step("end", eqs["end"]),)),
            Step("The error; the alignment of v and F is 1 at all times", eqs["eg"]),
        )
        return Derivation(self.title(), steps)

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols and their meaning."""
        return [("S_m", "Σ_n T_mn A_n"), (r"\beta^2", "Σ_m A_m S_m"), ("|F|^2", "squared norm of the feedback"), ("a", "progress, 0 at the start")]

    def __repr__(self) -> str:
        return "\n".join([self.title(), *(f"  {eq.lhs} = {eq.rhs}" for eq in self.equations.values())])


def _linear_state() -> State:
    return State(lambda p, q: F[p] * F[q] * a**2, lambda p, q: F[p] * S[q] * a / beta, lambda p: F[p] * a**2 / 2, lambda p, q: T[p, q])


def linear_online(ts: TeacherStudent) -> LinearOnline:
    """Solve linear units in closed form; the equations are checked to close.

    Raises:
        BadInput: units that are not linear, or feedback that is not frozen.
        DeriveError: the equations do not close.
    """
    if str(ts.act) != "linear" or ts.transported != 0 or ts.slope != 1:
        raise BadInput(f"{ts.rule.name} with g = {ts.act}: the closed form is for linear units with frozen feedback; give teacher_student(DFA(), 'linear')")
    state = _linear_state()
    rates = {name: _leading(ts, name, state) for name in ("Q", "R", "v")}
    speed = sp.factor(rates["v"] / sp.diff(state.v(i), a))
    if speed.free_symbols & set(STUDENTS) or speed.has(sp.Indexed):
        raise DeriveError(f"v does not stay parallel to F: its speed {speed} depends on the unit")
    left = {"Q": state.Q(i, k), "R": state.R(i, m), "v": state.v(i)}
    for name, expr in left.items():
        if sp.expand(sp.diff(expr, a) * speed - rates[name]) != 0:
            raise DeriveError(f"the ansatz does not close: d{name}/dt is {rates[name]}, not {sp.diff(expr, a) * speed}")
    time = time_of_polynomial(sp.expand(beta - speed / eta), a, a_end)
    if time is None:
        raise DeriveError(f"no closed form for the time with speed {speed}")
    eg = sp.factor(sum((contracted(state.put(ts, term), term.summed) for term in ts.terms["eg"]), sp.S.Zero))
    return LinearOnline(ts, speed, time / eta, eg)  # time is ∫ da/(β − …)


def _leading(ts: TeacherStudent, name: str, state: State) -> sp.Expr:
    """A rate to O(η), without noise and decay."""
    total = sum((contracted(state.put(ts, term), term.summed) for term in ts.terms[name] if sp.degree(term.coefficient, eta) < 2), sp.S.Zero)
    return sp.expand(total.subs({kappa: 0, sigma: 0}))


__all__ = ["EarlyTime", "LinearOnline", "early_time", "linear_online"]
