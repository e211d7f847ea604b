# Each target does all its set-up on a fresh machine: Python 3.10 to 3.13, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/tools

# The versions that are tested. 'make latest' uses the newest ones instead.
CONSTRAINTS := constraints.txt
INSTALL := -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS))

# The extra 'originals', installed without its dependencies, which are several OpenCVs that overwrite
# each other; the extra 'test' has what these packages import.
ORIGINALS := emotiefflib hsemotion-onnx insightface syncnet-python

.PHONY: eval test quick latest lowest docs lint schema audit sbom constraints clean

# The first table needs only shipped clips; what it computes is kept for the second command.
eval: $(VENV)/.installed
	$(BIN)/spfem-bench eval --method real --method source --protocol demo-inter-id
	@echo "Next: two small models and all controls, on both protocols of the demo."
	$(BIN)/spfem-bench eval --method stccl-ned --method ned --method controls

test: $(VENV)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# The loop at the desk: all tests but those that tests/slow.txt lists, in under two minutes.
quick: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quick -q --numprocesses logical --maxprocesses 4 --dist loadfile

# 'make eval' and 'make test' with the newest packages, in an environment of their own.
latest:
	$(MAKE) eval test VENV=.venv-latest CONSTRAINTS=

# The lowest versions that pyproject.toml allows: every module is imported, and the demo's numbers are
# made.
LOWEST := .venv-lowest
lowest: $(TOOLS)/.installed
	$(PYTHON) -m venv $(LOWEST)
	$(TOOLS)/bin/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/bin/python \
		--extra networks --extra ray --extra torchmetrics --extra train \
		--output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/python -m pip install --quiet --requirement $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --editable .
	$(LOWEST)/bin/python -c "import pkgutil, importlib, spfem_bench as s; \
		[importlib.import_module(m.name) for m in pkgutil.walk_packages(s.__path__, 'spfem_bench.') \
		if not m.name.endswith('__main__')]"
	$(LOWEST)/bin/spfem-bench check demo

docs: $(VENV)/.installed-dev
	SPFEM_BENCH_CARDS= $(BIN)/mkdocs build --quiet
	@echo "The pages are in site/: open site/index.html"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The schema of run records, from the model.
schema: $(VENV)/.installed
	$(BIN)/python -c "from spfem_bench.evaluation.record import schema_text as s; print(s(), end='')" \
		> docs/run_record.schema.json

# Asks a vulnerability service: not a part of 'make test', which needs no network.
audit: $(VENV)/.installed $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --skip-editable --progress-spinner off \
		--path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# What a release was tested with, as a bill of materials.
sbom: $(VENV)/.installed $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml \
		--output-file dist/sbom.cdx.json $(BIN)/python

# Writes constraints.txt anew, for each Python that is supported. torch is held at the newest
# version that was tested; packages that only its CUDA build needs are left out.
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header
constraints: $(TOOLS)/.installed
	echo "# The versions that 'make eval' and 'make test' install. Made by 'make constraints'." > $(VENV)/new
	echo torch==2.13.0 | $(COMPILE) --extra dev --no-emit-package spfem-bench pyproject.toml - > $(VENV)/all
	printf '%s\n' $(ORIGINALS) | $(COMPILE) --no-deps - >> $(VENV)/all
	grep -Ev '^(cuda|nvidia|triton)' $(VENV)/all | sort >> $(VENV)/new
	mv $(VENV)/new constraints.txt

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python $(INSTALL) --editable .
	touch $@

# other/: versions of OpenCV and NumPy in which tests/project/test_installation.py makes the demo's numbers
# again.
$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS) tests/other_versions.txt
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	$(BIN)/python $(INSTALL) --no-deps $(ORIGINALS)
	$(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --upgrade \
		--target $(VENV)/other --requirement tests/other_versions.txt
	touch $@ $(VENV)/.installed

# In an environment of their own: they are not among what is audited and listed.
$(TOOLS)/.installed: $(VENV)/bin/python
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3' uv
	touch $@

clean:
	rm -rf $(VENV) .venv-latest $(LOWEST) build dist site .pytest_cache .mypy_cache .ruff_cache
