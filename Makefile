# Everything a fresh machine needs is made by these targets; nothing is installed outside .venv and the caches.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.made-for-run
DEV_STAMP := $(VENV)/.made-for-tests
.DEFAULT_GOAL := help

NEWEST := .venv-newest
SEED ?= 1
N ?= 20
.PHONY: help setup demo test test-fast test-matrix test-newest chaos check bench locks clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(RUN_STAMP) ## virtual environment in .venv with everything needed to run

$(RUN_STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "overnight needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing what overnight needs into $(VENV) (a minute or two the first time)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP) requirements-dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(RUN_STAMP) ## replay the incident: real agent, emulated provider, no account
	@$(BIN)/overnight rehearse

# three at a time on two cores: half of its time it waits for leases, grace and beats
test: check ## everything: real sshd, Prefect server, browser pages, agent CLIs
	@tests/provide
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile || $(BIN)/python -m tests.again

test-fast: $(DEV_STAMP) ## all but Prefect's server, sshd and agent CLIs
	@$(BIN)/python -m pytest -q -n 2 -m "not full"

test-matrix: $(DEV_STAMP) ## every agent against every fault, on this machine alone; a page in .overnight/matrix
	@tests/provide
	@mkdir -p .overnight/matrix
	@$(BIN)/python -m overnight.rehearsal.matrix --json .overnight/matrix/matrix.json --html .overnight/matrix/matrix.html

chaos: $(DEV_STAMP) ## N seeded schedules of faults (from SEED on) over real runs on three hosts; needs root
	@tests/provide
	@$(BIN)/python -m tests.chaos --seed $(SEED) --count $(N)

test-newest: $(DEV_STAMP) ## what stands on Prefect, against its newest version and all it drags in; may fail
	@rm -rf $(NEWEST) && $(PYTHON) -m venv $(NEWEST)
	@$(NEWEST)/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(NEWEST)/bin/pip install -q --disable-pip-version-check --upgrade --upgrade-strategy eager prefect
	@$(NEWEST)/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(NEWEST)/bin/python -c "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in ('prefect', 'fastapi', 'sqlalchemy')))"
	@tests/provide
	@$(NEWEST)/bin/python -m pytest -q -n 2 --dist loadfile --maxfail=10 tests/blocks tests/tasks tests/deployments tests/flows/test_single.py

check: $(DEV_STAMP) ## ruff, mypy --strict, architecture tests, our own launchers against the lock
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py
	@$(BIN)/overnight lock check .

bench: $(DEV_STAMP) ## what a night costs against peers: tests/bench/RESULTS.md; the doctor's speed, and what it names of 75 faults; the alarm
	@tests/provide
	-@$(BIN)/python -m tests.bench $(BENCH)
	@$(BIN)/python -m tests.bench.prefect_cost
	@$(BIN)/python -m tests.bench.doctor_speed
	@$(BIN)/python -m tests.bench.planted
	@$(BIN)/python -m tests.bench.alarm

locks: $(DEV_STAMP) ## resolve the lock files anew, the peers' of the bench among them
	@$(BIN)/uv pip compile pyproject.toml --extra setup --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra setup --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o requirements-dev.lock
	@$(BIN)/uv pip compile tests/bench/peers.in --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o tests/bench/peers.lock

clean: ## remove the virtual environment and caches of this folder
	@rm -rf $(VENV) $(NEWEST) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
