# SPDX-License-Identifier: Apache-2.0
# make run          set up, then a tour on a simulated host
# make test         set up, then all tests that need neither root nor hardware
# make test-system  (root) what needs Debian packages, mount namespaces and FUSE
# make test-long    (root) an hour each of faults and drift at random, of a hostile guest, of pages that
#                   move on a kernel that looks for its own errors, and of DSA devices that fail there;
#                   half an hour of it where data races are looked for,
#                   a boot after each patch, what our kernel costs, and suites of others on it
# make vm           (root) a shell in a guest with two tiers and eight emulated DSA devices
# make lab          (root) a whole host to play with: that, our kernel, systemd and dsatier's package
# make bench        ratios against bare Python and, as root, against TuneD, in one run
# make deb          the Debian package, in dist/; make rpm, make wheel
# make kernel       packages of the kernel, in dist/ (FLAVOUR=vm or server)

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: run test test-system test-long vm lab bench mutation docs deb rpm kernel wheel lock clean

run: $(STAMP)
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

test: $(STAMP)
	$(BIN)/python -m pytest

test-system: $(STAMP)
	VENV=$(abspath $(VENV)) tests/system/run

test-long: $(STAMP)
	$(BIN)/python -m tests.soak --minutes 60 --report soak-report
	emulator=$$(tests/emulator/build --sanitize) && $(BIN)/python -m tests.emulator.fuzz \
	  "$$emulator" --minutes 40 --seed $$RANDOM --findings fuzz-findings && \
	  $(BIN)/python -m tests.emulator.fuzz "$$emulator" --guest --minutes 20 --seed $$RANDOM
	$(BIN)/python -m tests.kernel --minutes 60 --seed $$RANDOM --layer debug --layer kasan --dsa 2
	$(BIN)/python -m tests.kernel --minutes 30 --seed $$RANDOM --layer kcsan --dsa 2
	for iommu in off translated; do $(BIN)/python -m tests.kernel.faults --minutes 30 --seed $$RANDOM \
	  --layer debug --layer kasan --iommu $$iommu || exit 1; done
	DSATIER_LONG=1 $(BIN)/python -m pytest -m system --override-ini=addopts= \
	  tests/kernel/test_dsa.py tests/kernel/test_dsa_kinds.py tests/kernel/test_whole.py
	kernel-src/scripts/series import build/linux
	kernel-src/scripts/series build build/linux $(abspath $(BIN))/python -m tests.kernel.boots
	$(BIN)/python -m tests.kernel.cost
	$(BIN)/python -m tests.kernel.suites --report suites-report

vm: $(STAMP)
	@$(BIN)/python -m tests.vm

lab: $(STAMP)
	@$(BIN)/python -m tests.kernel.lab

deb:
	packaging/debian/build

rpm:
	packaging/rpm/build

kernel:
	packaging/kernel/build --flavour $(or $(FLAVOUR),vm)

wheel: $(STAMP)
	rm -rf build
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

bench: $(STAMP)
	$(BIN)/python -m tests.bench

mutation: $(STAMP)
	$(BIN)/python -m tests.mutation

docs: $(STAMP)
	$(BIN)/python -m dsatier.schema
	$(BIN)/python -m tests.docs.generate

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	for name in test runtime; do \
	  $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-emit-trusted-host --allow-unsafe --strip-extras --no-header \
	    -o requirements/$$name.txt requirements/$$name.in || exit 1; \
	done

clean:
	rm -rf $(VENV) $(VENV)-lock build dist soak-report fuzz-findings suites-report .pytest_cache .mypy_cache .ruff_cache .hypothesis
