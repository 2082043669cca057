"""Random matrices of infinite width, realised on the span of the vectors that they have met.

A matrix W with i.i.d. standard normal entries (acting as W v/√N) is known only through its images. Conditioned on X = W Q and Y = Wᵀ P,
a vector q orthogonal to Q has the image

    W q = ξ + P (⟨Y q⟩ − ⟨P ξ⟩),     ξ fresh standard normals,

and Wᵀ p = υ + Q (⟨X p⟩ − ⟨Q υ⟩) is the mirror image. The term with ⟨Y q⟩ is the response term of mean-field theory, A·g forward and
B·φ backward. Learning adds a matrix of low rank in the same two bases. So W(t) is kept as innovations and small matrices,

    W(t) v = c k Ξ + c (k A + D) P,    W(t)ᵀ g = d k Υ + d (k B + D)ᵀ Q,    c = ⟨v Q⟩, d = ⟨g P⟩,

A and B being what conditioning, D what learning made, and k = 1 unless weight decay shrinks W(0).
Since a new q is orthogonal to Q, ⟨Y q⟩ = ⟨Υ q⟩: images are never formed. And ⟨P ξ⟩ is known from when the younger of p and ξ came.
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

from .basis import Basis, Extension
from .ends import BackwardSpan, scaled
from .mirror import Mirror
from .protocol import Carried, Plasticity, per_example
from .rows import Rows, combine, pad


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
        N, M: ⟨Q Υᵀ⟩ and ⟨Ξ Pᵀ⟩, for all innovations that were supplied.
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
        supplied: how many innovations there are, of either kind.
    """

    basis: Basis
    Xi: Rows
    a: Float[Array, "P r"]
    span: BackwardSpan
    Upsilon: Rows
    V: Rows | None
    N: Float[Array, "r q"]
    M: Float[Array, "r q"]
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
    supplied: Int[Array, ""] = field(default_factory=lambda: jnp.zeros((), jnp.int32))

    def forward(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P S"]]:
        """W(t) v = c k Ξ + c (k A + D) P."""
        matrix, c = self._meet(v)
        along = c @ (scaled(self.scale, matrix.A) + matrix.D)
        return replace(matrix, a=c), matrix._up(scaled(self.scale, c)) + self.span.basis.combine(along)

    def _up(self, c: Float[Array, "n r"]) -> Float[Array, "n S"]:
        """c Ξ."""
        return self.Xi.combine(c, self.basis.size)

    def _down(self, d: Float[Array, "n q"]) -> Float[Array, "n S"]:
        """d Υ."""
        return self.Upsilon.combine(d, self.span.basis.size)

    def mirror(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P S"]]:
        """B(t)ᵀ v = b₁ W(0) v + b₀ Vᵀ v + c E P for the v of the last `forward`."""
        assert self.feedback is not None
        P, c = self.span.basis, self.a
        total = P.combine(c @ self.feedback.E)
        if "initial" in self.wants:
            total = total + self.feedback.on_initial * (self._up(c) + P.combine(c @ self.A))
        return self, total if self.mirrored is None else total + self.feedback.on_independent * self.mirrored.up(c, self.basis, P)

    def _meet(self, v: Float[Array, "P S"]) -> tuple[LazyMatrix, Float[Array, "P r"]]:
        """Take vectors into the forward basis, images and all; their coefficients."""
        P, there = self.span.basis.used(), self.supplied

        def met(notes, new: Extension):
            N, A, mirrored = notes
            known = self.Upsilon.bracket(new.rows, there)
            if self.responds:
                response = known - new.rows_of(self.M) if self.adjoint else known
                A = new.write_rows(A, self._restrict(response * P) * new.keep[:, None])
            if self.mirrored is not None and self.V is not None and self.conditions:
                mirrored = self.mirrored.met_forward(mirrored, new, self.V.bracket(new.rows, there), P)
            return new.write_rows(N, known), A, mirrored

        notes = self.N, self.A, None if self.mirrored is None else self.mirrored.small
        basis, c, (N, A, mirrored) = self.basis.extend(v, self.span.tol, notes, met)
        return replace(self, basis=basis, N=N, A=A, mirrored=self._mirrored(mirrored)), c

    def _mirrored(self, small: Any) -> Mirror | None:
        return None if self.mirrored is None else replace(self.mirrored, small=small)

    def _restrict(self, d: Float[Array, "n q"]) -> Float[Array, "n q"]:
        return d if self.fed_back is None else d @ self.fed_back

    def transpose(
        self, g: Float[Array, "P S"], g_tilde: Float[Array, "P S"], outer: Float[Array, "P S"] | None = None,
        above: Float[Array, "P S"] | None = None,
    ) -> tuple[LazyMatrix, Carried]:  # fmt: skip
        """Wᵀ g = d k Υ + d (k B + D)ᵀ Q, and the feedback fields of g̃."""
        Q, there = self.basis.used(), self.supplied

        def met(notes, new: Extension):
            M, B, mirrored = notes
            drawn = self.Xi.bracket(new.rows, there)
            if self.conditions:
                response = drawn - new.columns_of(self.N).T if self.adjoint else drawn
                B = new.write_columns(B, (response * Q * new.keep[:, None]).T)
            if self.mirrored is not None and self.conditions:
                mirrored = self.mirrored.met_backward(mirrored, new, there, Q)
            return new.write_columns(M, drawn.T), B, mirrored

        notes = self.M, self.B, None if self.mirrored is None else self.mirrored.small
        span, (M, B, mirrored) = self.span.take(g, g_tilde, outer, above, notes, met)
        matrix = replace(self, span=span, M=M, B=B, mirrored=self._mirrored(mirrored))
        if self.fed_back is not None:
            used = span.g_tilde if span.above is None else jnp.concatenate([span.g_tilde, span.above])
            matrix = replace(matrix, fed_back=_enlarge(self.fed_back, used, span.tol))
        return matrix, matrix._carry()

    def _carry(self) -> Carried:
        """All the fields that are wanted, in one pass over Υ and Q."""
        now, then = scaled(self.scale, self.B) + self.D, self.B
        inputs = {"true": (self.span.g, now), "transported": (self.span.g_tilde, now), "initial": (self.span.g_tilde, then)}
        d = jnp.concatenate([inputs[name][0] if name == "initial" else scaled(self.scale, inputs[name][0]) for name in self.wants])
        along = jnp.concatenate([(inputs[name][1] @ inputs[name][0].T).T for name in self.wants])
        fields = jnp.split(self._down(d) + self.basis.combine(along), len(self.wants))
        found = dict(zip(self.wants, fields, strict=True))
        transported = found["true"] if self.span.same else found.get("transported")
        independent = self._independent(self.span.g_tilde)
        initial = found.get("initial")
        return Carried(found["true"], transported, initial, independent, self._evolved(self.span.g_tilde, initial, independent))

    def _independent(self, d: Float[Array, "n q"]) -> Float[Array, "n S"] | None:
        """V (d P), None without V."""
        if self.V is None:
            return None
        image = self.V.combine(d, self.span.basis.size)
        return image if self.mirrored is None else image + self.basis.combine(d @ self.mirrored.small.B.T)

    def _evolved(
        self, d: Float[Array, "n q"], initial: Float[Array, "n S"] | None, independent: Float[Array, "n S"] | None
    ) -> Float[Array, "n S"] | None:
        """B(t) (d P) = b₁ W(0)ᵀ (d P) + b₀ V (d P) + d Eᵀ Q."""
        if self.feedback is None:
            return None
        total = self.basis.combine(d @ self.feedback.E.T)
        if initial is not None:
            total = total + self.feedback.on_initial * initial
        return total if independent is None else total + self.feedback.on_independent * independent

    def _reconstruction(self, d: Float[Array, "P q"]) -> Any:
        """ψ = B(t) h for the preactivations above, d P."""
        initial = self._down(d) + self.basis.combine(d @ self.B.T) if "initial" in self.wants else None
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

    def probe_twice(
        self, v: Float[Array, "K S"], start: Float[Array, "K S"], xi: Float[Array, "S"]
    ) -> tuple[Float[Array, "K S"], Float[Array, "K S"]]:
        """W(t) v and k W(0) start for vectors that leave no trace."""
        image = self._realised(jnp.concatenate([v, start]), len(v), xi)
        return image[: len(v)], image[len(v) :]

    def probe_untrained(self, start: Float[Array, "K S"], xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """k W(0) start."""
        return self._realised(start, 0, xi)

    def _realised(self, both: Float[Array, "K S"], trained: int, xi: Float[Array, "S"]) -> Float[Array, "K S"]:
        """W(t) times the first vectors, k W(0) times the others: images of residuals are drawn along ξ and conditioned, but not kept."""
        P = self.span.basis
        c = self.basis.coefficients(both)
        norm = jnp.sqrt(jnp.maximum(jnp.mean(both * both, axis=1) - jnp.sum(c * c, axis=1), 0.0))[:, None]
        along = c @ self.A
        if self.responds:
            # for the residual v − c Q: ⟨Υ (v − c Q)⟩ − norm ⟨P ξ⟩
            met = self.Upsilon.bracket(both, P.size) - c @ self.N
            drawn = norm * P.coefficients(xi[None]) if self.adjoint else 0.0
            along = along + self._restrict((met - drawn) * P.used())
        learned = jnp.concatenate([c[:trained] @ self.D, jnp.zeros((len(both) - trained, along.shape[1]), along.dtype)])
        left = self.scale
        return self._up(scaled(left, c)) + P.combine(scaled(left, along) + learned) + combine(scaled(left, norm), xi[None])

    def padded(self, r: int, q: int) -> LazyMatrix:
        """Room for r forward and q backward directions; innovations for the new ones are to be supplied."""
        return replace(
            self,
            basis=self.basis.padded(r),
            Xi=self.Xi.padded(r),
            a=pad(self.a, columns=r),
            span=self.span.padded(q),
            Upsilon=self.Upsilon.padded(q),
            V=None if self.V is None else self.V.padded(q),
            mirrored=None if self.mirrored is None else self.mirrored.padded(r, q),
            fed_back=None if self.fed_back is None else pad(self.fed_back, q, q),
            feedback=None if self.feedback is None else replace(self.feedback, E=pad(self.feedback.E, r, q)),
            N=pad(self.N, r, q),
            M=pad(self.M, r, q),
            A=pad(self.A, r, q),
            B=pad(self.B, r, q),
            D=pad(self.D, r, q),
        )

    def supply(
        self, at: int, forward: np.ndarray, backward: np.ndarray, independent: np.ndarray | None = None, upward: np.ndarray | None = None
    ) -> LazyMatrix:
        """The same with innovations for the directions from `at` on, as many as there is room for, and their averages with what was met."""
        Q, P, V, mirrored = self.basis, self.span.basis, self.V, self.mirrored
        Xi, M = _supplied(self.Xi, self.M, P, forward, at)
        Upsilon, N = _supplied(self.Upsilon, self.N, Q, backward, at, columns=True)
        if V is not None and independent is not None:
            met = jnp.zeros_like(N) if mirrored is None else mirrored.small.N
            V, met = _supplied(V, met, Q, independent, at, columns=True)
            if mirrored is not None and upward is not None:
                images, drawn = _supplied(mirrored.Xi, mirrored.small.M, P, upward, at)
                mirrored = replace(mirrored, Xi=images, small=replace(mirrored.small, M=drawn, N=met))
        return replace(self, Xi=Xi, M=M, Upsilon=Upsilon, N=N, V=V, mirrored=mirrored, supplied=jnp.int32(at + len(forward)))


def _supplied(
    images: Rows, averages: Float[Array, "r q"], basis: Basis, new: np.ndarray, at: int, columns: bool = False
) -> tuple[Rows, Float[Array, "r q"]]:
    """Innovations with new ones from `at` on, and their averages ⟨images basisᵀ⟩, or its transpose, with the vectors that were met."""
    new = new[: max(len(images) - at, 0)]
    if not len(new):
        return images, averages
    if int(basis.size):
        averages = _averages(averages, basis, new, jnp.int32(at), columns)
    return images.written(new, at), averages


@partial(jax.jit, static_argnames="columns", donate_argnums=0)
def _averages(known: Float[Array, "r q"], basis: Basis, new: Float[Array, "n S"], at: Int[Array, ""], columns: bool) -> Float[Array, "r q"]:
    found = basis.coefficients(new.astype(basis.rows.dtype))
    return jax.lax.dynamic_update_slice_in_dim(known, found.T if columns else found, at, axis=int(columns))


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
