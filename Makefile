# `make train` and `make test` need Python >= 3.11 and make, nothing else; everything is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/manifests-lstm-encoder
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
# One process a core; more than 8 only compile the same programs once more.
# All tests of a file in one process: two would compile the same programs at the same time. In the order of the files:
# by default those with few tests, which are long ones, come last, and a single process ends alone.
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# XLA's former CPU emitters, and one LLVM module a program, compile in half the time; programs of tests run for
# milliseconds. `make test-all`, and what .ci/run calls besides, compile as users do.
QUICK_COMPILATION := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
SOURCES := flax_transformer torch_reference benchmarks docs examples tests parity_tests conftest.py train_flax.py

.PHONY: train test test-all check format docs clean

# Trains the default task with the preset for CPUs, or goes on where an earlier `make train` was stopped.
train: $(VENV)/.base
	$(BIN)/flax-transformer train manifests --preset lstm-encoder --run $(RUN) --resume auto

test: $(VENV)/.dev
	XLA_FLAGS="$$XLA_FLAGS $(QUICK_COMPILATION)" $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# The site with the API page, in site/; any warning is an error.
docs: $(VENV)/.docs
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV) build dist site *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: expected Python 3.11 or newer, got " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# A stamp is older than the files that name the dependencies exactly when an install is due.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable ".[train]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.base

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable ".[docs]"
	@touch $@
