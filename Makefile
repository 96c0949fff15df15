# make demo: see it work; make test: pass the tests. Both install into .venv first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test lint format bench peers docs dist clean

help: ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gptdist needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## install gptdist and what it needs into .venv

demo: $(INSTALLED) ## train a small model, kill it, resume it on another layout, export it
	$(BIN)/gptdist demo

# The start of a process keeps one core busy: two files of tests at a time, in our order. What measures time comes by itself.
test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/python -m pytest -m alone

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## put gptdist beside what one would use instead, and write benchmarks/RESULTS.md (about 25 minutes)
	$(BIN)/python -m benchmarks.run_all

peers: $(INSTALLED) ## install what `make bench` stands beside, in an environment of its own
	$(BIN)/python -m benchmarks.peer_environment

# Material prints a page about MkDocs 2 otherwise; constraints.txt holds MkDocs at 1.
docs: $(INSTALLED) ## build the pages of docs/ into build/site, to be opened from there
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(INSTALLED) ## build wheel and source archive into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove what was installed and built
	rm -rf $(VENV) build dist
