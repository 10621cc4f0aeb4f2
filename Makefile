# Start with `make run` and `make test`. Both require only make and Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = echo 'Installing into .venv; the first time takes about a minute.' && $(BIN)/pip install --disable-pip-version-check -e

.PHONY: help run test lint coverage sdk-test fleet wheel-test fix demo generate bench compose-test manifests clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.run  ## run the registry with the embedded store on port 8000
	@$(BIN)/mcp-mesh-registry serve

demo: .venv/.run  ## run three replicas, and register 100, then 500 agents at once
	@$(BIN)/python -m examples.demo

test: lint  ## check format, lint and types, and run all tests but the slow ones
	$(BIN)/pytest

lint: .venv/.dev  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy registry client/mcp_mesh_client tests benchmarks deploy examples

# Replicas that tests start as separate processes are not measured, so the actual coverage is higher.
coverage: .venv/.dev  ## measure the line coverage of the tests, without separate processes
	$(BIN)/pytest -m 'not slow and not fault' --cov=registry --cov=mcp_mesh_client --cov-report=term:skip-covered

fleet: .venv/.dev  ## run all fault tests, also the slow ones; takes minutes, and a few tests require root
	$(BIN)/pytest -m fault

sdk-test: .venv/.dev .venv-sdk/.installed  ## run agents of the published mesh SDK, and meshctl, on three replicas
	$(BIN)/pytest -n 0 tests/sdk

wheel-test: .venv/.dev  ## build both wheels, and install them in empty environments; requires a package index
	$(BIN)/pytest -n 0 -m slow tests/house/test_wheels.py

fix: .venv/.dev  ## format the code, and fix lint where possible
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: .venv/.dev  ## generate the synchronous client from client.py
	$(BIN)/python client/generate_sync.py

bench: .venv/.dev  ## measure the figures of benchmarks/README.md
	$(BIN)/python -m benchmarks

compose-test: .venv/.dev  ## test the stack of compose.yaml in Docker: start, load, faults, stop
	@$(BIN)/python -m deploy.tools

manifests: .venv/.dev  ## render deploy/kubernetes from the chart
	$(BIN)/python -m deploy.tools.manifests

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml client/pyproject.toml client/generate_sync.py | .venv/bin/pip
	@$(INSTALL) ./client -e .
	@touch $@

.venv/.dev: pyproject.toml client/pyproject.toml client/generate_sync.py | .venv/bin/pip
	@$(INSTALL) ./client -e '.[dev]'
# Helm as a library: it declares Python 3.12, but works with 3.11. Without it, tests that render the chart are skipped.
	-$(BIN)/pip install --quiet --disable-pip-version-check --ignore-requires-python 'helm-sdkpy>=0.1.32'
	@touch .venv/.run $@

# The published clients have their own environment, because their dependencies conflict with ours.
.venv-sdk/.installed:
	$(PYTHON) -m venv .venv-sdk
	.venv-sdk/bin/pip install --quiet --disable-pip-version-check 'mcp-mesh==3.8.*'
	@touch $@

clean:  ## remove the virtual environments
	rm -rf .venv .venv-sdk
