PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Rebuilt when pyproject.toml changes. Touched last: an install that failed is repeated.
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench bench-gpu torture slurm-trial tensorboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(READY)  ## create .venv and install bnexp into it, with the packages of its tests

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "bnexp needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY)  ## does batch norm help LeNet? as many seeds as the answer takes, on embedded data
	$(BIN)/bnexp -m model=lenet model.norm=none,batch epochs=5 seed=auto

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)  ## check the code with ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure training speed against the tutorials' loop, on the data sets in BNEXP_DATA_DIR
	$(BIN)/python scripts/benchmark.py

bench-gpu: $(READY)  ## on a GPU: the tests that need one, and the speed of whole runs
	$(BIN)/python -m pytest -n0 tests/training/test_cuda_graph.py tests/training/test_graph_selection.py
	$(BIN)/python scripts/benchmark.py gpu --repeats 3

torture: $(READY)  ## test reliability for ten minutes: kills, full disks, damaged files, random command lines
	$(BIN)/python scripts/torture

slurm-trial: $(READY)  ## as root on Debian: install and start SLURM, try the launcher slurm on it, stop it
	$(BIN)/python scripts/slurm_trial

tensorboard: $(READY)  ## show outputs/ on http://localhost:6006/#custom_scalars
	$(BIN)/tensorboard --logdir outputs --host localhost

clean:  ## remove the environment, caches and build folders, but not outputs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
