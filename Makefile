# Every verb sets up what it needs: a fresh Debian or Ubuntu with python3 >= 3.11 and make will do.
# ARGS are passed on, for example: make run ARGS="--for 10s --report json"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run pair test lint types proto bench sim conformance clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHMARKS := $(shell grep -l __main__ bench/*.py)
SCRIPTS := $(shell grep -ls '^.!/usr/bin/env bash' ops/* scripts/* .ci/*)
ARGS ?=
# Processes that run tests side by side; TESTERS=0 for one alone, which pytest's --pdb needs.
TESTERS ?= 2

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install Tandem with its development tools

$(STAMP): pyproject.toml scripts/make-venv
	@scripts/make-venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[onnx,postgres,train,dev]'
	@touch $@

run: setup ## run a node; ARGS are those of `tandem run`
	@$(BIN)/tandem run $(ARGS)

pair: setup ## run two nodes and a venue, to kill, freeze and cut them; ARGS are those of `tandem pair`
	@$(BIN)/tandem pair $(ARGS)

test: setup ## run all tests, against real servers where they can be had; ARGS are those of pytest
	@scripts/install-test-servers
	@scripts/install-grpcurl
	@$(BIN)/pytest --numprocesses=$(TESTERS) --dist=loadgroup $(ARGS)

lint: setup ## check style, formatting, the direction of imports and shell scripts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports
	@$(BIN)/shellcheck --external-sources $(SCRIPTS)

types: setup ## check types
	@$(BIN)/mypy

proto: setup ## generate the Python stubs of proto/; with ARGS=--check only say whether they are up to date
	@scripts/make-protos $(BIN)/python $(ARGS)

bench: setup ## run every benchmark; ARGS are passed to each, for example --json
	@for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file $(ARGS); done

sim: setup ## run a million simulated failover schedules; ARGS=--schedules=N for fewer, ARGS="--seed N --trace" for one
	@$(BIN)/python -m tests.sim $(ARGS)

conformance: setup ## every exchange adapter and every lease store by the same behaviours, as tables; ARGS=--json for scripts
	@scripts/install-test-servers
	@$(BIN)/python -m tests.conformance $(ARGS)

clean: ## remove .venv, caches and the data of local runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist var
	find host failover venue plugins tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
