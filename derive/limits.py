"""Limits of a rule's mean-field equations, taken and checked one by one: γ0 → 0, parameters → 0, one hidden layer, linear units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from . import fields as F
from .derivation import Derivation, Step
from .dmft_text import RESPONSE_NAMES
from .errors import BadInput, DeriveError
from .fields import ell
from .lazy import lazy_kernel
from .network import MLP
from .rules import COEFFICIENTS, Rule

if TYPE_CHECKING:
    from .dmft import DMFTEquations


def limits_derivation(eqs: DMFTEquations) -> Derivation:
    """All limits that apply to the rule; what does not apply says why.

    Raises:
        DeriveError: a limit does not come out as the theory that it should be; this would be an error in the equations.
    """
    steps = [_lazy(eqs), *_parameters(eqs), _one_layer(eqs), _linear_units(eqs), _one_example(eqs)]
    return Derivation(f"Limits of {eqs.rule.name}, {eqs.net.size}, activation {eqs.net.activation}", tuple(steps))


def _lazy(eqs: DMFTEquations) -> Step:
    reason = "γ0 → 0: memory terms and responses drop out, h = u and z̃ is Gaussian; the eNTK, layer by layer"
    try:
        found = eqs.lazy_limit()
    except DeriveError as error:
        return Step(f"γ0 → 0 is not read off these equations: {error}.")
    kernel = lazy_kernel(eqs.rule, eqs.net).contributions
    if any(sp.expand(left - right) != 0 for left, right in zip(found, kernel, strict=True)):
        raise DeriveError(f"γ0 → 0 of {eqs.rule.name} gives {found}, but the lazy kernel is {kernel}")
    lines = tuple(Step(f"Layer {layer}.", value) for layer, value in enumerate(found))
    return Step(f"{reason}. It is the lazy kernel.", None, lines)


def _parameters(eqs: DMFTEquations) -> Iterator[Step]:
    """Every parameter of the feedback path to zero."""
    from .dmft import dmft_equations

    if eqs.rule.evolution is not None:
        return
    for parameter in sorted(eqs.rule.feedback.free_symbols, key=str):
        rule = _at_zero(eqs.rule, parameter)
        if rule is None:
            continue
        limit = dmft_equations(rule, eqs.net)
        changed = []
        for name, equation in limit.equations.items():
            if name not in eqs.equations or equation.lhs != eqs.equations[name].lhs:
                continue
            before = eqs.equations[name].rhs
            if sp.expand(_put_zero(eqs, before, parameter) - _put_zero(limit, equation.rhs, parameter)) != 0:
                if name in ("feedback field", "readout feedback field", "gradient field", "readout gradient field"):
                    raise DeriveError(f"{parameter} → 0 of the {name} is not that of the rule without it")
                changed.append(Step(f"The {name} loses a term.", equation))
            elif before != equation.rhs:
                changed.append(Step(f"The {name} simplifies.", equation))
        gone = [found for found in limit.responses if found.vanishes and eqs.response(type(found.kernel)) != 0]
        for found in gone:
            symbol = RESPONSE_NAMES[type(found.kernel).__name__]
            changed.append(Step(f"{symbol} vanishes: {found.why_zero}.", sp.Eq(found.kernel, 0, evaluate=False)))
        yield Step(f"{parameter} → 0.", None, tuple(changed))


def _put_zero(eqs: DMFTEquations, expr: sp.Expr, parameter: sp.Symbol) -> sp.Expr:
    """A per-layer coefficient that is the same at all layers once the parameter is zero takes its value."""
    values = {}
    for name in COEFFICIENTS:
        at = {getattr(path, name).subs(parameter, 0) for path in eqs.bound.path}
        if len(at) == 1:
            values[sp.Indexed(sp.IndexedBase(name), ell)] = at.pop()
    return expr.subs(parameter, 0).xreplace(values)


def _at_zero(rule: Rule, parameter: sp.Symbol) -> Rule | None:
    """The rule with a parameter of its path put to zero; None if no path is left."""
    put = lambda value: tuple(v.subs(parameter, 0) for v in value) if isinstance(value, tuple) else value.subs(parameter, 0)
    try:
        values: dict[str, Any] = {name: put(getattr(rule.feedback, name)) for name in COEFFICIENTS}
        path = replace(rule.feedback, **values)
        return Rule(f"{rule.name} at {parameter} = 0", rule.pseudo_gradient.subs(parameter, 0), path, rule.forward)
    except BadInput:
        return None


def _top(rule: Rule) -> Rule:
    """The rule on one hidden layer: of coefficients per layer the readout's is left."""
    last = lambda value: value[-1] if isinstance(value, tuple) else value
    path = replace(rule.feedback, **{name: last(getattr(rule.feedback, name)) for name in COEFFICIENTS})
    return replace(rule, feedback=path)


def _one_layer(eqs: DMFTEquations) -> Step:
    from .dmft import dmft_equations

    shallow = dmft_equations(_top(eqs.rule), MLP(1, eqs.net.activation, eqs.net.sigma_w, eqs.net.sigma_b))
    for equation in shallow.equations.values():
        if equation.atoms(F.A, F.B, F.B_tilde):
            raise DeriveError(f"with one hidden layer a response is left in {equation}")
    shown = ("preactivation", "readout gradient field", "readout feedback field")
    lines = tuple(Step(f"{name.capitalize()}.", shallow.equations[name]) for name in shown if name in shallow.equations)
    return Step("One hidden layer: no matrix is met from both sides, so there are no responses: the two-layer theory.", None, lines)


def _linear_units(eqs: DMFTEquations) -> Step:
    from .dmft import dmft_equations

    activation = eqs.net.activation if eqs.rule.uses_gates else "linear"
    try:
        linear = dmft_equations(eqs.rule, MLP(eqs.net.depth, activation, eqs.net.sigma_w, eqs.net.sigma_b)).linear()
    except BadInput as error:
        return Step(f"Linear units: {error}.")
    shown = ("C", "E", "R", "field h", "Phi")
    lines = tuple(Step(f"{name}.", linear.equations[name]) for name in shown if name in linear.equations)
    return Step("Linear units: the equations close on covariances, as matrix equations over (t, μ).", None, lines)


def _one_example(eqs: DMFTEquations) -> Step:
    from .scalar import scalar_reduction

    try:
        reduction = scalar_reduction(_top(eqs.rule))
    except BadInput as error:
        return Step(f"One example, one hidden layer of linear units: {error}.")
    if not reduction.autonomous:
        return Step("One example, one hidden layer of linear units: equations for the fields' coefficients; g̃ contains Δ, so no clock.")
    lines = tuple(Step(f"{name.capitalize()}.", reduction.equations[name]) for name in ("output", "clock", "output ode"))
    return Step("One example, one hidden layer of linear units, small steps: one scalar equation.", None, lines)


__all__ = ["limits_derivation"]
