# A machine with Python >= 3.11 and nothing else needs one of these.
#   make PYTHON=python3.12 …   takes another Python

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One process for each core, at most four for the sake of memory, and one thread in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
STAMP  := $(VENV)/.installed

.PHONY: help demo test test-all format clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP)  ## install, then the whole loop: reward, vocabulary, GRPO, images, table (18 minutes on two cores)
	@$(BIN)/python train.py --config grpo.yaml
	@$(BIN)/python evaluate.py --config evaluate.yaml
	@$(BIN)/python -c "import glob, json; \
	print('peak memory: %.1f GB' % max(json.load(open(run))['peak_memory_gb'] for run in glob.glob('runs/*/finished.json')))"

test: $(STAMP)  ## install, then linter, strict types and the tests that are not slow
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(PYTEST) -m "not slow"

test-all: $(STAMP)  ## the same with the slow tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(PYTEST)

format: $(STAMP)  ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove caches; runs/ and .venv stay
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Installed once, and again when what is installed changes.
$(STAMP): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, $(PYTHON) is " \
	+ sys.version.split()[0] + "; name another: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo "cannot make $(VENV); on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV) (once; several minutes, mostly torch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
