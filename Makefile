# Every target that needs the environment depends on `setup`, which takes a moment when nothing changed.

PYTHON ?= python3
TORCH_INDEX_URL ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench benchmark-tables model clean

## help: show this list
help:
	@echo "Usage: make TARGET [PYTHON=python3.12] [TORCH_INDEX_URL=...]"
	@sed -n 's/^## \([a-z-]*\): /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-16s %s\n", $$1, $$2 }'

## setup: create .venv and install Parrot with the engine for this machine (vLLM for CUDA or for CPU)
setup:
	@TORCH_INDEX_URL="$(TORCH_INDEX_URL)" $(PYTHON) scripts/setup_env.py

## demo: run three programs on real vLLM with the tiny model, call by call and as one submit
demo: setup
	@$(BIN)/parrot demo

## test: run the test suite
test: setup
	$(BIN)/python -m pytest

## check: lint, formatting, types and import rules
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## bench: run every benchmark; each prints its claim, its baseline and the ratio
bench: setup
	@set -e; for file in $$(find benchmarks -name 'bench_*.py' | sort); do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename "$$file" .py); \
	done

## benchmark-tables: write the newest benchmark rows into README.md and docs/
benchmark-tables: setup
	$(BIN)/python scripts/benchmark_tables.py

## model: make the tiny model anew (the result is the same, byte for byte)
model: setup
	$(BIN)/python scripts/make_tiny_model.py

## clean: remove the environment, caches and build outputs
clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
