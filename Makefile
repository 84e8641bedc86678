# The first command of a fresh clone is `make demo` or `make test`; both make .venv by themselves.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

# most tests wait for a server: two processes a core; make test ARGS="-n 0 -k ..." for one alone
WORKERS := $(shell expr 2 \* $$(nproc 2>/dev/null || echo 2))

# tests start hundreds of interpreters: let each find its modules compiled
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: demo test check bench docs clean help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

demo: $(READY)  ## many processes share one login at a local Upstox; under 90 s
	@$(BIN)/tokenkeep demo

test: $(READY)  ## every test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(ARGS)

check: $(READY)  ## lint, format, types, and the rules of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_house.py tests/test_docs.py

bench: $(READY)  ## measure beside raw drivers and peers
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY)  ## run every example of README.md and docs/
	@$(BIN)/python -m pytest -q tests/test_docs.py
	@echo "The documentation starts at README.md and docs/quickstart.md."

clean:  ## remove .venv, caches and what the demo left
	rm -rf $(VENV) .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    python="$(PYTHON)"; python="$${python:-$$(tools/find-python)}" && [ -n "$$python" ] && \
	    echo "making $(VENV) with $$("$$python" -V)" && \
	    "$$python" -m venv --clear $(VENV); }
	@{ $(PIP) $$(grep '^uv==' requirements/dev.txt) && $(UV) --requirement requirements/dev.txt; } 2>/dev/null || \
	    $(PIP) --requirement requirements/dev.txt # where only pip knows the way to an index
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
