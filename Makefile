# Three targets do all set-up on a fresh machine: Python 3.10 to 3.13, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: eval test docs lint clean

# stccl-ned needs a generator of its own to have clips in the demo; until there is one, the
# controls show what the metrics do where the answer is known.
eval: $(VENV)/.installed
	@echo "The demo has no clips of stccl-ned yet: here are its controls, whose answers are known."
	$(BIN)/spfem-bench eval --method controls

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest

docs: $(VENV)/.installed-dev
	SPFEM_BENCH_CARDS= $(BIN)/mkdocs build --quiet
	@echo "The pages are in site/: open site/index.html"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
