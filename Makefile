# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help run test test-system test-long fuzz vm lab bench mutation docs deb rpm kernel wheel lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

run: $(STAMP) ## set up, then a tour on a simulated host
	$(BIN)/dsatier demo

$(STAMP): requirements/test.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'make: Python 3.11 or newer is needed (PYTHON=python3.11 make)'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo 'make: the venv module is missing: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/test.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q agent  # also where PYTHONDONTWRITEBYTECODE is set
	$(BIN)/dsatier --version >/dev/null  # what cannot start is not set up
	touch $@

test: $(STAMP) ## set up, then every test that needs neither root nor hardware
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope

test-system: $(STAMP) ## (root) containers, packages, guests with emulated DSA devices and our kernel
	VENV=$(abspath $(VENV)) tests/system/run

test-long: $(STAMP) ## (root) hours of faults, drift and hostile guests, on kernels that look for their own errors
	$(BIN)/python -m tests.soak --minutes 60 --report soak-report
	$(MAKE) fuzz MINUTES=30
	emulator=$$(emulator/build --sanitize) && $(BIN)/python -m tests.emulator.fuzz \
	  "$$emulator" --minutes 40 --seed $$RANDOM --findings fuzz-findings && \
	  $(BIN)/python -m tests.emulator.fuzz "$$emulator" --guest --minutes 20 --seed $$RANDOM
	$(BIN)/python -m tests.kernel --minutes 60 --seed $$RANDOM --layer debug --layer kasan --dsa 2
	$(BIN)/python -m tests.kernel --minutes 30 --seed $$RANDOM --layer kcsan --dsa 2
	kernel=$$(kernel-src/scripts/build --layer debug --layer kasan) && DSATIER_KERNEL=$$kernel \
	  $(BIN)/python -m pytest -m system --override-ini=addopts= tests/kernel/test_dsa.py tests/kernel/test_pages.py
	for iommu in off translated; do $(BIN)/python -m tests.kernel.faults --minutes 30 --seed $$RANDOM \
	  --layer debug --layer kasan --iommu $$iommu || exit 1; done
	DSATIER_LONG=1 $(BIN)/python -m pytest -m system --override-ini=addopts= \
	  tests/kernel/test_dsa.py tests/kernel/test_dsa_kinds.py tests/kernel/test_whole.py tests/stock
	kernel-src/scripts/series import build/linux
	kernel-src/scripts/series build build/linux $(abspath $(BIN))/python -m tests.kernel.boots
	$(BIN)/python -m tests.kernel.cost
	$(BIN)/python -m tests.kernel.suites --report suites-report

fuzz: $(STAMP) ## spoilt files and orders for MINUTES (1); what is found is kept in fuzz-findings/
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),1) --seed $(or $(SEED),$$RANDOM)

vm: $(STAMP) ## (root) a shell in a guest with two tiers and eight emulated DSA devices
	@$(BIN)/python -m vm

lab: $(STAMP) ## (root) a whole host to play with: that, our kernel, systemd and dsatier's package
	@$(BIN)/python -m lab

deb: ## the Debian package, in dist/
	packaging/debian/build

rpm: ## the RPM, in dist/
	packaging/rpm/build

kernel: ## packages of the kernel, in dist/ (FLAVOUR=vm or server)
	packaging/kernel/build --flavour $(or $(FLAVOUR),vm)

wheel: $(STAMP) ## the Python wheel, in dist/
	rm -rf build
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

bench: $(STAMP) ## ratios against bare Python and, as root, against TuneD, in one run
	$(BIN)/python -m bench

mutation: $(STAMP) ## break each row of the tables of decisions, and see the tests fail
	$(BIN)/python -m tests.mutation

docs: $(STAMP) ## write the generated pages, man pages and completion anew
	$(BIN)/python -m tools.docs.generate

lock: ## pin the requirements anew, with hashes
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	for name in test runtime; do \
	  $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-emit-trusted-host --allow-unsafe --strip-extras --no-header \
	    -o requirements/$$name.txt requirements/$$name.in || exit 1; \
	done

clean: ## remove what was made
	rm -rf $(VENV) $(VENV)-lock build dist soak-report fuzz-findings suites-report .pytest_cache .mypy_cache .ruff_cache .hypothesis
