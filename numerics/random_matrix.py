"""Random matrices of infinite width, realised on the span of the vectors that they have met.

A matrix W with i.i.d. standard normal entries (acting as W v/√N) is known only through its images. Conditioned on X = W Q and Y = Wᵀ P,
a vector q orthogonal to Q has the image

    W q = ξ + P (⟨Y q⟩ − ⟨P ξ⟩),     ξ fresh standard normals,

and Wᵀ p = υ + Q (⟨X p⟩ − ⟨Q υ⟩) is the mirror image. The term with ⟨Y q⟩ is the response term of mean-field theory, A·g forward and
B·φ backward. Learning adds a matrix of low rank in the same two bases. So W(t) is kept as innovations and small matrices,

    W(t) v = c k Ξ + c (k A + D) P,    W(t)ᵀ g = d k Υ + d (k B + D)ᵀ Q,    c = ⟨v Q⟩, d = ⟨g P⟩,

A and B being what conditioning, D what learning made, and k = 1 unless weight decay shrinks W(0).
Since a new q is orthogonal to Q, ⟨Y q⟩ = ⟨Υ q⟩: images are never formed.
`dense.py` has the dense counterparts with the same methods.

Source: Bolthausen 2014 (conditioning of Gaussian matrices); THEORY section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .basis import Basis, bracket, combine, pad
from .ends import BackwardSpan, scaled
from .mirror import Mirror
from .protocol import Carried, Plasticity, per_example


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyFeedback:
    """Feedback weights that learn, B(t) = b₁ W(0)ᵀ + b₀ V + Qᵀ E P: what they are on the two random matrices, and what they learned.

    Attributes:
        on_initial, on_independent: b₁ and b₀.
        E: what was learned, in the coordinates of Q and P.
    """

    on_initial: Float[Array, ""]
    on_independent: Float[Array, ""]
    E: Float[Array, "r q"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LazyMatrix:
    """A hidden matrix: forward basis Q, backward basis P, innovations of both, and small matrices (see the module's docstring).

    Attributes:
        basis: Q, the features seen so far.
        Xi: Ξ, one innovation for each row of Q.
        a: coefficients of the current features.
        span: P and the coefficients of the current gradient fields.
        Upsilon: Υ, one innovation for each row of P.
        V: Vᵀ P for the independent feedback matrix, where the rule has one.
        N: ⟨Q Υᵀ⟩.
        A, B: responses: what conditioning adds to forward images along P, and to backward images along Q.
        D: what was learned.
        fed_back: projector, in the coordinates of P, on the span of the g̃ that W carried back into the dynamics; None where that
            is all of P.
        wants: fields that the rule and the observables need: "true", "transported", "initial".
        responds: whether forward images are conditioned on the backward ones (the response A).
        conditions: whether backward images are conditioned on the forward ones (the response B).
        adjoint: whether ⟨P ξ⟩ and ⟨Q υ⟩ are subtracted, which vanish in the limit and make W and Wᵀ adjoint at finite S.
        feedback: the feedback weights, where they learn.
        learns_outer_products: whether they learn from fields of their own.
        reconstructs: whether they unlearn reconstructions of what lies above.
        mirrored: V in the forward direction, where the feedback weights learn from Bᵀφ.
        scale: k, what weight decay has left of W(0); None without decay.
    """

    basis: Basis
    Xi: Float[Array, "r S"]
    a: Float[Array, "P r"]
    span: BackwardSpan
    Upsilon: Float[Array, "q S"]
    V: Float[Array, "q S"] | None
    N: Float[Array, "r q"]
    A: Float[Array, "r q"]
    B: Float[Array, "r q"]
    D: Float[Array, "r q"]
    fed_back: Float[Array, "q q"] | None
    wants: tuple[str, ...] = field(metadata={"static": True})
    responds: bool = field(metadata={"static": True})
    conditions: bool = field(metadata={"static": True})
    adjoint: bool = field(metadata={"static": True})
    feedback: LazyFeedback | None = None
    learns_outer_products: bool = field(default=False, metadata={"static": True})
    reconstructs: bool = field(default=False, metadata={"static": True})
    mirrored: Mirror | None = None
    scale: Float[Array, ""] | None = None

    def forward(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P S"]]:
        """W(t) v = c k Ξ + c (k A + D) P."""
        matrix, c = self._meet(v)
        along = c @ (scaled(self.scale, matrix.A) + matrix.D)
        return replace(matrix, a=c), combine(scaled(self.scale, c), matrix.Xi) + combine(along, matrix.span.basis.rows)

    def mirror(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P S"]]:
        """B(t)ᵀ v = b₁ W(0) v + b₀ Vᵀ v + c E P for the v of the last `forward`."""
        assert self.feedback is not None
        P, c = self.span.basis, self.a
        total = combine(c @ self.feedback.E, P.rows)
        if "initial" in self.wants:
            total = total + self.feedback.on_initial * (combine(c, self.Xi) + combine(c @ self.A, P.rows))
        return self, total if self.mirrored is None else total + self.feedback.on_independent * self.mirrored.up(c, P)

    def _meet(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P r"]]:
        """Take vectors into the forward basis, images and all; their coefficients."""
        basis, c, new = self.basis.extend(v, self.span.tol)
        P = self.span.basis
        nothing = jnp.zeros((v.shape[0], P.rows.shape[0]), self.A.dtype)

        def images():
            met = bracket(new.rows, self.Upsilon)
            if not self.responds:
                return met, nothing
            drawn = bracket(new.pending(self.Xi), P.rows) if self.adjoint else 0.0
            return met, self._restrict((met - drawn) * P.used()) * new.keep[:, None]

        met, response = jax.lax.cond(jnp.any(new.keep), images, lambda: (nothing, nothing))
        mirrored = self.mirrored
        if mirrored is not None and self.V is not None and self.conditions:
            mirrored = mirrored.met_forward(new, self.V, P)
        return replace(self, basis=basis, N=new.write_rows(self.N, met), A=new.write_rows(self.A, response), mirrored=mirrored), c

    def _restrict(self, d: Float[Array, "n q"]) -> Float[Array, "n q"]:
        return d if self.fed_back is None else d @ self.fed_back

    def transpose(
        self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"], outer: Float[Array, "P S"] | None = None,
        above: Float[Array, "P S"] | None = None,
    ) -> tuple[LazyMatrix, Carried]:  # fmt: skip
        """Wᵀ g = d k Υ + d (k B + D)ᵀ Q, and the feedback fields of g̃."""
        span, new = self.span.take(g, g_tilde, outer, above)
        Q = self.basis
        nothing = jnp.zeros((Q.rows.shape[0], new.rows.shape[0]), self.B.dtype)

        def images():
            met = bracket(Q.rows, new.pending(self.Upsilon))
            if not self.conditions:
                return met, nothing
            return met, (bracket(self.Xi, new.rows) - (met if self.adjoint else 0.0)) * Q.used()[:, None] * new.keep

        met, response = jax.lax.cond(jnp.any(new.keep), images, lambda: (nothing, nothing))
        B = new.write_columns(self.B, response)
        matrix = replace(self, span=span, N=new.write_columns(self.N, met), B=B)
        if self.mirrored is not None and self.V is not None and self.conditions:
            matrix = replace(matrix, mirrored=self.mirrored.met_backward(new, self.V, Q))
        if self.fed_back is not None:
            used = span.g_tilde if span.above is None else jnp.concatenate([span.g_tilde, span.above])
            matrix = replace(matrix, fed_back=_enlarge(self.fed_back, used, span.tol))
        return matrix, matrix._carry()

    def _carry(self) -> Carried:
        """All the fields that are wanted, in one pass over Υ and Q."""
        now, then = scaled(self.scale, self.B) + self.D, self.B
        inputs = {"true": (self.span.g, now), "transported": (self.span.g_tilde, now), "initial": (self.span.g_tilde, then)}
        d = jnp.concatenate([inputs[name][0] if name == "initial" else scaled(self.scale, inputs[name][0]) for name in self.wants])
        along = jnp.concatenate([inputs[name][0] @ inputs[name][1].T for name in self.wants])
        fields = jnp.split(combine(d, self.Upsilon) + combine(along, self.basis.rows), len(self.wants))
        found = dict(zip(self.wants, fields, strict=True))
        transported = found["true"] if self.span.same else found.get("transported")
        independent = self._independent(self.span.g_tilde)
        initial = found.get("initial")
        return Carried(found["true"], transported, initial, independent, self._evolved(self.span.g_tilde, initial, independent))

    def _independent(self, d: Float[Array, "n q"]) -> Float[Array, "n S"] | None:
        """V (d P), None without V."""
        if self.V is None:
            return None
        image = combine(d, self.V)
        return image if self.mirrored is None else image + combine(d @ self.mirrored.B.T, self.basis.rows)

    def _evolved(
        self, d: Float[Array, "n q"], initial: Float[Array, "n S"] | None, independent: Float[Array, "n S"] | None
    ) -> Float[Array, "n S"] | None:
        """B(t) (d P) = b₁ W(0)ᵀ (d P) + b₀ V (d P) + d Eᵀ Q."""
        if self.feedback is None:
            return None
        total = combine(d @ self.feedback.E.T, self.basis.rows)
        if initial is not None:
            total = total + self.feedback.on_initial * initial
        return total if independent is None else total + self.feedback.on_independent * independent

    def _reconstruction(self, d: Float[Array, "P q"]) -> Any:
        """ψ = B(t) h for the preactivations above, d P."""
        initial = combine(d, self.Upsilon) + combine(d @ self.B.T, self.basis.rows) if "initial" in self.wants else None
        return self._evolved(d, initial, self._independent(d))

    def with_feedback(self, initial: Float[Array, ""], independent: Float[Array, ""]) -> LazyMatrix:
        """B(0) = initial W(0)ᵀ + independent V."""
        put = lambda value: jnp.array(value, self.Xi.dtype)  # a buffer of its own: the state is donated
        room = lambda wanted: jnp.zeros_like(self.span.g_tilde) if wanted else None
        span = replace(self.span, outer=room(self.learns_outer_products), above=room(self.reconstructs))
        return replace(self, span=span, feedback=LazyFeedback(put(initial), put(independent), jnp.zeros_like(self.D)))

    def evolve(
        self, before: LazyMatrix, rates: Plasticity, outer: Float[Array, "P S"] | None, v: Float[Array, "P S"],
        above: Float[Array, "P S"] | None = None,
    ) -> LazyMatrix:  # fmt: skip
        """b₁ ← (1 − decay) b₁ + pull k + copy Δk, b₀ ← (1 − decay) b₀, and E the rest, W(t) − k W(0) being D."""
        assert self.feedback is not None
        old, kept, matrix = self.feedback, 1.0 - rates.decay, self
        initial = kept * old.on_initial + rates.pull if self.scale is None else rates.update(old.on_initial, before.scale, self.scale)
        E = rates.update(old.E, before.D, self.D)
        if self.span.outer is not None:
            E = E + self.a.T @ self.span.outer / v.shape[0]
        if self.span.above is not None:
            matrix, c = self._meet(self._reconstruction(self.span.above))
            E = E - rates.null * c.T @ self.span.above / v.shape[0]
        return replace(matrix, feedback=LazyFeedback(initial, kept * old.on_independent, E))

    @property
    def trained(self) -> Any:
        """What was learned, and the scale of W(0)."""
        return self.D, self.scale

    def with_trained(self, values: Any) -> LazyMatrix:
        """Other values of these."""
        return replace(self, D=values[0], scale=values[1])

    def decaying(self) -> LazyMatrix:
        """W(0) will shrink."""
        return replace(self, scale=jnp.ones((), self.Xi.dtype))

    def learn(self, rates: Float[Array, "P"], g_tilde: Float[Array, "P S"], v: Float[Array, "P S"]) -> LazyMatrix:
        """W += Σ_ν rates_ν g̃_ν v_νᵀ/N for the fields of the last `transpose` and `forward`: D += aᵀ diag(rates) g̃."""
        d = self.span.g_tilde
        return replace(self, D=self.D + ((self.a.T * rates) @ d if len(d) == len(self.a) else self.a.T @ per_example(rates, d, len(self.a))))

    def probe(self, v: Float[Array, "K S"], xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """W(t) v for vectors that leave no trace: the residual's image is drawn along ξ and conditioned, but not kept."""
        P = self.span.basis
        c = bracket(v, self.basis.rows)
        norm = jnp.sqrt(jnp.maximum(jnp.mean(v * v, axis=1) - jnp.sum(c * c, axis=1), 0.0))[:, None]
        along = c @ (scaled(self.scale, self.A) + self.D)
        if self.responds:
            # for the residual v − c Q: ⟨Υ (v − c Q)⟩ − norm ⟨P ξ⟩
            met = bracket(v, self.Upsilon) - c @ self.N
            drawn = norm * bracket(xi[None], P.rows) if self.adjoint else 0.0
            along = along + scaled(self.scale, self._restrict((met - drawn) * P.used()))
        return combine(scaled(self.scale, c), self.Xi) + combine(along, P.rows) + combine(scaled(self.scale, norm), xi[None])

    def padded(self, r: int, q: int) -> LazyMatrix:
        """Room for r forward and q backward directions; innovations for the new ones are to be supplied."""
        return replace(
            self,
            basis=self.basis.padded(r),
            Xi=pad(self.Xi, r),
            a=pad(self.a, columns=r),
            span=self.span.padded(q),
            Upsilon=pad(self.Upsilon, q),
            V=None if self.V is None else pad(self.V, q),
            mirrored=None if self.mirrored is None else self.mirrored.padded(r, q),
            fed_back=None if self.fed_back is None else pad(self.fed_back, q, q),
            feedback=None if self.feedback is None else replace(self.feedback, E=pad(self.feedback.E, r, q)),
            N=pad(self.N, r, q),
            A=pad(self.A, r, q),
            B=pad(self.B, r, q),
            D=pad(self.D, r, q),
        )

    def supplied(
        self, at: int, forward: np.ndarray, backward: np.ndarray, independent: np.ndarray | None = None, upward: np.ndarray | None = None
    ) -> LazyMatrix:
        """The same with innovations for the directions from `at` on, as many as there is room for."""
        put = lambda array, rows: _write(array, rows[: max(array.shape[0] - at, 0)], at)
        V = None if self.V is None or independent is None else put(self.V, independent)
        mirrored = self.mirrored
        if mirrored is not None and upward is not None:
            mirrored = replace(mirrored, Xi=put(mirrored.Xi, upward))
        return replace(self, Xi=put(self.Xi, forward), Upsilon=put(self.Upsilon, backward), V=V, mirrored=mirrored)


@partial(jax.jit, donate_argnums=0)
def _put_rows(array: Float[Array, "r S"], rows: Float[Array, "n S"], at: Int[Array, ""]) -> Float[Array, "r S"]:
    return jax.lax.dynamic_update_slice_in_dim(array, rows.astype(array.dtype), at, axis=0)


def _write(array: Float[Array, "r S"], rows: np.ndarray, at: int) -> Float[Array, "r S"]:
    return _put_rows(array, rows, jnp.int32(at)) if len(rows) else array


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
