"""Names that a parameter cannot have, because equations or generated code mean something else by them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import sympy as sp

from .errors import BadInput

MEANINGS: dict[str, str] = {
    "x": "the argument of an activation", "h": "the preactivation", "z": "the feedback field", "m": "the gate", "Delta": "the error signal",
    "g_tilde": "the pseudo-gradient of the layer above", "omega": "what feedback weights make of the features below", "W": "the forward weights",
    "u": "a Gaussian variable", "v": "a Gaussian variable",
    **{f"{letter}_{pair}": "a covariance" for letter in "Kq" for pair in ("mumu", "munu", "nunu")},
    **dict.fromkeys(("self", "X1", "X2", "block", "near_pairs"), "an argument of kernels"),
    **dict.fromkeys(("jax", "jnp", "lax", "np", "math", "safe", "quadrature", "correlated"), "a module that generated code imports"),
    **dict.fromkeys(("erf", "erfc", "erfinv", "expit", "gammaln", "logsumexp"), "a function that generated code imports"),
}  # fmt: skip
# A parameter itself, of kernels with feedback weights that learn: nobody else's.
TIME = {"t": "the step"}
# What generated kernels call their functions and intermediate results.
OWN = re.compile(
    r"K|s|scale|gap|ntk|nngp|values|kernel|path|scales|forward|slope|pseudo_gradient|evolution|outer|correlations|"
    r"[Efg]\d+(_diagonal|_gap)?|(ntk|nngp|layers)_(pairs|diagonal)|"
    r"((s|scale|gap)_)?(Sigma|Phi|G|G_tilde|true_G|slopes|H|Z)_\d+(_(mumu|munu|nunu))?|(s|scale|gap)_(K|\d+)"
)


def meaning(name: str) -> str | None:
    """What a name stands for already; None if it is free."""
    return MEANINGS.get(name) or ("a name that generated code uses itself" if OWN.fullmatch(name) else None)


def refuse_taken(owner: str, parameters: Iterable[sp.Symbol]) -> None:
    """Refuse parameters whose name means something else.

    Raises:
        BadInput: naming the first, and what it means.
    """
    for parameter in parameters:
        means = meaning(parameter.name) or TIME.get(parameter.name)
        if means is not None:
            raise BadInput(f"{owner}: the parameter {parameter.name} has a name that is taken ({means}): rename the symbol")
