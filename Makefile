# `make demo` and `make test` need Python >= 3.11 and make, nothing else: both build .venv themselves.
VENV   := .venv
BIN    := $(VENV)/bin
# The newest Python that starts, is 3.11 or later, and can make virtual environments; `make demo PYTHON=…` picks another.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
            "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# Two test processes on two cores: each gets one thread, so that they do not fight over the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
              XLA_FLAGS="--xla_cpu_multi_thread_eigen=false $(XLA_FLAGS)"
JOBS   ?= 2

.PHONY: help demo test test-slow lint bench papers clean

help:
	@echo "make demo       all learning rules on handwritten digits; report in out/demo/"
	@echo "make test       lint, types and all tests but the slow ones"
	@echo "make test-slow  the statistical studies that take minutes"
	@echo "make papers     every paper's claims at small size: results, figures and the README's table"
	@echo "make bench      speed and memory, as ratios measured side by side"
	@echo "make clean      remove .venv, out/ and caches"

demo: $(VENV)/.installed
	$(BIN)/lazyrich demo

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadscope

test-slow: $(VENV)/.installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow -n $(JOBS) --dist loadscope

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

papers: $(VENV)/.installed
	set -e; for claims in papers/*/claims.toml; do $(BIN)/python -m papers.$$(basename $$(dirname $$claims)).run --fast; done
	$(BIN)/python -m papers.table

# Stamps: pip runs again only when pyproject.toml is newer than the last install.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv and ensurepip found. On Debian: apt install python3 python3-venv." \
	  "Or name one: make demo PYTHON=/path/to/python3.12"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): a few minutes the first time …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): a few minutes the first time …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
