"""The errors of the symbolic half. Each says what (with the value), why, and what to do."""

from __future__ import annotations


class DeriveError(Exception):
    """Anything that `derive` refuses."""


class NoClosedForm(DeriveError):
    """A Gaussian expectation that the engine cannot bring to closed form.

    Attributes:
        reason: the obstruction in words, e.g. "two thresholds away from zero: Owen's T function".
    """

    def __init__(self, what: object, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"no closed form for {what}: {reason}")


class BadInput(DeriveError, ValueError):
    """A value that no rule, network or expression may have."""
