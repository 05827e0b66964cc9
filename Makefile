# `make` lists the targets. Needs python3, make and a package index; all else goes to .venv.

PYTHON ?= python3
CORES ?= all
GPU ?=
RUN ?=
TRUST ?=
export RUN
CONFIG ?= config/demo.yaml
REPORTER ?= rocrate
ARGS ?=
WORKERS ?= 2
UV ?= uv

BIN := .venv/bin
INSTALL = $(PYTHON) envs/install.py $(if $(filter-out 0 no false,$(GPU)),--gpu)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	$(if $(UPGRADE),--upgrade)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all lint format models reproduce verify rocrate bench schema requirements clean python runtime tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile
	@echo "Variables: CORES=$(CORES) GPU=1 (CUDA) PYTHON=$(PYTHON) ARGS='-k name' (pytest's) WORKERS=$(WORKERS) (processes that test)"

demo: runtime ## run the whole workflow on the simulated demo survey
	@$(BIN)/snakemake --configfile config/demo.yaml --cores $(CORES) \
		--report results/demo/report/report.html --report-after-run
	@$(BIN)/python -m luneta.reporting.summary results/demo

test: tools ## run the tests that take seconds
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-all: tools ## run all tests, those that take minutes too
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "slow or not slow" $(ARGS)

lint: tools ## check style, workflow and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint --configfile config/demo.yaml
	$(BIN)/lint-imports

format: tools ## format code and workflow
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format
	$(BIN)/snakefmt workflow

models: runtime ## list the networks: parameters, input, weights, paper
	@$(BIN)/python scripts/list_models.py

reproduce: runtime ## make a run again and compare: RUN=results/demo/runs/<run_id>.json (TRUST=1: run its .diff)
	@$(BIN)/python -m luneta.plan.reproduce --cores $(CORES) \
		$(if $(filter-out 0 no false,$(TRUST)),--trust) -- "$$RUN"

verify: runtime ## read all files of a run again and compare: RUN=results/demo/runs/<run_id>.json
	@$(BIN)/python -m luneta.plan.verify -- "$$RUN"

rocrate: runtime ## describe a finished run as an RO-Crate: CONFIG=config/demo.yaml
	@$(BIN)/python -c "import snakemake_report_plugin_$(REPORTER)" 2> /dev/null || \
		{ echo "There is no reporter $(REPORTER): $(BIN)/pip install snakemake-report-plugin-$(REPORTER)"; exit 1; }
	@$(BIN)/snakemake --configfile $(CONFIG) --cores 1 --reporter $(REPORTER)

bench: tools ## run the benchmarks
	@for file in benchmarks/bench_*.py; do \
		[ -e "$$file" ] || { echo "no benchmarks yet"; exit 0; }; \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

schema: runtime ## write config/{README.md,default.yaml,schema.json} and the tables of docs/catalog.md
	@$(BIN)/python scripts/document_config.py
	@$(BIN)/python scripts/document_catalog.py

requirements: python ## pin envs/*.in again (needs uv; UPGRADE=1 for the newest versions)
	@command -v $(UV) > /dev/null || { echo "uv is not there: pip install uv"; exit 1; }
	cd envs && $(COMPILE) requirements.in -o requirements-cpu.txt > /dev/null
	cd envs && $(COMPILE) -c requirements-cpu.txt requirements-gpu.in -o requirements-gpu.txt > /dev/null
	cd envs && $(COMPILE) -c requirements-cpu.txt requirements-test.in -o requirements-test.txt > /dev/null
	$(PYTHON) envs/make_conda.py

clean: ## remove .venv and caches; results stay
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard scripts tests benchmarks) -name __pycache__ -prune -exec rm -rf {} +

python:
	@command -v $(PYTHON) > /dev/null || { echo "There is no '$(PYTHON)' here: install" \
		"Python 3.11, 3.12 or 3.13, or name yours: make PYTHON=/path/to/python3 ..."; exit 1; }

runtime: python
	@$(INSTALL)

tools: python
	@$(INSTALL) --tests
