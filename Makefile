# make demo | test | bench | lint | clean: each sets up what it needs first (see .ci/setup.sh).
SHELL := /bin/bash
BIN := .venv/bin
RUN ?= runs/demo

.PHONY: setup demo test bench lint clean help

help:
	@sed -n '1p' Makefile

setup:
	@bash .ci/setup.sh

demo: setup
	@$(BIN)/twin run scenarios/first_light.yaml --out $(RUN) --overwrite

test: setup
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -q

bench: setup
	@$(BIN)/python -m twin.bench

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

clean:
	rm -rf .venv .cache runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
