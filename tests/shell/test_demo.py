"""The main job in its small version: everything it promises is there, it resumes, and an interruption loses nothing."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from derive import GD, MLP
from lazyrich import demo, records
from lazyrich.cli import app
from numerics import Problem, Solution

ALL = demo.entries()
FEW = tuple(entry for entry in ALL if entry.stem in ("gd", "fa_rho0", "gln"))


@pytest.fixture(scope="module", params=[pytest.param(FEW, id="few rules"), pytest.param(ALL, id="all rules", marks=pytest.mark.slow)])
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "entries", lambda: request.param)
        result = CliRunner().invoke(app, ["demo", "--fast", "--out", str(folder)])
        assert result.exit_code == 0, result.output
        yield folder, result.stdout


def test_all_rules_are_derived_and_printed(finished):
    _, printed = finished
    for entry in demo.entries():
        assert entry.label in printed
    assert "K = " in printed and "After 5 updates" in printed


def test_every_rule_has_its_files(finished):
    folder, _ = finished
    for stem in [entry.stem for entry in demo.entries()]:
        tex = (folder / "latex" / f"{stem}.tex").read_text(encoding="utf-8")
        assert r"\begin{document}" in tex and "Derivation" in tex
        assert (folder / "latex" / f"{stem}.pdf").exists() == bool(shutil.which("pdflatex"))
        module = folder / "kernels" / f"{stem.replace('.', '_')}.py"
        compile(module.read_text(encoding="utf-8"), str(module), "exec")
        for part in ("lazy", "theory", "network"):
            solution = Solution.load(folder / "solutions" / f"{stem}_{part}.npz")
            assert solution.loss.shape == (6,) and np.all(np.isfinite(solution.loss))


def test_the_report_holds_numbers_with_errors(finished):
    folder, _ = finished
    assert (folder / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "report.pdf").read_bytes()[:4] == b"%PDF"
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "η = 0.5, 5 updates, P = 6" in text and "## After 5 updates" in text
    for entry in demo.entries():
        assert f"| {entry.label} | training loss |" in text
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [row["rule"] for row in record["rules"]] == [entry.label for entry in demo.entries()]
    for row in record["rules"]:
        for item in row["final"]:
            assert np.isfinite(item["theory"]) and np.isfinite(item["network"])
            assert item["theory_se"] >= 0 and item["network_se"] >= 0


def test_theory_and_networks_are_close_and_rules_differ(finished):
    """Width 64 differs from the limit by O(1/64) and two seeds scatter: 25 % of the loss curve is far outside both."""
    folder, _ = finished
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    deviations = {row["stem"]: row["loss_curve_deviation"] for row in record["rules"]}
    assert max(deviations.values()) < 0.25, deviations
    # negative control: the theory of another rule is further from gradient descent's networks than its own
    networks = Solution.load(folder / "solutions" / "gd_network.npz").loss
    off = [Solution.load(folder / "solutions" / f"{stem}_theory.npz").loss for stem in ("gd", "fa_rho0")]
    own, other = (np.linalg.norm(loss - networks) for loss in off)
    assert own < other / 2


def test_a_second_run_takes_up_what_is_there(finished, monkeypatch):
    from lazyrich import solving

    def never(*_, **__):
        raise AssertionError("computed again")

    for name in ("solve_lazy", "solve_dmft", "train_finite"):
        monkeypatch.setattr(solving, name, never)
    folder, _ = finished
    demo.run(folder, demo.FAST, screen=Console(quiet=True))
    with pytest.raises(AssertionError, match="computed again"):
        demo.run(folder, demo.FAST, fresh=True, screen=Console(quiet=True))


def test_changed_settings_are_computed_again(tmp_path):
    from lazyrich.solving import Store

    calls = []

    class Result:
        def save(self, path):
            path.write_bytes(b"")

    def compute(unfinished):
        assert unfinished.parent == tmp_path and unfinished not in calls
        calls.append(unfinished)
        return Result()

    store = Store(tmp_path)
    store.get("a", ["rule", {"samples": 4}], compute)
    store.get("a", ["rule", {"samples": 8}], compute)
    assert len(calls) == 2


def test_results_of_other_versions_are_computed_again(tmp_path, monkeypatch):
    from lazyrich import solving

    calls = []

    def compute(unfinished):
        calls.append(unfinished)
        return solving.solve_lazy(Problem(np.eye(2), np.ones(2), steps=2), GD(), MLP(1))

    for _ in range(2):
        solving.Store(tmp_path).get("a", ["rule"], compute)
    assert len(calls) == 1
    monkeypatch.setattr(solving, "versions", lambda: {"lazyrich": "0.0"})
    solving.Store(tmp_path).get("a", ["rule"], compute)
    assert len(set(calls)) == 2


@pytest.mark.parametrize("name, content", [("a.json", b""), ("a.json", b'{"made_'), ("a.json", b"[]"), ("a.json", b"\xff"), ("a.npz", b"PK\x03\x04")])
def test_damaged_results_are_computed_again(tmp_path, name, content):
    from lazyrich import solving

    compute = lambda _: solving.solve_lazy(Problem(np.eye(2), np.ones(2), steps=2), GD(), MLP(1))
    whole = solving.Store(tmp_path).get("a", ["rule"], compute)
    (tmp_path / name).write_bytes(content)
    for again in (compute, None):
        np.testing.assert_array_equal(solving.Store(tmp_path).get("a", ["rule"], again).f, whole.f)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.npz"]


def test_records_are_valid_json_and_whole(tmp_path):
    """Of NaN and infinity, which JSON does not have, nothing is left; what cannot be written leaves the file as it was."""
    path = tmp_path / "record.json"
    records.write(path, {"se": [float("nan"), np.float64("inf"), 0.5], "of": {"z": (float("-inf"), None, 3)}})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"se": [None, None, 0.5], "of": {"z": [None, None, 3]}}
    with pytest.raises(TypeError):
        records.write(path, {"se": object()})
    assert "0.5" in path.read_text() and list(tmp_path.iterdir()) == [path]


def test_an_interruption_keeps_finished_rules_and_says_so(tmp_path, monkeypatch):
    from lazyrich import solving

    done = []

    def quick(p, rule, net, **_):
        """Something to save, without waiting for compilation."""
        return solving.solve_lazy(p, rule, net)

    def interrupted(p, rule, net, **options):
        if done:
            raise KeyboardInterrupt
        done.append(rule.name)
        return quick(p, rule, net)

    monkeypatch.setattr(solving, "solve_dmft", quick)
    monkeypatch.setattr(solving, "train_finite", interrupted)
    result = CliRunner().invoke(app, ["demo", "--fast", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "gd_network.npz" in result.stderr and "resumes" in result.stderr
    assert Solution.load(tmp_path / "solutions" / "gd_network.npz").rule == "GD"


def test_solve_writes_solution_figure_and_summary(tmp_path):
    words = (
        "solve --rule fa --rho 0.5 --activation tanh --depth 1 --steps 4 --train 4 --test 6 --samples 64 --replicas 2"
    )
    result = CliRunner().invoke(
        app, [*words.split(), "--width", "32", "--seeds", "2", "--json", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["rule"] == "FA(rho=1/2)" and summary["final"][0]["quantity"] == "training loss"
    assert (tmp_path / "figure.png").exists()
    assert Solution.load(tmp_path / "solution_theory.npz").loss[-1] == pytest.approx(
        summary["final"][0]["theory"], rel=1e-6
    )


def test_solve_from_a_file_prints_a_table(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=rng.standard_normal((4, 3)), y=np.array([1.0, -1.0, 1.0, -1.0]))
    words = ["solve", "--data", str(tmp_path / "mine.npz"), "--steps", "3", "--samples", "32", "--replicas", "2"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "solution_network.npz").write_text("of an earlier run with networks")
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("GD, 1 hidden layer, relu: after 2 updates")
    assert "training loss" in result.stdout and "test loss" not in result.stdout
    shown = result.stdout.split("saved: ")[1].strip().split(", ")
    assert shown == [str(tmp_path / "out" / name) for name in ("figure.pdf", "figure.png", "solution_lazy.npz", "solution_theory.npz")]


@pytest.mark.parametrize(
    "y, right",
    [
        ([1.0, -1.0, -1.0], 2 / 3),
        ([1.0, 0.0, 0.0], None),
        ([0.3, -1.2, 0.5], None),
        (np.eye(3)[[0, 1, 1]], 2 / 3),
        ([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], None),
    ],
)
def test_accuracy_is_of_classes_and_of_nothing_else(y, right):
    """Outputs that tell the classes of the first two examples, and not of the third."""
    from lazyrich.solving import accuracy

    y, several = np.array(y), np.ndim(y) == 2
    outputs = np.array([[0.2, 0.1, -0.3], [-0.2, -0.1, -0.3], [0.1, 0.0, 0.4]]) if several else np.array([0.1, -0.4, 0.2])
    solution = SimpleNamespace(f_test=outputs[None], problem=SimpleNamespace(y_test=y))
    assert accuracy(solution) == (None if right is None else pytest.approx(right))


def test_tables_do_without_accuracy(finished, monkeypatch):
    """Where targets name no classes."""
    from lazyrich import summary

    monkeypatch.setattr(demo, "kernel_line", str)
    folder, _ = finished
    rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rules"]
    for row in rows:
        row["test_accuracy"] = dict.fromkeys(row["test_accuracy"])
    text = summary.markdown(rows, demo.FAST, {row["stem"]: row["rule"] for row in rows}, {}, 1.0)
    assert text.count("| | test accuracy | – | – | |") == len(rows)
    screen = Console(width=100, file=StringIO())
    screen.print(summary.table(rows, 6, 64))
    assert screen.file.getvalue().count("–") == len(rows)
