# The commands for people and for CI. Everything is installed into .venv; nothing outside this folder is changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

RANKS ?= 2
DEMO := build/demo
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?=
BENCH_OPTIONS ?=
MATRIX_OPTIONS ?=
SOAK_OPTIONS ?=
GPU ?= $(if $(wildcard /opt/rocm),rocm,cuda12)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-gpu lint bench bench-gpu soak docs dist matrix clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

demo: $(VENV)/.installed-demo  ## N2 from PySCF to an energy on 2 ranks (RANKS=4, DEMO_OPTIONS="--bond-length 1.4")
	@mkdir -p $(DEMO)
	$(BIN)/python examples/n2/make_input.py -o $(DEMO)/n2.h5 $(DEMO_OPTIONS)
	$(BIN)/mpiexec -n $(RANKS) $(BIN)/python -m sqd_mpi run $(DEMO)/n2.h5 -o $(DEMO)/result.h5
	@$(BIN)/python examples/n2/compare_with_pyscf.py $(DEMO)/n2.h5 $(DEMO)/result.h5

# Files of tests are dealt to a process per core; a process has threads and ranks of its own, so more than four gain nothing.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test: $(VENV)/.installed-test  ## all tests but slow ones, on 1, 2, 3, 4 and 6 ranks as well (PYTEST_OPTIONS="-k davidson")
	$(PYTEST) -m "not slow" $(PYTEST_OPTIONS)

test-all: $(VENV)/.installed-test  ## the slow tests as well, and a wheel that is built and installed; what CI runs
	bash scripts/try_wheel.sh
	$(PYTEST) $(PYTEST_OPTIONS)

test-gpu: $(VENV)/.installed-gpu  ## the GPU backend on the GPU of this machine (GPU=cuda12, cuda13 or rocm)
	@$(BIN)/python scripts/find_gpu.py
	SQD_MPI_TEST_GPU=1 $(BIN)/python -m pytest tests/backends/gpu/test_on_device.py $(PYTEST_OPTIONS)

lint: $(VENV)/.installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy sqd_mpi

bench: $(VENV)/.installed-demo  ## compare the speed with other programs (BENCH_OPTIONS="--help")
	$(BIN)/python benchmarks/compare_peers.py $(BENCH_OPTIONS)

bench-gpu: $(VENV)/.installed-gpu  ## measure the GPU of this machine beside its CPU (BENCH_OPTIONS="--data DIR")
	@$(BIN)/python scripts/find_gpu.py
	@mkdir -p build
	$(BIN)/python benchmarks/gpu.py -o build/gpu.json $(BENCH_OPTIONS)

soak: $(VENV)/.installed-test  ## random problems against dense diagonalisation, and leaks (RANKS=1, SOAK_OPTIONS="--seed 2")
	$(BIN)/mpiexec -n $(RANKS) $(BIN)/python scripts/soak.py $(SOAK_OPTIONS)

dist: build/tools/.installed  ## wheel and sdist in dist/, checked
	rm -rf dist
	build/tools/bin/python -m build --installer uv --outdir dist .
	build/tools/bin/twine check --strict dist/*
	build/tools/bin/cffconvert --validate

matrix: dist  ## install the wheel into clean environments and try it: Pythons, dependencies, MPI (MATRIX_OPTIONS="--help")
	build/tools/bin/python scripts/install_matrix.py --dist dist $(MATRIX_OPTIONS)
docs: $(VENV)/.installed-docs  ## the documentation as web pages, build/docs/html; warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going --nitpicky -c docs/site -d build/docs/doctrees . build/docs/html
	@echo "build/docs/html/index.html"

clean:  ## remove .venv, build and caches
	rm -rf $(VENV) build docs/generated dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "sqd_mpi needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Use make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps say which extras .venv holds; a change of the dependencies installs them again.
$(VENV)/.installed-demo: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing sqd_mpi, MPI and PySCF into $(VENV) (0.7 GB, some minutes) ..."
	$(PIP_INSTALL) --editable '.[mpi]'
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing sqd_mpi, MPI, PySCF and the tools for tests into $(VENV) ..."
	$(PIP_INSTALL) --editable '.[mpi,test]'
	@touch $@ $(VENV)/.installed-demo

# CuPy that is there already stays: two of its packages must not be installed together.
$(VENV)/.installed-gpu: $(VENV)/.installed-test
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("cupy") is None)' || \
	  { echo "Installing CuPy for $(GPU) into $(VENV) (GPU=cuda12, cuda13 or rocm chooses another) ..." && \
	    $(PIP_INSTALL) --editable '.[$(GPU)]'; }
	@touch $@

# Tools for packaging have an environment of their own: what they need must not decide what the program gets.
build/tools/.installed: Makefile
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet --disable-pip-version-check 'build>=1.2' 'cffconvert>=2.0' 'twine>=6.0' 'uv>=0.5'
	@touch $@

$(VENV)/.installed-docs: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing sqd_mpi and the tools for its documentation into $(VENV) ..."
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@
