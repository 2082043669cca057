"""The lazy limit γ0 → 0: training with a kernel that stays where it starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import safe
from .dynamics import Dynamics, dynamics, kept
from .jaxify import jaxify
from .objective import Objective
from .order_parameters import AbsentKernel, ConstantKernel, DenseKernel, FactoredKernel, Kernel, Layers, twice
from .problem import Problem
from .solution import Solution, assemble, raise_failure, without_error

STEP = "t"  # the parameter by which a kernel depends on the step


def solve_lazy(
    p: Problem,
    rule: Any,
    net: Any,
    *,
    parameters: Mapping[str, float] | None = None,
    throw: bool = True,
) -> Solution:
    """Solve the lazy limit with the rule's derived kernel: f ← f + v, v ← β v + (η/P) K (ω Δ), Δ = −∂loss/∂f (y − f for the squared loss).

    Args:
        p: the problem; γ0 is not used, it is zero here.
        rule, net: learning rule and network.
        parameters: values of symbolic parameters, by name.
        throw: raise when training diverges.

    Returns:
        The same record as `solve_dmft`, with standard errors zero. H raises when it is asked for if g̃ is a sum of terms with and without
        the error signal, or its feedback field depends on the layer's features.

    Raises:
        ValueError: a symbolic parameter without a value, or a problem with weight decay.
        SolveFailed: η is beyond the stability limit (unless `throw=False`).

    Source: Jacot et al. 2018; THEORY section 3.
    """
    bound, values = dynamics(rule, net, parameters)
    if p.weight_decay:
        raise ValueError(
            f"weight_decay={p.weight_decay:g}: shrinking weights change the kernel also where no feature is learned, so that there is no fixed "
            "kernel to train with; use solve_dmft at small gamma0"
        )
    _tell_of_zero_inputs(p, bound, values)
    kernel = jaxify(rule.lazy_kernel(net))
    # feedback weights that learn change the kernel with the step, also where no feature does
    moves = STEP in kernel.parameters
    times = [{STEP: t} for t in range(p.steps)] if moves else [{}]
    settings = [{**{name: values[name] for name in kernel.parameters if name != STEP}, **now} for now in times]
    K = np.stack([np.asarray(kernel(p.X, **now), dtype=float) for now in settings])
    K_test = None if p.X_test is None else np.stack([np.asarray(kernel(p.X_test, p.X, **now), dtype=float) for now in settings])
    f, f_test = descend(p, _for_outputs(p, K), K_test)
    Delta = np.asarray(p.objective.error(f, p.y)).reshape(p.steps, -1)
    found = order_parameters(p, layers_module(rule, net), bound, values, times, Delta)
    layers = lambda name: Layers(found[name], 1)
    entk = np.broadcast_to(_for_outputs(p, K), (p.steps, p.P * p.outputs, p.P * p.outputs))[None]
    assembled = assemble(
        p, bound, values, "lazy", f[None], None if f_test is None else f_test[None],
        layers("Phi"), layers("G"), layers("G_tilde"), layers("H"), {}, {}, False, entk=entk,
    )  # fmt: skip
    solution = without_error(assembled)
    return raise_failure(solution) if throw else solution


def _tell_of_zero_inputs(p: Problem, bound: Dynamics, values: Mapping[str, float]) -> None:
    """Warn where what networks do at an input that is zero is not the limit of small ones, which closed forms are."""
    zero = [f"{name}[{at[0]}]" for name, X in (("X", p.X), ("X_test", p.X_test)) if X is not None and len(at := np.flatnonzero(~np.any(X, axis=1)))]
    if not zero or (bound.biased and not bound.gated):
        return
    tiny = np.array([1e-30, -1e-30])
    sides = [bound.module.forward(*fields, **values) for fields in ((tiny, np.ones(2)), (np.ones(2), tiny))]
    if any(abs(above - below) > 1e-9 for above, below in map(np.asarray, sides)):
        warnings.warn(
            f"{' and '.join(zero)} is zero, where units of {bound.name} jump: the kernel of a zero input with itself is the limit of small inputs here, "
            "not what networks have; leave such inputs out, or use solve_dmft at small gamma0",
            stacklevel=3,
        )


def order_parameters(
    p: Problem, module: ModuleType, bound: Dynamics, values: Mapping[str, float], times: list[dict[str, int]], Delta: Float[np.ndarray, "#T PC"]
) -> dict[str, list[Kernel]]:
    """Kernels of the layers 1…L by name: constant, but where feedback weights learn or g̃ contains the error signal.

    Args:
        p: gives inputs and outputs.
        module: the generated functions, `layers_module`.
        bound, values: the rule on the network, and its parameters.
        times: what else the generated functions depend on, at every time or for all.
        Delta: error signals at these times.
    """
    needed = {name: value for name, value in values.items() if name in module.PARAMETERS}
    names = ("Phi", "G") if bound.gradient else ("Phi", "G", "G_tilde", "H")
    found = [jax.tree.map(lambda array: np.asarray(array, dtype=float), at_start(jnp.asarray(p.X), {**needed, **now}, module, names)) for now in times]
    if bound.gradient:
        found = [{**at, "G_tilde": at["G"], "H": at["G"]} for at in found]
    scaled = module.SCALES_WITH_ERROR
    shaped = lambda name, kernel: kernel if name == "Phi" or (name == "H" and scaled) else _for_outputs(p, kernel)
    layers = {name: [_over_time([shaped(name, at[name][l]) for at in found], p.steps) for l in range(len(found[0][name]))] for name in found[0]}
    if scaled and any(bound.module.PATH) and p.outputs > 1:  # some terms join outputs, others do not
        layers["H"] = []
    elif scaled:
        layers["H"] = [_with_error(kernel, Delta) for kernel in layers["H"]]
    reason = f"H of {module.NAME} is not known here, as g̃ contains the error signal, or the feedback field the features: use solve_dmft at small gamma0"
    layers["H"] = layers["H"] or [AbsentKernel(p.steps, p.P * p.outputs, reason)] * module.DEPTH
    return layers


def layers_module(rule: Any, net: Any) -> ModuleType:
    """Generated functions for the order parameters of all layers at initialisation."""
    return jaxify(_layers_source(rule, net))


@kept
def _layers_source(rule: Any, net: Any) -> str:
    return rule.lazy_kernel(net).layers_source()


@partial(jax.jit, static_argnames=("module", "names"))
def at_start(
    X: Float[Array, "P D"], parameters: dict[str, float], module: ModuleType, names: tuple[str, ...] = ("Phi", "G", "G_tilde", "H")
) -> dict[str, tuple[Float[Array, "P P"], ...]]:
    """The order parameters of all layers at initialisation, by name."""
    entries, P = safe.gram(X), len(X)
    pairs, single = module.layers_pairs(*entries, **parameters), module.layers_diagonal(entries[0], **parameters)
    square = lambda whole, diagonal: safe.with_diagonal(jnp.broadcast_to(whole, (P, P)), jnp.broadcast_to(diagonal, (P, 1)), False)
    return {name: jax.tree.map(square, pairs[name], single[name]) for name in names}


def _over_time(values: list[Float[np.ndarray, "P P"]], steps: int) -> Kernel:
    if all(np.array_equal(value, values[0]) for value in values):  # features, and gradients
        return ConstantKernel(values[0], steps)
    remedy = "the feedback weights learn; for two times give solve_dmft a small gamma0"
    return DenseKernel(twice(np.stack(values)), remedy=remedy)


def _with_error(kernel: Kernel, Delta: Float[np.ndarray, "T PC"]) -> FactoredKernel:
    """Δ_μ(t) Δ_ν(s) H_μν, from a square root of H; the same H_μν for all outputs of μ and ν."""
    values, axes = np.linalg.eigh(kernel.block(0, 0))
    root = (axes * np.sqrt(np.maximum(values, 0.0))).repeat(Delta.shape[1] // len(axes), axis=0) * Delta[:, :, None]
    return FactoredKernel([root, root], [root, root])


def descend(
    p: Problem, K: Float[np.ndarray, "#T PC PC"], K_test: Float[np.ndarray, "#T K P"] | None
) -> tuple[Float[np.ndarray, "T P *C"], Float[np.ndarray, "T K *C"] | None]:
    """Outputs on train and test inputs at all times, from zero, with kernels at every step, or one for all.

    Args:
        p: the problem; weight decay is not taken into account.
        K: eNTK; an index for example and output.
        K_test: kernels of test inputs with training inputs, the same for all outputs.
    """
    shares = np.ones((1, p.P)) if p.shares is None else p.shares
    tests = np.zeros((1, 0, p.P)) if K_test is None else K_test
    f, f_test = _descended(K, tests, p.y, shares, p.eta / p.P, p.momentum, p.objective, p.steps)
    return np.asarray(f, float), None if K_test is None else np.asarray(f_test, float)


@partial(jax.jit, static_argnames=("objective", "steps"))
def _descended(K, K_test, y, shares, rate, momentum, objective: Objective, steps: int) -> tuple[Array, Array]:
    def step(carry, t):
        (f, f_test), velocities = carry
        share = shares[t % len(shares)].reshape(-1, *(1,) * (y.ndim - 1))
        driven = rate * share * objective.error(f, y)
        now = lambda kernels: kernels[jnp.minimum(t, len(kernels) - 1)]
        pushes = (now(K) @ driven.reshape(-1)).reshape(f.shape), now(K_test) @ driven
        velocities = tuple(momentum * velocity + push for velocity, push in zip(velocities, pushes, strict=True))
        return ((f + velocities[0], f_test + velocities[1]), velocities), (f, f_test)

    rest = jnp.zeros(y.shape, K.dtype), jnp.zeros((K_test.shape[1], *y.shape[1:]), K.dtype)
    return jax.lax.scan(step, (rest, rest), jnp.arange(steps))[1]


def _for_outputs(p: Problem, kernel: Float[np.ndarray, "*batch P P"]) -> Float[np.ndarray, "*batch PC PC"]:
    """K_μν δ_cd: the readouts of two outputs are independent, and so is all that comes back from them."""
    return kernel if p.outputs == 1 else np.kron(kernel, np.eye(p.outputs))
