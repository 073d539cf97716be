# make train: install into .venv and train on generated data.  make test: install and run all tests.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CONFIG ?= configs/powers.py

.PHONY: train test lint clean

train: $(VENV)/installed
	$(RUN) -m tds_jax.train --config=$(CONFIG)

test: $(VENV)/installed
	$(RUN) -m pytest --numprocesses=logical --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Python {sys.version.split()[0]} is too old; run: make PYTHON=python3.11 (or newer)")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
