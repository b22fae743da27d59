# Headwater. `make` alone lists the targets.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := serve,train,milvus,tracking,tracing,dev
PORT := 8080
RUN := runs/demo
ARGS :=
BENCHMARKS := $(patsubst tests/benchmarks/%.py,bench-%,$(filter-out %/__init__.py %/collect.py %/document.py,$(wildcard tests/benchmarks/[a-z]*.py)))
# The first interpreter that is supported and can make virtual environments; `make PYTHON=…` takes another.
PYTHON ?= $(firstword $(foreach each,python3.11 python3.12 python3,$(shell \
	$(each) -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
	&& echo $(each))))

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check lint types bench lock docs clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment and install everything, pinned; instant when nothing changed.

$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "Headwater needs Python 3.11 or 3.12 with venv (none found; on Debian: apt-get install python3-venv)" >&2; \
			exit 2; \
		fi; \
		$(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "Installing into $(VENV): about two minutes the first time."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: setup ## Run the whole path on real data: raw events in, lift table and report out.
	$(BIN)/headwater run --dataset complete_journey --seeds 2 --out $(RUN) $(ARGS)

serve: setup ## Serve the demo's run on port 8080 (RUN=…, PORT=… for others).
	$(BIN)/headwater serve --run $(RUN) --port $(PORT) $(ARGS)

test: setup ## Do all set-up, then lint, types and every test.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --maxfail 20 $(ARGS)

check: test ## The same as `make test`: exactly what CI runs.

lint: setup ## Lint and formatting only.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Strict type check only.
	$(BIN)/mypy

bench: $(BENCHMARKS) ## Run every benchmark (make bench-NAME: one) and write tests/benchmarks/results.

bench-%: setup
	$(BIN)/python -m tests.benchmarks.$* $(ARGS)

# A fresh environment resolves the ranges of pyproject.toml; what it got becomes the pinned set.
lock: ## Write constraints.txt anew from the newest versions that pyproject.toml allows.
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet -e ".[$(EXTRAS),maps]"; \
	{ \
		echo "# Every version that the tests ran with. Made by \`make lock\`; don't edit by hand."; \
		echo "# torch is meant as the CPU build of that version; CONTRIBUTING.md says how pip finds it."; \
		"$$folder/venv/bin/python" -m pip freeze --exclude-editable | sed -E '/ @ /d; s/\+cpu$$//'; \
	} > constraints.txt

docs: setup ## Write the documents as a site to site/.
	$(BIN)/mkdocs build --strict --quiet
	@echo "Written: site/index.html"

clean: ## Remove what was built: environment, caches and runs.
	rm -rf $(VENV) runs site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache
	if [ -L feature_repo/data ]; then rm feature_repo/data; fi
