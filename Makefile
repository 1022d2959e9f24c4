# `make demo` and `make test` each do all the set-up themselves; see README.md.
# PYTHON=…      the interpreter to make .venv with (3.11 or later)
# TORCH_ARGS=…  more arguments for pip's installation of torch (an index with CPU-only wheels, say)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench protos clean

PYTHON ?=
TORCH_ARGS ?=
OUT ?= demo_out
BIN := .venv/bin
SOURCES_OF_VENV := pyproject.toml constraints.txt scripts/setup.sh

help:
	@echo "make demo    fit the recording that ships with the project and draw the result into $(OUT)/"
	@echo "make test    linters, type checker, import rules and tests"
	@echo "make lint    the first three alone"
	@echo "make format  let ruff format and sort"
	@echo "make protos  generate the Python of protos/bodyfit/v1/bodyfit.proto"
	@echo "make bench   measure the speed of this machine"
	@echo "make clean   remove .venv and everything else that was made"

.venv/.core.stamp: $(SOURCES_OF_VENV)
	@PYTHON='$(PYTHON)' bash scripts/setup.sh core
	@touch $@

.venv/.test.stamp: .venv/.core.stamp
	@PYTHON='$(PYTHON)' TORCH_ARGS='$(TORCH_ARGS)' bash scripts/setup.sh test
	@touch $@

demo: .venv/.core.stamp
	@$(BIN)/bodyfit demo -o $(OUT)
	@test -s $(OUT)/summary.png
	@echo "make demo: done; the picture is $(OUT)/summary.png"

# The hooks are those of .pre-commit-config.yaml; outside a git checkout pre-commit cannot list the files.
lint: .venv/.test.stamp
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
	    $(BIN)/pre-commit run --all-files --show-diff-on-failure; \
	else \
	    $(BIN)/ruff check .; $(BIN)/ruff format --check .; $(BIN)/pyright; $(BIN)/lint-imports --no-cache; \
	fi

test: lint
	@$(BIN)/python -m pytest $(PYTEST_ARGS)
	@echo "make test: all checks passed"

format: .venv/.test.stamp
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

protos: .venv/.test.stamp
	@$(BIN)/python scripts/make_protos.py

bench: .venv/.core.stamp
	@$(BIN)/bodyfit bench

clean:
	rm -rf .venv demo_out dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
