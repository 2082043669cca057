"""The rich regime at infinite width: linear units exactly, all others by sampling, with standard errors over replicas.

Sampling is one causal pass a replica (`causal.py`); here are the arguments, the choice of method and the number of samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .causal import Plan, Seconds, run
from .checkpoint import Keeper, open_checkpoint
from .control import Lazy, controlled, lazy_limit
from .dynamics import Dynamics, dynamics, kept, refuse_outputs
from .errors import positive_integer, seed_number
from .infinite import Layout
from .linear import solve_linear
from .order_parameters import DenseKernel, FactoredKernel, FieldKernel, Kernel, Layers
from .problem import Problem
from .progress import Progress
from .richness import richness
from .sampling import Innovations
from .sharding import Placement
from .snapshots import collect, times_of
from .solution import Solution, assemble, raise_failure

METHODS = ("auto", "exact", "conditional", "sampling")
# T P above which "auto" does not take the exact solver, whose cost grows with its cube.
EXACT_LIMIT = 1000
# Richness below which features move too little for the tolerance that single precision allows.
SMALL_RICHNESS = 0.6
# Richness from which on tolerances are the usual ones: that of problem D in the benchmarks.
FULL_RICHNESS = 2.0
# Relative energies of residuals, in units of round-off, below which they are noise.
ROUND_OFF = 2
# Samples from which on the tolerance of single precision falls with their errors.
SINGLE_SAMPLES = 4096
# How far the tolerance of bases may stay above the wanted one.
SHORTFALL = 10
# With a sample of gates come coefficients in place of values, which cost about as many times more.
GATES_SHARE = 16
# T P, and bytes of all replicas, above which fields are kept by their coefficients on a basis and no longer as they are.
FIELDS_LIMIT, FIELDS_MEMORY = 1024, 2**30


def solve_dmft(
    p: Problem,
    rule: Any,
    net: Any,
    samples: int = 4096,
    replicas: int = 4,
    seed: int = 0,
    *,
    parameters: Mapping[str, float] | None = None,
    method: str = "auto",
    sampling: str = "sobol",
    tol: float | None = None,
    max_samples: int = 2**18,
    rank_tol: float | None = None,
    two_time: bool = True,
    kernels_at: Iterable[int] | None = None,
    snapshots: Iterable[int] = (),
    dtype: Any = None,
    capacity: int | None = None,
    chunk: int | None = None,
    responses: bool = True,
    adjoint: bool = True,
    control: bool | None = None,
    throw: bool = True,
    progress: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
    devices: int | Sequence[Any] | None = None,
) -> Solution:
    """Solve the dynamical mean-field theory of a learning rule.

    Args:
        p: the problem.
        rule, net: learning rule and network (`derive.Rule`, `derive.MLP`).
        samples: S, the number of single-site samples; with `tol` the number to begin with. Of gates alone "auto" draws S/16, which costs
            about as much.
        replicas: independent repetitions; every standard error is taken over them (NaN for one replica).
        seed: of all random numbers.
        parameters: values of symbolic parameters of rule and network, by name.
        method: "exact" (no samples, double precision: linear units and rules, one output, no weight decay; or gated linear networks with few
            enough patterns of gates to sum over them), "conditional" (gated linear networks: only gates are drawn, `samples` of them, and
            what is Gaussian given the gates is integrated; docs/gated.md), "sampling", or "auto": exact where that applies, for linear units
            up to T P = 1000, and conditional where that is more accurate at equal cost (one device, double precision, no checkpoint,
            samples ≥ 32 P (P + 1)). `settings["method"]` tells which it was.
        sampling: "sobol", "moments" or "plain".
        tol: wanted standard error of the loss, relative to the loss at t = 0 (to the largest |loss| over time if that is not positive), at
            all times: the number of samples is doubled until it is met. `stats["status"]` tells whether it was. Errors from four replicas are
            uncertain by 40 %, and the first that is small enough ends it: take eight, or half the error that you need.
        max_samples: no more samples than these.
        rank_tol: energy of a new direction, relative to the field's, below which it is not followed. Default 1e-7 (float32: 1e-5, beyond 4096
            samples 0.04/S; exact 1e-14; conditional 1e-6) times min(1, γ/2)², γ = γ0 |Δ|/|φ^L| at t = 0 being how far features move, but not
            below what rounding leaves: float32 loses features that move little.
        two_time: False drops the kernels of φ(h^L) and g¹ between different times. They are the only ones that cost anything: fields
            at all times (4 R S T P bytes each, up to 1 GiB in all and T P ≤ 1024), beyond that a basis each (8 S r bytes).
        kernels_at: times at which these two are averaged, such as (0, -1), and none between different times. At all others they are NaN,
            and so are the eNTK, layer 1's alignment and layer L's CKA. All times take two-layer networks 1.2 to 2 times as long. Other
            layers' kernels, and all kernels of the exact and conditional methods, are there at all times.
        snapshots: times at which the fields of all samples are kept, 2 L R S P numbers each: `solution.snapshots[t].h[l]`. The exact
            and conditional methods draw no fields, so that "auto" then samples linear units and gated networks too.
        dtype: "float64" or "float32"; by default float32 on a GPU for γ ≥ 0.6 (see `rank_tol`), otherwise float64 where JAX has it enabled.
            Single precision cannot follow small movements of features (a warning says when).
        capacity: directions to set room aside for at first; it doubles when needed (and compiles again).
        chunk: steps between returns to Python (for progress); the result does not depend on it.
        responses: False drops the response terms A and B: not the theory, but shows what they do.
        adjoint: False lets responses enter as the theory's averages ⟨Υ q⟩ and ⟨Ξ p⟩ alone, so that W and Wᵀ are adjoint in the limit only;
            the limit is the same, the bias at finite S is not (docs/scale.md).
        control: whether kernels at t = 0 are the exact ones, and their sampling errors control variates for outputs, losses and kernels at
            all times (test outputs and snapshots stay as sampled). That needs three replicas and a lazy limit, whose kernel is derived and
            compiled; it makes errors of the loss 2 to 7 times smaller at γ = 0.2 (see `rank_tol`), and hardly smaller for γ ≥ 2. None does it for
            γ ≤ 0.7, where it can be done. The exact and conditional methods leave nothing of the lazy limit to chance anyway.
        throw: raise when the solution is not finite.
        progress: show a bar.
        checkpoint: file to which the whole state goes every `every` steps and after each replica. If it is there, the run goes on from it
            and gives the same bits as an uninterrupted one. It stays at the end, so that nothing is lost before the solution is saved.
            The exact and conditional methods, which take seconds, write none.
        every: steps between checkpoints; by default a twentieth of all, and ten seconds at least.
        devices: devices that share the samples, or how many of the local ones; by default all of them.

    Returns:
        Order parameters, outputs and losses, with standard errors. `stats` has the status ("converged", "sample limit reached", "rank
        capacity reached", "diverged", "non-finite"), ranks, dropped energy, Gram error and seconds by part.

    Raises:
        ValueError: bad arguments, or a symbolic parameter without a value.
        SolveFailed: training diverged (unless `throw=False`).

    Source: Bordelon & Pehlevan 2022, 2023 (the theory); THEORY sections 4 and 5 (equations and method).
    """
    samples = positive_integer("samples", samples, "a number of single-site samples")
    replicas = positive_integer("replicas", replicas, "a number of independent replicas")
    max_samples = positive_integer("max_samples", max_samples, "a number of single-site samples")
    seed = seed_number("seed", seed)
    capacity = None if capacity is None else positive_integer("capacity", capacity, "a number of directions")
    chunk = None if chunk is None else positive_integer("chunk", chunk, "a number of steps")
    two_time, responses, adjoint = bool(two_time), bool(responses), bool(adjoint)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known: give one of {', '.join(map(repr, METHODS))}")
    tol = _wanted_error(tol, replicas)
    bound, values = dynamics(rule, net, parameters)
    moved = richness(p, bound, values)
    kind = real_type("float64" if dtype is None and moved < SMALL_RICHNESS and x64_enabled() else dtype)
    refuse_outputs(p, bound)
    innovations = Innovations(samples, seed, 0, sampling)
    times = times_of("snapshots", snapshots, p.steps)
    averaged = None if kernels_at is None else times_of("kernels_at", kernels_at, p.steps)
    two_time = two_time and averaged is None
    if times and method in ("exact", "conditional"):
        raise ValueError(f"snapshots={times} of method={method!r}: it draws no fields, they are Gaussian; give method='sampling'")
    if method == "conditional" and not bound.linear_given_gates:
        raise ValueError(f"method='conditional' of {bound.name}: its fields are not Gaussian given frozen gates; give method='sampling'")
    if bound.linear_given_gates and not times and method != "sampling":
        from .conditional import Conditional

        given = Conditional(p, rule, net, bound, values, rank_tol, responses, two_time, throw, progress)
        if method == "conditional":
            return given.drawn(innovations, replicas, tol, max_samples)
        if (solution := given.exact(required=method == "exact")) is not None:
            return solution
        plain = checkpoint is None and devices is None and kind == jnp.dtype("float64") and jax.device_count() == 1
        if plain and given.weights_can_be_found(samples // GATES_SHARE):
            return given.drawn(replace(innovations, samples=samples // GATES_SHARE), replicas, tol, max_samples // GATES_SHARE)
    tolerance = lambda S: rank_tolerance(rank_tol, *usual_tolerance(kind, S), moved, str(kind))
    applies = not times and not p.weight_decay and p.outputs == 1 and p.steps * p.P <= EXACT_LIMIT
    if method == "exact" or (method == "auto" and applies and _closes_on_covariances(rule, net, bound)):
        return _exact(p, rule, net, bound, parameters, responses, throw)
    settings = {
        "method": "sampling", "samples": samples, "replicas": replicas, "seed": seed, "sampling": sampling, "tol": tol,
        "rank_tol": tolerance(samples), "dtype": str(kind), "responses": responses, "adjoint": adjoint,
        **({"snapshots": list(times)} if times else {}),
        **({} if averaged is None else {"kernels_at": list(averaged)}),
    }  # fmt: skip
    layout = Layout.of(p, bound, responses, adjoint)
    plan = Plan(p, bound, values, layout, kind, tolerance(samples), "equal times", capacity, chunk, devices, times, averaged)
    Placement.of(devices, samples)  # refuses what does not fit before anything is computed
    decisive = {**settings, "two_time": two_time, "max_samples": max_samples, "capacity": capacity}
    keeper = open_checkpoint(checkpoint, every, "dmft", p, bound, values, decisive)
    lazy = lazy_limit(control, p, rule, net, bound, values, replicas, averaged)
    return _sample(plan, innovations, {**settings, "control": lazy is not None}, two_time, max_samples, throw, progress, keeper, tolerance, lazy)


def x64_enabled() -> bool:
    """Whether JAX has double precision."""
    return jnp.zeros(()).dtype == jnp.float64


def real_type(dtype: Any) -> jnp.dtype:
    """The floating-point type of a run.

    Raises:
        ValueError: not float32 or float64, or float64 while JAX has it disabled.
    """
    if dtype is None:
        wide = x64_enabled() and jax.default_backend() == "cpu"
        return jnp.dtype("float64" if wide else "float32")
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        kind = None
    if kind not in (jnp.dtype("float32"), jnp.dtype("float64")):
        raise ValueError(f"dtype={dtype!r} is not supported: give 'float32' or 'float64'")
    if kind == jnp.dtype("float64") and not x64_enabled():
        raise ValueError("dtype='float64' needs JAX's x64 mode, which is off: unset JAX_ENABLE_X64 or set it to 1")
    return kind


def usual_tolerance(kind: jnp.dtype, samples: int) -> tuple[float, float]:
    """The default tolerance where features move far, and the lowest that makes sense.

    In single precision directions cost time and round-off: we follow those whose loss would be seen among the errors of S samples.
    """
    usual = 1e-7 if kind == jnp.dtype("float64") else 1e-5 * min(1.0, SINGLE_SAMPLES / samples)
    return usual, ROUND_OFF * float(jnp.finfo(kind).eps)


def rank_tolerance(rank_tol: float | None, usual: float, floor: float, moved: float, precision: str) -> float:
    """The tolerance asked for, or the usual one.

    Raises:
        ValueError: a tolerance that cannot be kept.
    """
    if rank_tol is None:
        return max(_at_richness(usual, moved), floor)
    if not floor <= rank_tol < 1:
        raise ValueError(f"rank_tol={rank_tol!r} cannot be a relative energy in {precision}: give {floor:.0e} <= rank_tol < 1")
    return float(rank_tol)


def _at_richness(usual: float, moved: float) -> float:
    """Outputs are what features move by: energies count by its square."""
    return usual * min(1.0, moved / FULL_RICHNESS) ** 2


def _tell_what_is_missed(plan: Plan, samples: int, stacklevel: int) -> None:
    """Warn where movement that counts is below what the precision can follow."""
    usual, floor = usual_tolerance(plan.kind, samples)
    moved = richness(plan.problem, plan.rule, plan.values)
    wanted = _at_richness(usual, moved)
    if plan.rank_tol > floor or floor <= SHORTFALL * wanted:
        return
    double = "dtype='float64', " if plan.kind == jnp.dtype("float32") else ""
    warnings.warn(
        f"gamma0={plan.problem.gamma0:g} in {plan.kind}: features move so little, by {moved:.0e} of their size, that directions with {wanted:.0e} of "
        f"their energy count, and those below {floor:.0e} cannot be followed, an error of outputs that standard errors do not contain; give "
        f"{double}a larger gamma0, larger targets, or solve_lazy",
        stacklevel=stacklevel + 1,
    )


def _wanted_error(tol: float | None, replicas: int) -> float | None:
    if tol is None:
        return None
    if not 0 < tol < 1:
        raise ValueError(f"tol={tol!r} cannot be a relative standard error of the loss: give 0 < tol < 1 (rank_tol is the bases' tolerance)")
    if replicas == 1:
        raise ValueError(f"tol={tol!r} needs a standard error, which replicas=1 does not have: give replicas >= 2")
    return float(tol)


# ---- linear units ---------------------------------------------------------------------------------------------------


def _closes_on_covariances(rule: Any, net: Any, bound: Dynamics) -> bool:
    """Whether `solve_linear` solves this: it does not know feedback weights that learn, refuses gates, and names that its code uses itself."""
    return not (bound.evolves or bound.gated) and _linear(rule, net)


@kept
def _linear(rule: Any, net: Any) -> bool:
    try:
        rule.dmft_equations(net).linear().source()
    except (AttributeError, ValueError):
        return False
    return True


def _exact(p: Problem, rule: Any, net: Any, bound: Dynamics, parameters, responses: bool, throw: bool) -> Solution:
    if bound.evolves:
        raise ValueError(f"method='exact' does not know feedback weights that learn, as those of {bound.name}: give method='sampling'")
    seconds = Seconds()
    solution = seconds.spend("run", lambda: solve_linear(p, rule, net, parameters=parameters, responses=responses, throw=throw))
    status = "converged" if solution.status == "ok" else solution.status
    return replace(solution, stats={**solution.stats, "status": status, "seconds": seconds.parts})


# ---- sampling -------------------------------------------------------------------------------------------------------


def _sample(
    plan: Plan, innovations: Innovations, settings, two_time: bool, max_samples: int, throw: bool, progress: bool, keeper: Keeper,
    tolerance: Callable[[int], float], lazy: Lazy | None,
) -> Solution:  # fmt: skip
    """Replicas at one number of samples; with `tol` at more and more of them."""
    replicas = settings["replicas"]

    def solve(innovations: Innovations, reached: str) -> Solution:
        S = innovations.samples
        sized = replace(_with_record(plan, S * replicas, two_time), rank_tol=tolerance(S))
        _tell_what_is_missed(sized, S, stacklevel=5)  # whoever called solve_dmft
        seconds = Seconds()
        with Progress(progress, f"{plan.rule.name}, S = {S}{reached}", replicas * plan.problem.steps) as bar:
            runs = [run(sized, replace(innovations, replica=replica), bar, seconds, keeper) for replica in range(replicas)]
        return solution_of(plan.problem, plan.rule, plan.values, runs, {**settings, "samples": S, "rank_tol": sized.rank_tol}, throw, seconds.parts, lazy)

    return refined(solve, innovations, settings["tol"], max_samples)


def refined(solve: Callable[[Innovations, str], Solution], innovations: Innovations, tol: float | None, max_samples: int) -> Solution:
    """A solution at one number of samples; with `tol` at more and more of them.

    Args:
        solve: the solution with some innovations; its second argument tells a progress bar what was reached before.
        innovations: to begin with.
        tol, max_samples: as in `solve_dmft`.
    """
    reached = ""
    while True:
        S, solution = innovations.samples, solve(innovations, reached)
        error = loss_error(solution)
        if tol is None or error <= tol or solution.status != "ok":
            return solution
        if max_samples < 2 * S:
            return _with_status(solution, "sample limit reached")
        innovations, reached = replace(innovations, samples=_more(S, error / tol, max_samples)), f" (error {error:.1e}, wanted {tol:.1e})"


def loss_error(solution: Solution) -> float:
    """The largest standard error of the loss over time, relative to the loss at t = 0, or to the largest |loss| if that is not positive."""
    unit = solution.loss[0] if solution.loss[0] > 0 else np.max(np.abs(solution.loss))
    return float(np.max(solution.loss_se) / unit) if unit > 0 else 0.0


def _more(samples: int, excess: float, max_samples: int) -> int:
    """Doubled at least once, and as often at once as an error that falls like 1/S, the fastest there is, would ask for."""
    doublings = max(1, int(np.floor(np.log2(excess)))) if np.isfinite(excess) else 1
    while samples * 2**doublings > max_samples:
        doublings -= 1
    return samples * 2**doublings


def _with_record(plan: Plan, samples: int, two_time: bool) -> Plan:
    """The plan with the way to keep kernels of φ(h^L) and g¹."""
    p, rule = plan.problem, plan.rule
    size = p.steps * p.P * p.outputs
    bytes_ = (2 if rule.gradient else 3) * size * samples * 4
    record = "equal times" if not two_time else "fields" if size <= FIELDS_LIMIT and bytes_ <= FIELDS_MEMORY else "spans"
    return replace(plan, record=record, layout=replace(plan.layout, spans=record == "spans"))


@dataclass(frozen=True)
class _Records:
    """Histories of all replicas, in double precision, as kernels of layers 1…L."""

    histories: list[dict[str, Any]]
    kernels_at: tuple[int, ...] | None

    def factors(self, name: str) -> list[list[np.ndarray]]:
        """Coefficients by layer and replica."""
        stored = [h[name if name in h else "g"] for h in self.histories]
        return [[np.asarray(h[l], float) for h in stored] for l in range(len(stored[0]))]

    def pairs(self, left: str, right: str) -> list[Kernel]:
        """K = left rightᵀ of every layer whose fields have a basis."""
        return [FactoredKernel(a, b) for a, b in zip(self.factors(left), self.factors(right), strict=True)]

    def single(self, name: str, left: str, right: str) -> list[Kernel]:
        """The layer whose fields have none."""
        if "equal" not in self.histories[0]:
            return []
        diagonal = np.stack([np.asarray(h["equal"][name if name in h["equal"] else "G"], float) for h in self.histories])
        if "fields" not in self.histories[0]:
            remedy = "give solve_dmft(..., two_time=True)" + ("" if self.kernels_at is None else " without kernels_at")
            return [DenseKernel(diagonal, remedy=remedy, times=self.kernels_at)]
        fields = lambda side: [h["fields"][side if side in h["fields"] else "bottom"] for h in self.histories]
        return [FieldKernel(fields(left), fields(right), diagonal)]

    def layers(self) -> dict[str, Layers]:
        """Φ(t,s) = a(t) a(s)ᵀ, G = g gᵀ, G̃ = g g̃ᵀ, H = g̃ g̃ᵀ."""
        Phi = [*self.pairs("a", "a"), *self.single("Phi", "top", "top")]
        G = [*self.single("G", "bottom", "bottom"), *self.pairs("g", "g")]
        G_tilde = [*self.single("G_tilde", "bottom", "bottom_tilde"), *self.pairs("g", "g_tilde")]
        H = [*self.single("H", "bottom_tilde", "bottom_tilde"), *self.pairs("g_tilde", "g_tilde")]
        return {name: Layers(kernels, 1) for name, kernels in {"Phi": Phi, "G": G, "G_tilde": G_tilde, "H": H}.items()}


def solution_of(
    p: Problem, rule: Dynamics, values: Mapping[str, float], runs: list[dict[str, Any]], settings: Mapping[str, Any], throw: bool,
    seconds: Mapping[str, float] | None = None, lazy: Lazy | None = None,
) -> Solution:  # fmt: skip
    """Order parameters and diagnostics of all replicas.

    Args:
        p, rule, values, settings: what was solved and how.
        runs: what `causal.run` found.
        throw: whether a failure is raised.
        seconds: time by part.
        lazy: the lazy limit, where its deviation from the replicas' is used.
    """
    histories = [each["history"] for each in runs]
    outputs = lambda name: np.stack([np.asarray(h[name], float) for h in histories])
    f_test = outputs("f_test") if p.X_test is not None else None
    ranks = {f"rank_{side}": [each["ranks"][side] for each in runs] for side in ("forward", "backward")}
    largest = max((size for groups in ranks.values() for sizes in groups for size in sizes), default=0)
    stats = {
        "status": "rank capacity reached" if settings["method"] == "sampling" and largest >= settings["samples"] else "converged",
        **ranks,
        "dropped_energy": max(each["dropped"] for each in runs),
        "gram_error": max(each["gram_error"] for each in runs),
        "capacity": max(each["capacity"] for each in runs),
        "seconds": dict(seconds or {}),
    }
    averaged = settings.get("kernels_at")
    f, kernels = outputs("f"), _Records(histories, None if averaged is None else tuple(averaged)).layers()
    if lazy is not None:
        f, kernels = controlled(p, rule, values, f, kernels, lazy)
    Phi, G, G_tilde, H = (kernels[name] for name in ("Phi", "G", "G_tilde", "H"))
    solution = assemble(
        p, rule, dict(values), "dmft", f, None if f_test is None else f_test - f_test[:, :1], Phi, G, G_tilde, H,
        dict(settings), stats, False,
    )  # fmt: skip
    if solution.status != "ok":
        solution = _with_status(solution, solution.status)
    if times := tuple(settings.get("snapshots", ())):
        solution = replace(solution, snapshots=collect(times, [h["snapshots"] for h in histories]))
    return raise_failure(solution) if throw else solution


def _with_status(solution: Solution, status: str) -> Solution:
    return replace(solution, stats={**solution.stats, "status": status})
