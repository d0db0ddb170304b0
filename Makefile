# Every target makes .venv first if it is missing or older than what it is made from.
# PYTHON is any Python from 3.11 on, with its venv module; nothing else has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What evidence is delivered to in a test, kept apart: it is large, and none of ours imports it.
PHOENIX := .venv-phoenix
PHOENIX_VERSION := 20.26.1

export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help demo test coverage soak conformance test-phoenix lint format bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY)  ## a guarded server, three agents, and why each call was allowed or denied
	@$(BIN)/python -m examples.records.demo

test: $(READY)  ## every quick test
	$(BIN)/pytest -n auto --dist worksteal

coverage: $(READY)  ## the same, held to 100 % of the branches
	$(BIN)/pytest -n auto --dist worksteal --cov --cov-report=term

soak: $(READY)  ## the slow tests: races, kills, a store that is down; some minutes
	$(BIN)/pytest tests/soak

conformance: $(READY)  ## the official MCP conformance suite: guarded servers score as bare ones
	$(BIN)/pytest tests/conformance

test-phoenix: $(READY) $(PHOENIX)/.ready  ## the evidence in a real Phoenix, in an environment of its own
	$(BIN)/pytest tests/phoenix

lint: $(READY)  ## ruff, formatting, mypy strict, and the site built strictly
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml

format: $(READY)  ## what ruff can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)  ## what a guarded call costs; measures, never gates
	@$(BIN)/python -m tests.bench

docs: $(READY)  ## build the site into site/
	$(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) $(PHOENIX) site dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is written last, so that an interrupted installation is started again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "agentguard wants Python 3.11 or later, got $$($(PYTHON) --version): make PYTHON=python3.13 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(PHOENIX)/.ready: Makefile
	$(PYTHON) -m venv $(PHOENIX)
	$(PHOENIX)/bin/python -m pip install --quiet --disable-pip-version-check 'arize-phoenix==$(PHOENIX_VERSION)'
	@touch $@
