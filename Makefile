# Two commands matter: `make run` and `make test`. Both need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -e

.PHONY: help run test lint coverage sdk-test fleet wheel-test fix demo generate bench compose-test manifests clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.run  ## the registry with the embedded store on port 8000
	@$(BIN)/mcp-mesh-registry serve

demo: .venv/.run  ## three replicas, 100 then 500 agents at once
	@$(BIN)/python -m examples.demo

test: lint  ## format, lint, types, house rules, the whole suite
	$(BIN)/pytest

lint: .venv/.dev  ## format, lint and types, without the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy registry client/mcp_mesh_client tests benchmarks deploy examples

# Replicas that tests start as processes of their own are not measured, so the true coverage is higher.
coverage: .venv/.dev  ## lines of the packages that the tests of the rooms reach, in this process
	$(BIN)/pytest -m 'not slow and not fault' --cov=registry --cov=mcp_mesh_client --cov-report=term:skip-covered

fleet: .venv/.dev  ## every fault a fleet survives, the slow ones too; needs some minutes, and root for a few
	$(BIN)/pytest -m fault

sdk-test: .venv/.dev .venv-sdk/.installed  ## real agents of the published mesh SDK, and meshctl, unchanged, on three replicas
	$(BIN)/pytest -n 0 tests/sdk

wheel-test: .venv/.dev  ## both wheels, built and installed in empty environments; needs a package index
	$(BIN)/pytest -n 0 -m slow tests/house/test_wheels.py

fix: .venv/.dev  ## what a machine can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: .venv/.dev  ## the synchronous client, from client.py
	$(BIN)/python client/generate_sync.py

bench: .venv/.dev  ## the figures of benchmarks/README.md
	$(BIN)/python -m benchmarks

compose-test: .venv/.dev  ## the stack of compose.yaml in Docker: up, loaded, hurt, down
	@$(BIN)/python -m deploy.tools

manifests: .venv/.dev  ## deploy/kubernetes, from the chart
	$(BIN)/python -m deploy.tools.manifests

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml client/pyproject.toml client/generate_sync.py | .venv/bin/pip
	$(INSTALL) ./client -e .
	@touch $@

.venv/.dev: pyproject.toml client/pyproject.toml client/generate_sync.py | .venv/bin/pip
	$(INSTALL) ./client -e '.[dev]'
# Helm as a library: it asks for Python 3.12 and needs no more than 3.11. Where there is none, tests that render are skipped.
	-$(BIN)/pip install --quiet --disable-pip-version-check --ignore-requires-python 'helm-sdkpy>=0.1.32'
	@touch .venv/.run $@

# The published clients bring a world of their own, which must not meet ours.
.venv-sdk/.installed:
	$(PYTHON) -m venv .venv-sdk
	.venv-sdk/bin/pip install --quiet --disable-pip-version-check 'mcp-mesh==3.8.*'
	@touch $@

clean:
	rm -rf .venv .venv-sdk
