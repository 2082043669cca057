"""What is to be learned, and how: data, targets, loss, γ0, η, momentum, weight decay, mini-batches and the number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import positive_integer
from .objective import LossOfTargets, Objective


@dataclass(frozen=True, eq=False)
class Problem:
    """What to train on and how: by default regression by full-batch steps on the loss (1/P) Σ_μ ½(y_μ − f_μ)².

    With Δ = −∂loss/∂f every weight θ moves by θ ← θ + v, v ← β v + u − ηλ θ, u being the rule's update, averaged over the batch.

    Args:
        X: inputs, one example a row.
        y: targets; a column for each output if there are several.
        gamma0: γ0 > 0, how far features move: γ0 → 0 lazy, γ0 = O(1) rich.
        eta: η > 0, the learning rate.
        steps: T ≥ 1, the number of recorded times; entry t is the state before the t-th update.
        X_test, y_test: examples that are predicted and never trained on.
        loss: "squared", "logistic" (y = ±1), "cross-entropy" (one column of y a class, rows that add up to 1), or a `derive.Loss` of one's own.
            `problem.loss(f)` evaluates it.
        momentum: β, 0 ≤ β < 1 (heavy ball).
        weight_decay: λ ≥ 0: every weight and bias that is trained shrinks by ηλ a step; frozen feedback and gates do not.
        batches: indices of the examples of each step, in the order in which steps use them, repeated; None for all examples at every step.

    Shapes:
        X (P, D), y (P,) or (P, C), X_test (P_test, D), y_test (P_test,) or (P_test, C).

    Units:
        η is the step of gradient flow ∂_t f = (1/P) K Δ; it does not scale with P, γ0 or the width.

    Raises:
        ValueError: anything that is not such a problem; the message names the value and the remedy.

    Source: THEORY section 1; Bordelon & Pehlevan 2022.
    """

    X: Float[np.ndarray, "P D"]
    y: Float[np.ndarray, "P *C"]
    gamma0: float = 1.0
    eta: float = 0.1
    steps: int = 200
    X_test: Float[np.ndarray, "P_test D"] | None = None
    y_test: Float[np.ndarray, "P_test *C"] | None = None
    loss: Any = "squared"
    momentum: float = 0.0
    weight_decay: float = 0.0
    batches: Sequence[Sequence[int]] | None = None

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
            if self.y_test.shape[1:] != self.y.shape[1:]:
                raise ValueError(f"y_test has shape {self.y_test.shape} but y has {self.y.shape}: both need the same number of outputs")
        put("loss", LossOfTargets(Objective.of(self.loss), self.y))
        if self.objective.coupled and self.outputs == 1:
            raise ValueError(
                f"loss={self.objective.name!r} normalises over outputs, but y has one: give one column of y a class (one-hot), or "
                "loss='logistic' with y = ±1"
            )
        for name, targets in (("y", self.y), ("y_test", self.y_test)):
            if targets is not None:
                _check_labels(name, targets, self.objective)
        put("momentum", _rate("momentum", self.momentum, 1.0, "each step keeps this share of the last one"))
        limit = 1.0 / self.eta
        put("weight_decay", _rate("weight_decay", self.weight_decay, limit, f"weights lose the share eta·weight_decay a step, eta={self.eta:g}"))
        put("batches", None if self.batches is None else _batches(self.batches, self.P))

    def __repr__(self) -> str:
        numbers: dict[str, Any] = {"P": self.P, "D": self.D, "γ0": self.gamma0, "η": self.eta, "T": self.steps}
        numbers |= {"C": self.outputs} if self.outputs > 1 else {}
        numbers |= {} if self.X_test is None else {"P_test": len(self.X_test)}
        numbers |= {name: value for name in ("momentum", "weight_decay") if (value := getattr(self, name))}
        numbers |= {} if self.batches is None else {"batches": len(self.batches)}
        loss = [] if self.objective == Objective.of("squared") else [f"loss={self.objective.name!r}"]
        return f"Problem({', '.join([*(f'{name}={value:g}' for name, value in numbers.items()), *loss])})"

    @property
    def P(self) -> int:
        """Number of training examples."""
        return self.X.shape[0]

    @property
    def outputs(self) -> int:
        """C, the number of outputs."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    @property
    def D(self) -> int:
        """Input dimension."""
        return self.X.shape[1]

    @property
    def Kx(self) -> Float[np.ndarray, "P P"]:
        """The input kernel K^x = X Xᵀ/D."""
        return self.X @ self.X.T / self.D

    @property
    def objective(self) -> Objective:
        """The loss as functions of outputs and targets."""
        return self.loss.objective

    @property
    def plain(self) -> bool:
        """Whether every step is a full-batch gradient step on the squared loss, without momentum or decay."""
        return not self.momentum and not self.weight_decay and self.batches is None and self.objective == Objective.of("squared")

    @property
    def shares(self) -> Float[np.ndarray, "n P"] | None:
        """ω_μ of every batch: P/|batch| for its examples, 0 for others; None for full batches."""
        if self.batches is None:
            return None
        found = np.zeros((len(self.batches), self.P))
        for row, batch in zip(found, self.batches, strict=True):
            row[list(batch)] = self.P / len(batch)
        return found

    def test_loss(self, f_test: Float[np.ndarray, "*batch P_test"]) -> Float[np.ndarray, "*batch"]:
        """The loss on the test set.

        Raises:
            ValueError: the problem has no y_test.
        """
        if self.y_test is None:
            raise ValueError("this problem has no y_test: give Problem(..., X_test=..., y_test=...) to get a test loss")
        return self.objective.mean(f_test, self.y_test)

    def arrays(self) -> dict[str, Any]:
        """Everything the problem holds, for saving; absent test data and what is as by default are left out."""
        fields = {name: getattr(self, name) for name in ("X", "y", "gamma0", "eta", "steps", "X_test", "y_test")}
        found = {name: value for name, value in fields.items() if value is not None}
        found |= {name: value for name in ("momentum", "weight_decay") if (value := getattr(self, name))}
        if self.objective != Objective.of("squared"):
            found["loss"] = np.array(self.objective.source)
        if (shares := self.shares) is not None:
            found["batches"] = shares > 0
        return found

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Problem:
        """From what `arrays` gave."""
        given: dict[str, Any] = dict(arrays)
        for name in ("gamma0", "eta", "steps", "momentum", "weight_decay", "loss"):
            if name in given:
                given[name] = np.asarray(given[name]).item()
        if "batches" in given:
            given["batches"] = [np.flatnonzero(row) for row in given["batches"]]
        return Problem(**given)


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
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] > 1):
        raise ValueError(f"{name} has shape {array.shape}: targets are (examples,) or (examples, outputs); for one output give {name}.ravel()")
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


def _check_labels(name: str, y: np.ndarray, loss: Objective) -> None:
    """Refuse targets for which a loss that comes with the project does not say what it is meant to."""
    if loss == Objective.of("logistic") and not np.all(np.abs(y) == 1):
        where = tuple(int(i) for i in np.argwhere(np.abs(y) != 1)[0])
        raise ValueError(
            f"{name}{list(where)} is {y[where]:g}: loss='logistic' is log(1 + exp(-y f)) of labels y = ±1, and one of zero teaches nothing; "
            f"give 2*{name} - 1 for labels 0 and 1, np.sign({name}) for others, or loss='squared' for real targets"
        )
    if loss == Objective.of("cross-entropy") and not (np.all(y >= 0) and np.allclose(y.sum(axis=1), 1.0, rtol=0.0, atol=1e-5)):
        row = int(np.argmax(np.any(y < 0, axis=1) | (np.abs(y.sum(axis=1) - 1.0) > 1e-5)))
        raise ValueError(
            f"{name}[{row}] is {y[row].tolist()}: targets of loss='cross-entropy' are probabilities of classes, none negative and 1 in all; "
            "give one-hot rows, np.eye(C)[labels]"
        )


def _positive(name: str, value: object, what: str, hint: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a number: {name} is {what}; give {name} > 0") from None
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value!r} cannot be {what}: give a finite {name} > 0 ({hint})")
    return number


def _rate(name: str, value: object, limit: float, what: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a number: give 0 <= {name} < {limit:g} ({what})") from None
    if not 0 <= number < limit:
        raise ValueError(f"{name}={value!r} is out of range: {what}; give 0 <= {name} < {limit:g}")
    return number


def _whole(index: Any) -> int:
    number = int(index)
    if isinstance(index, bool | np.bool_) or number != index:
        raise ValueError
    return number


def _batches(value: Any, P: int) -> tuple[tuple[int, ...], ...]:
    try:
        found = tuple(tuple(_whole(index) for index in batch) for batch in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"batches={value!r} are not lists of example indices, which are integers: give for example [[0, 1], [2, 3]]") from None
    if not found or not all(found):
        raise ValueError(f"batches={value!r} has no batch, or an empty one: give at least one example for every step")
    for batch in found:
        if min(batch) < 0 or max(batch) >= P or len(set(batch)) < len(batch):
            raise ValueError(f"the batch {list(batch)} does not name examples 0…{P - 1}, each at most once: give indices of rows of X")
    return found
