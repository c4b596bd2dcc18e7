# `make demo` and `make test` are the whole set-up: virtual environment, ROS 2 wheels, torch.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types weights docs setup clean

setup: $(STAMP)

# torch first and by its pin: a later resolution may not replace it by a CUDA build.
$(STAMP): setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
	  || { echo "mde_ros needs Python 3.10, 3.11 or 3.12; found $$($(PYTHON) --version). Set PYTHON=."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt torch==2.13.0 'setuptools<80' wheel
	$(PIP) install -c constraints.txt -e '.[ros,training,report,sim,datasets,docs,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/mde demo
	$(BIN)/mde demo --completion

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Which shipped file is stale, and the command that renews it.
weights: $(STAMP)
	$(BIN)/python scripts/weights.py

# The site, into site/; a broken link is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build install log *.egg-info demo site
