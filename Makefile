# Every target that needs environments depends on `setup`, or on `venv` if it needs only the main one. Either takes
# a moment when nothing changed.

PYTHON ?= python3
TORCH_INDEX_URL ?=
BIN := .venv/bin
AGENTS := ag2 llama-index crewai

.DEFAULT_GOAL := help
SETUP := TORCH_INDEX_URL="$(TORCH_INDEX_URL)" $(PYTHON) -m scripts.environments
.PHONY: help setup venv demo metagpt compiled test-compiled test test-main test-clients test-agents check bench evaluation benchmark-tables model clean

## help: show this list
help:
	@echo "Usage: make TARGET [PYTHON=python3.12] [TORCH_INDEX_URL=...]"
	@sed -n 's/^## \([a-z-]*\): /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-16s %s\n", $$1, $$2 }'

## setup: create .venv with the engine for this machine (vLLM for CUDA or for CPU), and .venvs/* for other frameworks
setup:
	@$(SETUP)

## venv: create .venv only
venv:
	@$(SETUP) --only .venv

## demo: run three programs on real vLLM with the tiny model, call by call and as one submit
demo: venv
	@$(BIN)/parrot demo

## metagpt: let a team of MetaGPT's agents write a project in three ways, on real vLLM with the tiny model
metagpt:
	@$(SETUP) --only .venv .venvs/metagpt
	@$(BIN)/python -m examples.metagpt.compare

## compiled: compile the core and the simulated engines into build/compiled, about twice as fast (docs/simulator.md)
compiled: venv
	$(BIN)/python -m scripts.compile_core

## test-compiled: compile them, and run the tests of the core and the simulator against that
test-compiled: compiled
	$(BIN)/python -P -m pytest -o pythonpath="build/compiled ." tests/core tests/sim

## test: run the test suite, then the tests of frameworks with environments of their own
test: test-main test-clients

## test-main: run what runs in .venv
test-main: venv
	$(BIN)/python -m pytest

## test-clients: run the tests of frameworks in .venvs/*
test-clients: setup
	$(BIN)/python -m scripts.environments.clients test

## test-agents: run the tests of ag2, LlamaIndex and CrewAI; makes CrewAI's environment (0.9 GB), which setup does not
test-agents:
	@$(SETUP) --only .venv $(AGENTS:%=.venvs/%)
	@set -e; for name in $(AGENTS); do \
		echo "== .venvs/$$name"; .venvs/$$name/bin/python -m pytest tests/integrations/agents; \
	done

## check: lint, formatting, types and import rules
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m scripts.environments.clients types
	$(BIN)/lint-imports

## bench: run every benchmark; each prints its claim, its baseline and the ratio
bench: setup
	@set -e; for file in $$(find benchmarks -name 'bench_*.py' | sort); do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename "$$file" .py); \
	done

## evaluation: simulate the evaluation anew, on all cores, and write docs/evaluation.md with its figures
evaluation: venv
	@$(BIN)/python -m benchmarks.evaluation

## benchmark-tables: write the newest benchmark rows into README.md and docs/
benchmark-tables: venv
	$(BIN)/python -m scripts.benchmark_tables

## model: make the tiny model anew (the result is the same, byte for byte)
model: venv
	$(BIN)/python scripts/make_tiny_model.py

## clean: remove the environments, caches and build outputs
clean:
	rm -rf .venv .venvs build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
