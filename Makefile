# `make` or `make help` lists what there is. Needs Python >= 3.11 with venv, and make; all else goes into .venv.

PYTHON ?= python3
# Which PyTorch wheels uv takes: empty for the package index's own, or cpu, cu130, ...
TORCH_BACKEND ?=
# The commit or branch that test-changed compares with.
BASE ?= main
# More arguments for pytest: make test ARGS="tests/cli -x"
ARGS ?=

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
READY := $(VENV)/.ready
IN_PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal
SOURCES := app workers models tests benchmarks

# Without compiled files, every process that a test starts compiles PyTorch anew, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-changed clients mutants lint types format bench bench-detectors bench-serve openapi settings lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12     the Python that .venv is made with (default: python3, at least 3.11)"
	@echo "  TORCH_BACKEND=cpu     PyTorch's CPU wheels instead of the package index's own"
	@echo "  ARGS='tests/cli -x'   more arguments for pytest"

setup: $(READY) ## Make .venv with everything pinned in constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Fovea needs Python 3.11 or newer; $(PYTHON) is not. Try: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "This Python has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install --compile-bytecode $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) \
		--constraint constraints.txt --build-constraint constraints.txt --editable '.[embedded,demo,dev]'
	@touch $(READY)

demo: $(READY) ## Train on handwritten digits and classify the rest, from nothing, in a minute
	@$(BIN)/fovea demo

up: $(READY) ## Run Redis, the API and a worker until Ctrl-C
	@$(BIN)/fovea up

test: $(READY) ## Run all tests
	$(BIN)/pytest $(IN_PARALLEL) $(ARGS)

test-changed: $(READY) ## Run the tests that the change since BASE can break: make test-changed BASE=main
	$(BIN)/python -m tests.changed $(BASE) $(IN_PARALLEL) $(ARGS)

clients: $(READY) ## Generate clients from the OpenAPI document and use them; needs npm, Java and a network
	@$(BIN)/python -m tests.clients

mutants: $(READY) ## List the faults that no test notices: make mutants MODULE=workers/training/order.py
	@test -n "$(MODULE)" || { echo "Name a file: make mutants MODULE=workers/training/order.py" >&2; exit 1; }
	@$(BIN)/python -m tests.mutants $(MODULE) $(ARGS)

lint: $(READY) ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY) ## Check types
	$(BIN)/mypy --strict $(SOURCES)

format: $(READY) ## Rewrite the sources in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Print the figures: start-up, memory, upload, latency
	$(BIN)/python -m benchmarks

bench-detectors: $(READY) ## Compare R-CNN, Fast R-CNN, Faster R-CNN and YOLO: make bench-detectors ARCHIVE=boxes.zip
	@test -n "$(ARCHIVE)" || { echo "Name a dataset of boxes: make bench-detectors ARCHIVE=boxes.zip" >&2; exit 1; }
	$(BIN)/python -m benchmarks.detectors $(ARCHIVE) $(ARGS)

bench-serve: $(READY) ## Compare Fovea with other servers: make bench-serve ARCHIVE=photos.zip ARGS=--quick
	@test -n "$(ARCHIVE)" || { echo "Name a zip of photos: make bench-serve ARCHIVE=photos.zip" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.serving $(ARCHIVE) $(ARGS)

openapi: $(READY) ## Write the API's contract anew, after a change on purpose
	$(BIN)/python -m tests.contracts.update_openapi

settings: $(READY) ## Write .env.example and the defaults that documents quote
	$(BIN)/python -m tests.contracts.update_settings

lock: $(READY) ## Write constraints.txt anew with the newest versions that fit
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--no-annotate --no-header --quiet --output-file constraints.txt

clean: ## Remove .venv, caches and the demo's home; ./data stays
	rm -rf $(VENV) .clients demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
