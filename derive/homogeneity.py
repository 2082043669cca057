"""Is an activation homogeneous? Found by derivation from its expression, for one side of zero after the other."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from .derivation import Step
from .symbols import h, m

_size = sp.Symbol("q", positive=True)


@dataclass(frozen=True)
class Units:
    """What the units of a layer do, as far as conservation laws can tell.

    Attributes:
        degree: p with d(h) h = p a(h) for every h and every gate m, or None: d is the factor in g̃ = d·z, a what the next layer receives.
            For a rule that uses the true slope this is Euler's equation φ̇(h) h = p φ(h), and φ is homogeneous of degree p.
        gain: k with a(h) = k h for every h, or None.
        slope: d where it does not depend on h, or None.
        steps: how p was found, or where it failed.
    """

    degree: sp.Expr | None
    gain: sp.Expr | None
    slope: sp.Expr | None
    steps: tuple[Step, ...]


def units(factor: sp.Expr, forward: sp.Expr) -> Units:
    """Compare d(h) h with a(h) for h > 0 and for h < 0.

    Args:
        factor: d, an expression in h (and frozen gates m, parameters).
        forward: a, likewise.
    """
    sides = [(sign, _side(factor, sign), _side(forward, sign)) for sign in (1, -1)]
    ratios = {sp.simplify(d * sign * _size / a) for sign, d, a in sides if a != 0}
    steps = tuple(
        Step(f"For h {above} 0, h = {mark}q.", rf"d\,h = {sp.latex(sp.simplify(d * sign * _size))},\quad a = {sp.latex(a)}")
        for (sign, d, a), above, mark in zip(sides, "><", ("", "−"), strict=True)
    )
    silent = all(sp.simplify(d) == 0 for _, d, a in sides if a == 0)
    degree = _only(ratios) if ratios and silent else None
    gains = {sp.simplify(a / (sign * _size)) for sign, _, a in sides}
    slopes = {sp.simplify(d) for _, d, _ in sides}
    return Units(degree, _only(gains), _only(slopes), steps)


def _side(expr: sp.Expr, sign: int) -> sp.Expr:
    return sp.expand(sp.piecewise_fold(expr.subs(h, sign * _size)))


def _only(values: set[sp.Expr]) -> sp.Expr | None:
    """The one value, if there is only one and it does not depend on h or on the gate of a unit."""
    value = next(iter(values))
    return value if len(values) == 1 and not value.has(_size, m) else None
