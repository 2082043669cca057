"""What every solver returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .dynamics import Dynamics
from .errors import SolveFailed
from .order_parameters import ConstantKernel, Kernel, Layers, mean_and_error
from .problem import Problem
from .snapshots import Snapshot


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """A learning rule's dynamics on a problem; entry t of every record is the state before the t-th update.

    Attributes:
        problem, rule, solver: what was solved (the rule by name), and "dmft", "lazy" or "finite".
        f, f_test: outputs, centred at t = 0, mean over replicas (seeds); `_se` are standard errors over replicas. f_test is None
            without test inputs.
        loss, test_loss: mean of the replicas' losses; test_loss is None without y_test.
        Phi: Φ⁰ = K^x, Φ¹…Φ^L; `Phi[l].block(t, s)`, `.block_se(t, s)`, `.dense()`.
        G, G_tilde, H: ⟨g g⟩, ⟨g g̃⟩, ⟨g̃ g̃⟩ of layers 1…L+1 (the last is 1).
        entk: K(t, t) = Σ_ℓ G̃^{ℓ+1} (σ_w² Φ^ℓ + σ_b²).
        alignment: tr G̃/√(tr G tr H), the cosine of gradient and pseudo-gradient fields over all examples and neurons.
        cka: centred kernel alignment of Φ^ℓ(t, t) and y yᵀ; `kta` is the same without centring.
        stats: rank, dropped energy, settings: what the solver reports about itself.
        status: "ok", "non-finite" or "diverged".
        snapshots: fields of all samples or neurons, by time, where the solver was asked for them.

    Shapes:
        f (T, P), f_test (T, P_test), loss (T,), entk (T, P, P), alignment, cka, kta (L, T). With C > 1 outputs f (T, P, C), f_test
        (T, P_test, C), and eNTK and gradient kernels have an index for example and output, the outputs of an example following each
        other: entk (T, P C, P C).

    Source: Bordelon & Pehlevan 2022, 2023; Cortes et al. 2012 (centred alignment); THEORY sections 1, 2, 4.
    """

    problem: Problem
    rule: str
    solver: str
    f: Float[np.ndarray, "T P"]
    f_se: Float[np.ndarray, "T P"]
    loss: Float[np.ndarray, "T"]
    loss_se: Float[np.ndarray, "T"]
    f_test: Float[np.ndarray, "T P_test"] | None
    f_test_se: Float[np.ndarray, "T P_test"] | None
    test_loss: Float[np.ndarray, "T"] | None
    test_loss_se: Float[np.ndarray, "T"] | None
    Phi: Layers
    G: Layers
    G_tilde: Layers
    H: Layers
    entk: Float[np.ndarray, "T P P"]
    entk_se: Float[np.ndarray, "T P P"]
    alignment: Float[np.ndarray, "L T"]
    alignment_se: Float[np.ndarray, "L T"]
    cka: Float[np.ndarray, "L T"]
    cka_se: Float[np.ndarray, "L T"]
    kta: Float[np.ndarray, "L T"]
    kta_se: Float[np.ndarray, "L T"]
    source: str = ""
    parameters: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    snapshots: Mapping[int, Snapshot] = field(default_factory=dict)

    @property
    def t(self) -> Int[np.ndarray, "T"]:
        """Recorded times, in updates."""
        return np.arange(len(self.loss))

    @property
    def depth(self) -> int:
        """L."""
        return len(self.alignment)

    @property
    def runs(self) -> float:
        """How many replicas or networks the standard errors come from, of several widths the fewest; infinity where nothing is sampled."""
        return float(np.min(self.settings.get("replicas") or self.settings.get("seeds") or np.inf))

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one npz file, atomically. See `storage.save`."""
        from .storage import save

        save(self, path)

    @staticmethod
    def load(path: str | PathLike[str]) -> Solution:
        """Read what `save` wrote. See `storage.load`."""
        from .storage import load

        return load(path)

    def plot(self):
        """One figure: loss, outputs, alignment, kernels before and after. See `plotting.plot`."""
        from .plotting import plot

        return plot(self)

    def __repr__(self) -> str:
        p = self.problem
        layers = "1 hidden layer" if self.depth == 1 else f"{self.depth} hidden layers"
        head = f"{self.rule}, {layers}, {SOLVERS[self.solver]}: P={p.P}, T={p.steps}, γ0={p.gamma0:g}, η={p.eta:g}"
        times = sorted({0, (p.steps - 1) // 2, p.steps - 1})
        rows = [["t", *map(str, times)]]
        value = lambda mean, se: f"{mean:.5g}" + (f" ± {se:.1g}" if np.isfinite(se) and se > 0 else "")
        known = lambda mean, se: value(mean, se) if np.isfinite(mean) else "–"
        rows.append(["loss", *(value(self.loss[t], self.loss_se[t]) for t in times)])
        if self.test_loss is not None and self.test_loss_se is not None:
            rows.append(["test loss", *(value(self.test_loss[t], self.test_loss_se[t]) for t in times)])
        for l in range(self.depth):
            rows.append([f"alignment {l + 1}", *(known(self.alignment[l, t], self.alignment_se[l, t]) for t in times)])
        for l in range(self.depth):
            rows.append([f"CKA {l + 1}", *(known(self.cka[l, t], self.cka_se[l, t]) for t in times)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        setting = ", ".join(f"{name}={entry}" for name, entry in self.settings.items())
        return "\n".join([head, *(f"  {line}" for line in lines), f"  status {self.status}" + (f"; {setting}" if setting else "")])


SOLVERS = {"dmft": "infinite width", "lazy": "lazy limit", "finite": "finite width"}


def assemble(
    p: Problem, rule: Dynamics, values: dict[str, float], solver: str, f: Float[np.ndarray, "R T P"],
    f_test: Float[np.ndarray, "R T P_test"] | None, Phi: Layers, G: Layers, G_tilde: Layers, H: Layers,
    settings: dict[str, Any], stats: dict[str, Any], throw: bool, entk: Float[np.ndarray, "R T P P"] | None = None,
) -> Solution:  # fmt: skip
    """A `Solution` from what replicas found: outputs and kernels of the hidden layers.

    Args:
        p, rule, values, solver, settings, stats: for the record.
        f, f_test: outputs of each replica.
        Phi, G, G_tilde, H: kernels of layers 1…L.
        throw: whether a failure is raised.
        entk: where the solver knows it better than from the kernels.

    Raises:
        SolveFailed: a number is not finite.
    """
    Phi = with_inputs(p, Phi)
    G, G_tilde, H = (with_readout(p, kernels) for kernels in (G, G_tilde, H))
    with np.errstate(all="ignore"):
        K = entk_of(Phi, G_tilde, *map(float, rule.module.scales(**values))) if entk is None else entk
        tests: tuple[Any, Any] = (None, None) if f_test is None else mean_and_error(f_test)
        test_losses: tuple[Any, Any] = (None, None) if f_test is None or p.y_test is None else mean_and_error(p.test_loss(f_test))
        trace = lambda kernels: np.stack([np.trace(k.equal_time_replicas(), axis1=2, axis2=3) for k in list(kernels)[: rule.depth]], 1)
        alignment = mean_and_error(_ratio(trace(G_tilde), np.sqrt(trace(G) * trace(H))))
        features = np.stack([k.equal_time_replicas() for k in list(Phi)[1:]], axis=1)
        f_mean, f_se = mean_and_error(f)
        loss, loss_se = mean_and_error(p.loss(f))
        entk_mean, entk_se = mean_and_error(K)
        cka, cka_se = mean_and_error(target_alignment(features, p.y, centred=True))
        kta, kta_se = mean_and_error(target_alignment(features, p.y, centred=False))
    solution = Solution(
        problem=p, rule=rule.name, solver=solver, f=f_mean, f_se=f_se, loss=loss, loss_se=loss_se, f_test=tests[0], f_test_se=tests[1],
        test_loss=test_losses[0], test_loss_se=test_losses[1], Phi=Phi, G=G, G_tilde=G_tilde, H=H, entk=entk_mean, entk_se=entk_se,
        alignment=alignment[0], alignment_se=alignment[1], cka=cka, cka_se=cka_se, kta=kta, kta_se=kta_se, source=rule.source,
        parameters=dict(values), settings=settings, stats=stats, status=_status(p, f),
    )  # fmt: skip
    return raise_failure(solution) if throw else solution


def with_inputs(p: Problem, Phi: Iterable[Kernel]) -> Layers:
    """Φ⁰…Φ^L from those of the hidden layers."""
    return Layers([ConstantKernel(p.Kx, p.steps), *Phi], 0)


def with_readout(p: Problem, gradients: Iterable[Kernel]) -> Layers:
    """G¹…G^{L+1} from those of the hidden layers; an output has a readout of its own."""
    return Layers([*gradients, ConstantKernel(np.tile(np.eye(p.outputs), (p.P, p.P)), p.steps)], 1)


def without_error(solution: Solution) -> Solution:
    """The same with standard errors zero: of what is not sampled."""
    errors = [name for name in vars(solution) if name.endswith("_se") and getattr(solution, name) is not None]
    return replace(solution, **{name: np.zeros_like(getattr(solution, name)) for name in errors})


def raise_failure(solution: Solution) -> Solution:
    """The solution, if it is one.

    Raises:
        SolveFailed: it is not, with a learning rate to try.
    """
    if solution.status != "ok":
        raise SolveFailed(_diagnosis(solution, solution.entk[0]), solution.status, solution)
    return solution


def entk_of(Phi: Layers, G_tilde: Layers, sigma_w: float, sigma_b: float) -> Float[np.ndarray, "R T P P"]:
    """K(t,t) = Σ_{ℓ=0}^{L} G̃^{ℓ+1}(t,t) ∘ (σ_w² Φ^ℓ(t,t) + σ_b²), of every replica."""
    terms = entk_terms(Phi, G_tilde, sigma_w, sigma_b)
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def entk_terms(Phi: Layers, G_tilde: Layers, sigma_w: float, sigma_b: float) -> list[Float[np.ndarray, "R T P P"]]:
    """The terms of K(t,t), ℓ = 0…L: what training W^ℓ (and b^ℓ) contributes; Φ_μν is the same for all outputs of μ and ν."""
    weight, bias = float(sigma_w) ** 2, float(sigma_b) ** 2
    outputs = G_tilde[G_tilde.first].shape[1] // Phi[Phi.first].shape[1]
    for_outputs = lambda array: array if outputs == 1 else array.repeat(outputs, axis=-1).repeat(outputs, axis=-2)
    return [
        backward.equal_time_replicas() * for_outputs(weight * forward.equal_time_replicas() + bias)
        for forward, backward in zip(Phi, G_tilde, strict=True)
    ]


def target_alignment(Phi: Float[np.ndarray, "*batch P P"], y: Float[np.ndarray, "P *C"], centred: bool) -> Float[np.ndarray, "*batch"]:
    """tr Φyyᵀ/(‖Φ‖ ‖yyᵀ‖), of centred Φ and y for CKA. NaN where the target (or kernel) vanishes."""
    y = y.reshape(len(y), -1)
    if centred:
        y, rows = y - y.mean(axis=0), Phi.mean(axis=-1, keepdims=True)
        Phi = Phi - rows - Phi.mean(axis=-2, keepdims=True) + rows.mean(axis=-2, keepdims=True)
    flat = Phi.reshape(*Phi.shape[:-2], -1)
    return _ratio(flat @ (y @ y.T).ravel(), np.sqrt(np.einsum("...k,...k->...", flat, flat)) * np.linalg.norm(y.T @ y))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)


def _status(p: Problem, f: np.ndarray) -> str:
    if not np.all(np.isfinite(f)):
        return "non-finite"
    return "diverged" if np.any(p.loss(f) > _highest_loss(p)) else "ok"


def _highest_loss(p: Problem) -> float:
    """A loss that training which descends never has: its start, and 10⁶ times the start or what outputs of order one can make of it.

    The start alone is no unit: without targets it is zero, and then the tiny loss that round-off, decay and finite widths leave is more.
    """
    none = np.zeros(p.y.shape)
    start = float(p.loss(none))
    wrong = np.where(np.asarray(p.objective.error(none, p.y)) > 0, -1.0, 1.0)
    return start + 1e6 * max(abs(start), float(p.loss(wrong)) - start)


def _diagnosis(solution: Solution, K: np.ndarray) -> str:
    p = solution.problem
    bad = ~np.isfinite(solution.loss) if solution.status == "non-finite" else solution.loss > _highest_loss(p)
    first = int(np.argmax(bad)) if np.any(bad) else 0
    top = float(np.max(np.linalg.eigvals(K).real)) if np.all(np.isfinite(K)) else np.nan
    message = f"the solution of {solution.rule} is {solution.status} from t={first} on"
    if np.isfinite(top) and top > 0 and p.plain:
        limit = 2 * p.P / top
        if p.eta > 0.5 * limit:
            return (
                f"{message}: eta={p.eta:g} against the stability limit 2P/λ_max(eNTK at t=0) = {limit:.3g}; try eta={0.5 * limit:.2g}"
            )
        return f"{message}, though eta={p.eta:g} is below 2P/λ_max(eNTK at t=0) = {limit:.3g}: features grow; lower eta or gamma0"
    return f"{message}: lower eta={p.eta:g}, or check that the activation is finite where it is used"

