"""Conserved quantities along the training of a network: what the theory of laws says, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .dmft import real_type
from .dynamics import Dynamics, dynamics, settle
from .errors import positive_integer, seed_number
from .finite import draw, initialise
from .jaxify import jaxify
from .problem import Problem
from .training import Scales, State, prepared, step

Letters = dict[str, jax.Array]


@dataclass(frozen=True, eq=False, repr=False)
class Tracked:
    """A law along a training run; entry t is the state before the t-th update, the last the state after the last one.

    Attributes:
        name: the law's.
        values: the quantity; a number, an entry for each neuron, or a matrix.
        increments: what each step adds to it according to the law's exact identity; None where there is none.

    Shapes:
        values (T + 1, …), increments (T, …).
    """

    name: str
    values: Float[np.ndarray, "T1 *shape"]
    increments: Float[np.ndarray, "T *shape"] | None

    @property
    def drift(self) -> Float[np.ndarray, "T1 *shape"]:
        """values − values[0]."""
        return self.values - self.values[0]

    @property
    def identity_error(self) -> float:
        """The largest deviation from value(t) = value(0) + Σ increments, relative to the largest value.

        Raises:
            ValueError: the law has no exact identity.
        """
        if self.increments is None:
            raise ValueError(f"{self.name} has no exact identity for finite steps: look at drift")
        predicted = self.values[0] + np.cumsum(self.increments, axis=0)
        return float(np.max(np.abs(self.values[1:] - predicted)) / np.max(np.abs(self.values)))

    def __repr__(self) -> str:
        size = float(np.max(np.abs(self.drift)))
        exact = "" if self.increments is None else f", exact identity to {self.identity_error:.1e}"
        return f"{self.name}: {len(self.values) - 1} steps, largest drift {size:.3g} of values up to {np.max(np.abs(self.values)):.3g}{exact}"


def track_laws(
    laws: Sequence[Any], p: Problem, width: int = 64, seed: int = 0, *, parameters: Mapping[str, float] | None = None
) -> list[Tracked]:
    """Train one network and evaluate laws after every step.

    Args:
        laws: of one rule and one network, as `derive.conservation_laws` returns them.
        p: the problem; its `eta` is the size of an Euler step, its mini-batches are used.
        width: of the hidden layers.
        seed: of the network, the same as of `train_finite` with one seed.
        parameters: values of symbolic parameters of rule and network, by name.

    Returns:
        One record for each law.

    Raises:
        ValueError: no laws, several outputs, laws of different networks, or laws that assume what the training step does not have (weight decay, learning
            rates for each layer).
    """
    if not laws:
        raise ValueError("no laws to track: conservation_laws found none for this rule and network; its .violations say why")
    if p.outputs > 1:
        raise ValueError(f"y has {p.outputs} outputs: track_laws follows networks with one (the laws hold for any number); give one column of y")
    width, seed = positive_integer("width", width, "a number of neurons in a hidden layer"), seed_number("seed", seed)
    bound, values = dynamics(laws[0].rule, laws[0].net, parameters)
    if any(law.rule != laws[0].rule or law.net != laws[0].net for law in laws):
        raise ValueError("the laws are of different rules or networks: track those of one at a time")
    modules = [jaxify(law) for law in laws]
    for module in modules:
        if module.ASSUMES:
            raise ValueError(f"{module.NAME} assumes {', '.join(module.ASSUMES)}, which the training step does not have")
    run = _letters_over_time(p, bound, values, width, seed)
    return [_tracked(module, run, values) for module in modules]


def _tracked(module: Any, run: list[Letters], values: Mapping[str, float]) -> Tracked:
    """Time by time: arrays of one shape, so that nothing is compiled anew for another number of steps."""
    settled = settle(module.NAME, module.PARAMETERS, {name: values[name] for name in module.PARAMETERS if name in values})
    found = np.stack([np.asarray(module.value(**{name: now[name] for name in module.LETTERS}, **settled)) for now in run])
    increments = None
    if hasattr(module, "increment"):
        changes = lambda old, new: {name: new[name[1:]] - old[name[1:]] for name in module.CHANGES}
        each = [np.asarray(module.increment(**changes(old, new), **settled)) for old, new in pairwise(run)]
        increments = np.stack([np.broadcast_to(change, found[0].shape) for change in each])
    return Tracked(module.NAME, found, increments)


def _letters_over_time(p: Problem, rule: Dynamics, values: Mapping[str, float], width: int, seed: int) -> list[Letters]:
    """All weights by name, at all times."""
    kind = real_type(None)
    scales = Scales.of(p, values, kind)
    drawn = jax.tree.map(lambda array: array[0], draw(jax.random.split(jax.random.key(seed), 1), p.D, rule, width, kind))
    state = prepared(initialise(drawn, jnp.asarray(p.X, kind), None, rule, p.y.shape)[0], rule, scales)
    ghosts = [jnp.zeros((1, width), kind) for _ in range(rule.depth)]
    frozen = _frozen(state, drawn, rule, scales)
    run = [frozen | _moving(state, ghosts, rule)]
    for _ in range(p.steps):
        state, ghosts = _advance(state, ghosts, scales, rule)
        run.append(frozen | _moving(state, ghosts, rule))
    return run


@partial(jax.jit, static_argnames="rule")
def _advance(state: State, ghosts, scales: Scales, rule: Dynamics):
    """One step, of the network and of its ghost readouts M += c0 Σ_μ ω_μ Δ_μ a^ℓ_μ."""
    after, fields = step(state, rule, scales)
    rates = scales.eta * scales.gamma0 / scales.y.shape[0] * scales.in_batch(fields.Delta, state.t)
    return after, [ghost + (rates @ a)[None] for ghost, a in zip(ghosts, fields.a, strict=True)]


def _moving(state: State, ghosts, rule: Dynamics) -> Letters:
    """W0…WL, b0…, ghost readouts M1…ML, and B1…BL in the shape of W1…WL where they learn."""
    L = rule.depth
    found = {f"W{l}": matrix.W for l, matrix in enumerate(state.matrices[:-1])} | {f"W{L}": state.matrices[-1].w}
    found |= {f"b{l}": bias[0] for l, bias in enumerate(state.biases)} | {f"M{l}": ghost for l, ghost in enumerate(ghosts, 1)}
    if rule.evolves:
        found |= {f"B{l}": matrix.B for l, matrix in enumerate(state.matrices[1:-1], 1)} | {f"B{L}": state.matrices[-1].b}
    return found


def _frozen(state: State, drawn, rule: Dynamics, scales: Scales) -> Letters:
    """B1…BL, F1…FL and C1… that the rule has and does not change."""
    L = rule.depth
    found = {}
    for l, (_, initial, independent, _) in enumerate(rule.module.path(**scales.parameters), 1):
        start = drawn["readout"][0] if l == L else drawn["hidden"][l - 1]
        own = drawn["readout_feedback"][0] if l == L else drawn["feedback"][l - 1]
        if not rule.evolves and rule.uses(l, "initial", "independent"):
            found[f"B{l}"] = initial * start + (0.0 if own is None else independent * own)
    straight = {l: field for l, field in enumerate(state.direct, 1) if field is not None}
    found |= {f"F{l}": field for l, field in straight.items()}
    # F_{l+1} C_l = F_l: the pseudo-inverse of one row
    found |= {f"C{l}": straight[l + 1].T @ straight[l] / jnp.sum(straight[l + 1] ** 2) for l in straight if l + 1 in straight}
    return found
