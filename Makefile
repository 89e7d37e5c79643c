# `make demo` and `make test` set themselves up from nothing; PYTHON names the interpreter to build the environment with.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: demo test lint bench
demo: .venv/ready
	$(BIN)/python -m elements_jax.demo out/demo

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	for file in tests/benchmarks/*.py; do $(BIN)/python $$file; done

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
