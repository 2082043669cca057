"""Online stochastic gradient steps in D dimensions: the networks that `solve_online` describes as D → ∞."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import SolveFailed, positive_integer, seed_number
from .online import OnlineSolution, alignment, checked, covariance, module_from

BLOCK = 256  # examples drawn at a time


def simulate_online(
    ts: Any, *, D: int, Q: Any, R: Any, T: Any, A: Any, v: Any, F: Any = None, eta: float = 0.2, sigma: float = 0.0, kappa: float = 0.0,
    t: Any, seeds: int = 1, first_seed: int = 0, **parameters: float,
) -> OnlineSolution:  # fmt: skip
    """Train students on fresh examples, one a step, from weight vectors with exactly the given overlaps.

    Args:
        ts: what `derive.teacher_student` returned; its rule is what the students run.
        D: input dimension, at least K + M.
        Q, R, T, A, v, F, eta, sigma, kappa, t, parameters: as for `solve_online`, without leading axes. Time t is after round(t D) steps.
        seeds: independent runs: other examples, noise and directions of the weight vectors.
        first_seed: of these.

    Returns:
        Order parameters of each run; a leading axis of length `seeds`. `stats` has the exact times, steps/D.

    Raises:
        ValueError: arguments that do not fit.
        SolveFailed: weights became infinite.
    """
    D, seeds = positive_integer("D", D, "an input dimension"), positive_integer("seeds", seeds, "a number of runs")
    first_seed = seed_number("first_seed", first_seed)
    module = module_from(ts.source())
    given = {"Q": Q, "R": R, "T": T, "A": A, "v": v, "F": F, "eta": eta, "sigma": sigma, "kappa": kappa}
    arrays, times, batch = checked(module, given, parameters, t)
    if batch:
        raise ValueError("simulate_online takes one start: leave the leading axes out, and use seeds= for several runs")
    K, M = arrays["R"].shape
    if K + M > D:
        raise ValueError(f"D={D} is too small for {K} students and {M} teachers: their overlaps need D >= {K + M}")
    steps = np.rint(times * D).astype(np.int64)
    source = ts.source()
    found = []
    for seed in range(first_seed, first_seed + seeds):
        vectors = _vectors(np.asarray(covariance(arrays["Q"], arrays["R"], arrays["T"])), D, seed)
        found.append(_train(source, vectors, arrays, steps, seed))
    stacked = {name: np.stack([one[name] for one in found]) for name in found[0]}
    if not all(np.all(np.isfinite(value)) for value in stacked.values()):
        raise SolveFailed(f"weights became infinite at eta={eta:g}, D={D}: lower eta", "non-finite")
    cosine = None if F is None else np.asarray(alignment(stacked["v"], arrays["F"]))
    stats = {"times": steps / D, "steps": int(steps[-1])}
    return OnlineSolution(times, stacked["Q"], stacked["R"], stacked["v"], stacked["eg"], cosine, stats)


def _vectors(C: np.ndarray, D: int, seed: int) -> np.ndarray:
    """Rows with overlaps C: the root of C on random orthonormal directions of length √D."""
    values, basis = np.linalg.eigh(C)
    root = basis * np.sqrt(np.maximum(values, 0))  # checked to be a covariance; what is below 0 is rounding
    directions, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, len(C))))
    return root @ directions.T * np.sqrt(D)


@cache
def _advance(source: str) -> Any:
    """Up to BLOCK steps, jitted: (both, v) after `count` of the drawn examples."""
    module = module_from(source)

    def steps(both: jax.Array, v: jax.Array, drawn: jax.Array, count: jax.Array, arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        step = lambda number, state: _step(module, state[0], state[1], drawn[number], arrays)
        return jax.lax.fori_loop(0, count, step, (both, v))

    return jax.jit(steps)


def _step(module: ModuleType, both: jax.Array, v: jax.Array, drawn: jax.Array, arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """One example: D inputs and the noise; `both` are the rows w_k and B_m."""
    D, K = both.shape[1], len(v)
    eta, kappa = arrays["eta"], arrays["kappa"]
    parameters = {name: arrays[name] for name in module.PARAMETERS}
    x, zeta = drawn[:D], drawn[D]
    fields = both @ x / jnp.sqrt(D)
    lam, rho = fields[:K], fields[K:]
    values = module.activation(lam, **parameters)
    e = arrays["A"] @ module.activation(rho, **parameters) - v @ values + arrays["sigma"] * zeta
    z = module.transported(**parameters) * v + (arrays["F"] if module.FROZEN else 0)
    push = jnp.concatenate([eta * e * z * module.slope(lam, **parameters), jnp.zeros_like(rho)])
    keep = jnp.concatenate([jnp.full_like(lam, 1 - kappa / D), jnp.ones_like(rho)])
    # w ← (1 − κ/D) w + (η/√D) e p(λ) z x,  v ← (1 − κ/D) v + (η/D) e g(λ)
    return keep[:, None] * both + push[:, None] * x / jnp.sqrt(D), (1 - kappa / D) * v + eta / D * e * values


def _train(source: str, both: np.ndarray, arrays: dict[str, np.ndarray], steps: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """One run: order parameters after the given numbers of steps."""
    module, advance = module_from(source), _advance(source)
    D, K = both.shape[1], len(arrays["v"])
    rng = np.random.default_rng([seed, D])
    state, records, done = (both, arrays["v"]), [], 0
    for target in steps:
        while done < target:
            count = min(BLOCK, target - done)
            drawn = np.empty((BLOCK, D + 1))  # a new one each time: the computation may still be reading the last
            drawn[:count] = rng.standard_normal((count, D + 1))
            state = advance(*state, drawn, count, arrays)
            done += count
        w, v = map(np.asarray, state)
        C = w @ w.T / D
        records.append((C[:K, :K], C[:K, K:], v))
    Q, R, v = (np.stack(values) for values in zip(*records, strict=True))
    parameters = {name: arrays[name] for name in module.PARAMETERS}
    error = jax.vmap(lambda Q, R, v: module.error(Q, R, v, arrays["T"], arrays["A"], **parameters))
    return {"Q": Q, "R": R, "v": v, "eg": np.asarray(error(Q, R, v))}
