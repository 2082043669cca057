"""One example, linear units, one hidden layer: the mean-field equations as scalar equations, solved in closed form where there is one.

In the limit of small steps every field moves along a linear flow in the clock θ with dθ/dτ = γ0 Δ(τ), τ = η t. So fields are known functions of
θ times independent Gaussians, order parameters are functions of θ, and training is one scalar equation for θ. P whitened examples
(K^x = 1) reduce to the same: the error keeps the direction of y, so y becomes |y| and η becomes η/P.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import sympy as sp

from .couplings import KERNELS
from .derivation import Derivation, Step, to_latex
from .dmft import dmft_equations
from .errors import BadInput
from .latex import Documented
from .linear import LinearEquations
from .network import MLP
from .rules import Rule
from .scalar_integrals import time_of_exponentials, time_of_polynomial
from .symbols import Delta, gamma0

theta = sp.Symbol("theta", real=True)
theta_end = sp.Symbol("theta_end", positive=True)
tau = sp.Symbol("tau", nonnegative=True)
y = sp.Symbol("y", positive=True)
SOURCES = {name: sp.Symbol(name, real=True) for name in ("u", "r", "q", "xi")}
f, S = sp.Symbol("f", real=True), sp.Symbol("S", positive=True)


@dataclass(frozen=True)
class ScalarReduction(Documented):
    """A two-layer linear network on one example, K^x = 1, gradient-flow limit.

    Attributes:
        rule: the learning rule.
        linear: the matrix equations that it is derived from.
        matrix: M with d(h, w, z̃)/dθ = M (h, w, z̃); it contains Δ if the rule's pseudo-gradient does.
        start: the fields at θ = 0 in independent standard normals u, r, q, ξ.

    Source: THEORY section 4; Bordelon & Pehlevan 2023, two-layer linear networks.
    """

    rule: Rule
    linear: LinearEquations
    matrix: sp.ImmutableMatrix
    start: sp.ImmutableMatrix

    @property
    def autonomous(self) -> bool:
        """Whether the clock θ alone drives the fields (not so if g̃ contains Δ)."""
        return not self.matrix.has(Delta)

    # ---- the flow of fields ------------------------------------------------------------------------------------------

    @cached_property
    def fields(self) -> Mapping[str, sp.Expr]:
        """h, w and z̃ as functions of θ and the Gaussians.

        Raises:
            BadInput: the pseudo-gradient contains Δ, so that no single clock drives the fields.
        """
        if not self.autonomous:
            raise BadInput(f"{self.rule.name}: the pseudo-gradient contains Δ, so fields are no functions of one clock; use .odes")
        flow = (self.matrix * theta).exp() if self.matrix else sp.eye(len(self.start))
        found = (flow.applyfunc(_real_form) * self.start).applyfunc(sp.expand)
        return MappingProxyType(dict(zip(("h", "w", "z_tilde"), found, strict=False)))

    def average(self, expr: sp.Expr) -> sp.Expr:
        """⟨·⟩ of a quadratic form in the independent standard normals."""
        poly = sp.Poly(sp.expand(expr), *SOURCES.values())
        total = sum((value for power, value in poly.terms() if all(k in (0, 2) for k in power)), sp.Integer(0))
        return _real_form(sp.expand(total))

    @cached_property
    def Phi(self) -> sp.Expr:
        """Φ(θ) = ⟨h²⟩."""
        return self.average(self.fields["h"] ** 2)

    @cached_property
    def overlap(self) -> sp.Expr:
        """m(θ) = ⟨w h⟩ = γ0 f."""
        return self.average(self.fields["w"] * self.fields["h"])

    @cached_property
    def entk(self) -> sp.Expr:
        """S(θ) = dm/dθ, the kernel in df/dτ = S (y − f)."""
        return _real_form(sp.diff(self.overlap, theta))

    @cached_property
    def odes(self) -> tuple[sp.Equality, ...]:
        """Equations in τ for the fields' coefficients on each Gaussian, with Δ = y − f and f from those coefficients."""
        names = ("h", "w", "z_tilde")[: len(self.start)]
        coefficient = lambda name, source: sp.Function(f"{name}_{source}")(tau)
        found, error = [], sp.Symbol("Delta", real=True)
        for source, symbol in SOURCES.items():
            state = sp.Matrix([coefficient(name, source) for name in names])
            if not self.start.has(symbol):
                continue
            rates = gamma0 * error * self.matrix * state
            found += [sp.Eq(sp.diff(left, tau), right, evaluate=False) for left, right in zip(state, rates, strict=True)]
        overlap = sum((coefficient("h", s) * coefficient("w", s) for s, v in SOURCES.items() if self.start.has(v)), sp.Integer(0))
        return (*found, sp.Eq(error, y - overlap / gamma0, evaluate=False))

    # ---- invariants --------------------------------------------------------------------------------------------------

    @cached_property
    def neuron_laws(self) -> tuple[sp.Expr, ...]:
        """Quadratic forms in (h, w, z̃) of one neuron that training conserves: Q with Mᵀ Q + Q M = 0."""
        if not self.autonomous:
            return ()
        n = len(self.start)
        fields = sp.Matrix(sp.symbols("h w z_tilde", real=True)[:n])
        unknown = {(i, j): sp.Dummy() for i in range(n) for j in range(i, n)}
        form = sp.Matrix(n, n, lambda i, j: unknown[min(i, j), max(i, j)])
        conditions = list(self.matrix.T * form + form * self.matrix)
        solved = sp.solve(conditions, list(unknown.values()), dict=True)
        general = sp.expand((fields.T * form.subs(solved[0]) * fields)[0]) if solved else sp.expand((fields.T * form * fields)[0])
        free = [d for d in unknown.values() if general.has(d)]
        return tuple(_leading(sp.expand(general.subs({d: int(d == chosen) for d in free}))) for chosen in free)

    @cached_property
    def kernel_law(self) -> sp.Equality | None:
        """S² − λ m² = const, where S and m close on themselves (dS/dθ = λ m); None where they do not."""
        rate = sp.simplify(sp.diff(self.entk, theta) / self.overlap)
        if rate.has(theta) or rate == 0:
            return None
        m = sp.Symbol("m", real=True)
        constant = self.entk.subs(theta, 0) ** 2 - rate * self.overlap.subs(theta, 0) ** 2
        return sp.Eq(S**2 - rate * m**2, constant, evaluate=False)

    @property
    def output_ode(self) -> sp.Expr:
        """df/dτ: as a function of f alone where a conservation law eliminates θ, otherwise of θ."""
        if self.kernel_law is None:
            return (y - f) * self.entk
        m = sp.Symbol("m", real=True)
        squared = self.kernel_law.rhs - (self.kernel_law.lhs - S**2)
        return (y - f) * _root(squared.subs(m, gamma0 * f))

    # ---- the solution ------------------------------------------------------------------------------------------------

    @cached_property
    def time(self) -> sp.Expr | None:
        """τ(θ) = ∫₀^θ dθ′/(γ0 y − m(θ′)) in closed form; contains θ_∞ where m is a polynomial; None without closed form."""
        if self.overlap.is_polynomial(theta):
            return time_of_polynomial(self.overlap, theta, theta_end)
        return time_of_exponentials(self.overlap, theta, gamma0 * y)

    @cached_property
    def output(self) -> sp.Expr | None:
        """f(τ), where τ(θ) can be inverted; None otherwise."""
        from .scalar_integrals import invert_exponentials

        return None if self.overlap.is_polynomial(theta) else invert_exponentials(self.overlap, theta, gamma0 * y, tau, gamma0)

    @cached_property
    def end(self) -> sp.Equality:
        """m(θ_∞) = γ0 y: where training ends."""
        return sp.Eq(self.overlap.subs(theta, theta_end), gamma0 * y, evaluate=False)

    @cached_property
    def movement(self) -> sp.Expr:
        """Φ(∞) − Φ(0) in θ_∞."""
        return sp.simplify(self.Phi.subs(theta, theta_end) - self.Phi.subs(theta, 0))

    def sensitivity(self, parameter: sp.Symbol) -> tuple[sp.Expr, sp.Expr]:
        """dθ_∞/dp and d(Φ(∞) − Φ(0))/dp at fixed target, by differentiating m(θ_∞) = γ0 y.

        Raises:
            BadInput: the rule does not contain the parameter.
        """
        if parameter not in self.rule.parameters:
            known = ", ".join(map(str, self.rule.parameters)) or "none"
            raise BadInput(f"{self.rule.name} has no parameter {parameter} (its parameters: {known})")
        if parameter not in self.overlap.free_symbols:
            parameter = sp.Symbol(parameter.name, positive=True)
        m = self.overlap.subs(theta, theta_end)
        end = sp.simplify(-sp.diff(m, parameter) / sp.diff(m, theta_end))
        return end, sp.simplify(sp.diff(self.movement, parameter) + sp.diff(self.movement, theta_end) * end)

    # ---- what a reader asks for --------------------------------------------------------------------------------------

    @cached_property
    def equations(self) -> Mapping[str, sp.Equality]:
        """Everything found, by name."""
        eq = lambda left, right: sp.Eq(left, right, evaluate=False)
        if not self.autonomous:
            return MappingProxyType({f"ode {k}": ode for k, ode in enumerate(self.odes)})
        clock = sp.Function("theta")(tau)
        named = {"h": "h", "w": "w", "z_tilde": r"\tilde z"}
        eqs = {f"field {name}": eq(sp.Symbol(named[name]), value) for name, value in self.fields.items()}
        eqs["output"] = eq(gamma0 * f, self.overlap)
        eqs["Phi"] = eq(sp.Symbol(r"\Phi"), self.Phi)
        eqs["kernel"] = eq(S, self.entk)
        eqs["clock"] = eq(sp.diff(clock, tau), gamma0 * y - self.overlap.subs(theta, clock))
        for k, law in enumerate(self.neuron_laws):
            eqs[f"neuron law {k + 1}"] = eq(law, sp.Symbol(r"\mathrm{const}"))
        if self.kernel_law is not None:
            eqs["kernel law"] = self.kernel_law
        eqs["output ode"] = eq(sp.Derivative(sp.Function("f")(tau), tau), self.output_ode)
        eqs["end"] = self.end
        eqs["movement"] = eq(sp.Symbol(r"\Phi(\infty)-\Phi(0)"), self.movement)
        if self.time is not None:
            eqs["time"] = eq(tau, self.time)
        if self.output is not None:
            eqs["solution"] = eq(sp.Function("f")(tau), self.output)
        return MappingProxyType(eqs)

    def derivation(self) -> Derivation:
        """From the discrete mean-field equations to the scalar solution."""
        return scalar_derivation(self)

    def title(self) -> str:
        """One line."""
        return f"{self.rule.name}, one hidden layer of linear units, one example: scalar equations"

    def definitions(self) -> list[tuple[str, str]]:
        """Symbols (LaTeX) and their meaning, for a document's table."""
        return [
            (r"\tau = \eta t", "time of gradient flow"),
            (r"\theta", "the clock: dθ/dτ = γ0 Δ"),
            (r"\theta_{end}", "its value where training ends"),
            (r"h,\ w,\ \tilde z", "preactivation, readout weight, feedback field of one neuron"),
            (r"u,\ r,\ q,\ \xi", "independent standard normals"),
            (r"f,\ S", "output, and the kernel in df/dτ = S (y − f)"),
            (r"m", "overlap of w and h: m = γ0 f"),
        ]

    def __repr__(self) -> str:
        from .derivation import in_unicode

        return "\n".join([self.title(), *(f"  {name}: {in_unicode(to_latex(e))}" for name, e in self.equations.items())])


def scalar_reduction(rule: Rule) -> ScalarReduction:
    """Reduce a rule's mean-field equations for one hidden layer of linear units and one example with K^x = 1.

    Raises:
        BadInput: the rule is not linear in h and z, or has gates.
    """
    if rule.uses_gates:
        raise BadInput(f"rule {rule.name!r} has gates, which are random: its fields are not Gaussian on average; use solve_dmft")
    linear = dmft_equations(rule, MLP(1, "linear")).linear()
    c0 = sp.Symbol("c_0", positive=True)
    ones = {symbol: sp.Integer(1) for symbol in KERNELS.values()}  # Φ⁰ = K^x = 1 and G̃ = H = 1 above the readout
    rate = lambda name: sp.expand(linear.couplings[name] / (c0 * Delta)).subs(ones)
    u, r = SOURCES["u"], SOURCES["r"]
    if linear.same:
        rows, start = [[linear.alpha, linear.beta], [rate("E"), 0]], [u, r]
        rows[0] = [rate("C") * entry for entry in rows[0]]
    else:
        parts = {"zeta": r, "q": SOURCES["q"], "xi": SOURCES["xi"]}
        feedback = sum((value * parts[name] for name, value in linear.gaussian_parts.items()), sp.Integer(0))
        rows = [[rate("C") * linear.alpha, 0, rate("C") * linear.beta], [rate("E_r"), 0, 0], [rate("E"), 0, 0]]
        start = [u, r, feedback]
        if linear.beta == 0:
            rows, start = [row[:2] for row in rows[:2]], start[:2]
    # square roots of the flow's rates are real for path coefficients >= 0
    flow = sp.Matrix(rows)
    signed = {parameter: sp.Symbol(parameter.name, positive=True) for parameter in flow.free_symbols & set(rule.parameters)}
    return ScalarReduction(rule, linear, sp.ImmutableMatrix(flow.subs(signed)), sp.ImmutableMatrix(sp.Matrix(start).subs(signed)))


def scalar_derivation(reduction: ScalarReduction) -> Derivation:
    """The steps of a scalar reduction."""
    eqs, rule = reduction.equations, reduction.rule
    names = sp.Matrix(sp.symbols(r"h w \tilde{z}", real=True)[: len(reduction.start)])
    long = ("time", "solution")  # their sums are broken where they are typeset
    show = lambda *keys: tuple(Step(_REASONS.get(k, ""), eqs[k] if k in long else to_latex(eqs[k])) for k in keys if k in eqs)
    flow = rf"\frac{{d}}{{d\theta}}{to_latex(names)} = {to_latex(reduction.matrix)}{to_latex(names)}"
    steps = [
        Step(
            "One example with K^x = 1: the sums over the past telescope, each field changes in a step by the coupling times the field it "
            "couples to.",
            rf"h(t+1) - h(t) = {to_latex(reduction.linear.couplings['C'])}\,\tilde g(t)",
        ),
        Step("Small steps, τ = ηt, with the clock dθ/dτ = γ0 Δ: a linear flow.", flow),
        Step("It starts from the Gaussian parts, independent standard normals.", rf"{to_latex(names)}(0) = {to_latex(reduction.start)}"),
        Step("P whitened examples: f, hence Δ, keeps the direction of y, and the projections on it obey the same with y → |y|, η → η/P."),
    ]
    if not reduction.autonomous:
        steps.append(
            Step(
                "The pseudo-gradient contains Δ, so no single clock drives the fields: what remains are equations for the coefficients.",
                None, tuple(Step("", to_latex(ode)) for ode in reduction.odes),
            )
        )  # fmt: skip
        return Derivation(reduction.title(), tuple(steps))
    steps += [
        Step("The matrix exponential gives the fields.", None, show("field h", "field w", "field z_tilde")),
        Step("Averages over the Gaussians.", None, show("output", "Phi", "kernel")),
        Step("Quadratic forms that the flow conserves, for every neuron.", None, show(*(k for k in eqs if k.startswith("neuron law")))),
    ]
    if reduction.kernel_law is not None:
        closes = "Output and kernel close on themselves, which conserves a combination and eliminates θ."
        steps.append(Step(closes, None, show("kernel law", "output ode")))
    else:
        steps.append(Step("The output's equation.", None, show("output ode")))
    steps.append(Step("Training is one scalar equation; its variables separate.", None, show("clock", "time", "solution")))
    if reduction.time is None:
        steps.append(Step("The integral for τ(θ) is not elementary here: it is left as a quadrature."))
    steps.append(Step("It ends where the error vanishes.", None, show("end", "movement")))
    for parameter in rule.parameters:
        end, moved = reduction.sensitivity(parameter)
        steps.append(Step(f"How the end depends on {parameter}, by differentiating at fixed target.",
                          rf"\frac{{d\theta_\infty}}{{d{to_latex(parameter)}}} = {to_latex(end)},\qquad "
                          rf"\frac{{d(\Phi(\infty)-\Phi(0))}}{{d{to_latex(parameter)}}} = {to_latex(moved)}"))  # fmt: skip
    return Derivation(reduction.title(), tuple(steps))


_REASONS = {
    "output": "Output.", "Phi": "Activities.", "kernel": "Kernel: S = dm/dθ.", "clock": "The clock.", "time": "Separated.",
    "solution": "Inverted.", "end": "Where.", "movement": "How far the features moved.", "kernel law": "Conserved.",
    "output ode": "Output alone.", "field h": "Preactivation.", "field w": "Readout weight.", "field z_tilde": "Feedback field.",
}  # fmt: skip


def _real_form(expr: sp.Expr) -> sp.Expr:
    """Exponentials of real arguments as cosh and sinh; polynomials stay."""
    expanded = sp.expand(expr)
    if not expanded.has(sp.exp, sp.cosh, sp.sinh):
        return expanded
    as_exp = sp.expand(sp.powsimp(sp.expand(expanded.rewrite(sp.exp))))
    return sp.simplify(as_exp.rewrite(sp.cosh)) if as_exp.has(sp.exp) else as_exp


def _root(squared: sp.Expr) -> sp.Expr:
    number, rest = sp.factor_terms(squared).as_coeff_Mul()
    return sp.sqrt(number) * sp.sqrt(rest)


def _leading(law: sp.Expr) -> sp.Expr:
    """Sign and scale fixed by the first term."""
    terms = sp.Poly(law, *sorted(law.free_symbols, key=str)).terms()
    return sp.expand(law / terms[0][1])


__all__ = ["ScalarReduction", "scalar_reduction"]
