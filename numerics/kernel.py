"""A generated kernel as an object to call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import safe
from .near import all_pairs, replace_near
from .pairwise import pairwise


class KernelFunction:
    """k(X1, X2=None, **parameters): the lazy eNTK; `k.nngp` likewise for the NNGP kernel.

    Works under jit, vmap and grad, in float32 and float64. Outside of tracing, inputs are checked.

    Attributes:
        module: the generated module.
        source: its text.
        parameters: names of the keyword arguments that the eNTK needs.
    """

    def __init__(self, module: ModuleType, source: str) -> None:
        self.module, self.source = module, source
        self.parameters: tuple[str, ...] = module.PARAMETERS
        self._ntk = _Evaluation(self, "ntk")
        self._nngp = _Evaluation(self, "nngp")

    def __call__(
        self, X1: Any, X2: Any = None, *, block: int | None = None, near_pairs: bool = False, **parameters: Any
    ) -> jax.Array:
        """The eNTK between the rows of X1 and X2.

        Args:
            X1: inputs, (N1, D).
            X2: inputs, (N2, D); X1 with itself if None, then with an exact diagonal.
            block: rows computed at once; chosen automatically if None. Memory is the result and a few blocks.
            near_pairs: compute pairs with |sin θ| < 0.03 from the difference of their inputs, to 1e-12 where the Gram matrix
                gives 1e-9. Costs one more X1 X2ᵀ and D operations for each near pair; under jit, where the near pairs
                cannot be known, D operations for every pair (about D/10 times the plain kernel's time).
            parameters: values of the rule's and network's symbols, e.g. rho=0.3.

        Returns:
            (N1, N2), in the dtype of the inputs.

        Raises:
            TypeError: a parameter that is missing or unknown.
            ValueError: inputs that are not (N, D) with the same D, not real or not finite; a correlation outside [0, 1]; inputs or parameters
                at which an expectation without closed form cannot be integrated: such entries are NaN under jit, where correlations go unchecked.
        """
        return self._ntk(X1, X2, block, near_pairs, parameters)

    def nngp(
        self, X1: Any, X2: Any = None, *, block: int | None = None, near_pairs: bool = False, **parameters: Any
    ) -> jax.Array:
        """The NNGP kernel, the covariance of the readout's preactivation; arguments as for the eNTK."""
        return self._nngp(X1, X2, block, near_pairs, parameters)

    def of_covariance(self, K_mumu: Any, K_munu: Any, K_nunu: Any, **parameters: Any) -> jax.Array:
        """The eNTK as a function of the input kernel's entries K^x_μμ, K^x_μν, K^x_νν, elementwise."""
        given = self._ntk.checked_parameters(parameters, jnp.result_type(float, K_munu))
        refuse_correlations(self.module, parameters)
        return self._ntk.near(*map(jnp.asarray, (K_mumu, K_munu, K_nunu)), **given)

    @property
    def method(self) -> str:
        """How the Gaussian expectations are evaluated: "closed form", or the quadrature with its error bound."""
        return getattr(self.module, "METHOD", "closed form")

    def __repr__(self) -> str:
        arguments = "".join(f", {name}" for name in self.parameters)
        return f"<kernel of {self.module.NAME}, depth {self.module.DEPTH}: k(X1, X2=None{arguments}); {self.method}>"


class _Evaluation:
    """One of the two kernels of a module, jitted."""

    def __init__(self, owner: KernelFunction, name: str) -> None:
        module = owner.module
        self.owner, self.name = owner, name
        self.pairs: Callable[..., jax.Array] = getattr(module, f"{name}_pairs")
        self.single: Callable[..., jax.Array] = getattr(module, f"{name}_diagonal")
        arguments = inspect.signature(self.pairs).parameters
        self.takes_root = "s_K" in arguments
        self.needed = tuple(n for n, p in arguments.items() if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self.symmetric: bool = module.SYMMETRIC
        self.evaluate = jax.jit(self._evaluate, static_argnames="block")
        self.evaluate_all_near = jax.jit(self._all_near)
        self.near = jax.jit(self.pairs)

    def __call__(self, X1: Any, X2: Any, block: int | None, near_pairs: bool, given: dict[str, Any]) -> jax.Array:
        X2 = None if X2 is X1 else X2
        X1, X2 = self.checked_inputs(X1, X2)
        if block is not None and (not isinstance(block, int) or block < 1):
            raise ValueError(f"block={block!r} is not a number of rows: give an integer >= 1, or None for an automatic choice")
        parameters = self.checked_parameters(given, X1.dtype)
        refuse_correlations(self.owner.module, {name: value for name, value in given.items() if name in self.needed})
        traced = _traced(X1) or _traced(X2) or any(map(_traced, parameters.values()))
        if near_pairs and self.takes_root and traced:
            return self.evaluate_all_near(X1, X2, parameters)
        values = self.evaluate(X1, X2, parameters, block=block)
        if near_pairs and self.takes_root:
            values = replace_near(partial(self.near, **parameters), values, X1, X2)[0]
        if not traced and self.owner.method != "closed form":
            self._check_range(values, X1, X2, parameters)
        return values

    def _check_range(self, values: jax.Array, X1: jax.Array, X2: jax.Array | None, parameters: dict[str, jax.Array]) -> None:
        """A quadrature returns NaN beyond the variances for which it was checked: say so."""
        if bool(jnp.isnan(values).any()):
            largest = max(float(jnp.max(jnp.mean(X * X, axis=-1))) for X in (X1, X2) if X is not None)
            measured = [name for name in getattr(self.owner.module, "MEASURED", ()) if name in parameters]
            if measured:
                at = ", ".join(f"{name}={float(parameters[name]):.6g}" for name in measured)
                raise ValueError(
                    f"{at} with inputs of variance |x|²/D up to {largest:.3g}: a function under the integrals varies too sharply, grows too fast "
                    f"or is not finite there, and the error exceeds what is promised ({self.owner.method}): give other values, scale the inputs "
                    "or sigma_w down, or use an activation with a closed form, such as erf for tanh"
                )
            raise ValueError(
                f"inputs with variance |x|²/D up to {largest:.3g} lead beyond the variances for which the quadrature was checked "
                f"({self.owner.method}): scale the inputs or sigma_w down, or use an activation with a closed form"
            )

    def _evaluate(self, X1: jax.Array, X2: jax.Array | None, parameters: dict, block: int | None) -> jax.Array:
        pairs, single = partial(self.pairs, **parameters), partial(self.single, **parameters)
        return pairwise(pairs, single, X1, X2, self.symmetric, self.owner.module.TILE, block)

    def _all_near(self, X1: jax.Array, X2: jax.Array | None, parameters: dict) -> jax.Array:
        values = all_pairs(partial(self.pairs, **parameters), X1, X1 if X2 is None else X2)
        if X2 is not None:
            return values
        return safe.with_diagonal(values, self.single(safe.gram(X1[:1], X1)[2], **parameters), self.symmetric)

    def checked_parameters(self, given: dict[str, Any], dtype: Any) -> dict[str, jax.Array]:
        """The parameters that this kernel needs, in the dtype of the inputs."""
        declared = self.owner.parameters
        for name in given:
            if name not in declared:
                known = f"its parameters are {', '.join(declared)}" if declared else "it has none"
                raise TypeError(f"{name}={given[name]!r} is no parameter of the kernel of {self.owner.module.NAME}: {known}")
        missing = [name for name in self.needed if name not in given]
        if missing:
            wanted = ", ".join(f"{name}=…" for name in missing)
            raise TypeError(f"the kernel of {self.owner.module.NAME} needs a value of {', '.join(missing)}: call k(X1, X2, {wanted})")
        return {name: jnp.asarray(given[name], dtype) for name in self.needed}

    def checked_inputs(self, X1: Any, X2: Any) -> tuple[jax.Array, jax.Array | None]:
        """Inputs as floating arrays of one dtype."""
        named = {"X1": X1} if X2 is None else {"X1": X1, "X2": X2}
        arrays = {name: value if isinstance(value, jax.Array) else np.asarray(value) for name, value in named.items()}
        dtype = jnp.result_type(*arrays.values())
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
        for name, value in arrays.items():
            if jnp.iscomplexobj(value):
                raise ValueError(f"{name} is complex, but inputs are real numbers: give {name}.real, or real and imaginary parts as separate features")
            if value.ndim != 2:
                raise ValueError(
                    f"{name} has shape {value.shape}, but inputs are (N, D), one row each: "
                    f"use {name}[None, :] for a single input or {name}[:, None] for inputs with one feature"
                )
            arrays[name] = jnp.asarray(value, dtype)
            if not _traced(arrays[name]) and not bool(jnp.isfinite(arrays[name]).all()):
                row, column = np.argwhere(~np.isfinite(np.asarray(arrays[name])))[0]
                raise ValueError(
                    f"{name}[{row}, {column}] = {np.asarray(value)[row, column]} is not finite: remove or impute such rows"
                )
        first, second = jnp.asarray(arrays["X1"]), None if "X2" not in arrays else jnp.asarray(arrays["X2"])
        if second is not None and first.shape[1] != second.shape[1]:
            raise ValueError(f"X1 has D = {first.shape[1]} features, X2 has {second.shape[1]}: both need the same")
        return first, second


def refuse_correlations(module: ModuleType, values: Mapping[str, Any]) -> None:
    """Refuse parameters that make a rule's correlations none, where they are known; under jit they are not.

    Raises:
        ValueError: a correlation outside [0, 1].
    """
    correlations = getattr(module, "correlations", None)
    if correlations is None:
        return
    names = inspect.signature(correlations).parameters
    if any(name not in values or _traced(values[name]) for name in names):
        return
    for correlation in correlations(**{name: np.asarray(values[name], float) for name in names}):
        outside = np.ravel(correlation)[~((np.ravel(correlation) >= 0) & (np.ravel(correlation) <= 1))]
        if len(outside):
            raise ValueError(f"rho={outside[0]:g} is not a correlation: FA needs 0 <= rho <= 1")


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)
