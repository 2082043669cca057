"""Runs that end in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from numerics import checkpoint


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, writes: int, stop: type[BaseException]) -> Iterator[None]:
    """Within it, `stop` is raised once so many checkpoints are written."""
    write, count = checkpoint.write, iter(range(1, 1000))

    def and_stop(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        if next(count) == writes:
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", and_stop)
        yield
