PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Made anew when pyproject.toml changes; touched last, so that a broken install is tried again.
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench bench-gpu torture tensorboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(READY)  ## create .venv and install bnexp into it, with what its tests need

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "bnexp needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY)  ## does batch norm help? three seeds with and without, on embedded data, and a table
	$(BIN)/bnexp -m model=mlp,mlp_bn seed=0,1,2

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -n auto

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## put the code in ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## training speed against the tutorials' way, on the sets in BNEXP_DATA_DIR
	$(BIN)/python scripts/benchmark.py

bench-gpu: $(READY)  ## on a machine with a GPU: what is tested there alone, and whole runs against their targets
	$(BIN)/python -m pytest -n0 tests/training/test_cuda_graph.py
	$(BIN)/python scripts/benchmark.py gpu --repeats 3

torture: $(READY)  ## kill, fill, damage and misuse it for ten minutes: is anything lost?
	$(BIN)/python scripts/torture

tensorboard: $(READY)  ## show outputs/ on http://localhost:6006
	$(BIN)/tensorboard --logdir outputs --host localhost

clean:  ## remove the environment, caches and build folders (outputs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
