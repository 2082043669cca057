"""Printing and failing: rich on a terminal, plain in a pipe; one line for a user's mistake, not a traceback."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from derive.errors import DeriveError

BAD_INPUT, INTERRUPTED, FAILED = 2, 130, 1


def output() -> Console:
    """Standard output; long lines are not broken when it is not a terminal."""
    piped = not sys.stdout.isatty()
    return Console(soft_wrap=piped, width=120 if piped else None, highlight=False)


def notes() -> Console:
    """Standard error, for progress and remarks, so that `--json` and `--latex` can be piped."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)


def counted(number: int, noun: str) -> str:
    """"1 update", "2 updates"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def complain(message: str) -> None:
    """Print an error line."""
    notes().print(Text.assemble(("error: ", "bold red"), message))


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the library's refusals, a lack of memory and Ctrl-C into one line and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except (DeriveError, ValueError, RuntimeError, MemoryError) as error:
            if _lacks_memory(error):
                complain(f"{str(error) or 'no memory is left'}: ask for fewer samples, examples or steps, or a smaller width")
                raise typer.Exit(FAILED) from error
            if not _refused(error):
                raise
            complain(str(error))
            raise typer.Exit(FAILED if isinstance(error, RuntimeError) else BAD_INPUT) from error
        except OSError as error:
            complain(f"{error.filename or 'output'}: {error.strerror or error}")
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as stop:
            notes().print(Text.assemble(("interrupted. ", "yellow"), str(stop) or "Nothing was saved."))
            raise typer.Exit(INTERRUPTED) from stop

    return run


def compile_pdf(tex: Path) -> Path | None:
    """Run pdflatex on a document; None when it is not installed.

    Raises:
        RuntimeError: pdflatex is installed and refuses the document (its last lines are in the message).
    """
    program = shutil.which("pdflatex")
    if program is None:
        return None
    command = [program, "-interaction=nonstopmode", "-halt-on-error", tex.name]
    done = subprocess.run(command, cwd=tex.parent, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"pdflatex refuses {tex}:\n" + "\n".join(done.stdout.splitlines()[-15:]))
    for suffix in (".aux", ".log"):
        tex.with_suffix(suffix).unlink(missing_ok=True)
    return tex.with_suffix(".pdf")


def _lacks_memory(error: Exception) -> bool:
    """Whether NumPy or JAX could not allocate an array."""
    return isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED")


def _refused(error: Exception) -> bool:
    """Whether the project raised this on purpose; the same from inside a library is a bug and keeps its traceback."""
    if isinstance(error, DeriveError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(("numerics.", "lazyrich."))
