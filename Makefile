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
	$(BIN)/python tests/benchmarks/attention.py
	$(BIN)/python tests/benchmarks/partition_bsds.py

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
