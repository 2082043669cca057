"""Studies at infinite width: rules whose feedback weights learn, in theory and in networks whose feedback matrices are trained entry by entry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from derive import (
    MLP,
    Rule,
    activation_alignment,
    feedback_alignment,
    information_alignment,
    kolen_pollack,
    symmetric_alignment,
    weight_mirror,
)
from lazyrich.data import digits
from numerics import Problem, solve_dmft, train_finite
from numerics.dynamics import dynamics
from numerics.finite import draw, initialise
from numerics.training import Scales, prepared, step

RULES: dict[str, Rule] = {
    "FA": feedback_alignment(),
    "SA": symmetric_alignment(0.05),
    "KP": kolen_pollack(0.02),
    "WM": weight_mirror(0.5, 0.05),
    "IA": information_alignment(0.5, 0.5, 0.05),
    "AA": activation_alignment(0.5),
}
NET = MLP(depth=2, activation="tanh")


def problem(full: bool) -> Problem:
    """Threes and eights, few enough that what is learned stays low rank."""
    data = digits((3, 8), train=8 if full else 6, test=2)
    return Problem(data.X, data.y, gamma0=1.0, eta=0.4, steps=60 if full else 30)


def cosines(full: bool) -> dict[str, object]:
    """Gradient cosine and loss against time: theory, and networks of one width."""
    p, width = problem(full), 1536 if full else 768
    found: dict[str, object] = {"width": width, "steps": np.arange(p.steps)}
    for name, rule in RULES.items():
        theory = solve_dmft(p, rule, NET, samples=2048 if full else 1024, replicas=6 if full else 4, two_time=False)
        networks = train_finite(p, rule, NET, width=width, seeds=12 if full else 8, two_time=False, seed=3)
        for kind, solution in (("theory", theory), ("networks", networks)):
            found |= {f"{name} {kind} {what}": getattr(solution, what) for what in ("alignment", "alignment_se", "loss", "loss_se")}
    wrong = solve_dmft(p, weight_mirror(0.5, 0.05), NET, samples=1024, replicas=4, two_time=False, seed=5)
    return found | {"control alignment": wrong.alignment, "control alignment_se": wrong.alignment_se}


def weights(full: bool) -> dict[str, object]:
    """At the end of training: the cosine of B and Wᵀ as matrices, and of gradient and pseudo-gradient fields, against width."""
    p, widths = problem(full), np.array([64, 128, 256, 512, 1024] if full else [64, 128, 256, 512])
    found: dict[str, object] = {"widths": widths}
    for name, rule in RULES.items():
        rows = [_final(p, rule, int(width), max(2, (4096 if full else 1024) // int(width))) for width in widths]
        found |= {f"{name} {what}": np.array([row[place] for row in rows]) for place, what in enumerate(("weights", "weights_se", "fields", "fields_se"))}
    return found


def _final(p: Problem, rule: Rule, width: int, seeds: int) -> tuple[float, ...]:
    bound, values = dynamics(rule, NET)
    kind = jnp.dtype("float64")
    scales = Scales.of(p, values, kind)
    drawn = draw(jax.random.split(jax.random.key(width), seeds), p.D, bound, width, kind)
    cosine = lambda a, b: jnp.sum(a * b) / jnp.sqrt(jnp.sum(a**2) * jnp.sum(b**2))

    def one(arrays):
        state = prepared(initialise(arrays, jnp.asarray(p.X, kind), None, bound, scales.y.shape)[0], bound, scales)
        state, fields = jax.lax.scan(lambda state, _: _step(state, bound, scales), state, None, length=p.steps)
        matrix = state.matrices[1]
        B = matrix.B if bound.evolves else matrix.V
        return cosine(B, matrix.W), cosine(fields[0][-1], fields[1][-1])

    found = np.array(jax.jit(lambda drawn: jax.lax.map(one, drawn))(drawn))
    mean, error = found.mean(axis=1), found.std(axis=1, ddof=1) / np.sqrt(seeds)
    return mean[0], error[0], mean[1], error[1]


def _step(state, bound, scales):
    state, now = step(state, bound, scales)
    return state, (now.g[0], now.g_tilde[0])


STUDIES = {"cosines": cosines, "weights": weights}

