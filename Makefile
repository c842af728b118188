# Everything a fresh machine needs is Python 3.11 or newer, git, make and the package indexes.
# `make` runs the checks and the tests as CI does. Set-up happens by itself, once, and again when the lock changes.

PYTHON ?= python3
ARGS ?=
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.holdfast-setup
# uv reads the lock. Its own minor version is pinned, because the format of the lock belongs to it.
UV := uv>=0.13,<0.14

# Tests start hundreds of children; none is to compile what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all setup services demo run test check bench kill power machine contract histories tiers load fmt lock build clean help

all: check test ## checks and tests, as CI runs them (this is plain `make`)

setup: $(STAMP) ## make .venv and install what uv.lock names, once

# What the tests of the distributed tiers start for themselves, on free ports: nothing of it needs to run. strace shows when
# Redis syncs, pgbouncer stands before PostgreSQL. Debian starts what it installs unless a policy says no.
SERVICES := redis-server postgresql pgbouncer strace

services: ## install the servers that tests start (Debian and Ubuntu, as root): Redis, PostgreSQL, PgBouncer
	@command -v apt-get >/dev/null || { echo "There is no apt-get here: install $(SERVICES) your way; without them their tests are skipped." >&2; exit 1; }
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive sh -c 'apt-get install -y -q $(SERVICES) || { apt-get update -q && apt-get install -y -q $(SERVICES); }' >/dev/null

demo: $(STAMP) ## the whole life of a session, on a document: make demo [ARGS=path/to/file.md]
	$(BIN)/holdfast demo $(ARGS)

run: $(STAMP) ## start the HTTP service and print its address: make run [ARGS="--port 9000"]
	$(BIN)/holdfast serve $(ARGS)

test: $(STAMP) ## every test, on all cores, with coverage of 90 % or better: make test [ARGS="-k undo"] [WORKERS=4]
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(if $(ARGS),$(ARGS),--cov --cov-report=term)

check: $(STAMP) ## formatting, lint, types, and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure beside the bare floor; prints a table, writes bench/latest.json: make bench [ARGS=--quick]
	$(BIN)/holdfast bench --output bench/latest.json $(ARGS)

fmt: $(STAMP) ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Long runs: the tests that `make test` runs in a shorter form, with fixed seeds. Each prints its seed and its counts; SEED=n
# repeats a run, and each goes on to pytest with ARGS. A test that takes minutes is not stuck: no stacks are shown for that.
SEED ?= $(shell date +%s)
LONG = HOLDFAST_TEST_SEED=$(SEED) PYTEST_ADDOPTS="-o faulthandler_timeout=0"

kill: $(STAMP) ## long: kill -9 at named steps of commits (1,000 cycles) and at every step of publishing
	$(LONG) HOLDFAST_TEST_KILL_CYCLES=1000 HOLDFAST_TEST_PUBLISH_KILLS=0 $(BIN)/python -m pytest -n $(WORKERS) -rP \
		tests/faults/test_f01_kill.py tests/engine/test_publishing.py tests/sinks/test_kill_publish.py $(ARGS)

power: $(STAMP) ## long: 10,000 power cuts on the simulated disk
	$(LONG) HOLDFAST_TEST_POWER_CUTS=10000 HOLDFAST_TEST_ENGINE_CUTS=1000 $(BIN)/python -m pytest -n $(WORKERS) -rP \
		tests/faults/test_f05_power_cut.py tests/faults/test_f05_engine.py $(ARGS)

machine: $(STAMP) ## long: 100,000 random steps by several actors against the model
	$(LONG) HOLDFAST_TEST_MACHINE_STEPS=100000 $(BIN)/python -m pytest -rP tests/test_machine.py $(ARGS)

contract: $(STAMP) ## long: 100,000 requests made from the OpenAPI document, right ones and wrong ones
	$(LONG) HOLDFAST_TEST_CONTRACT_CASES=100000 $(BIN)/python -m pytest -n $(WORKERS) -rP tests/contract $(ARGS)

histories: $(STAMP) ## long: 500 histories of several servers, 1,000 races, 100,000 resends and 100,000 events, over HTTP
	$(LONG) HOLDFAST_TEST_HISTORIES=500 HOLDFAST_TEST_RACE_ROUNDS=1000 HOLDFAST_TEST_REPLAYS=100000 \
		HOLDFAST_TEST_FEED_EVENTS=100000 $(BIN)/python -m pytest -rP tests/service/test_r02_histories.py \
		tests/service/test_r02_replicas.py tests/service/test_r04_one_winner.py tests/service/test_r05_resends.py \
		tests/service/test_r18_feed.py $(ARGS)

tiers: $(STAMP) ## long: tiers that are apart, killed, stopped and cut: 1,000 kills a mode, 10 minutes without PostgreSQL
	$(LONG) CI= HOLDFAST_TEST_TIER_KILLS=1000 HOLDFAST_TEST_READS=100000 HOLDFAST_TEST_HOT_CUTS=100 \
		HOLDFAST_TEST_WARM_GONE=600 HOLDFAST_TEST_WARM_FLAPS=30 HOLDFAST_TEST_PAUSE=60 HOLDFAST_TEST_ARCHIVES=1000 \
		HOLDFAST_TEST_LOST_REPLIES=10000 HOLDFAST_TEST_REDIS_KILLS=1000 \
		$(BIN)/python -m pytest -n $(WORKERS) -rP tests/faults/test_r01_tiers.py tests/faults/test_r09_reads.py \
		tests/faults/test_r11_hot_gone.py tests/faults/test_r12_warm_gone.py tests/faults/test_f17_pause.py \
		tests/faults/test_f03_redis_kill.py tests/faults/test_f06_redis_lost_replies.py \
		tests/engine/test_archiving.py $(ARGS)

load: $(STAMP) ## long: 1,000 sessions on four replicas for five minutes, and the same with one killed every 20 s
	$(LONG) HOLDFAST_TEST_LOAD_SECONDS=300 HOLDFAST_TEST_LOAD_SESSIONS=1000 HOLDFAST_TEST_LOAD_PACE=3 \
		HOLDFAST_TEST_LOAD_OUTPUT=bench/load.json $(BIN)/python -m pytest -rP \
		tests/service/test_load.py -k "mixed or killed" $(ARGS)

lock: $(STAMP) ## bring uv.lock up to date with pyproject.toml
	$(BIN)/uv lock --no-config

build: $(STAMP) ## the wheel and the source archive, into dist/
	$(BIN)/uv build

clean: ## remove .venv, caches and build results
	rm -rf $(VENV) dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# uv is quick and checks every hash, but it knows nothing of an index that is configured for pip alone. So with such an
# index, or when uv fails, pip installs the same pinned versions, with the same hashes.
$(STAMP): pyproject.toml uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.11 or newer, or run make PYTHON=/path/to/python." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Holdfast needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Run make PYTHON=/path/to/python." >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV)'
	@if $(BIN)/python -m pip config list | grep -q 'index-url' || ! $(MAKE) --no-print-directory sync-uv; then \
		$(MAKE) --no-print-directory sync-pip; \
	fi
	@touch $@

.PHONY: sync-uv sync-pip
sync-uv:
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --inexact --no-python-downloads --python $(BIN)/python --quiet
sync-pip:
	$(BIN)/uv export --frozen --no-emit-project --quiet --output-file $(VENV)/requirements.txt >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
