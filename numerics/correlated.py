"""Averages of products of smooth functions of correlated Gaussian variables: what generated online equations call where no closed form exists.

Everything is elementwise on arrays of covariances that broadcast. Variables are combinations χ = L u of independent standard normal u, and these
are summed over by the trapezoidal rule, which converges exponentially for analytic functions and only like a power of the number of nodes where
there are kinks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from . import safe

Function = Callable[[jax.Array], jax.Array]


@cache
def rule(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x_j, and T_jk = w_j h_k(x_j) for the polynomials orthonormal on them; T_j0 are the weights of N(0, 1).

    Equal distances out to 2 order^{1/3}: what is cut off and what poles of tanh at variance 1 to 4 cost are then of one size.
    """
    nodes = np.linspace(-1, 1, order) * 2 * np.cbrt(order)
    root = np.exp(-(nodes**2) / 4)
    basis = [root / np.linalg.norm(root)]
    for _ in range(order - 1):
        following = nodes * basis[-1]
        for _ in range(2):  # once more, against rounding
            following = following - np.array(basis).T @ (np.array(basis) @ following)
        basis.append(following / np.linalg.norm(following))
    return nodes, (basis[0] * np.array(basis)).T


def pair(f: Function, g: Function, C11: jax.Array, C12: jax.Array, C22: jax.Array, order: int) -> jax.Array:
    """E[f(χ1) g(χ2)], a product rule."""
    nodes, table = (jnp.asarray(v, jnp.result_type(C11)) for v in rule(order))
    (L11,), (L21, L22) = safe.cholesky(((C11,), (C12, C22)))
    fields = (L21[..., None] * nodes)[..., None] + L22[..., None, None] * nodes
    # E[g(χ2) | u1], then the average over u1
    given = jnp.matmul(g(fields), table[:, 0], precision="highest")
    return jnp.matmul(f(L11[..., None] * nodes) * given, table[:, 0], precision="highest")


def four(
    p: Function, g: Function, C11: jax.Array, C12: jax.Array, C13: jax.Array, C14: jax.Array, C22: jax.Array, C23: jax.Array,
    C24: jax.Array, C33: jax.Array, C34: jax.Array, C44: jax.Array, order: int,
) -> jax.Array:  # fmt: skip
    """E[p(χ1) p(χ2) g(χ3) g(χ4)]: a product rule in (χ1, χ2), and given these Mehler's series in what is left of χ3 and χ4,

        E[g(m3 + s3 ξ3) g(m4 + s4 ξ4)] = Σ_{k<n} ρ^k a_k b_k,   a_k = Σ_j w_j h_k(x_j) g(m3 + s3 x_j).

    With the n polynomials that are orthonormal on the n nodes the series is the trapezoidal rule itself at ρ = ±1, where fields coincide. Only ρ
    couples fields 3 and 4, so that arrays with an axis for each cost order³ evaluations an entry of either.
    """
    nodes, table = (jnp.asarray(v, jnp.result_type(C11)) for v in rule(order))
    (L11,), (L21, L22), third = safe.cholesky(((C11,), (C12, C22), (C13, C23, C33)))
    fourth = safe.cholesky(((C11,), (C12, C22), (C14, C24, C44)))[2]
    u1, u2 = (jnp.ravel(u) for u in jnp.meshgrid(nodes, nodes, indexing="ij"))
    at = lambda L1, L2: L1[..., None] * u1 + L2[..., None] * u2
    weight = jnp.ravel(table[:, :1] * table[:, 0]) * p(L11[..., None] * u1) * p(at(L21, L22))

    def coefficients(row: tuple[jax.Array, ...]) -> jax.Array:
        """a_k(χ1, χ2) = E[g(χ) h_k(ξ) | χ1, χ2], χ = L1 u1 + L2 u2 + s ξ."""
        field = at(*row[:2])[..., None] + row[2][..., None, None] * nodes
        return jnp.matmul(g(field), table, precision="highest")

    a, b = coefficients(third), coefficients(fourth)
    both = jnp.einsum("...u,...uk,...uk->...k", weight, a, b, precision="highest")
    left = C34 - third[0] * fourth[0] - third[1] * fourth[1]
    return _series(both, safe.divide(left, third[2] * fourth[2]))


def _series(terms: jax.Array, rho: jax.Array) -> jax.Array:
    """Σ_k terms_k ρ^k; correlations that rounding takes beyond ±1 count as ±1."""
    powers = jnp.clip(rho, -1, 1)[..., None] ** jnp.arange(terms.shape[-1])
    return jnp.sum(terms * powers, axis=-1)
