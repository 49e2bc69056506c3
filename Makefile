# make reproduce   set up, run the papers, print the claims, write a report
# make test        set up, run the tests; CI=1 make test: those of some minutes, too
# make lab         open JupyterLab
# make docs        build the site into _docs/ and README.md
# make stills      draw the still picture beside each figure of the pages
# make types       check types: names, attributes and arguments that cannot be right
# make requirements   copy the requirements of pyproject.toml to where other tools read them
#
# PRESET=laptop PAPER=mothello make reproduce   narrows it; UV_TORCH_BACKEND=cpu keeps a GPU-less machine from fetching CUDA

PRESET ?= smoke
PAPER  ?=
STORE  ?= results
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

# the first Python of 3.11-3.13 that runs and can make environments (a name on PATH alone may be an empty shim)
ifndef PY
PY := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
        $$p -c 'import sys, venv, ensurepip; sys.exit(not (3,11) <= sys.version_info < (3,14))' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif

# small models: one thread a process, one process a core; no look-ups on the hub unless HF_HUB_OFFLINE=0
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# without bytecode every process would compile torch anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lab docs stills types requirements clean

help:
	@sed -n '1,9s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# uv does not read pip's settings: hand it pip's find-links and index (both empty on most machines)
$(STAMP): pyproject.toml constraints.txt overrides.txt
	@test -n "$(PY)" || { echo "xltnb needs Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv). None was found; name one with PY=/path/to/python make ..."; exit 1; }
	@echo "setting up $(VENV) with $$($(PY) --version)"
	@test -x $(BIN)/python && $(BIN)/python -c '' 2>/dev/null || $(PY) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@conf() { $(BIN)/python -m pip config get global.$$1 2>/dev/null || true; }; \
	 export UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$(conf find-links)}}"; \
	 index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(conf index-url)}}"; [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; \
	 $(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt --overrides overrides.txt -e '.[lab,dev,ui,peers,cluster]'
	@touch $@

reproduce: setup
	@$(BIN)/xltnb reproduce $(PAPER) --preset $(PRESET) --store $(STORE)

# three processes on two cores: some tests wait for others that they started
test: setup
	@$(BIN)/python -m pytest -q -n 3 --dist loadscope tests

lab: setup
	@$(BIN)/xltnb lab

docs: setup
	@$(BIN)/python -c 'from xltnb.dev.docs import publish; print("the site:", publish())'

stills: setup
	@$(BIN)/python -c 'from xltnb.still.still import add_stills; print(len(add_stills()), "pages changed")'

types: setup
	@$(BIN)/python -m mypy

requirements: setup
	@$(BIN)/python -m xltnb.dev.requirements

clean:
	rm -rf _docs _proc_* .pytest_cache .hypothesis .ruff_cache
