# Two commands do all set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INPUTS := pyproject.toml constraints.txt

.PHONY: help demo test bench soak clean
help:
	@echo "make demo    install, fetch the models, annotate a real photograph"
	@echo "make test    lint, types, layers, all tests"
	@echo "make bench   measure against plain MediaPipe"
	@echo "make soak    the long runs"
	@echo "make clean   remove the virtual environment"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tabml needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.vision: $(VENV)/.made $(INPUTS)
	@echo "Installing tabml (about a minute) ..."
	@$(PIP) install -c constraints.txt -e '.[vision]'
	@touch $@

$(VENV)/.dev: $(VENV)/.vision
	@echo "Installing what the tests need ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.vision
	@$(BIN)/python -m tabml demo

test: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q

bench: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-only -q -s

soak: $(VENV)/.dev
	@$(BIN)/python -m pytest -m soak -q -s

clean:
	@rm -rf $(VENV)
