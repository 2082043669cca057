"""Gated linear networks at infinite width: only the gates are drawn or enumerated, everything Gaussian is integrated exactly.

Given its gates f_μ = f(m_μ) a unit is linear: h and z are combinations of Gaussian vectors, of the initial weights' images. So a sample
does not carry values of its fields but their coefficients,

    h_μ(t) = Σ_k h_μk(t; f) x_k,    x_k independent standard normals,

and ⟨a b⟩ is an average over patterns of gates, Σ_i w_i Σ_k a_k(f_i) b_k(f_i). Nothing else changes in the causal pass (`random_matrix.py`): a
direction q that a matrix has not met yet gets as image a normal that is new, here a coordinate x_k, and the part that the other basis
fixes. Since a new coordinate is orthogonal to all fields before it, W and Wᵀ are adjoint without corrections:

    W(t) v = k c·x + (c (k A + D)) P,    A_ji = ⟨q_j x_i⟩,        W(t)ᵀ g = k d·x + (d (k B + D)ᵀ) Q,    B_ji = ⟨x_j p_i⟩

A_ji is the mean coefficient of q_j on coordinate i, the derivative that the theory's response is made of. Layer ℓ has one coordinate for each
direction that W^{ℓ−1} met going up and W^ℓ going down (K = r + q; input rank and readouts at the ends), so that a sample costs K times what
it costs with drawn values: O(S K P r) a step. What is left of the sampling error is that of the gates: none where they are enumerated.

Source: Fiat et al. 2019 (gated linear networks); Bordelon & Pehlevan 2023; THEORY section 4 (conditionally Gaussian), section 5 (the pass).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from .dynamics import Dynamics
from .gates import Gates
from .infinite import coordinates, outside
from .problem import Problem
from .progress import Progress

Field = Float[np.ndarray, "n K S"]


class Space:
    """Fields of one layer: coefficients on K coordinates for every pattern, times √w, so that ⟨a b⟩ is a plain sum of products."""

    def __init__(self, gates: Gates) -> None:
        self.root = np.sqrt(gates.weights)
        self.S, self.K = len(self.root), 0

    def new(self, count: int) -> np.ndarray:
        """Numbers of so many new coordinates."""
        self.K += count
        return np.arange(self.K - count, self.K)

    def units(self, count: int) -> Field:
        """So many new coordinates as fields: x_k, whatever the gates."""
        at = self.new(count)
        found = np.zeros((count, self.K, self.S))
        found[np.arange(count), at] = self.root
        return found

    def mean(self, fields: Field, at: np.ndarray) -> Float[np.ndarray, "n k"]:
        """⟨field x_k⟩ for these coordinates: the mean coefficient."""
        return fields[:, at] @ self.root

    def widened(self, fields: Field) -> Field:
        """The same fields with room for all coordinates."""
        missing = self.K - fields.shape[1]
        return fields if not missing else np.concatenate([fields, np.zeros((len(fields), missing, self.S))], axis=1)


class Span:
    """Orthonormal fields of a space; both it and they grow."""

    def __init__(self, space: Space, tol: float) -> None:
        self.space, self.tol, self.size, self.dropped = space, tol, 0, 0.0
        self._rows = np.zeros((0, 0))

    @property
    def rows(self) -> Float[np.ndarray, "r KS"]:
        """The basis on all coordinates."""
        self._make_room(self.size)
        return self._rows[: self.size, : self.space.K * self.space.S]

    def _make_room(self, size: int) -> None:
        rows, columns, width = *self._rows.shape, self.space.K * self.space.S
        if size > rows or width > columns:
            enough = lambda now, wanted: now if wanted <= now else max(wanted, now * 3 // 2)
            larger = np.zeros((enough(rows, size), enough(columns, width)))
            larger[: self.size, :columns] = self._rows[: self.size]
            self._rows = larger

    def extend(self, fields: Field) -> tuple[Float[np.ndarray, "n r"], Field]:
        """Coefficients of fields after taking in what is new in them, and the new directions; see `basis.Basis.extend`."""
        v, rows = fields.reshape(len(fields), -1), self.rows
        c = v @ rows.T
        energy = np.sum(v * v, axis=1)
        scale = max(float(np.max(energy)), np.finfo(float).tiny)
        q = self._directions(v - c @ rows, scale)
        if len(q):
            self._make_room(self.size + len(q))
            self._rows[self.size : self.size + len(q), : q.shape[1]] = q
            self.size += len(q)
            c = np.concatenate([c, v @ q.T], axis=1)
        return c, q.reshape(len(q), self.space.K, self.space.S)

    def _directions(self, residual: np.ndarray, scale: float) -> np.ndarray:
        gram = residual @ residual.T
        if not np.all(np.isfinite(gram)):  # training diverges, and the outputs will tell
            return residual[:0]
        energy, axes = np.linalg.eigh(gram)
        keep = energy > self.tol * scale
        self.dropped = max(self.dropped, float(np.max(energy[~keep], initial=0.0)) / scale)
        q = (axes[:, keep] / np.sqrt(energy[keep])).T @ residual
        # small residuals are what is left of a cancellation: project again
        q = q - (q @ self.rows.T) @ self.rows
        return np.linalg.inv(np.linalg.cholesky(q @ q.T)) @ q

    def gram_error(self) -> float:
        """max |⟨Q Qᵀ⟩ − 1|."""
        return float(np.max(np.abs(self.rows @ self.rows.T - np.eye(self.size)), initial=0.0))


@dataclass
class Trained:
    """An array that training moves by θ ← θ + v, v ← β v + u − ηλ θ; it grows with what it is made of."""

    value: np.ndarray
    velocity: Any = 0.0

    def move(self, update: np.ndarray, p: Problem) -> None:
        """One step."""
        value, step = padded(self.value, update.shape), update
        if p.weight_decay:
            step = step - p.eta * p.weight_decay * value
        if p.momentum:
            self.velocity = step = p.momentum * padded(self.velocity, update.shape) + step
        self.value = value + step


def padded(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros up to a shape."""
    array = np.asarray(array)
    if array.shape == shape:
        return array
    if array.ndim == 0:
        return np.full(shape, array)
    return np.pad(array, [(0, wanted - now) for now, wanted in zip(array.shape, shape, strict=True)])


class Matrix:
    """A hidden matrix on the bases Q of features below and P of gradients above; `up` and `down` are the coordinates of their images."""

    def __init__(self, below: Space, above: Space, tol: float, responses: bool) -> None:
        self.Q, self.P, self.responses = Span(below, tol), Span(above, tol), responses
        self.up, self.down = np.zeros(0, int), np.zeros(0, int)
        self.A, self.B = np.zeros((0, 0)), np.zeros((0, 0))
        self.D, self.k = Trained(np.zeros((0, 0))), Trained(np.ones(()))

    def _fit(self) -> None:
        shape = (self.Q.size, self.P.size)
        self.A, self.B, self.D.value = (padded(array, shape) for array in (self.A, self.B, self.D.value))

    def forward(self, a: Field) -> Field:
        """W(t) a."""
        self.a, q = self.Q.extend(a)
        self._fit()
        if len(q):
            if self.responses:
                self.A[-len(q) :] = self.Q.space.mean(q, self.down)
            self.up = np.concatenate([self.up, self.P.space.new(len(q))])
        return self._image(self.a, self.a @ (self.k.value * self.A + self.D.value), self.P, self.up)

    def transpose(self, g: Field) -> Field:
        """W(t)ᵀ g."""
        self.d, p = self.P.extend(g)
        self._fit()
        if len(p):
            if self.responses:
                self.B[:, -len(p) :] = self.P.space.mean(p, self.up).T
            self.down = np.concatenate([self.down, self.Q.space.new(len(p))])
        return self._image(self.d, self.d @ (self.k.value * self.B + self.D.value).T, self.Q, self.down)

    def _image(self, c: np.ndarray, along: np.ndarray, span: Span, at: np.ndarray) -> Field:
        space = span.space
        found = (along @ span.rows).reshape(len(c), space.K, space.S)
        found[:, at] += self.k.value * c[:, :, None] * space.root
        return found

    def probe(self, a: Field) -> Field:
        """W(t) a for fields that leave no trace; what is beyond the basis has an image that no other field meets, but its response counts."""
        c = self.Q.space.widened(a).reshape(len(a), -1) @ self.Q.rows.T
        along = c @ self.D.value
        if self.responses:
            along = along + self.k.value * self.Q.space.mean(a, self.down)
        return self._image(c, along, self.P, self.up)

    def learn(self, rates: Float[np.ndarray, "P C"], p: Problem) -> None:
        """W += Σ_ν rates_ν g_ν a_νᵀ/N."""
        own = np.einsum("pc,pcq->pq", rates, self.d.reshape(*rates.shape, -1))
        self.D.move(self.a.T @ own, p)
        self.k.move(np.zeros(()), p)


@dataclass
class History:
    """What is recorded, time first."""

    f: list[np.ndarray] = field(default_factory=list)
    f_test: list[np.ndarray] = field(default_factory=list)
    a: list[list[np.ndarray]] = field(default_factory=list)
    g: list[list[np.ndarray]] = field(default_factory=list)


class Network:
    """A gated network between two updates."""

    def __init__(self, p: Problem, rule: Dynamics, values: dict[str, float], gates: list[Gates], tol: float, responses: bool, two_time: bool) -> None:
        self.p, self.gates, self.depth = p, gates, rule.depth
        self.sigma_w, self.sigma_b = (float(scale) for scale in rule.module.scales(**values))
        self.spaces = [Space(each) for each in gates]
        self.C = _never_empty(coordinates(p)[0])
        self.C_test = None if p.X_test is None else _never_empty(outside(p)[0])
        self.images = Trained(self.spaces[0].units(self.C.shape[1]))
        self.w = Trained(self.spaces[-1].units(p.outputs))
        self.biases = [Trained(space.units(1)) for space in self.spaces] if rule.biased else []
        self.readout_bias = Trained(np.zeros(p.outputs))
        self.hidden = [Matrix(below, above, tol, responses) for below, above in zip(self.spaces, self.spaces[1:], strict=False)]
        self.top, self.bottom = (Span(self.spaces[l], tol) if two_time else None for l in (-1, 0))
        self.f0: np.ndarray | None = None
        self.history = History()

    def step(self, t: int) -> None:
        """Forward, output, backward, learn."""
        p = self.p
        a = self._forward()
        raw = self.sigma_w / p.gamma0 * self._against_readout(a[-1])
        self.f0 = raw if self.f0 is None else self.f0
        f = (raw - self.f0 + self.readout_bias.value).reshape(p.y.shape)
        self.history.f.append(f)
        if p.X_test is not None:
            self.history.f_test.append((self._probe() + self.readout_bias.value).reshape(-1, *p.y.shape[1:]))
        g = self._backward()
        self._record(a, g)
        self._learn(t, np.asarray(p.objective.error(f, p.y), float).reshape(p.P, -1), a, g)

    def _forward(self) -> list[Field]:
        """a^ℓ = f(m^ℓ) h^ℓ, h^{ℓ+1} = σ_w W^ℓ a^ℓ + σ_b b^ℓ."""
        image, found = self._from_inputs(self.C), []
        for l, gates in enumerate(self.gates):
            found.append(gates.slopes[:, None] * self._with_bias(image, l))
            if l < self.depth - 1:
                image = self.hidden[l].forward(found[-1])
        return found

    def _from_inputs(self, C: Float[np.ndarray, "n r0"]) -> Field:
        images = self.spaces[0].widened(self.images.value)
        return (C @ images.reshape(len(images), -1)).reshape(len(C), *images.shape[1:])

    def _with_bias(self, image: Field, l: int) -> Field:
        h = self.sigma_w * image if self.sigma_w != 1 else image
        return h + self.sigma_b * self.spaces[l].widened(self.biases[l].value) if self.biases else h

    def _against_readout(self, a: Field) -> Float[np.ndarray, "n C"]:
        """⟨w a⟩."""
        w = self.spaces[-1].widened(self.w.value)
        return a.reshape(len(a), -1) @ w.reshape(len(w), -1).T

    def _probe(self) -> Float[np.ndarray, "K C"]:
        """Outputs at the test points, not centred."""
        assert self.C_test is not None
        image = self._from_inputs(self.C_test)
        for l, gates in enumerate(self.gates):
            assert gates.test is not None
            a = gates.test[:, None] * self._with_bias(image, l)
            if l < self.depth - 1:
                image = self.hidden[l].probe(a)
        return self.sigma_w / self.p.gamma0 * self._against_readout(a)

    def _backward(self) -> list[Field]:
        """z^ℓ = σ_w W^ℓ(t)ᵀ g^{ℓ+1}, g^ℓ = f(m^ℓ) z^ℓ; rows are (μ, c)."""
        C = self.p.outputs
        w = self.sigma_w * self.spaces[-1].widened(self.w.value)
        z = np.broadcast_to(w, (self.p.P, *w.shape)).reshape(-1, *w.shape[1:])
        found: list[Any] = [None] * self.depth
        for l in reversed(range(self.depth)):
            found[l] = np.repeat(self.gates[l].slopes, C, axis=0)[:, None] * z
            if l > 0:
                z = self.hidden[l - 1].transpose(found[l])
                z = self.sigma_w * z if self.sigma_w != 1 else z
        return found

    def _learn(self, t: int, Delta: Float[np.ndarray, "P C"], a: list[Field], g: list[Field]) -> None:
        """θ += c0 Σ_μ ω_μ Δ_μ ∂…, c0 = ηγ0/P."""
        p = self.p
        driven = Delta if p.shares is None else p.shares[t % len(p.shares)][:, None] * Delta
        rates = p.eta * p.gamma0 / p.P * driven
        per_example = lambda fields: np.einsum("pc,pcks->pks", rates, fields.reshape(p.P, p.outputs, *fields.shape[1:]))
        below = per_example(g[0])
        self.images.move(self.sigma_w * (self.C.T @ below.reshape(p.P, -1)).reshape(-1, *below.shape[1:]), p)
        for matrix in self.hidden:
            matrix.learn(self.sigma_w * rates, p)
        last = self.spaces[-1].widened(a[-1])
        self.w.move(self.sigma_w * (rates.T @ last.reshape(p.P, -1)).reshape(-1, *last.shape[1:]), p)
        for bias, fields in zip(self.biases, g, strict=False):
            bias.move(self.sigma_b * per_example(fields).sum(axis=0, keepdims=True), p)
        # f moves by σ_b times the readout bias over γ0, hence the missing γ0
        self.readout_bias.move(p.eta / p.P * self.sigma_b**2 * driven.sum(axis=0), p)

    def _record(self, a: list[Field], g: list[Field]) -> None:
        """Coefficients of features and gradients on their bases, or second moments at equal times where these have none."""
        top, bottom = a[-1], g[0]
        kept = lambda span, fields: moments(fields) if span is None else span.extend(span.space.widened(fields))[0]
        self.history.a.append([*(matrix.a for matrix in self.hidden), kept(self.top, top)])
        self.history.g.append([kept(self.bottom, bottom), *(matrix.d for matrix in self.hidden)])

    @property
    def spans(self) -> dict[str, list[Span]]:
        """All bases."""
        ends = lambda span: [] if span is None else [span]
        return {
            "forward": [*(matrix.Q for matrix in self.hidden), *ends(self.top)],
            "backward": [*ends(self.bottom), *(matrix.P for matrix in self.hidden)],
        }


def _never_empty(C: Float[np.ndarray, "n r0"]) -> Float[np.ndarray, "n r"]:
    """Coordinates of inputs; where all are zero, on one direction along which none lies."""
    return C if C.shape[1] else np.zeros((len(C), 1))


def moments(fields: Field) -> Float[np.ndarray, "n n"]:
    """⟨a aᵀ⟩."""
    rows = fields.reshape(len(fields), -1)
    return rows @ rows.T


@np.errstate(over="ignore", invalid="ignore")  # of a run that diverges the outputs tell
def run(
    p: Problem, rule: Dynamics, values: dict[str, float], gates: list[Gates], tol: float, responses: bool, two_time: bool, bar: Progress
) -> dict[str, Any]:
    """One causal pass over all times.

    Args:
        p, rule, values: what to solve; `rule.linear_given_gates`.
        gates: of layers 1…L.
        tol: energy, relative to a field's, below which a new direction is not followed.
        responses: False drops the responses A and B.
        two_time: whether kernels of φ(h^L) and g¹ between different times are kept.
        bar: shown progress.

    Returns:
        As `causal.run`.
    """
    network = Network(p, rule, values, gates, tol, responses, two_time)
    for t in range(p.steps):
        network.step(t)
        bar.advance(1)
    return finished(network, two_time)


def finished(network: Network, two_time: bool) -> dict[str, Any]:
    """Records and diagnostics, in the form in which `dmft.solution_of` takes them."""
    past, spans = network.history, network.spans
    found: dict[str, Any] = {"f": np.array(past.f)}
    if past.f_test:
        found["f_test"] = np.array(past.f_test)
    ends = {"a": -1, "g": 0}
    for name, end in ends.items():
        layers = list(zip(*getattr(past, name), strict=True))
        if not two_time:
            equal = np.array(layers.pop(end))
            found.setdefault("equal", {})["Phi" if name == "a" else "G"] = equal
        found[name] = tuple(np.array([padded(c, (len(c), layer[-1].shape[1])) for c in layer]) for layer in layers)
    every = [span for group in spans.values() for span in group]
    return {
        "history": found, "ranks": {name: [span.size for span in group] for name, group in spans.items()},
        "dropped": max((span.dropped for span in every), default=0.0), "gram_error": max((span.gram_error() for span in every), default=0.0),
        "capacity": max(space.K for space in network.spaces),
    }  # fmt: skip
