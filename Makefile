# Two commands: `make app` serves the page, `make test` runs every check. Both set up what they need.

PYTHON ?= python3
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up

DEBIAN := chromium dataset-fashion-mnist verilator
# Empty unless this is root on Debian, who may install packages.
APT := $(shell test "$$(id -u)" = 0 && grep -qs '^ID=debian$$' /etc/os-release && command -v apt-get)
apt_install = echo 'Installing $(1) from Debian.'; $(APT) -q update; DEBIAN_FRONTEND=noninteractive \
	$(APT) -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $(1)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help app test lint setup debian clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

app: setup ## serve the page on the shipped Fashion-MNIST study, on this machine only (PORT=8866)
	@$(BIN)/codesign page --study data/studies/fashion $(if $(PORT),--port $(PORT))

test: lint debian ## run the linters and all tests (JOBS=2 worker processes)
	@$(BIN)/python -m pytest -n $(JOBS)

lint: setup ## run the linters only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

setup: $(STAMP) ## build .venv with everything in it; does nothing when it is up to date

clean: ## remove .venv and all caches
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A virtual environment holds absolute paths, so in a copied or moved tree it is built anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

# The stamp is removed first and written last: a set-up that was interrupted starts from nothing.
$(STAMP): pyproject.toml
	@if [ -n "$(APT)" ] && [ "$(PYTHON)" = python3 ] && ! python3 -c 'import ensurepip' 2>/dev/null; \
	then $(call apt_install,python3-venv); fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo '$(PYTHON) is not Python 3.11 or later: name one that is, as in `make setup PYTHON=python3.12`.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo '$(PYTHON) cannot make a virtual environment: install its venv module (on Debian: apt-get install python3-venv).' >&2; exit 1; }
	@echo 'Setting up $(VENV) with everything that pyproject.toml names: some minutes the first time.'
	@test -f $@ && test "$$(cat $@)" = '$(CURDIR)' || rm -rf $(VENV)
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[test]'
	@printf '%s\n' '$(CURDIR)' > $@

# What the tests need and pip does not have. Where it cannot be installed, tests/conftest.py says so.
debian:
	@if [ -n "$(APT)" ] && ! dpkg -s $(DEBIAN) >/dev/null 2>&1; then $(call apt_install,$(DEBIAN)) || true; fi
