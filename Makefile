# Each target does all its set-up on a fresh machine: Python 3.10 to 3.13, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/tools

.PHONY: eval test docs lint audit sbom clean

eval: $(VENV)/.installed
	$(BIN)/spfem-bench eval --method stccl-ned --method ned --method controls

test: $(VENV)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

docs: $(VENV)/.installed-dev
	SPFEM_BENCH_CARDS= $(BIN)/mkdocs build --quiet
	@echo "The pages are in site/: open site/index.html"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Asks a vulnerability service: not a part of 'make test', which needs no network.
audit: $(VENV)/.installed $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --skip-editable --progress-spinner off \
		--path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# What a release was tested with: a bill of materials, and the same as pip's constraints.
sbom: $(VENV)/.installed $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml \
		--output-file dist/sbom.cdx.json $(BIN)/python
	$(BIN)/python -m pip freeze --exclude-editable > dist/constraints.txt

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

# In an environment of their own: they are not among what is audited and listed.
$(TOOLS)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3'
	touch $@

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
