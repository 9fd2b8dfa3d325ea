PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo demo-hard demo-s3 test lint benchmarks clean

# Sets up and runs the whole chain on the embedded demo Earth.
demo: $(READY)
	$(VENV)/bin/deepprofile run pipelines/demo.yaml

# The same in a world where SMAP's surface is not the best of the three products.
demo-hard: $(READY)
	$(VENV)/bin/deepprofile run pipelines/demo-hard.yaml

# The same with all its files in an object store, a server that runs for as long as the demo.
demo-s3: $(READY)
	$(VENV)/bin/python -m deepprofile.testing.object_store --bucket demo --fetch s3://demo/earth/report demo-s3/report -- $(VENV)/bin/deepprofile run pipelines/demo.yaml --root s3://demo/earth

# Sets up and runs the tests.
test: $(READY)
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -q tests

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"DeepProfile needs Python 3.11 or newer, found {v.major}.{v.minor}. Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) demo demo-hard demo-s3
