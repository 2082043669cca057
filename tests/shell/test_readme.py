"""The README's Python blocks run as printed: sessions (`>>>`) with their output, other blocks as scripts."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_the_readme_has_a_session_and_two_extensions():
    assert sum(">>>" in block for block in BLOCKS) >= 1
    assert sum(">>>" not in block for block in BLOCKS) >= 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = BLOCKS[number]
    if ">>>" not in block:
        code = [line for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(code) < 10, "an extension takes under ten lines"
        exec(compile(block, f"README block {number}", "exec"), {"__name__": "readme"})
        return
    found = doctest.DocTestParser().get_doctest(block, {}, f"README block {number}", "README.md", 0)
    assert found.examples
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(found, out=report.append)
    assert result.failed == 0, "".join(report)


def test_shell_commands_in_the_readme_exist():
    """Every `lazyrich …` line parses: the subcommand and all its options are known."""
    from typer.testing import CliRunner

    from lazyrich.cli import app

    commands = re.findall(
        r"^(?:\$ )?lazyrich (\w+)(.*)$", "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", README, re.S)), re.M
    )
    assert len(commands) >= 4
    for name, rest in commands:
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, name
        for option in re.findall(r"--[\w-]+", rest):
            assert option in shown.stdout, f"{name} {option}"


def test_the_map_names_real_files():
    """Every path in the README's table of where things live exists."""
    paths = re.findall(r"^\| [^|]+\| `([\w/.{},*-]+)`", README, flags=re.MULTILINE)
    assert len(paths) >= 8
    for path in paths:
        assert (ROOT / path).exists(), path


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
