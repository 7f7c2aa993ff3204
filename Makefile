# Every target builds .venv from nothing when it has to; nothing else on the machine is used but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each of the tests' processes computes on one thread (tests/conftest.py); a file's tests share their fixtures.
TWO_AT_ONCE := --numprocesses 2 --dist loadfile

.PHONY: quickstart test test-all check docs clean

quickstart: $(VENV)/.ready
	$(BIN)/distilface quickstart

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m "not slow" $(TWO_AT_ONCE)

test-all: $(VENV)/.ready-dev
	$(BIN)/python -m pytest $(TWO_AT_ONCE)

check: $(VENV)/.ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	rm -rf build/typed && mkdir -p build/typed/distilface_st
	ln -sfn $(CURDIR)/distilface_st/* $(CURDIR)/recipes build/typed/distilface_st
	$(BIN)/mypy

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis quickstart

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt --editable ".[offline,plots]"
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt --editable ".[dev]"
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt --editable ".[docs]"
	touch $@
