"""Primitives whose values and gradients stay finite and right where the plain ones do not.

Generated kernels call these at coincident, opposite and zero inputs. There √, arctan2 and ab − c² lose digits, or have
slopes 0·∞. With (a, c; c, b) a covariance, s = √(ab − c²), and θ is the angle with cos θ = c/√(ab).

Where a kernel has no derivative (√ at 0, an angle at 0) the slope is the mean of the one-sided ones, which is 0 here.
All functions work elementwise on arrays that broadcast, in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

# arctan(t) = t + t³ P(t²)/Q(t²) for 0 ≤ t ≤ 1, interpolated at Chebyshev nodes in t²; errors 8e-19 and 2e-9.
# Coefficients of one sign each: no cancellation.
_ARCTAN_64 = (
    (
        -0.3333333333333333, -0.8116412201960678, -0.7123414383945195, -0.2725778671008127, -0.04325113828415611,
        -0.0021043873129700233, -2.229767813968649e-06,
    ),
    (
        1.0, 3.034923660588189, 3.5294070829658954, 1.9680296155712274, 0.5368820963772863, 0.06453295925870227,
        0.002445452808893491,
    ),
)  # fmt: skip
_ARCTAN_32 = (
    (-0.33333331982621517, -0.29111410171521646, -0.04292955638892398),
    (1.0, 1.473339307521689, 0.5842607389767582, 0.0522381150125764),
)
_PI = 3.141592653589793
# Rounding may push ab − c² below zero by this many ulps of ab; anything beyond is no covariance: NaN under √.
_DET_ULPS = 64


def _common(*values: jax.typing.ArrayLike) -> list[jax.Array]:
    """Arrays of the one floating dtype that the arguments promote to."""
    dtype = jnp.result_type(*values)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return [jnp.asarray(value, dtype) for value in values]


def _nonzero(x: jax.Array) -> jax.Array:
    """x with 1 in place of 0: a denominator for a quotient that is dropped there."""
    return jnp.where(x == 0, 1, x)


# ---- roots and quotients ---------------------------------------------------------------------------------------------


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """√x, with slope 0 at x = 0."""
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root == 0, 0, dx / (2 * _nonzero(root)))


def divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator/denominator, and 0 where the denominator is 0.

    A kernel divides by a variance only what vanishes with it (as in Cov(u, v)/√Var(v)); the mean over directions is 0.
    """
    numerator, denominator = _common(numerator, denominator)
    return jnp.where(denominator == 0, 0, numerator / _nonzero(denominator))


def distance(denominator: jax.Array) -> jax.Array:
    """1/denominator, and where that is 0 a number so large that e^{−x} is 0 and erf(x) is 1 there, with slope 0.

    For what is farther away than any multiple of a standard deviation when that is 0; squares and cubes stay finite.
    """
    (denominator,) = _common(denominator)
    return jnp.where(denominator == 0, float(jnp.finfo(denominator.dtype).max) ** 0.25, 1 / _nonzero(denominator))


@jax.custom_jvp
def exp_difference(x: jax.Array, y: jax.Array) -> jax.Array:
    """e^x − e^y, without cancellation at x ≈ y and without overflow where the result is finite."""
    x, y = _common(x, y)
    return jnp.sign(x - y) * jnp.exp(jnp.maximum(x, y)) * -jnp.expm1(-jnp.abs(x - y))


@exp_difference.defjvp
def _exp_difference_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return exp_difference(x, y), jnp.exp(x) * dx - jnp.exp(y) * dy


# ---- ab − c² ---------------------------------------------------------------------------------------------------------


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x = high + low with so few bits each that their products are exact.

    The bits are masked rather than rounded off by arithmetic, which a compiler may contract.
    """
    kind, mask = (jnp.uint64, 0xFFFFFFFFF8000000) if x.dtype == jnp.float64 else (jnp.uint32, 0xFFFFF000)
    high = lax.bitcast_convert_type(lax.bitcast_convert_type(x, kind) & jnp.asarray(mask, kind), x.dtype)
    return high, x - high


def _two_sum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x + y as its rounded value and its rounding error."""
    total = x + y
    moved = total - x
    return total, (x - (total - moved)) + (y - moved)


@jax.custom_jvp
def det2(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """ab − c² without cancellation.

    The products of the halves are exact, and the sums of the leading ones carry their rounding errors along, so that the
    result is right to a few ulps down to 2^{−100} ab. A negative result of rounding size is 0.

    Args:
        a, b: variances; NaN where they are negative, also if ab − c² is not.
        c: covariance, c² ≤ ab.
    """
    a, b, c = _common(a, b, c)
    if a.dtype not in (jnp.float32, jnp.float64):
        return det2(*(v.astype(jnp.float32) for v in (a, b, c))).astype(a.dtype)
    (ah, al), (bh, bl), (ch, cl) = _halves(a), _halves(b), _halves(c)
    cross, cross_error = _two_sum(ah * bl, al * bh)
    cross, error = _two_sum(cross, -2 * (ch * cl))
    leading, leading_error = _two_sum(ah * bh, -ch * ch)
    value = (leading + cross) + ((leading_error + cross_error + error) + (al * bl - cl * cl))
    rounding = _DET_ULPS * float(jnp.finfo(a.dtype).eps) * (a * b)
    return jnp.where(a < 0, jnp.nan, jnp.where((value < 0) & (value > -rounding), 0, value))


@det2.defjvp
def _det2_jvp(primals, tangents):
    (a, b, c), (da, db, dc) = primals, tangents
    return det2(a, b, c), b * da + a * db - 2 * c * dc


# ---- Cholesky factors ------------------------------------------------------------------------------------------------


def cholesky(rows: Sequence[Sequence[jax.Array]]) -> tuple[tuple[jax.Array, ...], ...]:
    """L with C = L Lᵀ, elementwise on arrays; rows end in zeros once a field is certain given earlier ones.

    What is left of a variance counts as 0 when it is of rounding size: the rest of that row would be noise.

    Args:
        rows: (C_11,), (C_21, C_22), …: the lower triangle.
    """
    found: list[list[jax.Array]] = []
    for i, row in enumerate(rows):
        left = variance = row[i]
        negligible = _DET_ULPS * float(jnp.finfo(variance.dtype).eps) * variance
        current: list[jax.Array] = []
        for j in range(i):
            # L_ij = (C_ij − Σ_k L_ik L_jk)/L_jj
            rest = row[j] - sum((current[k] * found[j][k] for k in range(j)), jnp.zeros_like(row[j]))
            current.append(jnp.where(left > negligible, divide(rest, found[j][j]), 0))
            left = left - current[-1] * current[-1]
        certain = left <= negligible
        found.append([*current, jnp.where(certain, 0, jnp.sqrt(jnp.where(certain, 1, left)))])
    return tuple(map(tuple, found))


# ---- angles ----------------------------------------------------------------------------------------------------------


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _arc(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(φ, y − x φ) with φ = arctan(y/x), for x, y ≥ 0; no cancellation, no branches, (0, 0) at the origin.

    The only costly results are quotients, which XLA keeps; it computes a polynomial again in every later layer that
    reads it.
    """
    # t = tan(φ/2) = y/(x + r) ≤ 1;  φ = 2 (t + t³ B);  y − x φ = t³ (x + r − 2 x B), both terms positive
    far = x + jnp.sqrt(x * x + y * y)
    t = y / _nonzero(far)
    above, below = _ARCTAN_64 if t.dtype == jnp.float64 else _ARCTAN_32
    tail = _polynomial(above, t * t) / _polynomial(below, t * t)
    cube = t * t * t
    return 2 * (t + cube * tail), cube * (far - 2 * (x * tail))


@jax.custom_jvp
def arctan2(y: jax.Array, x: jax.Array) -> jax.Array:
    """The angle of the point (x, y), 0 at the origin; slope 0 there."""
    y, x = _common(y, x)
    value, _ = _arc(jnp.abs(x), jnp.abs(y))
    value = jnp.where(x < 0, _PI - value, value)
    return jnp.where(y < 0, -value, value)


@arctan2.defjvp
def _arctan2_jvp(primals, tangents):
    (y, x), (dy, dx) = primals, tangents
    return arctan2(y, x), (x * dy - y * dx) / _nonzero(x * x + y * y)


@jax.custom_jvp
def coangle(c: jax.Array, s: jax.Array) -> jax.Array:
    """π − θ = π/2 + arcsin(c/√(ab)) for s = √(ab − c²) ≥ 0, accurate down to 0; π/2 at zero variance."""
    c, s = _common(c, s)
    value, _ = _arc(jnp.abs(c), s)
    value = jnp.where((c == 0) & (s == 0), _PI / 2, value)
    return jnp.where(c > 0, _PI - value, value)


@coangle.defjvp
def _coangle_jvp(primals, tangents):
    (c, s), (dc, ds) = primals, tangents
    return coangle(c, s), (s * dc - c * ds) / _nonzero(c * c + s * s)


def angle(c: jax.Array, s: jax.Array) -> jax.Array:
    """θ = π/2 − arcsin(c/√(ab)) for s = √(ab − c²) ≥ 0, accurate down to 0; π/2 at zero variance."""
    return coangle(-c, s)


@jax.custom_jvp
def wedge(c: jax.Array, s: jax.Array) -> jax.Array:
    """s + c (π − θ), which is 2π E[max(u, 0) max(v, 0)]; no cancellation at θ → π, where it vanishes like (π − θ)³."""
    c, s = _common(c, s)
    _, slim = _arc(jnp.abs(c), s)
    return slim + _PI * jnp.maximum(c, 0)


@wedge.defjvp
def _wedge_jvp(primals, tangents):
    (c, s), (dc, ds) = primals, tangents
    square = _nonzero(c * c + s * s)
    # with ds ∝ 1/s the sum of both terms has no cancellation: s² ds is small
    return wedge(c, s), (s * (s / square)) * ds + (coangle(c, s) + c * (s / square)) * dc


def cowedge(c: jax.Array, s: jax.Array) -> jax.Array:
    """s − c θ, which vanishes like θ³ at θ → 0: the wedge of (−c, s)."""
    return wedge(-c, s)


# ---- what is missing to coincidence ----------------------------------------------------------------------------------


def gap(c: jax.Array, s: jax.Array, scale: jax.Array) -> jax.Array:
    """√(ab) − c from s = √(ab − c²) and scale = √(ab), without cancellation at θ → 0."""
    total = scale + jnp.abs(c)
    near = divide(s * s, total)
    return jnp.where(c > 0, near, total)


def root_of_gap(gap: jax.Array, scale: jax.Array) -> jax.Array:
    """s = √(ab − c²) from gap = √(ab) − c and scale = √(ab)."""
    gap, scale = _common(gap, scale)
    # √(ab) + c, which rounding may push below zero at θ = π
    other = 2 * scale - gap
    other = jnp.where((other < 0) & (other > -_DET_ULPS * float(jnp.finfo(gap.dtype).eps) * scale), 0, other)
    return sqrt(gap * other)


def shifted_root(s: jax.Array, a: jax.Array, c: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    """√((a + β)(b + β) − (c + β)²) for β = shift, from s = √(ab − c²)."""
    # (a+β)(b+β) − (c+β)² = s² + β (a + b − 2c), and a + b − 2c = (√a − √b)² + 2 (√(ab) − c)
    roots = sqrt(a) - sqrt(b)
    distance = roots * roots + 2 * gap(c, s, sqrt(a) * sqrt(b))
    return sqrt(s * s + shift * distance)


def shifted_gap(gap: jax.Array, a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    """√((a + β)(b + β)) − (c + β) for β = shift, from gap = √(ab) − c."""
    # √((a+β)(b+β)) − √(ab) − β = β (√a − √b)² / (√((a+β)(b+β)) + √(ab) + β)
    roots = sqrt(a) - sqrt(b)
    total = sqrt(a + shift) * sqrt(b + shift) + sqrt(a) * sqrt(b) + shift
    return gap + divide(shift * roots * roots, total)


# ---- inputs and outputs of generated kernels -------------------------------------------------------------------------


def gram(X1: jax.Array, X2: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """K^x = X1 X2ᵀ/D with the variances of both sides.

    Args:
        X1: inputs, (N1, D).
        X2: inputs, (N2, D); X1 again if None.

    Returns:
        K_mumu (N1, 1), K_munu (N1, N2), K_nunu (1, N2).
    """
    X2 = X1 if X2 is None else X2
    dimension = X1.shape[-1]
    variance = lambda X: jnp.sum(X * X, axis=-1) / dimension
    # K_μν = Σ_d X1_μd X2_νd / D
    product = jnp.einsum("md,nd->mn", X1, X2, precision="highest") / dimension
    return variance(X1)[:, None], product, variance(X2)[None, :]


def with_diagonal(matrix: jax.Array, diagonal: jax.Array, symmetric: bool = True) -> jax.Array:
    """The matrix with this diagonal; if symmetric, with its upper triangle on both sides."""
    index = jnp.arange(matrix.shape[0])
    upper, on = index[:, None] < index[None, :], index[:, None] == index[None, :]
    matrix = jnp.where(upper, matrix, matrix.T) if symmetric else matrix
    return jnp.where(on, jnp.ravel(diagonal)[:, None], matrix)
