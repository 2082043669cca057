"""One training step, the same for every rule, at infinite and at finite width.

The rule enters through generated functions (`Dynamics`), the width through the matrices (`protocol.WeightMatrix`). Fields of one layer are
(P, N) arrays, N being the width or the number S of single-site samples. With C > 1 outputs, fields that come back have a row for each
example and output, (P C, N), the outputs of an example following each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .dynamics import Dynamics
from .objective import Objective
from .problem import Problem
from .protocol import Carried, Plasticity


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A network between two updates.

    Attributes:
        matrices: L + 1 weight matrices, the input's first, the readout's last.
        biases: b^1…b^L, or empty.
        readout_bias: one for each output: what training added to the readout's bias, as it enters f.
        direct: ξ^1…ξ^L of direct feedback, None for layers without.
        gates: m^1…m^L, or empty.
        f0: the output at initialisation, set by the first step; of samples whose weights decay, what is left of it.
        t: time.
        velocity: what momentum carries over, in the shape of `trained`; None without momentum.
        untrained: what of the network at t = 0 tells what decay has left of f0; None where that stays what it was then.
    """

    matrices: tuple[Any, ...]
    biases: tuple[Float[Array, "1 N"], ...]
    readout_bias: Float[Array, "*C"]
    direct: tuple[Float[Array, "C N"] | None, ...]
    gates: tuple[Float[Array, "P N"], ...]
    f0: Float[Array, "P *C"]
    t: Int[Array, ""]
    velocity: Any = None
    untrained: Untrained | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scales:
    """What of a problem and a rule enters a step.

    Attributes:
        y: targets.
        gamma0, eta: of the problem.
        parameters: of rule and network, by name.
        objective: the loss.
        momentum, weight_decay: of the problem; None where they are zero.
        shares: ω of every batch, None for full batches.
    """

    y: Float[Array, "P *C"]
    gamma0: Float[Array, ""]
    eta: Float[Array, ""]
    parameters: dict[str, Float[Array, ""]]
    objective: Objective = field(metadata={"static": True})
    momentum: Float[Array, ""] | None
    weight_decay: Float[Array, ""] | None
    shares: Float[Array, "n P"] | None

    @staticmethod
    def of(p: Problem, values: Mapping[str, float], kind: Any) -> Scales:
        """The scales of a problem and of a rule's parameters, as floating-point numbers of one kind."""
        put: Any = lambda value: np.asarray(value, kind)  # compiled code takes either kind of array
        maybe = lambda value: put(value) if value else None
        return Scales(
            put(p.y), put(p.gamma0), put(p.eta), {name: put(value) for name, value in values.items()}, p.objective, maybe(p.momentum),
            maybe(p.weight_decay), None if p.shares is None else put(p.shares),
        )  # fmt: skip

    def in_batch(self, values: Float[Array, "P *N"], t: Int[Array, ""], power: float = 1.0) -> Float[Array, "P *N"]:
        """ω_μ(t) values_μ: what counts at step t; ω to some power where values enter several times."""
        if self.shares is None:
            return values
        share = self.shares[t % len(self.shares)] ** power
        return share.reshape(-1, *(1,) * (values.ndim - 1)) * values


class Fields(NamedTuple):
    """Everything at one time, before the update: layers 1…L are entries 0…L−1.

    Attributes:
        h, a: preactivations and what the next layer receives.
        z: back-propagated fields, g = slope · z.
        g, g_tilde: gradient and pseudo-gradient fields.
        f, Delta: centred outputs and errors.
        f_test: outputs at the probed inputs, not centred; None without any.
    """

    h: tuple[Float[Array, "P N"], ...]
    a: tuple[Float[Array, "P N"], ...]
    z: tuple[Float[Array, "#PC N"], ...]
    g: tuple[Float[Array, "PC N"], ...]
    g_tilde: tuple[Float[Array, "PC N"], ...]
    f: Float[Array, "P *C"]
    Delta: Float[Array, "P *C"]
    f_test: Float[Array, "K *C"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Probe:
    """Test points: they see the network and leave no trace in it.

    Attributes:
        inputs: what the first matrix's `probe` takes.
        noise: for each hidden matrix what its `probe`, or `probe_twice`, takes besides the features.
        gates: m^1…m^L at the test points, or empty.
        untrained: what of the network at t = 0 tells its output at the test points; None where that stays what it was then.
    """

    inputs: tuple[Any, ...]
    noise: tuple[tuple[Any, ...], ...]
    gates: tuple[Float[Array, "K N"], ...]
    untrained: Untrained | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Untrained:
    """The network at t = 0, as far as matrices do not keep it: images of the inputs, and biases b^1…b^L, or none.

    Attributes:
        noise: for training inputs, for each hidden matrix what its `probe_untrained` takes besides the features.
    """

    images: Float[Array, "K N"]
    biases: tuple[Float[Array, "1 N"], ...]
    noise: tuple[tuple[Any, ...], ...] = ()


def step(state: State, rule: Dynamics, scales: Scales, probe: Probe | None = None) -> tuple[State, Fields]:
    """Forward, backward, learn.

    Args:
        state: the network at time t.
        rule: the learning rule on the network.
        scales: numbers of problem and rule.
        probe: test points to evaluate at time t.

    Returns:
        The network at time t + 1 and the fields at time t.

    Source: THEORY sections 1 and 2.
    """
    state, h, a = forward(state, rule, scales)
    state, f, Delta = output(state, a, rule, scales)
    f_test = None if probe is None else predict(state, probe, rule, scales)
    state, z, g, g_tilde = backward(state, h, a, Delta.reshape(-1), rule, scales)
    top = scales.gamma0 * (f - state.readout_bias + state.f0)  # σ_w w·a^L/N
    return learn(state, h, a, g_tilde, top, Delta, rule, scales), Fields(h, a, z, g, g_tilde, f, Delta, f_test)


def prepared(state: State, rule: Dynamics, scales: Scales) -> State:
    """The network at initialisation with what else rule and training need: feedback weights that learn, scales that decay, momentum at rest."""
    first, *others = state.matrices
    if rule.evolves:
        path = rule.module.path(**scales.parameters)
        others = [matrix.with_feedback(initial, own) for matrix, (_, initial, own, _) in zip(others, path, strict=True)]
    matrices = (first, *others)
    if scales.weight_decay is not None:
        matrices = tuple(matrix.decaying() for matrix in matrices)
    state = replace(state, matrices=matrices)
    return state if scales.momentum is None else replace(state, velocity=jax.tree.map(jnp.zeros_like, trained(state)))


def forward(state: State, rule: Dynamics, scales: Scales):
    """h^{ℓ+1} = σ_w W^ℓ a^ℓ + σ_b b^ℓ, a = forward(h, m)."""
    sigma_w, sigma_b = rule.module.scales(**scales.parameters)
    matrices, hs, outs = list(state.matrices), [], []
    a = None
    for l in range(rule.depth):
        matrices[l], image = matrices[l].forward(a)
        h = sigma_w * image + (sigma_b * state.biases[l] if rule.biased else 0.0)
        a = rule.module.forward(h, gate(state, l), **scales.parameters)
        hs.append(h)
        outs.append(a)
    return replace(state, matrices=tuple(matrices)), tuple(hs), tuple(outs)


def gate(state: State, l: int) -> Float[Array, "P N"] | None:
    """m^{l+1}, None in a network without gates."""
    return state.gates[l] if state.gates else None


def output(state: State, a, rule: Dynamics, scales: Scales):
    """f = σ_w ⟨w a^L⟩/γ0 + bias, centred at t = 0, and Δ = −∂loss/∂f.

    What an untrained network says is zero in the limit, but not among S samples, and weight decay changes it: less all that is left of it, errors do
    not grow like 1/γ0.
    """
    sigma_w, _ = rule.module.scales(**scales.parameters)
    readout, value = state.matrices[-1].forward(a[-1])
    raw = sigma_w * value / scales.gamma0
    f0 = jnp.where(state.t == 0, raw, state.f0 if state.untrained is None else _left(state, state.untrained, rule, scales))
    f = raw - f0 + state.readout_bias
    return replace(state, matrices=(*state.matrices[:-1], readout), f0=f0), f, scales.objective.error(f, scales.y)


def _left(state: State, untrained: Untrained, rule: Dynamics, scales: Scales) -> Float[Array, "P *C"]:
    """What a network says that has been decaying and nothing else."""
    sigma_w, sigma_b = rule.module.scales(**scales.parameters)
    left = state.matrices[0].scale
    image = left * untrained.images
    for l in range(rule.depth):
        h = sigma_w * image + (sigma_b * left * untrained.biases[l] if rule.biased else 0.0)
        a = rule.module.forward(h, gate(state, l), **scales.parameters)
        image = state.matrices[l + 1].probe_untrained(a, *untrained.noise[l])
    return sigma_w * left * image / scales.gamma0


def predict(state: State, probe: Probe, rule: Dynamics, scales: Scales) -> Float[Array, "K"]:
    """The output at the test points, up to a constant. Uses the images that the last `forward` left.

    At infinite width test points are realised anew whenever the bases have grown, and so is what an untrained network says there, ⟨w φ⟩/γ0: zero in
    the limit, but not among S samples. Less that, which goes along with the trained network's, errors do not grow like 1/γ0.
    """
    sigma_w, sigma_b = rule.module.scales(**scales.parameters)
    untrained = probe.untrained
    left = 1.0 if untrained is None or scales.weight_decay is None else state.matrices[0].scale

    def seen(image, biases, l: int):
        h = sigma_w * image + (sigma_b * biases[l] if rule.biased else 0.0)
        return rule.module.forward(h, probe.gates[l] if probe.gates else None, **scales.parameters)

    image, start = state.matrices[0].probe(*probe.inputs), 0.0 if untrained is None else left * untrained.images
    for l in range(rule.depth):
        matrix, a = state.matrices[l + 1], seen(image, state.biases, l)
        if untrained is None:
            image = matrix.probe(a, *probe.noise[l])
        else:
            image, start = matrix.probe_twice(a, seen(start, tuple(left * bias for bias in untrained.biases), l), *probe.noise[l])
    return sigma_w * (image - left * start) / scales.gamma0 + state.readout_bias


def backward(state: State, h, a, Delta: Float[Array, "PC"], rule: Dynamics, scales: Scales):
    """z^ℓ = σ_w W^ℓ(t)ᵀ g^{ℓ+1}, g^ℓ = slope · z^ℓ and g̃^ℓ from the rule's own feedback path, ℓ = L…1."""
    sigma_w, _ = rule.module.scales(**scales.parameters)
    coefficients = rule.module.path(**scales.parameters)
    matrices, depth = list(state.matrices), rule.depth
    z: list[Any] = [None] * depth
    g: list[Any] = [None] * (depth + 1)
    g_tilde: list[Any] = [None] * (depth + 1)
    rows = Delta.shape[0]
    for l in reversed(range(depth)):
        here, gates = _for_outputs(h[l], rows), _for_outputs(gate(state, l), rows)
        outer = above = None
        if l < depth - 1:
            matrices[l + 1], omega = mirrored(state, matrices[l + 1], a[l], l + 1, rule, scales)
            outer = outer_fields(rule, h[l + 1], g_tilde[l + 1], Delta[:, None], omega, scales, state.t)
            above = reconstructed(rule, h[l + 1], scales, state.t)
        matrices[l + 1], carried = matrices[l + 1].transpose(g[l + 1], g_tilde[l + 1], outer, above)
        if l == depth - 1:
            carried = _readout_fields(carried, rows)
        slope = rule.module.slope(here, gates, **scales.parameters)
        z[l] = sigma_w * carried.true
        g[l] = slope * z[l]
        g_tilde[l] = g[l]
        if not rule.gradient:
            fed_back = _feedback_field(rule, l, coefficients[l], sigma_w, carried, _for_examples(state.direct[l], rows), here)
            own = rule.module.pseudo_gradient(here, fed_back, gates, Delta[:, None], **scales.parameters)
            g_tilde[l] = jnp.broadcast_to(own, here.shape)
    matrices[0], _ = matrices[0].transpose(g[0], g_tilde[0])
    return replace(state, matrices=tuple(matrices)), tuple(z), tuple(g[:-1]), tuple(g_tilde[:-1])


def _for_outputs(field: Any, rows: int) -> Any:
    """A field of examples, repeated for the outputs of each."""
    return field if field is None or len(field) == rows else jnp.repeat(field, rows // len(field), axis=0)


def _readout_fields(carried: Carried, rows: int) -> Carried:
    """The readout's vectors as fields of all examples."""
    true, *others = (_for_examples(vector, rows) for vector in carried)
    assert true is not None
    return Carried(true, *others)


def _for_examples(vectors: Float[Array, "C N"] | None, rows: int) -> Float[Array, "PC N"] | None:
    """The vectors of the outputs, repeated for every example; a single one is broadcast where it is used."""
    return vectors if vectors is None or len(vectors) == 1 else jnp.tile(vectors, (rows // len(vectors), 1))


def _feedback_field(rule: Dynamics, l: int, coefficients, sigma_w, carried, direct, like):
    """z̃ = σ_w (transported Wᵀ(t) + initial Wᵀ(0) + independent Vᵀ) g̃ + direct ξ, with the terms that the rule has.

    With feedback weights that learn, B(t) stands for initial Wᵀ(0) + independent Vᵀ.
    """
    transported, initial, independent, straight = coefficients
    z = jnp.zeros_like(like)
    if rule.uses(l + 1, "direct"):
        z = z + straight * direct
    if rule.uses(l + 1, "transported"):
        z = z + transported * sigma_w * carried.transported
    if rule.evolves:
        return z + sigma_w * carried.evolved
    if rule.uses(l + 1, "initial"):
        z = z + initial * sigma_w * carried.initial
    if rule.uses(l + 1, "independent"):
        z = z + independent * sigma_w * carried.independent
    return z


def mirrored(state: State, matrix, a, l: int, rule: Dynamics, scales: Scales):
    """The matrix, and ω^{l+1} = σ_w Bᵀ a^l + σ_b b^l, what its feedback weights make of the features below; None where nothing learns from it."""
    if not rule.mirrors:
        return matrix, None
    sigma_w, sigma_b = rule.module.scales(**scales.parameters)
    matrix, image = matrix.mirror(a)
    return matrix, sigma_w * image + (sigma_b * state.biases[l] if rule.biased and l < rule.depth else 0.0)


def outer_fields(rule: Dynamics, h, g_tilde, Delta, omega, scales: Scales, t: Int[Array, ""]):
    """v of the layer above, by its share in the batch, whose outer products with its inputs the feedback weights learn; None where there are none."""
    if not rule.learns_outer_products:
        return None
    fields = (h, g_tilde, Delta) if omega is None else (h, g_tilde, Delta, omega)
    return scales.in_batch(jnp.broadcast_to(rule.module.outer(*fields, **scales.parameters), h.shape), t)


def reconstructed(rule: Dynamics, h, scales: Scales, t: Int[Array, ""]):
    """The fields above whose reconstructions the feedback weights unlearn, which enter twice; None where they do not."""
    return scales.in_batch(h, t, power=0.5) if rule.reconstructs else None


def _evolve(state: State, after, h, a, g_tilde, top, Delta: Float[Array, "P"], rule: Dynamics, scales: Scales):
    """The feedback weights' step; at the readout h^{L+1} is `top` = σ_w w·a^L/N and g̃^{L+1} = 1."""
    rates = Plasticity(*rule.module.evolution(**scales.parameters))
    found = [after[0].evolve(state.matrices[0], rates, None, None)]
    for l in range(1, rule.depth + 1):
        last = l == rule.depth
        error = Delta if last else Delta[:, None]
        above, field = (top, jnp.ones_like(top)) if last else (h[l], g_tilde[l])
        before, omega = mirrored(state, state.matrices[l], a[l - 1], l, rule, scales)
        outer = outer_fields(rule, above, field, error, omega, scales, state.t)
        found.append(after[l].evolve(before, rates, outer, a[l - 1], reconstructed(rule, above, scales, state.t)))
    return tuple(found)


def learn(state: State, h, a, g_tilde, top, Delta: Float[Array, "P"], rule: Dynamics, scales: Scales) -> State:
    """θ ← θ + v, v ← β v + u − ηλ θ for every trained θ, u being the rule's update; then the feedback weights' own step."""
    update = lambda where: _updated(where, a, g_tilde, Delta, rule, scales)
    before = state
    if scales.momentum is None and scales.weight_decay is None:
        state = update(state)
    else:
        theta = trained(state)
        start = _carried_over(state.velocity, theta, scales)
        # an update adds to what it is given: here to β v − ηλ θ
        velocity = trained(update(_with_trained(state, start)))
        state = _with_trained(state, jax.tree.map(jnp.add, theta, velocity))
        state = state if scales.momentum is None else replace(state, velocity=velocity)
    if rule.evolves:
        state = replace(state, matrices=_evolve(before, state.matrices, h, a, g_tilde, top, Delta, rule, scales))
    return replace(state, t=state.t + 1)


def _carried_over(velocity, theta, scales: Scales):
    """β v − ηλ θ."""
    momentum, decay = scales.momentum, scales.weight_decay
    kept = jax.tree.map(jnp.zeros_like, theta) if momentum is None else jax.tree.map(lambda v: momentum * v, velocity)
    return kept if decay is None else jax.tree.map(lambda v, value: v - scales.eta * decay * value, kept, theta)


def _updated(state: State, a, g_tilde, Delta: Float[Array, "P"], rule: Dynamics, scales: Scales) -> State:
    """W^ℓ += c0 σ_w Σ_μ ω_μ Δ_μ g̃^{ℓ+1}_μ a^{ℓ}_μᵀ, b^ℓ += c0 σ_b Σ_μ ω_μ Δ_μ g̃^{ℓ+1}_μ, c0 = ηγ0/P."""
    sigma_w, sigma_b = rule.module.scales(**scales.parameters)
    driven = scales.in_batch(Delta, state.t)
    rates = (scales.eta * scales.gamma0 / scales.y.shape[0] * driven).reshape(-1)
    matrices = tuple(
        matrix.learn(sigma_w * rates, fields, v)
        for matrix, fields, v in zip(state.matrices, (*g_tilde, None), (None, *a), strict=True)
    )
    biases = tuple(bias + sigma_b * (rates @ fields)[None] for bias, fields in zip(state.biases, g_tilde, strict=False))
    # f moves by σ_b times the readout bias over γ0, hence the missing γ0
    readout_bias = state.readout_bias + scales.eta / scales.y.shape[0] * sigma_b**2 * jnp.sum(driven, axis=0)
    return replace(state, matrices=matrices, biases=biases, readout_bias=readout_bias)


def trained(state: State) -> Any:
    """Everything that training changes, as arrays on which it is linear."""
    return tuple(matrix.trained for matrix in state.matrices), state.biases, state.readout_bias


def _with_trained(state: State, values: Any) -> State:
    matrices, biases, readout_bias = values
    changed = tuple(matrix.with_trained(value) for matrix, value in zip(state.matrices, matrices, strict=True))
    return replace(state, matrices=changed, biases=biases, readout_bias=readout_bias)
