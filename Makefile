# make demo | test | bench | lint | clean: each sets up what it needs first (see .ci/setup.sh).
# Long campaigns: make emulator-campaign | propagation-study | ota-campaign | boot-campaign; their tables live in results/.
SHELL := /bin/bash
BIN := .venv/bin
RUN ?= runs/demo
SEEDS ?= 300

.PHONY: help setup demo test bench lint clean emulator-campaign propagation-study ota-campaign boot-campaign firmware-equality firmware-fuzz compiler-study

help:
	@sed -n '1,2s/^# //p' Makefile

setup:
	@bash .ci/setup.sh

demo: setup
	@$(BIN)/twin run scenarios/joint.yaml --out $(RUN) --overwrite

test:
	@bash .ci/setup.sh --tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

bench: setup
	@$(BIN)/python -m twin.bench
	@$(BIN)/python -m pack_models.bench
	@$(BIN)/python -m pack_models.ageing bench
	@$(BIN)/python -m bms_emulator.native
	@$(BIN)/python -m bms_emulator bench
	@$(BIN)/python -m bms_emulator.firmware.bench
	@$(BIN)/python -m pack_models.propagation.bench
	@$(BIN)/python -m ota bench

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

emulator-campaign: setup
	@$(BIN)/python -m bms_emulator.campaign --seeds $(SEEDS)

propagation-study: setup
	@$(BIN)/python -m pack_models.propagation.validate

firmware-equality: setup
	@$(BIN)/python -m bms_emulator.firmware.equality --hours 24 --out results/firmware/native_equals_emulated.csv

firmware-fuzz: setup
	@$(BIN)/python -m bms_emulator.firmware.fuzz --count 100000 --out results/firmware/fuzz.csv

boot-campaign: setup
	@$(BIN)/python -m tests.agreement.boot_campaign --out results/boot
	@$(BIN)/python -m bms_emulator.boot_skips --out results/boot/skips.csv

compiler-study: setup
	@$(BIN)/python -W ignore -m pack_models.cells.compiler.validate --out results/compiled_cells

ota-campaign: setup
	@$(BIN)/python -m ota faults --full --out results/ota/power_cuts.csv
	@$(BIN)/python -m ota faults --full --controller bms_emulator.host_mcu:HostMcu --out results/ota/power_cuts_c.csv
	@$(BIN)/python tests/agreement/sequences.py --number 2000
	@$(BIN)/python tests/agreement/fuzz.py --number 20000

clean:
	rm -rf .venv .cache runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
