"""What training minimises: a loss as the generated functions that solvers run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from . import losses
from .jaxify import load_source

SHIPPED = {path.stem.replace("_", "-"): path for path in sorted(Path(losses.__file__).parent.glob("[a-z]*.py"))}


@dataclass(frozen=True)
class Objective:
    """A loss and its error signal, summed over outputs and averaged over examples. Hashable: compiled code is kept per objective.

    Attributes:
        source: the generated text.
    """

    source: str

    @staticmethod
    def of(loss: Any) -> Objective:
        """From a name, an object with `.source()` (a `derive.Loss`), its text, or an objective.

        Raises:
            ValueError: none of these.
        """
        if isinstance(loss, LossOfTargets):
            return loss.objective
        if isinstance(loss, Objective):
            return loss
        if callable(getattr(loss, "source", None)):
            return _checked(loss.source(), loss)
        if isinstance(loss, str) and loss in SHIPPED:
            return Objective(SHIPPED[loss].read_text(encoding="utf-8"))
        if isinstance(loss, str) and "\n" in loss:
            return _checked(loss, "the given text")
        raise ValueError(f"loss={loss!r} is not known: give one of {', '.join(map(repr, SHIPPED))}, or a derive.Loss of your own")

    @property
    def module(self) -> ModuleType:
        """The functions."""
        return load_source(self.source, "loss")

    @property
    def name(self) -> str:
        """How the loss is called."""
        return self.module.NAME

    @property
    def coupled(self) -> bool:
        """Whether it needs several outputs."""
        return self.module.COUPLED

    def error(self, f: Any, y: Any) -> Any:
        """Δ = −∂loss/∂f for every example and output; works on traced arrays."""
        found, shape = self.module.error(f, y), np.broadcast_shapes(f.shape, y.shape)
        # f drops out where the loss is linear in it
        return found if np.shape(found) == shape else found + np.zeros(shape, f.dtype)

    def mean(self, f: Any, y: Float[np.ndarray, "P *C"]) -> Float[np.ndarray, "*batch"]:
        """(1/P) Σ_μ Σ_c loss over the last axes, as many as y has."""
        # of outputs that diverged the loss is infinite or NaN, which solvers report with the reason
        with np.errstate(all="ignore"):
            each = np.asarray(self.module.loss(np.asarray(f), y), float)
            return np.mean(each if np.ndim(y) == 1 else each.sum(axis=-1), axis=-1)

    def __repr__(self) -> str:
        return f"Objective({self.name})"


@dataclass(frozen=True, eq=False, repr=False)
class LossOfTargets:
    """The loss of a problem as a function of outputs: `problem.loss(f)`."""

    objective: Objective
    y: Float[np.ndarray, "P *C"]

    def __call__(self, f: Float[np.ndarray, "*batch P *C"]) -> Float[np.ndarray, "*batch"]:
        """The mean loss over examples, the sum over outputs."""
        return self.objective.mean(f, self.y)

    def __repr__(self) -> str:
        return repr(self.objective.name)


def _checked(source: str, what: Any) -> Objective:
    module = load_source(source, "loss")
    missing = [name for name in ("NAME", "COUPLED", "loss", "error") if not hasattr(module, name)]
    if missing:
        raise ValueError(f"loss={what!r} lacks {', '.join(missing)} in its generated module: give a derive.Loss, or the text of its source()")
    return Objective(source)
