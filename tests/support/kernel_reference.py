"""High-precision reference values: the derived recursion evaluated by mpmath, independent of what is printed."""

from __future__ import annotations

from functools import cache

import mpmath
import sympy as sp

from derive.duals import Dual, PairFunction, q_mumu, q_munu, q_nunu
from derive.lazy import LazyKernel
from derive.symbols import h, m

# Sign networks turn an error ε of c into ε^(1/8) at depth 3, so that fifty digits of the result need more of the input.
DIGITS = 200
Covariance = tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]


@cache
def _functions(dual: Dual, parameters: tuple) -> tuple:
    pair = sp.lambdify((q_mumu, q_munu, q_nunu), dual.closed.subs(dict(parameters)), "mpmath")
    return pair, sp.lambdify(q_mumu, dual.closed_diagonal.subs(dict(parameters)), "mpmath")


def dual_value(dual: Dual, q: Covariance, parameters: tuple = ()) -> mpmath.mpf:
    """E[f(u) g(v)] from its closed form; at coincident or opposite inputs of rounding error, from the exact point."""
    mumu, munu, nunu = q
    pair, diagonal = _functions(dual, parameters)
    if mumu == munu == nunu:
        return mpmath.mpf(diagonal(mumu))
    # the working digits' own rounding must not push |cos θ| beyond 1
    limit = mpmath.sqrt(mumu * nunu) * (1 - mpmath.mpf(10) ** (5 - DIGITS))
    return mpmath.mpf(pair(mumu, max(-limit, min(limit, munu)), nunu))


def pair_value(function: PairFunction, q: Covariance, gates: Covariance, parameters: tuple) -> mpmath.mpf:
    total = mpmath.mpf(0)
    for term in function.terms:
        value = mpmath.mpf(sp.N(term.coefficient.subs(dict(parameters)), DIGITS))
        for used, dual in term.duals:
            value *= dual_value(dual, {h: q, m: gates}[used], parameters)
        total += value
    return total


def kernel_values(kernel: LazyKernel, K: Covariance, parameters: tuple = ()) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(eNTK, NNGP) of a derived kernel at one pair of inputs."""
    with mpmath.workdps(DIGITS):
        number = lambda e: mpmath.mpf(sp.N(sp.sympify(e).subs(dict(parameters)), DIGITS))
        width, bias = number(kernel.net.sigma_w) ** 2, number(kernel.net.sigma_b) ** 2
        K = tuple(map(mpmath.mpf, K))
        affine = lambda q: tuple(width * entry + bias for entry in q)
        each = lambda q: ((q[0],) * 3, q, (q[2],) * 3)
        sigma = [affine(K)]
        for _ in range(kernel.depth):
            phi = (pair_value(kernel.Phi, at, gates, parameters) for at, gates in zip(each(sigma[-1]), each(K), strict=True))
            sigma.append(affine(phi))
        total, above = sigma[-1][1], mpmath.mpf(1)
        for layer in range(kernel.depth, 0, -1):
            above *= width * number(kernel.weights[layer - 1]) * pair_value(kernel.G, sigma[layer - 1], K, parameters)
            total += above * sigma[layer - 1][1]
        return total, sigma[-1][1]
