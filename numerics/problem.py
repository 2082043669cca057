"""What is to be learned, and how fast: data, targets, γ0, η and the number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import positive_integer


@dataclass(frozen=True, eq=False)
class Problem:
    """A regression problem for full-batch training, loss (1/P) Σ_μ ½(y_μ − f_μ)².

    Args:
        X: inputs, one example a row.
        y: targets.
        gamma0: γ0 > 0, how far features move: γ0 → 0 lazy, γ0 = O(1) rich.
        eta: η > 0, the learning rate.
        steps: T ≥ 1, the number of recorded times; entry t is the state before the t-th update.
        X_test, y_test: examples that are predicted and never trained on.

    Shapes:
        X (P, D), y (P,), X_test (P_test, D), y_test (P_test,).

    Units:
        η is the step of gradient flow ∂_t f = (1/P) K Δ; it does not scale with P, γ0 or the width.

    Raises:
        ValueError: anything that is not such a problem; the message names the value and the remedy.

    Source: THEORY section 1; Bordelon & Pehlevan 2022.
    """

    X: Float[np.ndarray, "P D"]
    y: Float[np.ndarray, "P"]
    gamma0: float = 1.0
    eta: float = 0.1
    steps: int = 200
    X_test: Float[np.ndarray, "P_test D"] | None = None
    y_test: Float[np.ndarray, "P_test"] | None = None

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)
        put("X", _inputs("X", self.X))
        put("y", _targets("y", self.y, "X", len(self.X)))
        put("gamma0", _positive("gamma0", self.gamma0, "the feature-learning strength", "for the limit γ0 → 0 use solve_lazy"))
        put("eta", _positive("eta", self.eta, "a learning rate", "training descends the loss only for eta > 0"))
        put("steps", positive_integer("steps", self.steps, "a number of recorded times"))
        if self.X_test is not None:
            put("X_test", _inputs("X_test", self.X_test))
            if self.X_test.shape[1] != self.X.shape[1]:
                raise ValueError(
                    f"X_test has D={self.X_test.shape[1]} columns but X has D={self.X.shape[1]}: "
                    "test inputs need the same features as training inputs"
                )
        if self.y_test is not None:
            if self.X_test is None:
                raise ValueError("y_test is given without X_test: give the inputs that these targets belong to")
            put("y_test", _targets("y_test", self.y_test, "X_test", len(self.X_test)))

    @property
    def P(self) -> int:
        """Number of training examples."""
        return self.X.shape[0]

    @property
    def D(self) -> int:
        """Input dimension."""
        return self.X.shape[1]

    @property
    def Kx(self) -> Float[np.ndarray, "P P"]:
        """The input kernel K^x = X Xᵀ/D."""
        return self.X @ self.X.T / self.D

    def loss(self, f: Float[np.ndarray, "*batch P"]) -> Float[np.ndarray, "*batch"]:
        """(1/P) Σ_μ ½(y_μ − f_μ)² over the last axis."""
        return 0.5 * np.mean((self.y - f) ** 2, axis=-1)

    def test_loss(self, f_test: Float[np.ndarray, "*batch P_test"]) -> Float[np.ndarray, "*batch"]:
        """The same on the test set.

        Raises:
            ValueError: the problem has no y_test.
        """
        if self.y_test is None:
            raise ValueError("this problem has no y_test: give Problem(..., X_test=..., y_test=...) to get a test loss")
        return 0.5 * np.mean((self.y_test - f_test) ** 2, axis=-1)

    def arrays(self) -> dict[str, Any]:
        """Everything the problem holds, for saving; absent test data are left out."""
        fields = {name: getattr(self, name) for name in ("X", "y", "gamma0", "eta", "steps", "X_test", "y_test")}
        return {name: value for name, value in fields.items() if value is not None}


def _inputs(name: str, value: object) -> np.ndarray:
    array = _real(name, value)
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}: inputs need two dimensions (examples, features); "
            f"one feature a row is {name}.reshape(-1, 1), one example is {name}.reshape(1, -1)"
        )
    if 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}: at least one example and one feature are needed")
    return array


def _targets(name: str, value: object, inputs: str, count: int) -> np.ndarray:
    array = _real(name, value)
    if array.ndim == 2 and array.shape[1] > 1:
        raise ValueError(
            f"{name} has shape {array.shape}: several outputs are not supported yet; solve for one column of {name} at a time"
        )
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: targets need one dimension; give {name}.ravel()")
    if len(array) != count:
        raise ValueError(f"{name} has {len(array)} entries but {inputs} has {count} rows: one target for each example")
    return array


def _real(name: str, value: object) -> np.ndarray:
    try:
        array = np.array(value)
        if np.iscomplexobj(array):
            raise TypeError("complex values")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of real numbers ({error}): give a numpy array of floats") from None
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}{list(where)} is {array[where]}: every entry must be finite; remove or impute such rows")
    array.setflags(write=False)
    return array


def _positive(name: str, value: object, what: str, hint: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a number: {name} is {what}; give {name} > 0") from None
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value!r} cannot be {what}: give a finite {name} > 0 ({hint})")
    return number
