# make demo   set everything up and repair a damaged recording
# make test   set everything up and run the whole test suite
# make help   the rest
#
# PYTHON=python3.12        another interpreter, 3.11 or newer
# TORCH_INDEX=URL          package index to take torch from, such as the CPU index of the PyTorch project
# JOBS=2                   test processes

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
DAMAGED := examples/only_300_stood_damaged.flac
REPAIRED := out/only_300_stood_repaired.flac

.DELETE_ON_ERROR:
.PHONY: help demo install dev test lint types layers mutations clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.package ## repair examples/only_300_stood_damaged.flac; the result is in out/
	@mkdir -p out
	$(BIN)/sfumato repair $(DAMAGED) $(REPAIRED) --report out/report

install: $(VENV)/.package ## the package alone, in .venv

dev: $(VENV)/.dev ## the package with everything tests and checks need, in .venv

# Warnings are errors in the tests; one thread each, as the processes share the cores.
test: $(VENV)/.dev ## the whole CPU test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.dev ## who may import whom
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/layers

mutations: $(VENV)/.dev ## break the code on purpose, one line at a time: each named test must fail
	OMP_NUM_THREADS=1 $(BIN)/python .ci/mutations.py

clean: ## remove .venv, out/ and caches
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: sfumato needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "error: $(PYTHON) can't make virtual environments. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and alone: together with other packages, pip may choose a build for another device.
$(VENV)/.torch: constraints.txt | $(VENV)/.venv
	@echo 'Installing torch: the first time this takes minutes.'
ifeq ($(TORCH_INDEX),)
	$(PIP) -c constraints.txt torch
else
	$(PIP) -c constraints.txt --no-deps --index-url $(TORCH_INDEX) torch
endif
	@touch $@

$(VENV)/.package: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
