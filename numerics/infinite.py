"""A network of infinite width at initialisation, and more room for it later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .basis import Basis, room_for
from .dynamics import Dynamics
from .ends import BackwardSpan, LazyInput, LazyReadout
from .mirror import Mirror
from .problem import Problem
from .random_matrix import LazyMatrix
from .rows import Rows, pad, wide
from .sampling import BLOCK, Innovations
from .training import Probe, State, Untrained

# Dimensions of test points: the last of the first block, for the best are better spent on training, and other blocks are independent of it.
RESERVED = (BLOCK - 2, BLOCK)


class Room(NamedTuple):
    """Capacities of the forward and of the backward bases."""

    forward: int
    backward: int


@dataclass(frozen=True)
class Layout:
    """Which dimension of the innovations drives what, fixed by problem and rule alone.

    Every layer's sites are a population of their own, with a sequence of their own, so that each starts with the best dimensions. First come
    its single vectors (readout, inputs, gates, feedback, biases), then the images of the hidden matrices' directions, interleaved in the
    order of their creation. The last dimensions of the first block belong to test points, whether or not there are any, so that these change
    nothing else.

    Attributes:
        depth: L.
        outputs: C, each with a readout and feedback vectors of its own.
        inputs: rank r0 of the inputs.
        block: vectors that a backward basis meets in a step.
        forward_block, meetings: vectors that a forward basis meets at once, and how often in a step.
        gated: whether layers have gates.
        biased: whether they have biases.
        direct: for the layers 1…L, whether ξ^ℓ exists.
        fed_back: whether the readout has feedback weights of its own.
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
    meetings: int
    gated: bool
    biased: bool
    direct: tuple[bool, ...]
    fed_back: bool
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
        carried = tuple(rule.feeds_back(l, shrinks=bool(p.weight_decay)) for l in hidden)
        return Layout(
            depth=rule.depth, outputs=p.outputs, inputs=coordinates(p)[0].shape[1], block=p.P * p.outputs * fields,
            forward_block=p.P, meetings=2 if rule.reconstructs else 1, gated=rule.gated, biased=rule.biased,
            direct=tuple(rule.uses(l, "direct") for l in range(1, rule.depth + 1)), fed_back=rule.uses(rule.depth, "independent"),
            independent=independent, feeds_back=tuple(map(bool, carried)), wants=tuple(("true", *(() if rule.gradient else each)) for each in carried),
            responses=responses, mirrors=tuple(rule.mirrors and each for each in independent), adjoint=adjoint, spans=spans,
        )  # fmt: skip

    @property
    def free(self) -> Room:
        """Rows that must be free before a step."""
        return Room(self.meetings * room_for(self.forward_block), room_for(self.block))

    def vectors(self, l: int) -> dict[str, int]:
        """Numbers of dimensions of the single vectors of layer l in 1…L, in order."""
        top = self.outputs if l == self.depth else 0
        return {
            "readout": top, "inputs": self.inputs if l == 1 else 0, "gates": self.inputs * self.gated, "feedback": top * self.fed_back,
            "direct": self.outputs * self.direct[l - 1], "bias": int(self.biased),
        }  # fmt: skip

    def draw_vectors(self, innovations: Innovations, l: int) -> dict[str, np.ndarray]:
        """The single vectors of layer l, by name."""
        counts = self.vectors(l)
        ends = np.cumsum(list(counts.values()))
        rows = _trained(replace(innovations, population=l), 0, sum(counts.values()))
        return {name: rows[end - n : end] for (name, n), end in zip(counts.items(), ends, strict=True)}

    def draw_test(self, innovations: Innovations, l: int) -> np.ndarray:
        """What test points meet beyond the span of the history in layer l: the innovations of their preactivations and of their gates."""
        return replace(innovations, population=l).rows(*RESERVED)

    def draw_directions(self, innovations: Innovations, first: int, last: int) -> list[dict[str, np.ndarray]]:
        """Innovations of the directions first…last−1 for every hidden matrix: images of the features and, with V, of what comes to them
        from above ("forward", "upward"), on the sites of the layer above; images of gradient fields ("backward", "independent"), below."""
        found: list[dict[str, np.ndarray]] = [{} for _ in self.independent]
        for l in range(1, self.depth + 1):
            images = self._images(l)
            offset, each = sum(self.vectors(l).values()), len(images)
            rows = _trained(replace(innovations, population=l), offset + first * each, offset + last * each)
            for k, (matrix, name) in enumerate(images):
                found[matrix][name] = rows[k::each]
        return found

    def _images(self, l: int) -> list[tuple[int, str]]:
        """The (hidden matrix, image) whose values at the sites of layer l are drawn, for one direction."""
        below, above = l - 2, l - 1
        found = []
        if below >= 0:
            found += [(below, "forward")] + [(below, "upward")] * self.mirrors[below]
        if above < self.depth - 1:
            found += [(above, "backward")] + [(above, "independent")] * self.independent[above]
        return found


def _trained(innovations: Innovations, first: int, last: int) -> np.ndarray:
    """Dimensions first…last−1 of those that do not belong to test points."""
    start, stop = RESERVED
    gap = stop - start
    before = innovations.rows(min(first, start), min(last, start))
    return before if last <= start else np.concatenate([before, innovations.rows(max(first, start) + gap, max(last, start) + gap)])


def start(
    p: Problem, rule: Dynamics, innovations: Innovations, layout: Layout, room: Room, kind, tol: float, each: int | None = None
) -> tuple[State, Probe | None]:
    """The network before its first step, and its test points. Innovations for its directions are to be supplied: see `supply`.

    Args:
        p, rule: problem and rule.
        innovations: where normals come from.
        layout: which of them goes where.
        room: capacities of the bases.
        kind: floating-point type.
        tol: tolerance of the bases.
        each: rows of a segment of the bases; None for undivided ones.
    """
    # numpy arrays where JAX need not be called for each: compiled code takes either
    put: Any = lambda array: np.asarray(array, kind)
    layers = [{name: put(rows) for name, rows in layout.draw_vectors(innovations, l).items()} for l in range(1, rule.depth + 1)]
    bottom, top = layers[0], layers[-1]
    empty = _empty(p.P, rule, layout, room, innovations.samples, np.dtype(kind), each, tol)
    C = put(coordinates(p)[0])
    # h¹ itself moves by K^x: one product a step in place of two. Test points need the images on the span.
    own = p.X_test is None and 2 * C.shape[1] > p.P
    inputs, reading, images = (put(p.Kx), None, C @ bottom["inputs"]) if own else (put(C.T), C, bottom["inputs"])
    feedback = put(rule.readout_feedback(top["readout"], top["feedback"])) if layout.fed_back else None
    tolerance: Any = np.array(tol, wide())
    readout = LazyReadout(top["readout"], top["readout"] + 0, feedback, empty.features, empty.a, tolerance)
    state = State(
        matrices=(LazyInput(inputs, reading, images, empty.span), *empty.hidden, readout),
        biases=tuple(each["bias"] for each in layers) if rule.biased else (),
        readout_bias=put(np.zeros(p.y.shape[1:])),
        direct=tuple(each["direct"] if exists else None for each, exists in zip(layers, layout.direct, strict=True)),
        gates=tuple(C @ each["gates"] for each in layers) if rule.gated else (),
        f0=put(np.zeros(p.y.shape)),
        t=put(0).astype(np.int32),
    )
    if p.X_test is None and not p.weight_decay:
        return state, None
    noise = [layout.draw_test(innovations, l) for l in range(1, rule.depth + 1)]
    if p.weight_decay:
        # arrays of their own: the state is donated
        biases = tuple(each["bias"] + 0 for each in layers) if rule.biased else ()
        state = replace(state, untrained=Untrained(C @ bottom["inputs"], biases, (*((put(own) + 0,) for own, _ in noise[1:]), ())))
    return state, None if p.X_test is None else _probe(p, rule, layers, noise, lambda array: jnp.asarray(array, kind))


class _Empty(NamedTuple):
    """What starts without a direction: the hidden matrices, and, where the layout has them, the bases of φ(h^L) and g¹."""

    hidden: tuple[LazyMatrix, ...]
    span: BackwardSpan | None
    features: Basis | None
    a: Float[Array, "P r"] | None


# Compiled, for the sake of one call instead of one for each array.
@partial(jax.jit, static_argnums=range(7))
def _empty(P: int, rule: Dynamics, layout: Layout, room: Room, samples: int, kind: Any, each: int | None, tol) -> _Empty:
    rows = lambda capacity: Rows.zeros(capacity, samples, kind, each)
    features = lambda: Basis.empty(room.forward, samples, kind, layout.forward_block, each)
    a, g = (lambda: jnp.zeros((P, room.forward), wide())), (lambda: jnp.zeros((P * layout.outputs, room.backward), wide()))
    # the sum makes a buffer of its own: the state is donated
    tolerance = lambda: tol + jnp.zeros((), wide())
    span = lambda: BackwardSpan(Basis.empty(room.backward, samples, kind, layout.block, each), g(), g(), tolerance(), rule.gradient)
    hidden = tuple(_hidden(l, layout, rule, room, rows, features(), a(), span()) for l in range(rule.depth - 1))
    return _Empty(hidden, *((span(), features(), a()) if layout.spans else (None, None, None)))


def _hidden(l: int, layout: Layout, rule: Dynamics, room: Room, rows: Any, basis: Basis, a: Any, span: BackwardSpan) -> LazyMatrix:
    r, q = room
    small = lambda: jnp.zeros((r, q), wide())
    return LazyMatrix(
        basis=basis,
        Xi=rows(r),
        a=a,
        span=span,
        Upsilon=rows(q),
        V=rows(q) if layout.independent[l] else None,
        N=small(),
        M=small(),
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
        mirrored=Mirror.empty(rows(r), r, q, wide()) if layout.mirrors[l] else None,
    )


def supply(state: State, innovations: Innovations, layout: Layout, first: int, last: int) -> State:
    """The same network with innovations for the directions first…last−1 of every hidden matrix."""
    first_matrix, *hidden, readout = state.matrices
    drawn = layout.draw_directions(innovations, first, last)
    supplied = [matrix.supply(first, **rows) for matrix, rows in zip(hidden, drawn, strict=True)]
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


@lru_cache(maxsize=4)
def coordinates(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """C with C Cᵀ = K^x, and the map from inner products with the inputs to coordinates."""
    values, axes = np.linalg.eigh(p.Kx)
    # directions below round-off of the largest are not there
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(float).eps * 10
    values, axes = values[kept][::-1], axes[:, kept][:, ::-1]
    # signs must not depend on the order of examples
    axes = axes * np.where(np.take_along_axis(axes, np.argmax(np.abs(axes), axis=0)[None], axis=0) < 0, -1.0, 1.0)
    found = axes * np.sqrt(values), axes / np.sqrt(values)
    found[0][np.diag(p.Kx) == 0] = 0.0  # round-off has a sign, which activations that jump at 0 would see
    for array in found:
        array.setflags(write=False)
    return found


def outside(p: Problem) -> tuple[Float[np.ndarray, "K r0"], Float[np.ndarray, "K"]]:
    """Test inputs: coordinates on the span of the training inputs, and the norm of what lies beyond it."""
    assert p.X_test is not None
    inside = (p.X_test @ p.X.T / p.D) @ coordinates(p)[1]
    return inside, np.sqrt(np.maximum(np.sum(p.X_test**2, axis=1) / p.D - np.sum(inside**2, axis=1), 0.0))


def _probe(p: Problem, rule: Dynamics, layers: list[dict[str, Any]], noise: list[Any], put) -> Probe:
    """Test points: coordinates on the span of the training inputs, and the norm of what lies beyond it.

    All test points share one innovation a layer: only their joint law with the training history matters, not that among themselves.
    """
    (inside, beyond), noise = map(put, outside(p)), [put(rows) for rows in noise]
    seen = lambda images, own: inside @ images + beyond[:, None] * own
    biases = tuple(put(each["bias"]) for each in layers) if rule.biased else ()
    return Probe(
        inputs=(inside, beyond, noise[0][0]),
        noise=(*((own,) for own, _ in noise[1:]), ()),
        gates=tuple(seen(each["gates"], own) for each, (_, own) in zip(layers, noise, strict=True)) if rule.gated else (),
        # without a hidden matrix nothing is realised anew, and without decay the untrained network stays the same
        untrained=Untrained(seen(put(layers[0]["inputs"]), noise[0][0]), biases) if rule.depth > 1 or p.weight_decay else None,
    )
