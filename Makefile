# The recipes that people and CI use. `make help` lists them; each installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test soak rq-suite check bench lock clean

help: ## list the recipes
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(INSTALLED) ## stop a real batch pipeline on three hosts, and prove that nothing is left
	@$(BIN)/python compose/pipeline/demo.py

# most tests wait for something: four at a time take a third of the time on two processors
test: $(INSTALLED) ## run the tests (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n 4 --dist loadfile $(ARGS)

COUNT ?= 100000
SEED ?= 0
soak: $(INSTALLED) ## play 100,000 simulated histories on all processors (COUNT=n SEED=first)
	@$(BIN)/python -m tests.sim --seed $(SEED) --count $(COUNT)

rq-suite: $(INSTALLED) ## run RQ's own tests with our worker (as root; ARGS="--class stock" for RQ's)
	$(BIN)/python -m tests.rq_suite $(ARGS)

check: $(INSTALLED) ## lint, format, types, import contracts, and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_tidy.py

bench: $(INSTALLED) ## measure, beside RQ and the naive loop, in one run
	$(BIN)/python -m tests.bench

lock: ## pin the newest versions that the bounds in pyproject.toml allow (needs uv)
	{ sed -n 1p requirements/ci.txt; \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet --group dev \
	    --no-header --no-annotate --no-emit-index-url pyproject.toml; } > requirements/ci.new
	mv requirements/ci.new requirements/ci.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): requirements/ci.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "coord needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV) ..." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/ci.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
