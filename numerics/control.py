"""Exact kernels at t = 0, and what is known of the lazy limit as a control variate for what follows.

A replica's kernels at t = 0 deviate from the closed forms by a known sampling error δ. Later kernels share some of it, less and less as
features move, and outputs share what lazy training makes of it, d = f[K̂(0)] − f[K(0)]. So

    K(t,s) − β_t^½ β_s^½ δ,        f(t) − β_t d,

with β_t the regression on δ (on d) over replicas, examples and outputs, have the same mean and less variance: none at t = 0, where β = 1.

Source: control variates (Hammersley & Handscomb 1964); THEORY section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .dynamics import Dynamics
from .lazy import descend, layers_module, order_parameters
from .order_parameters import AbsentKernel, DenseKernel, FactoredKernel, FieldKernel, Kernel, Layers
from .problem import Problem
from .richness import richness
from .solution import entk_of, with_inputs, with_readout

# Replicas without which coefficients cannot be found.
REPLICAS = 3
# Richness up to which it is done without being asked for: there errors of the loss become two to seven times smaller.
NEARLY_LAZY = 0.7
# Examples up to which nested integrals, 150,000 evaluations a pair, are made without being asked for.
NESTED = 32
# A coefficient beyond is chance: it is 1 where the error stays, 0 where it is forgotten.
LARGEST = 2.0


class Lazy(NamedTuple):
    """What is known: outputs of lazy training (T, P, …), and Φ, G, G̃ and H at t = 0 by name, layers 1…L."""

    f: Float[np.ndarray, "T P *C"]
    kernels: dict[str, list[Kernel]]


def lazy_limit(
    control: bool | None, p: Problem, rule: Any, net: Any, bound: Dynamics, values: Mapping[str, float], replicas: int, times: Any
) -> Lazy | None:
    """The lazy limit of what is solved, if it is to be used.

    Args:
        control: whether it was asked for; None decides.
        p, rule, net, bound, values: what is solved.
        replicas: how many there are.
        times: at which kernels are averaged; None for all.

    Raises:
        ValueError: it was asked for and cannot be, or there is no lazy kernel.
    """
    if control is False or (control is None and richness(p, bound, values) > NEARLY_LAZY):
        return None
    if reason := _obstacle(p, bound, replicas, times):
        if control:
            raise ValueError(f"control=True: {reason}; leave control out")
        return None
    try:
        module = layers_module(rule, net)
    except ValueError:
        # rules whose eNTK contains the error signal have no lazy kernel to derive
        if control:
            raise
        return None
    if control is None and p.P > NESTED and "nested" in module.METHOD:
        return None
    start = np.asarray(p.objective.error(np.zeros_like(p.y), p.y)).reshape(1, -1)
    kernels = order_parameters(p, module, bound, values, [{}], start)
    return Lazy(descend(p, _entk(p, bound, values, kernels), None)[0], kernels)


def _obstacle(p: Problem, bound: Dynamics, replicas: int, times: Any) -> str | None:
    if replicas < REPLICAS:
        return f"coefficients are found from at least {REPLICAS} replicas, and replicas={replicas}"
    if p.weight_decay:
        return f"with weight_decay={p.weight_decay:g} there is no lazy limit to compare with"
    if bound.evolves:
        return f"the feedback weights of {bound.name} learn, so that its lazy limit does not follow from kernels at t = 0"
    if not np.all(np.diag(p.Kx)):
        return "an input is zero, where closed forms are limits of small inputs"
    if times is not None and 0 not in times:
        return f"kernels_at={tuple(times)} has no t = 0"
    return None


def controlled(
    p: Problem, bound: Dynamics, values: Mapping[str, float], f: Float[np.ndarray, "R T P *C"], kernels: Mapping[str, Layers], lazy: Lazy
) -> tuple[Float[np.ndarray, "R T P *C"], dict[str, Layers]]:
    """Outputs and kernels of all replicas, less what is known of their errors.

    Args:
        p, bound, values: what was solved.
        f: outputs.
        kernels: Phi, G, G_tilde and H of layers 1…L.
        lazy: the lazy limit.
    """
    starts: dict[str, list[Kernel]] = {
        name: [DenseKernel(kernel.equal_time_replicas()[:, :1]) for kernel in kernels[name]] for name in ("Phi", "G_tilde")
    }
    # where W carries nothing back, samples of W and Wᵀ are not adjoint, and ⟨g g̃⟩ has errors that outputs do not share
    carries = [bool(bound.feeds_back(k, shrinks=False)) for k in range(1, bound.depth)]
    pairs = enumerate(zip(starts["G_tilde"], lazy.kernels["G_tilde"], strict=True))
    starts["G_tilde"] = [sampled if all(carries[l:]) else exact for l, (sampled, exact) in pairs]
    error = np.stack([descend(p, K[None], None)[0] for K in _entk(p, bound, values, starts)]) - lazy.f
    corrected = lambda name, layers: Layers([_corrected(*pair) for pair in zip(layers, lazy.kernels[name], strict=True)], layers.first)
    return _less(f, np.where(np.isfinite(error), error, 0.0)), {name: corrected(name, layers) for name, layers in kernels.items()}


def _entk(p: Problem, bound: Dynamics, values: Mapping[str, float], kernels: Mapping[str, Sequence[Kernel]]) -> Float[np.ndarray, "R PC PC"]:
    """The eNTK at t = 0 from kernels of layers 1…L."""
    return entk_of(with_inputs(p, kernels["Phi"]), with_readout(p, kernels["G_tilde"]), *map(float, bound.module.scales(**values)))[:, 0]


def _less(x: Float[np.ndarray, "R T *shape"], error: Float[np.ndarray, "R T *shape"]) -> Float[np.ndarray, "R T *shape"]:
    return x - _coefficients(x, error).reshape(*x.shape[:2], *(1,) * (x.ndim - 2)) * error


def _coefficients(x: Float[np.ndarray, "R T *shape"], error: Float[np.ndarray, "R #T *shape"]) -> Float[np.ndarray, "R T"]:
    """For each replica the regression of x on its known error over the others, so that the mean stays unbiased and replicas tell its error."""
    others = ((np.delete(x, r, axis=0), np.delete(error, r, axis=0)) for r in range(len(x)))
    return np.stack([_regression(*pair) for pair in others])


def _regression(x: Float[np.ndarray, "R T *shape"], error: Float[np.ndarray, "R #T *shape"]) -> Float[np.ndarray, "T"]:
    """The coefficient at each time, over replicas and entries, between 0 and `LARGEST`; 0 where there is no error."""
    with np.errstate(all="ignore"):
        x, error = x - x.mean(axis=0), error - error.mean(axis=0)
        sums: Callable[[np.ndarray], np.ndarray] = lambda product: np.sum(product, axis=(0, *range(2, product.ndim)))
        return np.clip(np.nan_to_num(sums(x * error) / sums(error * error), nan=0.0), 0.0, LARGEST)


def _corrected(kernel: Kernel, lazy: Kernel) -> Kernel:
    if isinstance(lazy, AbsentKernel):
        return kernel
    equal: Any = kernel.equal_time_replicas()
    error = equal[:, :1] - lazy.block(0, 0)
    if not np.all(np.isfinite(error)):
        return kernel
    beta = _coefficients(equal, error)
    correction = _as_factors(-error[:, 0], np.sqrt(beta))
    if isinstance(kernel, FactoredKernel):
        return kernel.plus(correction)
    diagonal = equal - beta[:, :, None, None] * error
    if isinstance(kernel, FieldKernel):
        return replace(kernel, diagonal=diagonal, correction=correction)
    assert isinstance(kernel, DenseKernel)
    return replace(kernel, diagonal=diagonal)


def _as_factors(error: Float[np.ndarray, "R P P"], root: Float[np.ndarray, "R T"]) -> FactoredKernel:
    """root_t root_s error, of every replica."""
    U, size, V = np.linalg.svd(error)
    left, right = U * size[:, None, :], V.transpose(0, 2, 1)
    return FactoredKernel(list(root[..., None, None] * left[:, None]), list(root[..., None, None] * right[:, None]))
