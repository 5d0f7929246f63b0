# make demo: the main job on the embedded default.   make study-demo: a study of the simulated hospitals.
# make test: all tests.   make lint: style, types, rules.
# Each sets up what it needs: a virtual environment in .venv, installed from pyproject.toml.

VENV ?= .venv
PYTHON ?= python3
INSTALLED = $(VENV)/.installed

.PHONY: demo study-demo test lint

demo: $(INSTALLED)
	$(VENV)/bin/python train.py

study-demo: $(INSTALLED)
	$(VENV)/bin/python study.py study=demo workers=2

# One thread a process: two processes of two threads each would fight for two cores. UTF-8 by name:
# libraries that read JPEG 2000 put the whole process back to the locale C.
test: $(INSTALLED)
	PYTHONUTF8=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e ".[dev]"
	touch $@
