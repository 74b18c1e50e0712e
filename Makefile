# Every target sets itself up: `make demo` and `make test` need nothing but Python 3.11 or newer and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ifeq ($(TORCH),cpu)  # `make demo TORCH=cpu`: without CUDA, 4 GB that are of no use where there is no card
LOCKED := grep -vE '^(cuda-|nvidia-|triton=)' requirements.lock
BROKEN := the index in PIP_EXTRA_INDEX_URL gave a build of it that wants CUDA; set the address in README.md, remove .venv, and start again
ifndef PIP_EXTRA_INDEX_URL
$(error TORCH=cpu wants the index of PyTorch's builds without CUDA in PIP_EXTRA_INDEX_URL, which pip reads; README.md has the address)
endif
else
BROKEN := $(BIN)/python -c 'import torch' says why
LOCKED := cat requirements.lock
endif

.PHONY: demo test test-all check bench docs clean

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Evergreen needs Python 3.11 or newer; found %d.%d. Give another one: make demo PYTHON=python3.12" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what requirements.lock lists into .venv: some minutes, and some gigabytes where CUDA is among it"
	$(LOCKED) | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement /dev/stdin
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import torch' 2> /dev/null || { echo "PyTorch was installed and cannot be imported: $(BROKEN)" >&2; exit 1; }
	touch $(READY)

demo: $(READY)  ## learn the embedded stream with six methods and compare them
	$(BIN)/evergreen data glyphs
	$(BIN)/evergreen compare flows/configs/glyphs.yaml

test: $(READY)  ## the default tier
	$(BIN)/python -m pytest -n 2

test-all: $(READY)  ## everything, the slow tier too
	$(BIN)/python -m pytest -n 2 -m ""

check: $(READY)  ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## speed, as ratios measured side by side
	$(BIN)/python -m tests.bench

docs: $(READY)  ## the site, in build/site: every page opens as a file; a dead link ends it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement docs/requirements.lock
	$(BIN)/python -m docs.make.site

clean:  ## what can be made again; learned models in mlruns/ stay
	rm -rf build dist *.egg-info .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
