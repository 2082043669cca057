"""What a paper says, as numbers that can be wrong: `claims.toml`, the measured values, and the verdicts."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

RELATIONS = {"equals": "=", "below": "<", "above": ">"}
KEYS = {"id", "what", "figure", "quantity", "relation", "predicted", "tolerance", "why", "control"}


@dataclass(frozen=True)
class Claim:
    """One statement.

    Attributes:
        id: its name.
        what: the statement, one sentence.
        figure: file in figures/ that shows it.
        quantity: what is measured.
        relation: "equals", "below" or "above".
        predicted: the number that the measured one is compared with.
        tolerance: |measured − predicted| that still is "equals"; 0 for the other relations.
        why: where prediction and tolerance come from.
        control: whether a deliberately wrong variant is measured, which must be seen to be wrong.
    """

    id: str
    what: str
    figure: str
    quantity: str
    relation: str
    predicted: float
    tolerance: float
    why: str
    control: bool = False

    def holds(self, value: float) -> bool:
        """Whether a measured value agrees; what is not finite does not."""
        if not isfinite(value):
            return False
        if self.relation == "equals":
            return abs(value - self.predicted) <= self.tolerance
        return value < self.predicted if self.relation == "below" else value > self.predicted

    @property
    def expectation(self) -> str:
        """Such as "= −0.5 ± 0.1"."""
        spread = f" ± {number(self.tolerance)}" if self.relation == "equals" else ""
        return f"{RELATIONS[self.relation]} {number(self.predicted)}{spread}"


@dataclass(frozen=True)
class Measured:
    """A measured value.

    Attributes:
        value: the number.
        se: its standard error, where there is one.
        note: how it was measured, or why it disagrees.
    """

    value: float
    se: float | None = None
    note: str = ""

    def __str__(self) -> str:
        return number(self.value) if self.se is None else f"{number(self.value)} ± {self.se:.2g}"


@dataclass(frozen=True)
class Paper:
    """A folder of claims.

    Attributes:
        folder: where they are.
        name: of the paper, short.
        title: its title.
        claims: by id, in the order of the file.
    """

    folder: Path
    name: str
    title: str
    claims: dict[str, Claim]

    @classmethod
    def read(cls, folder: Path) -> Paper:
        """The folder's claims.toml.

        Raises:
            ValueError: a key that is missing or unknown, an unknown relation, an id used twice.
        """
        source = folder / "claims.toml"
        with open(source, "rb") as file:
            content = tomllib.load(file)
        claims: dict[str, Claim] = {}
        for entry in content["claim"]:
            claim = _claim(source, entry)
            if claim.id in claims:
                raise ValueError(f"{source}: the id {claim.id!r} is used twice; give every claim its own")
            claims[claim.id] = claim
        return cls(folder, content["paper"], content["title"], claims)

    def results(self, mode: str = "fast") -> dict[str, Measured]:
        """What `run.py` found last in this mode; empty before its first run."""
        path = self.results_file(mode)
        if not path.exists():
            return {}
        return {name: Measured(**entry) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}

    def results_file(self, mode: str) -> Path:
        """Where the measured values are kept."""
        return self.folder / "results" / f"{mode}.json"

    def record(self, measured: Mapping[str, Measured], mode: str) -> None:
        """Keep the measured values.

        Raises:
            ValueError: a claim without a value, or a value without a claim.
        """
        missing, unknown = self.claims.keys() - measured.keys(), measured.keys() - self.claims.keys()
        if missing or unknown:
            raise ValueError(
                f"{self.name}: no value for {sorted(missing)}, no claim for {sorted(unknown)}; claims.toml and measure() must match"
            )
        path = self.results_file(mode)
        path.parent.mkdir(exist_ok=True)
        content = {name: _entry(measured[name]) for name in self.claims}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)


def number(value: float) -> str:
    """Four digits, with a real minus sign."""
    return f"{value:.4g}".replace("-", "−")


def _claim(source: Path, entry: dict[str, Any]) -> Claim:
    name = entry.get("id", "without id")
    entry = {"tolerance": 0.0, **entry}
    missing, unknown = KEYS - {"control"} - entry.keys(), entry.keys() - KEYS
    if missing or unknown:
        raise ValueError(f"{source}, claim {name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    if entry["relation"] not in RELATIONS:
        raise ValueError(f"{source}, claim {name}: relation={entry['relation']!r} is none of {', '.join(RELATIONS)}")
    if entry["relation"] == "equals" and not entry["tolerance"] > 0:
        raise ValueError(
            f"{source}, claim {name}: tolerance={entry['tolerance']!r}: measured numbers need a tolerance > 0 to equal anything"
        )
    return Claim(**entry)


def _entry(measured: Measured) -> dict[str, Any]:
    # four digits: more would change with every machine
    rounded = lambda value: None if value is None else float(f"{value:.4g}")
    return {"value": rounded(float(measured.value)), "se": rounded(measured.se), "note": measured.note}
