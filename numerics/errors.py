"""The errors of the numerical half. Each says what (with the value), why, and what to do."""

from __future__ import annotations

import operator

import numpy as np

# Seeds below this are the same number for NumPy and JAX.
LARGEST_SEED = 2**63 - 1


class SolveFailed(RuntimeError):
    """A solution that is not one.

    Attributes:
        status: one word for programs: "diverged" or "non-finite".
        solution: what was computed before the failure, the failed entries included; None where nothing was.
    """

    def __init__(self, message: str, status: str, solution: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.solution = solution


def positive_integer(name: str, value: object, purpose: str) -> int:
    """`value` as an int ≥ 1.

    Raises:
        ValueError: it is not one; the message names the argument, the value and what it is for.
    """
    try:
        number = int(value)  # type: ignore[call-overload]
        if isinstance(value, bool | np.bool_) or number != value or number < 1:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}={value!r} is not {purpose}: give an integer {name} >= 1") from None
    return number


def seed_number(name: str, value: object) -> int:
    """A seed as an int, whatever kind of integer it came as.

    Raises:
        ValueError: it is no integer, negative, or does not fit into 63 bits; the message names the argument and the value.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
        if isinstance(value, bool) or not 0 <= number <= LARGEST_SEED:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a seed of random numbers: give an integer, 0 <= {name} < 2**63") from None
    return number
