# Every target does its own set-up; a second run is instant. `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUNDLE := llamatelemetry_widget/widgets/static/attention_grid.js
JS := $(shell find js -type f 2>/dev/null)

# llama.cpp is built once from source and kept in pip's cache: without the vision tools, with RPC, and for any x86-64 with
# AVX2 rather than for this very CPU, so that a cached wheel also runs on the next machine.
export CMAKE_ARGS := -DLLAVA_BUILD=OFF -DGGML_RPC=ON -DGGML_NATIVE=OFF
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: help setup demo test lint build lab dev bench docs pictures lock clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed $(BUNDLE) ## Virtual environment, packages, frontend

demo: setup ## Run the main job on the embedded model; writes demo.html
	$(BIN)/python scripts/demo.py

test: setup $(VENV)/.chromium lint ## Everything that CI runs
	npm run --silent test
	$(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m pytest

lint: setup ## Format, lint and types of Python and TypeScript
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	npm run --silent lint
	npm run --silent typecheck

build: setup ## Wheel and sdist in dist/
	$(BIN)/python -m hatchling build

lab: setup ## JupyterLab on the examples
	$(BIN)/jupyter lab examples

dev: setup ## Rebuild the frontend at every change
	npm run dev

bench: setup $(VENV)/.chromium ## Every speed and size figure, each against a peer
	$(BIN)/python -m benchmarks

docs: setup ## Documentation in site/
	$(BIN)/mkdocs build --strict

pictures: setup $(VENV)/.chromium ## Pictures of the documentation
	$(BIN)/python scripts/make_pictures.py

lock: ## Resolve the dependencies anew into requirements.lock
	rm -rf .lockenv && $(PYTHON) -m venv .lockenv
	.lockenv/bin/pip install -q -U pip && .lockenv/bin/pip install -q -e '.[dev]'
	.lockenv/bin/pip freeze --exclude-editable > requirements.lock
	rm -rf .lockenv

clean: ## Remove what was made here
	rm -rf $(VENV) node_modules dist site $(BUNDLE) demo.html tests/output

$(VENV)/.installed: requirements.lock pyproject.toml
	@command -v c++ > /dev/null || scripts/system_package.sh g++
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || scripts/system_package.sh python3-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -U pip
	@# The lock is of Python 3.11; 3.10 cannot take all of it and resolves the ranges anew.
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  $(BIN)/python -m pip install -q --no-deps -r requirements.lock && \
	  $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .; \
	else $(BIN)/python -m pip install -q -e '.[dev]'; fi
	touch $@

node_modules/.package-lock.json: package-lock.json
	@command -v npm > /dev/null || scripts/system_package.sh npm
	npm ci --no-audit --no-fund --silent
	touch $@

$(BUNDLE): node_modules/.package-lock.json package.json $(JS)
	npm run --silent build

$(VENV)/.chromium: $(VENV)/.installed
	@command -v chromium > /dev/null || scripts/system_package.sh chromium
	touch $@
