"""Random matrices of infinite width, realised on the span of the vectors that they have met.

A matrix W with i.i.d. standard normal entries (acting as W v/√N) is known only through its images. Conditioned on X = W Q and Y = Wᵀ P,
a vector q orthogonal to Q has the image

    W q = ξ − P⟨P ξ⟩ + P⟨Y q⟩,     ξ fresh standard normals,

and Wᵀ p the mirror image. The last term is the response term of mean-field theory, A·g forward and B·φ backward. Learning adds a
matrix of low rank in the same basis. `dense.py` has the dense counterparts with the same methods.

Source: Bolthausen 2014 (conditioning of Gaussian matrices); THEORY section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import Basis, Extension, bracket, combine, pad_columns, pad_rows
from .protocol import Carried


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BackwardSpan:
    """The gradient fields g and g̃ that one layer has seen, in one basis.

    Attributes:
        basis: rows P.
        g, g_tilde: coefficients of the current fields; one array where g̃ = g.
        tol: relative energy below which directions are dropped.
        same: whether g̃ = g.
    """

    basis: Basis
    g: Float[Array, "P r"]
    g_tilde: Float[Array, "P r"]
    tol: Float[Array, ""]
    same: bool = field(metadata={"static": True})

    def take(self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"]) -> tuple[BackwardSpan, Extension]:
        """Extend the basis by the current fields and keep their coefficients."""
        block = g if self.same else jnp.concatenate([g_tilde, g])
        basis, d, extension = self.basis.extend(block, self.tol)
        return replace(self, basis=basis, g=d[-g.shape[0] :], g_tilde=d[: g.shape[0]]), extension

    def padded(self, capacity: int) -> BackwardSpan:
        """The same with room for more."""
        return replace(
            self, basis=self.basis.padded(capacity), g=pad_columns(self.g, capacity), g_tilde=pad_columns(self.g_tilde, capacity)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyInput:
    """The first weights on the span of the inputs: h¹ = C·(images), C Cᵀ = K^x, images learned in place.

    Attributes:
        coordinates: C.
        images: W⁰ on the span, what was learned included.
        span: gradient fields of layer 1, kept for their kernels only.
    """

    coordinates: Float[Array, "P r0"]
    images: Float[Array, "r0 S"]
    span: BackwardSpan

    def forward(self, v: None = None) -> tuple[LazyInput, Float[Array, "P S"]]:
        """h¹ before scale and bias."""
        return self, combine(self.coordinates, self.images)

    def transpose(self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"]) -> tuple[LazyInput, None]:
        """Nothing lies below the inputs: the fields are only recorded."""
        return replace(self, span=self.span.take(g, g_tilde)[0]), None

    def learn(self, update: Float[Array, "P S"], v: None = None) -> LazyInput:
        """W += Σ_ν update_ν x_νᵀ in the coordinates of the span."""
        return replace(self, images=self.images + combine(self.coordinates.T, update))

    def probe(self, coordinates: Float[Array, "K r0"], beyond: Float[Array, "K"], xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """Images of further inputs: coordinates on the span, and the norm of what lies beyond it along fresh normals."""
        return combine(coordinates, self.images) + beyond[:, None] * xi


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyMatrix:
    """A hidden matrix: forward basis Q with images X and learned part M, backward basis P with images Y (and V's, independent of W).

    Attributes:
        basis: Q, the features seen so far.
        X: W(0) Q; rows not yet used hold the innovations ξ that they will be made from.
        M: the learned part of W on Q.
        a: coefficients of the current features.
        span: P and the coefficients of the current gradient fields.
        Y: W(0)ᵀ P, innovations beyond.
        V: Vᵀ P for the independent feedback matrix, where the rule has one.
        fed_back: projector, in the coordinates of P, on the span of the g̃ that W carried back into the dynamics; None where that
            is all of P.
        responds: whether forward images are conditioned on the backward ones (the response A).
        conditions: whether backward images are conditioned on the forward ones (the response B).
        feeds_back: whether W itself carries g̃ down.
    """

    basis: Basis
    X: Float[Array, "r S"]
    M: Float[Array, "r S"]
    a: Float[Array, "P r"]
    span: BackwardSpan
    Y: Float[Array, "q S"]
    V: Float[Array, "q S"] | None
    fed_back: Float[Array, "q q"] | None
    responds: bool = field(metadata={"static": True})
    conditions: bool = field(metadata={"static": True})

    def forward(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P S"]]:
        """W(t) v = (X + M) c."""
        basis, c, new = self.basis.extend(v, self.span.tol)
        X = new.write(self.X, self._forward_images(new))
        return replace(self, basis=basis, X=X, a=c), combine(c, X) + combine(c, self.M)

    def _forward_images(self, new: Extension) -> Float[Array, "P S"]:
        xi = new.pending(self.X)
        if not self.responds:
            return xi
        # ξ − P⟨P ξ⟩ + P⟨Y q⟩
        image = lambda: xi + combine(self._restrict(bracket(new.rows, self.Y) - bracket(xi, self.span.basis.rows)), self.span.basis.rows)
        return jnp.where(new.keep[:, None], jax.lax.cond(jnp.any(new.keep), image, lambda: xi), xi)

    def _restrict(self, d: Float[Array, "n q"]) -> Float[Array, "n q"]:
        return d if self.fed_back is None else d @ self.fed_back

    def transpose(self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"]) -> tuple[LazyMatrix, Carried]:
        """Wᵀ g and the feedback fields of g̃, each only computed where it is used."""
        span, new = self.span.take(g, g_tilde)
        Y = new.write(self.Y, self._backward_images(new))
        initial = combine(span.g_tilde, Y)
        # (M Qᵀ)ᵀ g = Q⟨M g⟩
        learned = lambda field: combine(bracket(field, self.M), self.basis.rows)
        if span.same:
            true = transported = initial + learned(g)
        else:
            both = learned(jnp.concatenate([g, g_tilde]))
            true, transported = combine(span.g, Y) + both[: g.shape[0]], initial + both[g.shape[0] :]
        independent = None if self.V is None else combine(span.g_tilde, self.V)
        fed_back = None if self.fed_back is None else _enlarge(self.fed_back, span.g_tilde, span.tol)
        return replace(self, span=span, Y=Y, fed_back=fed_back), Carried(true, transported, initial, independent)

    def _backward_images(self, new: Extension) -> Float[Array, "P S"]:
        xi = new.pending(self.Y)
        if not self.conditions:
            return xi
        # ξ − Q⟨Q ξ⟩ + Q⟨X p⟩
        image = lambda: xi + combine(bracket(new.rows, self.X) - bracket(xi, self.basis.rows), self.basis.rows)
        return jnp.where(new.keep[:, None], jax.lax.cond(jnp.any(new.keep), image, lambda: xi), xi)

    def learn(self, update: Float[Array, "P S"], v: Float[Array, "P S"]) -> LazyMatrix:
        """W += Σ_ν update_ν v_νᵀ/N, with v the features of the last `forward`: M += cᵀ update."""
        return replace(self, M=self.M + combine(self.a.T, update))

    def probe(self, v: Float[Array, "K S"], xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """W(t) v for vectors that leave no trace: the residual's image is drawn along ξ and conditioned, but not kept."""
        c = bracket(v, self.basis.rows)
        residual = v - combine(c, self.basis.rows)
        norm = jnp.sqrt(jnp.mean(residual * residual, axis=1, keepdims=True))
        image = combine(c, self.X) + combine(c, self.M) + norm * xi
        if not self.responds:
            return image
        P = self.span.basis.rows
        return image + combine(self._restrict(bracket(residual, self.Y) - norm * bracket(xi[None], P)), P)

    def padded(self, forward: Float[Array, "n S"], backward: Float[Array, "k S"], independent: Float[Array, "k S"] | None) -> LazyMatrix:
        """Room for n more forward and k more backward directions, with the innovations for them."""
        r, q = self.X.shape[0] + forward.shape[0], self.Y.shape[0] + backward.shape[0]
        return replace(
            self,
            basis=self.basis.padded(r),
            X=jnp.concatenate([self.X, forward]),
            M=pad_rows(self.M, r),
            a=pad_columns(self.a, r),
            span=self.span.padded(q),
            Y=jnp.concatenate([self.Y, backward]),
            V=None if self.V is None or independent is None else jnp.concatenate([self.V, independent]),
            fed_back=None if self.fed_back is None else pad_columns(pad_rows(self.fed_back, q), q),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyReadout:
    """The readout: w is one vector, known from the start; the basis of the last features is kept for their kernel only."""

    w: Float[Array, "1 S"]
    w0: Float[Array, "1 S"]
    v: Float[Array, "1 S"] | None
    basis: Basis
    a: Float[Array, "P r"]
    tol: Float[Array, ""]

    def forward(self, v: Float[Array, "P S"]) -> tuple[LazyReadout, Float[Array, "P"]]:
        """⟨w φ⟩."""
        basis, c, _ = self.basis.extend(v, self.tol)
        return replace(self, basis=basis, a=c), self.probe(v)

    def transpose(self, g: None, g_tilde: None) -> tuple[LazyReadout, Carried]:
        """g^{L+1} = 1: the fields are the vectors themselves."""
        return self, Carried(self.w, self.w, self.w0, self.v)

    def learn(self, update: Float[Array, "P 1"], v: Float[Array, "P S"]) -> LazyReadout:
        """w += Σ_ν update_ν v_ν."""
        return replace(self, w=self.w + combine(update.T, v))

    def probe(self, v: Float[Array, "K S"]) -> Float[Array, "K"]:
        """⟨w v⟩ for vectors that leave no trace."""
        return bracket(v, self.w)[:, 0]


def _enlarge(projector: Float[Array, "q q"], d: Float[Array, "P q"], tol: Float[Array, ""]) -> Float[Array, "q q"]:
    """Add the span of the rows of d to an orthogonal projector in coefficient space."""
    residual = d - d @ projector
    energy, axes = jnp.linalg.eigh(residual @ residual.T)
    keep = energy > tol * jnp.maximum(jnp.max(jnp.sum(d * d, axis=1)), jnp.finfo(d.dtype).tiny)
    rows = jnp.where(keep[:, None], axes.T @ residual / jnp.sqrt(jnp.where(keep, energy, 1.0))[:, None], 0.0)
    rows = rows - (rows @ projector) @ projector
    norms = jnp.where(keep, jnp.sum(rows * rows, axis=1), 1.0)
    rows = rows / jnp.sqrt(norms)[:, None]
    return projector + rows.T @ rows
