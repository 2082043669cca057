"""Claims, verdicts, and tables that show the saved results."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from papers import harness, table
from papers.bordelon_pehlevan_2023 import setting as bordelon_pehlevan
from papers.claims import Claim, Measured, Paper
from papers.kunin_2020 import networks as kunin
from papers.refinetti_2021 import images as refinetti

ROOT = Path(__file__).parents[2]
TOML = """
paper = "Nobody 2020"
title = "On halves"
[[claim]]
id = "half"
what = "One half is one half."
figure = "half.png"
quantity = "1/2"
relation = "equals"
predicted = 0.5
tolerance = 0.01
why = "arithmetic"
[[claim]]
id = "wrong"
what = "One third is not."
figure = "half.png"
quantity = "|1/3 − 1/2|"
relation = "above"
predicted = 0.1
why = "a wrong number is far off"
control = true
"""


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "nobody_2020"
    place.mkdir()
    (place / "claims.toml").write_text(TOML, encoding="utf-8")
    return place


def claim(relation: str, tolerance: float = 0.0) -> Claim:
    return Claim("c", "w", "f.png", "q", relation, -0.5, tolerance, "y")


@pytest.mark.parametrize(
    ("relation", "tolerance", "yes", "no"),
    [("equals", 0.1, -0.41, -0.39), ("below", 0.0, -0.51, -0.49), ("above", 0.0, -0.49, -0.51)],
)
def test_relations(relation, tolerance, yes, no):
    assert claim(relation, tolerance).holds(yes)
    assert not claim(relation, tolerance).holds(no)
    assert not claim(relation, tolerance).holds(math.nan)


def test_results_are_kept_and_complete(folder):
    paper = Paper.read(folder)
    assert paper.results() == {}
    measured = {"half": Measured(0.500049, 0.001, "counted"), "wrong": Measured(1 / 6)}
    paper.record(measured, "fast")
    assert paper.results() == {"half": Measured(0.5, 0.001, "counted"), "wrong": Measured(0.1667)}
    with pytest.raises(ValueError, match=r"no value for \['wrong'\], no claim for \['more'\]"):
        paper.record({"half": Measured(0.5), "more": Measured(1.0)}, "fast")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('relation = "equals"', 'relation = "near"', "relation='near' is none of equals, below, above"),
        ("tolerance = 0.01", "tolerance = 0.0", "need a tolerance > 0"),
        ('why = "arithmetic"', "", r"missing \['why'\]"),
        ('id = "wrong"', 'id = "half"', "'half' is used twice"),
    ],
)
def test_claims_that_say_nothing_are_refused(folder, old, new, message):
    (folder / "claims.toml").write_text(TOML.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Paper.read(folder)


def test_a_run_keeps_what_is_finished(folder, tmp_path, monkeypatch, capsys):
    calls = []

    def study(full):
        calls.append(full)
        return {"x": np.array([0.5, 1 / 3])}

    def measure(data):
        x = data["numbers"]["x"]
        return {"half": Measured(x[0]), "wrong": Measured(abs(x[1] - 0.5))}

    draw = lambda data, place: (place / "half.png").write_bytes(b"drawn")
    run = lambda *options: (
        monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path / "out"), *options]),
        harness.main(str(folder / "run.py"), {"numbers": study}, measure, draw),
    )
    run()
    run("--fast")
    assert calls == [False]
    run("--again")
    run("--full")
    assert calls == [False, False, True]
    printed = capsys.readouterr().out
    assert "kept from an earlier run" in printed and "agrees" in printed and "fails, as it must" in printed
    assert Paper.read(folder).results("full")["half"].value == 0.5
    assert (folder / "figures" / "half.png").exists()


def test_other_data_leave_the_folder_alone(folder, tmp_path, monkeypatch, capsys):
    used = []
    study = lambda full: {"x": np.array([0.5, 1 / 3 if used == ["mnist:here"] else 0.5])}
    measure = lambda data: {"half": Measured(data["numbers"]["x"][0]), "wrong": Measured(abs(data["numbers"]["x"][1] - 0.5))}
    draw = lambda data, place: (place / "half.png").write_bytes(b"drawn")
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path / "out"), "--data", "mnist:here"])
    harness.main(str(folder / "run.py"), {"numbers": study}, measure, draw, used.append)
    place = tmp_path / "out" / folder.name / "fast" / "mnist-here"
    assert (place / "figures" / "half.png").exists() and (place / "results" / "fast.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["claims.toml"]
    assert "fails, as it must" in capsys.readouterr().out


@pytest.mark.parametrize("use", [bordelon_pehlevan.use, kunin.use, refinetti.use], ids=lambda use: use.__module__)
@pytest.mark.parametrize("options, says", [(["--data", "foo"], "foo"), (["--data", "mnist:/no"], "/no"), (["--out", "/proc/no"], "--out /proc/no")])
def test_what_cannot_be_used_is_refused_at_once(folder, tmp_path, monkeypatch, capsys, use, options, says):
    study = lambda full: pytest.fail("computed before the options were checked")
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit) as end:
        harness.main(str(folder / "run.py"), {"numbers": study}, dict, print, use)
    shown = capsys.readouterr().err
    assert end.value.code == 2 and shown.startswith("error: ") and says in shown and len(shown.splitlines()) == 1


def test_tables_are_current():
    stale = [str(path.relative_to(ROOT)) for path, text in table.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `python -m papers.table`"


@pytest.mark.parametrize("paper", table.papers(), ids=lambda paper: paper.folder.name)
def test_every_claim_has_a_result_and_a_figure(paper):
    results = paper.results()
    assert paper.claims.keys() == results.keys()
    for claim in paper.claims.values():
        assert (paper.folder / "figures" / claim.figure).stat().st_size > 1000, claim.figure
        assert not claim.control or claim.holds(results[claim.id].value), claim.id


@pytest.mark.parametrize("paper", table.papers(), ids=lambda paper: paper.folder.name)
def test_every_paper_explains_itself(paper):
    shown = subprocess.run(
        [sys.executable, "-m", f"papers.{paper.folder.name}.run", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--fast" in shown.stdout and "--full" in shown.stdout
