"""The errors of the numerical half. Each says what (with the value), why, and what to do."""

from __future__ import annotations


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
        if isinstance(value, bool) or number != value or number < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not {purpose}: give an integer {name} >= 1") from None
    return number
