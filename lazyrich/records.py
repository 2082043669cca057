"""Results as JSON: numbers that are not finite are null, and a file is there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any


def dump(record: Mapping) -> str:
    """The text: indented, in the letters that it has."""
    return json.dumps(_valid(record), indent=2, ensure_ascii=False, allow_nan=False)


def write(path: Path, record: Mapping) -> None:
    """Write the text to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(dump(record), encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _valid(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _valid(entry) for name, entry in value.items()}
    return [_valid(entry) for entry in value] if isinstance(value, list | tuple) else value
