"""Online learning of a teacher: the derived order-parameter equations, integrated.

    out = solve_online(teacher_student(DFA(), "erf"), Q=Q0, R=R0, T=T, A=A, v=v0, F=F, eta=0.2, t=times)

The right-hand side is generated code; the integrator is adaptive (Tsitouras 5(4), or Kvaerno 5(4) with smoothing), with dense output. Every argument may
have one leading axis, over which the solution is mapped: seeds, feedbacks, learning rates.

To first order in η no noise of the steps is left, and students stay in the span of the teachers and of where they started: what is integrated then is
their components there, `_Components`, from which overlaps are made; so these are overlaps of some vectors always, whatever the error of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import safe
from .errors import SolveFailed
from .jaxify import load_source

RANKS = {"Q": 2, "R": 2, "T": 2, "A": 1, "v": 1, "F": 1, "eta": 0, "sigma": 0, "kappa": 0}
# How negative an eigenvalue of the fields' covariance may be, relative to its largest entry, before a start is refused.
SLACK = 1e-9
FIRST_STEP = 1e-3  # in units of steps/D; adapted from there


@dataclass(frozen=True)
class OnlineSolution:
    """Order parameters at the recorded times.

    Attributes:
        t: times, steps/D.
        Q, R, v: overlaps of students, of students with teachers, and readout weights.
        eg: generalisation error, half the mean square against the noiseless teacher.
        cos_v_F: cosine of the angle between v and the feedback F, 0 where v = 0; None without F.
        stats: steps taken and rejected; whether the integrator reached the end ("ok"); the smallest eigenvalue of the fields' covariance over its
            largest entry; and where an integral is computed by quadrature the largest change of it when the quadrature is refined (24 nodes
            against 48 for integrals over closed forms, against 36 for sums).

    Shapes:
        t (n,), Q (n, K, K), R (n, K, M), v (n, K), eg (n,), cos_v_F (n,); with a leading axis all but t have it too.
    """

    t: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    v: np.ndarray
    eg: np.ndarray
    cos_v_F: np.ndarray | None
    stats: Mapping[str, Any] = field(default_factory=dict)
    _dense: Any = field(default=None, repr=False)

    def at(self, t: Any) -> dict[str, np.ndarray]:
        """Q, R and v at any times up to the last recorded one; needs `dense=True`. Not finite after the last finite record of a run that stopped.

        Raises:
            ValueError: solved without dense output, or a time outside.
        """
        if self._dense is None:
            raise ValueError("no dense output was kept: call solve_online(..., dense=True)")
        times = jnp.atleast_1d(jnp.asarray(t, float))
        if jnp.any((times < 0) | (times > self.t[-1])):
            raise ValueError(f"times {np.asarray(t)} outside [0, {self.t[-1]:g}], where the solution was computed")
        (interpolant, state), mapped = self._dense
        evaluate = lambda solution, state: jax.vmap(lambda t: state.overlaps(solution.evaluate(t)))(times)
        found = (jax.vmap(evaluate) if mapped else evaluate)(interpolant, state)
        there = np.asarray(times) <= self._reached()[..., None]
        values = (np.where(there.reshape(*there.shape, *(1,) * (x.ndim - there.ndim)), x, np.nan) for x in map(np.asarray, found))
        return dict(zip(("Q", "R", "v"), values, strict=True))

    def _reached(self) -> np.ndarray:
        """Until when each run is known, () or (runs,)."""
        finite = np.where(np.isfinite(self.eg), self.t, -1.0).max(axis=-1)
        return np.where(self.stats["ok"], self.t[-1], finite)

    def __repr__(self) -> str:
        runs = f"{self.eg.shape[0]} runs of " if self.eg.ndim == 2 else ""
        size = f"K={self.R.shape[-2]}, M={self.R.shape[-1]}"
        ends = np.atleast_2d(self.eg)
        aligned = "" if self.cos_v_F is None else f", cos(v, F) → {np.atleast_2d(self.cos_v_F)[:, -1].mean():.3f}"
        return (
            f"OnlineSolution: {runs}{size}, t = {self.t[0]:g}…{self.t[-1]:g}; eg {ends[:, 0].mean():.3g} → {ends[:, -1].mean():.3g}{aligned}; "
            f"{int(np.max(self.stats['steps']))} steps"
        )


def solve_online(
    ts: Any, *, Q: Any, R: Any, T: Any, A: Any, v: Any, F: Any = None, eta: Any = 0.2, sigma: Any = 0.0, kappa: Any = 0.0, t: Any,
    rtol: float = 1e-9, atol: float = 1e-12, dense: bool = False, max_steps: int = 20_000,
    integral_tol: float = 1e-2, smoothing: float = 0.0, throw: bool = True, **parameters: Any,
) -> OnlineSolution:  # fmt: skip
    """Integrate the order-parameter equations from a start at t = 0.

    Args:
        ts: what `derive.teacher_student` returned.
        Q, R, v: the start: w_i·w_k/D (K, K), w_i·B_m/D (K, M), readout (K,).
        T, A: the teacher: B_m·B_n/D (M, M), readout (M,).
        F: frozen feedback (K,); for a rule that needs none, what v is compared with.
        eta, sigma, kappa: learning rate, standard deviation of the output noise, weight decay.
        t: increasing times ≥ 0 at which to record; steps/D.
        rtol, atol: error of a step.
        dense: keep the interpolant for `.at(times)`.
        max_steps: of the integrator, accepted and rejected.
        integral_tol: the largest `stats["integral_error"]` that is accepted.
        smoothing: standard deviation of an independent part that students' preactivations get in the rates. For ReLU students that are driven to zero
            weights, where the equations have a kink: with 1e-4, say, they stay there, and the steps are implicit ones of order 5 (Kvaerno).
        throw: raise when the integrator gives up in a run; otherwise `stats["ok"]` says where it did: entries there are not finite.
        parameters: values of the activation's parameters.

    Each argument may have one leading axis more; all that do must agree on its length.

    Raises:
        ValueError: shapes that do not fit, overlaps that are no covariance, a missing F, times that do not increase, or a smoothing
            that is negative.
        SolveFailed: rates that are not finite at the start, the integrator gave up (learning that diverges, or too few steps), or a quadrature has too
            few nodes.
    """
    if not 0 <= smoothing < np.inf:
        raise ValueError(f"smoothing={smoothing} is no standard deviation: give a number >= 0, small beside the teachers' lengths")
    module = module_from(ts.source())
    given = {"Q": Q, "R": R, "T": T, "A": A, "v": v, "F": F, "eta": eta, "sigma": sigma, "kappa": kappa}
    arrays, times, batch = checked(module, given, parameters, t)
    axes = tuple((name, 0 if value.ndim > RANKS.get(name, 0) else None) for name, value in arrays.items())
    run = _compiled(ts.source(), axes if batch else (), dense, max_steps, smoothing > 0, ts.small_rate)
    found = jax.tree.map(np.asarray, run(arrays, times, rtol, atol, smoothing))
    if throw and not np.all(found["finite"]):
        raise SolveFailed(
            f"the rates of {module.NAME} at t = 0 are not finite in {int(np.sum(~found['finite']))} of {found['finite'].size} runs: an average over the "
            "fields overflows or has no value there, so that no step can be taken: start from smaller Q, T, v, A or F, and check the activation's parameters",
            "non-finite",
        )
    if throw and not np.all(found["ok"]):
        raise SolveFailed(
            f"the integrator of {module.NAME} stopped in {int(np.sum(~found['ok']))} of {found['ok'].size} runs before t = {times[-1]:g} after "
            f"{int(np.max(found['steps']))} steps: learning diverges at this eta, or it needs max_steps > {max_steps}, or students "
            f"get stuck at zero weights, where kinks such as ReLU's make steps shrink: smoothing=1e-4 helps then",
            "diverged",
        )
    stats = {name: found[name] for name in ("steps", "rejected", "smallest_eigenvalue", "ok")}
    if "integral_error" in found:
        stats["integral_error"] = found["integral_error"]
        finished = found["integral_error"][found["ok"]]
        if not np.max(finished, initial=0.0) <= integral_tol:
            raise SolveFailed(
                f"the quadrature of {ts.nodes} nodes is off by {np.max(finished):.2g}, more than integral_tol={integral_tol:g}: give "
                f"teacher_student(..., nodes={2 * ts.nodes}), or a larger integral_tol if that is good enough",
                "non-finite" if np.isnan(np.max(finished)) else "quadrature",
            )
    dense_output = (found["dense"], bool(batch)) if dense else None
    cosine = None if F is None else found["cos"]
    return OnlineSolution(times, found["Q"], found["R"], found["v"], found["eg"], cosine, stats, dense_output)


def checked(
    module: ModuleType, given: Mapping[str, Any], parameters: Mapping[str, Any], t: Any
) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """Arguments as arrays, the times, and the length of the leading axis, 0 if there is none.

    Raises:
        ValueError: a missing feedback, parameters, ranks, sizes, overlaps or times that do not fit.
    """
    if set(parameters) != set(module.PARAMETERS):
        raise ValueError(f"parameters {sorted(parameters)} were given but the activation has {sorted(module.PARAMETERS)}")
    if given["F"] is None and module.FROZEN:
        raise ValueError(f"{module.NAME} has a frozen feedback: give F, one entry for each student")
    values = {**given, "F": np.zeros_like(given["v"], dtype=float) if given["F"] is None else given["F"], **parameters}
    arrays = {name: np.asarray(value, float) for name, value in values.items()}
    times = np.asarray(t, float)
    if times.ndim != 1 or times.size == 0 or times[0] < 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f"t must be increasing times >= 0, got {times}")
    return arrays, times, _batch(arrays)


def _batch(arrays: Mapping[str, np.ndarray]) -> int:
    """The length of the leading axis; ranks, sizes and overlaps are checked."""
    for name, value in arrays.items():
        rank = RANKS.get(name, 0)
        if value.ndim not in (rank, rank + 1):
            raise ValueError(f"{name} has shape {value.shape}: it needs {rank} axes, or one more in front for a batch")
    sizes = {len(value) for name, value in arrays.items() if value.ndim > RANKS.get(name, 0)}
    if len(sizes) > 1:
        raise ValueError(f"batches of different lengths {sorted(sizes)}: all arguments with a leading axis must have the same number of runs")
    K, M = arrays["R"].shape[-2:]
    expected = {"Q": (K, K), "T": (M, M), "A": (M,), "v": (K,), "F": (K,)}
    for name, shape in expected.items():
        if arrays[name].shape[-len(shape) :] != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} but R {arrays['R'].shape}: with K={K}, M={M} it must end in {shape}")
    C = np.asarray(covariance(*(arrays[name] for name in ("Q", "R", "T"))))
    lowest, scale = np.min(np.linalg.eigvalsh(C)), np.max(np.abs(C))
    if not np.allclose(C, np.swapaxes(C, -1, -2), rtol=1e-9, atol=SLACK * scale) or not lowest > -SLACK * scale:
        raise ValueError(f"[[Q, R], [Rᵀ, T]] is no covariance: its smallest eigenvalue is {lowest:.3g}; overlaps must come from vectors w_k, B_m")
    return sizes.pop() if sizes else 0


def covariance(Q: Any, R: Any, T: Any) -> jax.Array:
    """[[Q, R], [Rᵀ, T]], leading axes broadcast."""
    lead = jnp.broadcast_shapes(*(np.shape(block)[:-2] for block in (Q, R, T)))
    Q, R, T = (jnp.broadcast_to(block, (*lead, *np.shape(block)[-2:])) for block in (Q, R, T))
    return jnp.concatenate([jnp.concatenate([Q, R], -1), jnp.concatenate([jnp.swapaxes(R, -1, -2), T], -1)], -2)


def alignment(v: Any, F: Any) -> jax.Array:
    """cos ∠(v, F) over the last axis, 0 where v = 0."""
    return safe.divide(v @ F, jnp.linalg.norm(v, axis=-1) * jnp.linalg.norm(F))


@cache
def module_from(source: str) -> ModuleType:
    """The generated module, executed once."""
    return load_source(source, "online")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Overlaps:
    """The state (Q, R, v).

    Attributes:
        T, A: the teacher.
    """

    T: jax.Array
    A: jax.Array

    def start(self, Q: jax.Array, R: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        """The state at given overlaps."""
        return Q, R, v

    def overlaps(self, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Q, R and v of a state."""
        return y

    def rates(self, rates: Any, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The state's rate, from those of overlaps as `rates(Q, R, v, T, A)` has them."""
        return rates(*y, self.T, self.A)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Components(_Overlaps):
    """The state (W, v): students' inner products with the teachers, then their components along K orthonormal directions besides.

    Those directions count as teachers that nobody asks, A = 0, so that the rate of R is the rate of W.

    Attributes:
        inverse: T⁻¹, or what comes closest where teachers depend on each other.
    """

    inverse: jax.Array

    def start(self, Q: jax.Array, R: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        squares, vectors = jnp.linalg.eigh(Q - R @ self.inverse @ R.T)
        return jnp.concatenate([R, vectors * jnp.sqrt(jnp.maximum(squares, 0.0))], axis=1), v

    def overlaps(self, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        W, v = y
        R, besides = W[:, : len(self.T)], W[:, len(self.T) :]
        return R @ self.inverse @ R.T + besides @ besides.T, R, v

    def rates(self, rates: Any, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        W, v = y
        Q, K, M = self.overlaps(y)[0], len(v), len(self.T)
        T = jnp.eye(M + K).at[:M, :M].set(self.T)
        return rates(Q, W, v, T, jnp.concatenate([self.A, jnp.zeros(K)]))[1:]


@cache
def _compiled(
    source: str, axes: tuple[tuple[str, int | None], ...], dense: bool, max_steps: int, implicit: bool, small_rate: bool
) -> Any:
    """The jitted solver; mapped where `axes` says so."""
    module = module_from(source)

    def solve(arrays: dict[str, jax.Array], times: jax.Array, rtol: jax.Array, atol: jax.Array, smoothing: jax.Array) -> dict[str, Any]:
        T, A = arrays["T"], arrays["A"]
        state = _Components(T, A, jnp.linalg.pinv(T, hermitian=True)) if small_rate else _Overlaps(T, A)
        return _integrate(module, state, arrays, times, rtol, atol, smoothing, dense, max_steps, implicit)

    return jax.jit(jax.vmap(solve, in_axes=(dict(axes), None, None, None, None)) if axes else solve)


def _integrate(
    module: ModuleType, state: _Overlaps, arrays: dict[str, jax.Array], times: jax.Array, rtol: jax.Array, atol: jax.Array, smoothing: jax.Array,
    dense: bool, max_steps: int, implicit: bool,
) -> dict[str, Any]:  # fmt: skip
    """One run."""
    import diffrax  # here, because it takes as long to import as all of JAX

    T, A, F = arrays["T"], arrays["A"], arrays["F"]
    parameters = {name: arrays[name] for name in module.PARAMETERS}
    scalars = (arrays["eta"], arrays["sigma"], arrays["kappa"])

    def rates(Q: jax.Array, R: jax.Array, v: jax.Array, T: jax.Array, A: jax.Array) -> tuple[jax.Array, ...]:
        return module.rates(Q + smoothing**2 * jnp.eye(len(Q)), R, v, F, T, A, *scalars, **parameters)

    start = state.start(arrays["Q"], arrays["R"], arrays["v"])
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for part in state.rates(rates, start)]))
    # with rates that are no numbers all steps up to max_steps would be rejected: such a run stands still, and is marked
    field = lambda _, y, __: tuple(jnp.where(finite, part, 0.0) for part in state.rates(rates, y))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Kvaerno5() if implicit else diffrax.Tsit5(), t0=0.0, t1=times[-1], dt0=FIRST_STEP,
        y0=start, saveat=diffrax.SaveAt(ts=times, dense=dense),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol), max_steps=max_steps, throw=False,
    )  # fmt: skip
    Q, R, v = (jnp.where(finite, part, jnp.nan) for part in jax.vmap(state.overlaps)(solution.ys))
    eg = jax.vmap(lambda Q, R, v: module.error(Q, R, v, T, A, **parameters))(Q, R, v)
    C = covariance(Q, R, T)
    found = {
        "Q": Q, "R": R, "v": v, "eg": eg, "cos": alignment(v, F), "ok": finite & (solution.result == diffrax.RESULTS.successful), "finite": finite,
        "steps": solution.stats["num_accepted_steps"], "rejected": solution.stats["num_rejected_steps"],
        "smallest_eigenvalue": jnp.min(jnp.linalg.eigvalsh(C)) / jnp.max(jnp.abs(C)),
    }  # fmt: skip
    if hasattr(module, "COMPUTED"):
        found["integral_error"] = jnp.max(jax.lax.map(lambda C: _integral_error(module, C, len(A), parameters), C))
    if dense:
        found["dense"] = (solution.interpolation, state)
    return found


def _integral_error(module: ModuleType, C: jax.Array, M: int, parameters: dict[str, jax.Array]) -> jax.Array:
    """The largest error estimate of any integral over all fields; slopes are those of students."""
    sizes = lambda slopes, others: (len(C) - M,) * slopes + (len(C),) * others
    found = [getattr(module, f"{name}_error")(*module.covariances(C, sizes(*of)), **parameters) for name, of in module.COMPUTED.items()]
    return jnp.max(jnp.stack([jnp.max(error) for error in found]))
