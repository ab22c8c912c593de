# Needs make, Python 3.10 or newer with venv, and a C compiler; installs into .venv.
# pip takes its settings from PIP_* and its configuration files, as ever.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO := demo/resnet50.tuned
LIGHT_MODEL = $(shell $(BIN)/python -c 'import onnx, pathlib; print(pathlib.Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx")')

.PHONY: demo test lint bench clean

# Compiles a network that no shipped schedule was found for: its own records are hidden. The file
# keeps small by constant weights; they are drawn anew, so that comparing numbers means something.
demo: $(STAMP)
	$(BIN)/python -m tunebank.lab.redraw $(LIGHT_MODEL) demo/resnet50.onnx
	$(BIN)/tunebank compile demo/resnet50.onnx -o $(DEMO) --bank demo/bank.db --time-budget 60s \
	  --exclude-source resnet50
	$(BIN)/tunebank bench $(DEMO) --against onnxruntime

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The compiled network of `demo` against ONNX Runtime and against its default schedules.
bench: $(STAMP)
	test -f $(DEMO)/manifest.json || $(MAKE) demo
	$(BIN)/tunebank bench $(DEMO) --against onnxruntime,untuned

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
