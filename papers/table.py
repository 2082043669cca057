"""The tables of claims in the READMEs, from the saved results: `python -m papers.table` writes them, `--check` only compares."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from .claims import Paper
from .harness import ROOT, verdict

BEGIN, END = "<!-- claims -->", "<!-- /claims -->"


def papers() -> list[Paper]:
    """All papers' folders, by name."""
    return [Paper.read(source.parent) for source in sorted(Path(__file__).parent.glob("*/claims.toml"))]


def pages() -> dict[Path, str]:
    """Every README with such a table, as it should be.

    Raises:
        ValueError: a README without the marks, or with several.
    """
    found = {paper.folder / "README.md": _claims(paper) for paper in papers()}
    found[ROOT / "README.md"] = _overview(papers())
    return {path: _with_table(path, table) for path, table in found.items()}


def _with_table(path: Path, table: str) -> str:
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{path}: a table of claims goes between {BEGIN} and {END}; there must be one of each")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)


def _claims(paper: Paper) -> str:
    measured = paper.results()
    rows = ["| claim | quantity | predicted | measured | | figure |", "| --- | --- | --- | --- | --- | --- |"]
    for name, claim in paper.claims.items():
        found = measured.get(name)
        note = f" ({found.note})" if found and found.note else ""
        result = [str(found), verdict(claim, found)] if found else ["not run", ""]
        cells = [claim.what + note, claim.quantity, claim.expectation, *result, f"[{claim.figure}](figures/{claim.figure})"]
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def _overview(every: list[Paper]) -> str:
    rows = ["| paper | claims | agree | controls that fail, as they must | does not agree |", "| --- | --- | --- | --- | --- |"]
    for paper in every:
        measured = paper.results()
        holds = {name: name in measured and claim.holds(measured[name].value) for name, claim in paper.claims.items()}
        claims = [name for name, claim in paper.claims.items() if not claim.control]
        controls = [name for name, claim in paper.claims.items() if claim.control]
        wrong = ", ".join(name for name, agrees in holds.items() if not agrees) or "–"
        link = f"[{paper.name}]({paper.folder.relative_to(ROOT).as_posix()}/README.md)"
        rows.append(
            f"| {link} | {len(claims)} | {sum(holds[n] for n in claims)} | {sum(holds[n] for n in controls)} of {len(controls)} | {wrong} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m papers.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is not current")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    if check and stale:
        sys.exit("not current, run `python -m papers.table`: " + ", ".join(str(path.relative_to(ROOT)) for path in stale))
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print("written: " + (", ".join(str(path.relative_to(ROOT)) for path in stale) or "nothing, all current"))


if __name__ == "__main__":
    main()
