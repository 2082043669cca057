"""A network of infinite width at initialisation, and more room for it later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .basis import Basis, pad, wide
from .dynamics import Dynamics
from .ends import BackwardSpan, LazyInput, LazyReadout
from .mirror import Mirror
from .problem import Problem
from .random_matrix import LazyMatrix
from .sampling import Innovations
from .training import Probe, State


class Room(NamedTuple):
    """Capacities of the forward and of the backward bases."""

    forward: int
    backward: int


@dataclass(frozen=True)
class Layout:
    """Which dimension of the innovations drives what, fixed by problem and rule alone.

    First come single vectors (readout, inputs, feedback, biases, gates, test points; room for test points is kept whether or not there
    are any, so that they change nothing else), then the hidden matrices' directions, interleaved in the order of their creation.

    Attributes:
        depth: L.
        outputs: C, each with a readout and feedback vectors of its own.
        inputs: rank r0 of the inputs.
        block: directions that one step can add to a backward basis.
        forward_block: the same for a forward basis.
        independent: for the hidden matrices 1…L−1, whether V^ℓ exists.
        feeds_back: for them, whether W^ℓ carries feedback, so that forward images must be conditioned.
        wants: for them, the fields that must come down: "true" for the observables, and what the rule's feedback uses.
        responses: False switches all conditioning off.
        mirrors: for them, whether Vᵀ is used forward.
        adjoint: whether W and Wᵀ are adjoint at finite S already.
        spans: whether φ(h^L) and g¹, which no other field meets, get bases like all others, for their kernels.
    """

    depth: int
    outputs: int
    inputs: int
    block: int
    forward_block: int
    gated: bool
    independent: tuple[bool, ...]
    feeds_back: tuple[bool, ...]
    wants: tuple[tuple[str, ...], ...]
    responses: bool
    mirrors: tuple[bool, ...]
    adjoint: bool
    spans: bool

    @staticmethod
    def of(p: Problem, rule: Dynamics, responses: bool = True, adjoint: bool = True, spans: bool = True) -> Layout:
        """The layout for a problem and a rule."""
        hidden = range(1, rule.depth)
        # g, and for other rules than gradient descent g̃, v, and the preactivations above
        fields = 1 if rule.gradient else 2 + rule.learns_outer_products + rule.reconstructs
        independent = tuple(rule.uses(l, "independent") for l in hidden)
        return Layout(
            rule.depth, p.outputs, coordinates(p)[0].shape[1], p.P * p.outputs * fields, p.P * (2 if rule.reconstructs else 1), rule.gated,
            independent, tuple(rule.feeds_back(l) for l in hidden), tuple(_wanted(rule, l) for l in hidden), responses,
            tuple(rule.mirrors and each for each in independent), adjoint, spans,
        )  # fmt: skip

    @property
    def vectors(self) -> dict[str, int]:
        """Numbers of dimensions of the single vectors, in order."""
        gates = self.depth * self.inputs if self.gated else 0
        return {
            "readout": self.outputs, "inputs": self.inputs, "test": self.depth, "feedback": self.outputs, "direct": self.depth * self.outputs,
            "biases": self.depth,
            "gates": gates, "test_gates": self.depth if self.gated else 0,
        }  # fmt: skip

    def draw_vectors(self, innovations: Innovations) -> dict[str, np.ndarray]:
        """The single vectors, by name."""
        total = sum(self.vectors.values())
        rows = innovations.rows(0, total)
        ends = np.cumsum(list(self.vectors.values()))
        return {name: rows[end - n : end] for (name, n), end in zip(self.vectors.items(), ends, strict=True)}

    def draw_directions(self, innovations: Innovations, first: int, last: int) -> list[list[np.ndarray]]:
        """Innovations of the directions first…last−1 for every hidden matrix: [forward, backward(, independent(, upward))]."""
        counts = [2 + own + up for own, up in zip(self.independent, self.mirrors, strict=True)]
        each, offset = sum(counts), sum(self.vectors.values())
        rows = innovations.rows(offset + first * each, offset + last * each).reshape(last - first, each, innovations.samples)
        ends = np.cumsum(counts)
        return [[rows[:, k] for k in range(end - n, end)] for n, end in zip(counts, ends, strict=True)]


def start(p: Problem, rule: Dynamics, innovations: Innovations, layout: Layout, room: Room, kind, tol: float) -> tuple[State, Probe | None]:
    """The network before its first step, and its test points. Innovations for its directions are to be supplied: see `supply`.

    Args:
        p, rule: problem and rule.
        innovations: where normals come from.
        layout: which of them goes where.
        room: capacities of the bases.
        kind: floating-point type.
        tol: tolerance of the bases.
    """
    put = lambda array: jnp.asarray(array, kind)
    vectors = {name: put(rows) for name, rows in layout.draw_vectors(innovations).items()}
    samples = innovations.samples
    # one buffer each: a step gives the state's memory back for reuse
    tolerance = lambda: jnp.array(tol, wide())
    basis = lambda capacity: Basis.empty(capacity, samples, kind)
    back = lambda: jnp.zeros((p.P * p.outputs, room.backward), wide())
    span = lambda: BackwardSpan(basis(room.backward), back(), back(), tolerance(), rule.gradient)
    C = put(coordinates(p)[0])
    hidden = [_hidden(l, p.P, layout, rule, basis(room.forward), span()) for l in range(rule.depth - 1)]
    readout = LazyReadout(
        vectors["readout"], vectors["readout"] + 0, vectors["feedback"] if rule.uses(rule.depth, "independent") else None,
        basis(room.forward) if layout.spans else None, jnp.zeros((p.P, room.forward), wide()) if layout.spans else None, tolerance(),
    )  # fmt: skip
    L = rule.depth
    state = State(
        matrices=(LazyInput(C, vectors["inputs"], span() if layout.spans else None), *hidden, readout),
        biases=tuple(vectors["biases"][l : l + 1] for l in range(L)) if rule.biased else (),
        readout_bias=jnp.zeros(p.y.shape[1:], kind),
        direct=tuple(vectors["direct"][l * p.outputs : (l + 1) * p.outputs] if rule.uses(l + 1, "direct") else None for l in range(L)),
        gates=tuple(C @ _gate_axes(vectors, layout, l) for l in range(L)) if rule.gated else (),
        f0=jnp.zeros(p.y.shape, kind),
        t=jnp.zeros((), jnp.int32),
    )
    return state, None if p.X_test is None else _probe(p, rule, layout, vectors, put)


def _hidden(l: int, P: int, layout: Layout, rule: Dynamics, basis: Basis, span: BackwardSpan) -> LazyMatrix:
    (r, samples), q, kind = basis.rows.shape, span.basis.rows.shape[0], basis.rows.dtype
    small = lambda: jnp.zeros((r, q), wide())
    return LazyMatrix(
        basis=basis,
        Xi=jnp.zeros((r, samples), kind),
        a=jnp.zeros((P, r), wide()),
        span=span,
        Upsilon=jnp.zeros((q, samples), kind),
        V=jnp.zeros((q, samples), kind) if layout.independent[l] else None,
        N=small(),
        A=small(),
        B=small(),
        D=small(),
        fed_back=jnp.zeros((q, q), wide()) if layout.feeds_back[l] and not rule.gradient else None,
        wants=layout.wants[l],
        responds=layout.feeds_back[l] and layout.responses,
        conditions=layout.responses,
        adjoint=layout.adjoint,
        learns_outer_products=rule.learns_outer_products,
        reconstructs=rule.reconstructs,
        mirrored=Mirror.empty(basis.rows, small()) if layout.mirrors[l] else None,
    )


def supply(state: State, innovations: Innovations, layout: Layout, first: int, last: int) -> State:
    """The same network with innovations for the directions first…last−1 of every hidden matrix."""
    first_matrix, *hidden, readout = state.matrices
    drawn = layout.draw_directions(innovations, first, last)
    supplied = [matrix.supplied(first, *rows) for matrix, rows in zip(hidden, drawn, strict=True)]
    return replace(state, matrices=(first_matrix, *supplied, readout))


def grow(state: State, room: Room) -> State:
    """More capacity: the same network with `room` in its bases."""
    first, *hidden, readout = state.matrices
    if first.span is not None:
        first = replace(first, span=first.span.padded(room.backward))
        readout = replace(readout, basis=readout.basis.padded(room.forward), a=pad(readout.a, columns=room.forward))
    return replace(state, matrices=(first, *(matrix.padded(*room) for matrix in hidden), readout), velocity=_padded(state.velocity, room))


def _padded(velocity, room: Room):
    """The velocity of hidden matrices, which is one of their coefficients, with the same room."""
    if velocity is None:
        return None
    (first, *hidden, readout), *others = velocity
    return ((first, *((pad(D, *room), scale) for D, scale in hidden), readout), *others)


def _wanted(rule: Dynamics, l: int) -> tuple[str, ...]:
    used = () if rule.gradient else tuple(name for name in ("transported", "initial") if rule.uses(l, name))
    return ("true", *used)


def coordinates(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """C with C Cᵀ = K^x, and the map from inner products with the inputs to coordinates."""
    values, axes = np.linalg.eigh(p.Kx)
    # directions below round-off of the largest are not there
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(float).eps * 10
    values, axes = values[kept][::-1], axes[:, kept][:, ::-1]
    # signs must not depend on the order of examples
    axes = axes * np.where(np.take_along_axis(axes, np.argmax(np.abs(axes), axis=0)[None], axis=0) < 0, -1.0, 1.0)
    return axes * np.sqrt(values), axes / np.sqrt(values)


def outside(p: Problem) -> tuple[Float[np.ndarray, "K r0"], Float[np.ndarray, "K"]]:
    """Test inputs: coordinates on the span of the training inputs, and the norm of what lies beyond it."""
    assert p.X_test is not None
    inside = (p.X_test @ p.X.T / p.D) @ coordinates(p)[1]
    return inside, np.sqrt(np.maximum(np.sum(p.X_test**2, axis=1) / p.D - np.sum(inside**2, axis=1), 0.0))


def _gate_axes(vectors, layout: Layout, l: int):
    return vectors["gates"][l * layout.inputs : (l + 1) * layout.inputs]


def _probe(p: Problem, rule: Dynamics, layout: Layout, vectors, put) -> Probe:
    """Test points: coordinates on the span of the training inputs, and the norm of what lies beyond it.

    All test points share one innovation a layer: only their joint law with the training history matters, not that among themselves.
    """
    inside, beyond = map(put, outside(p))
    gate = lambda l: inside @ _gate_axes(vectors, layout, l) + beyond[:, None] * vectors["test_gates"][l]
    return Probe(
        inputs=(inside, beyond, vectors["test"][0]),
        noise=(*((vectors["test"][l],) for l in range(1, rule.depth)), ()),
        gates=tuple(gate(l) for l in range(rule.depth)) if rule.gated else (),
    )
