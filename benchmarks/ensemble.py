"""Ensembles of dense networks, as fast as they can fairly be made: the rival of `speed.py`.

Gradient descent only. Against `train_finite`, which serves every rule and records every kernel, this loop keeps the inputs in the
coordinates of their span (P numbers instead of D), updates weights in place, records the outputs at all times and kernels at the last one
only, and may run in float32. Every seed is one network; seeds run one after the other, `together` at a time.

The estimate of an ensemble is the loss of its *mean* output (nonlinearity of the loss would add a bias of its own), and its mean kernels. With
extrapolation in 1/N two widths are combined, 2 X(N) − X(N/2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numerics import Problem
from numerics.dynamics import Dynamics, dynamics


@dataclass(frozen=True)
class Ensemble:
    """Outputs and final kernels of every network.

    Attributes:
        f: outputs, centred.
        kernels: Φ1…ΦL and G1…GL at the last recorded time, by name.

    Shapes:
        f (seeds, T, P); each kernel (seeds, P, P).
    """

    f: np.ndarray
    kernels: dict[str, np.ndarray]

    def digest(self, p: Problem, some: slice = slice(None)) -> dict[str, np.ndarray]:
        """The ensemble's estimates."""
        return {"loss": p.loss(self.f[some].mean(axis=0)), **{name: kernel[some].mean(axis=0) for name, kernel in self.kernels.items()}}


def train(p: Problem, rule: Any, net: Any, width: int, seeds: int, seed: int = 0, dtype: str = "float32", together: int = 1) -> Ensemble:
    """Train networks by gradient descent.

    Args:
        p, rule, net: as for `train_finite`; σ_w = 1, σ_b = 0, no free parameters.
        width: N.
        seeds: number of networks.
        seed: of the initial weights.
        dtype: "float32" or "float64".
        together: networks advanced in one batch.

    Raises:
        ValueError: not gradient descent in that parametrisation.
    """
    bound, values = dynamics(rule, net)
    if not bound.gradient or bound.gated or values or bound.biased:
        raise ValueError(f"{bound.name}: the lean ensemble trains by gradient descent, with sigma_b=0 and no free parameters")
    axes = np.linalg.eigh(p.Kx)
    coordinates = jnp.asarray(axes[1] * np.sqrt(np.maximum(axes[0], 0.0)), dtype)
    keys = jax.random.split(jax.random.key(seed), seeds)
    put = lambda value: jnp.asarray(value, dtype)
    f, kernels = _train(keys, coordinates, put(p.y), put(p.eta), put(p.gamma0), bound, width, p.steps, min(together, seeds))
    return Ensemble(np.asarray(f, float), {name: np.asarray(kernel, float) for name, kernel in kernels.items()})


@partial(jax.jit, static_argnames=("rule", "width", "steps", "together"))
def _train(keys, C, y, eta, gamma0, rule: Dynamics, width: int, steps: int, together: int):
    one = partial(_network, C=C, y=y, rate=eta * gamma0 / len(y), gamma0=gamma0, rule=rule, width=width, steps=steps)
    return jax.lax.map(one, keys, batch_size=together)


def _network(key, C, y, rate, gamma0, rule: Dynamics, width: int, steps: int):
    """One network from start to end. Fields are (P, N)."""
    L, scale = rule.depth, width**-0.5
    keys = jax.random.split(key, L + 1)
    first = jax.random.normal(keys[0], (C.shape[1], width), C.dtype)
    hidden = [jax.random.normal(keys[l], (width, width), C.dtype) for l in range(1, L)]
    w = jax.random.normal(keys[L], (width,), C.dtype)

    def fields(first, hidden, w):
        h = [C @ first]
        for W in hidden:
            h.append(scale * rule.module.forward(h[-1], None) @ W.T)
        a = [rule.module.forward(entry, None) for entry in h]
        z, g = jnp.broadcast_to(w, h[-1].shape), []
        for l in reversed(range(L)):
            g.insert(0, rule.module.slope(h[l], None) * z)
            z = scale * g[0] @ hidden[l - 1] if l else z
        return a, g, a[-1] @ w / (gamma0 * width)

    def update(weights, f0, t):
        first, hidden, w = weights
        a, g, f = fields(first, hidden, w)
        f0 = jnp.where(t == 0, f, f0)
        signal = (rate * (y - f + f0))[:, None]
        first = first + C.T @ (signal * g[0])
        hidden = [W + scale * (signal * up).T @ down for W, up, down in zip(hidden, g[1:], a, strict=False)]
        return (first, hidden, w + jnp.sum(signal * a[-1], axis=0)), f0, f - f0

    def body(carry, t):
        weights, f0, f = update(*carry, t)
        return (weights, f0), f

    (weights, f0), f = jax.lax.scan(body, ((first, hidden, w), jnp.zeros_like(y)), jnp.arange(steps - 1))
    a, g, last = fields(*weights)
    kernels = {f"{name}{l}": field @ field.T / width for name, layers in (("Phi", a), ("G", g)) for l, field in enumerate(layers, 1)}
    return jnp.concatenate([f, (last - f0)[None]]), kernels
