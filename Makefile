# Speaker verification, end to end. `make` lists what there is to make.

PROFILE ?= mini
PROFILES ?= $(PROFILE)
PYTHON  ?= python3
VENV    ?= .venv
PY      ?= $(VENV)/bin/python
override PROFILE := $(value PROFILE)
override SV_OUTPUTS := $(value SV_OUTPUTS)
override MODULE := $(value MODULE)
OUTPUTS := $(or $(SV_OUTPUTS),outputs)
RESULTS := $(OUTPUTS)/$(PROFILE)

# Which lock is to be installed; without GPU=… whichever is installed stays.
ifeq ($(GPU),1)
LOCKS := requirements-gpu.lock
else ifeq ($(GPU),0)
LOCKS := requirements.lock
else
LOCKS := requirements.lock requirements-gpu.lock
endif

ifneq ($(words $(OUTPUTS)),1)
$(error SV_OUTPUTS may not hold spaces for make: $(OUTPUTS))
endif

# These names reach make's rules and the shell: none holds a sign that either would act upon.
SIGNS := $$ " ' ` \ ; & | < > ( ) * ? [ ] { } ! \# % :
refuse = $(foreach sign,$(SIGNS),$(if $(findstring $(sign),$($(1))),$(error $(1) may not hold a $(sign) for make)))
$(foreach name,SV_OUTPUTS PROFILE MODULE,$(call refuse,$(name)))

# A received recording may be called $(shell ...): names are handed on as they are, and never expanded.
override REC1 := $(value REC1)
override REC2 := $(value REC2)
override MODEL := $(value MODEL)
export REC1 REC2 MODEL

.DEFAULT_GOAL := help
.PHONY: help setup forecast rehearse site reproduce stages test test-long mutants verify demo lab tensorboard bench check pictures doctor clean lock git-setup

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup:  ## .venv with the locked packages (GPU=1: TensorFlow for NVIDIA; PY=python: an environment of your own instead)
ifeq ($(PY),$(VENV)/bin/python)
	@for lock in $(LOCKS); do cmp -s $$lock $(VENV)/installed.lock 2>/dev/null && exit 0; done; \
	$(MAKE) --no-print-directory install LOCK=$(firstword $(LOCKS))
endif

# A new environment each time: what an older lock left behind could hide what the new one lacks.
# The lock's text, not its date, says whether it is installed: a checkout changes dates.
.PHONY: install
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make setup: $(PYTHON) is no Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; exit 2; }
	@echo "make setup: installing $(LOCK) into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ echo "make setup: $(PYTHON) cannot make environments (Debian: package python3-venv)" >&2; exit 1; }
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement $(LOCK)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/etc/ipython
	@echo "c.IPKernelApp.capture_fd_output = False  # TensorFlow's notices go to the terminal, not into notebooks" \
		> $(VENV)/etc/ipython/ipython_kernel_config.py
	@cp $(LOCK) $(VENV)/installed.lock

reproduce: setup  ## all stages of params/PROFILE.yaml (PROFILE=mini) that are not up to date, then the results and whether they are as expected
	@$(PY) -m sv_utils.run --keys "$(PROFILE)"
	@test -f "$(RESULTS)/results.csv" -a -f "$(RESULTS)/report.html" -a -f "$(RESULTS)/index.html" || \
		rm -f "$(RESULTS)/09_report/run.json"
	@$(MAKE) --no-print-directory stages
	@$(PY) -m sv_utils.report "$(PROFILE)"

site: setup  ## one folder of all pages of finished runs, for any web server or none (PROFILES="mini known", SITE=folder)
	@$(PY) -m sv_utils.report $(PROFILES) --site "$(or $(SITE),$(OUTPUTS)/site)"

forecast: setup  ## disk, time and memory that PROFILE will take: download, preparation, training (times real steps)
	@$(PY) -m sv_utils.forecast "$(PROFILE)"

rehearse: setup  ## every stage of PROFILE on a miniature of its corpora: minutes that tell what days would (SPEAKERS=all)
	@$(PY) -m sv_utils.forecast --rehearse "$(PROFILE)" $(if $(SPEAKERS),--speakers "$(SPEAKERS)")

# The stages' rules, written by `sv_utils.run --keys`: each depends on its content key, and waits for its upstream.
ifeq ($(MAKECMDGOALS),stages)
include $(RESULTS)/.keys/stages.mk
endif

test: setup  ## the test suite, two files at a time
	@$(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: setup  ## the tests that take long: hundreds of kills, thousands of damaged files
	@$(PY) -m pytest -m long

mutants: setup  ## before a release: which faults do the tests not notice? (MODULE=sv_utils/training/augment.py: those of it)
	@status=0; $(PY) tests/planted.py "$(MODULE)" || status=1; \
	$(PY) -c 'import mutmut' 2>/dev/null || \
		{ echo "make mutants: random faults need mutmut: $(PY) -m pip install 'mutmut>=3.8'" >&2; exit 1; }; \
	$(PY) -m mutmut run $(if $(MODULE),"$(subst /,.,$(MODULE:.py=))*"); $(PY) -m mutmut results; exit $$status

verify: setup  ## do two recordings hold one voice? REC1=a.wav REC2=b.m4a [MODEL=model.keras]
	@test -n "$$REC1" -a -n "$$REC2" || \
		{ echo "make verify: name two recordings: make verify REC1=a.wav REC2=b.wav" >&2; exit 2; }
	@$(PY) -m sv_utils.verify "$$REC1" "$$REC2" $${MODEL:+--model "$$MODEL"} || test $$? -eq 1  # 1: different speakers, an answer

demo: setup  ## a page in the browser: compare two voices, with the microphone or with files
	@$(PY) -m sv_utils.demo

lab: setup  ## JupyterLab on the notebooks
	@JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

tensorboard: setup  ## training curves of the profile
	@$(PY) -m tensorboard.main --logdir $(RESULTS)

bench: setup  ## what each step costs beside another way of doing it (ratios within one run)
	@$(PY) -m sv_utils.bench

check: setup  ## style and format, types, the examples in docstrings, links, layers
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m pytest --quiet tests/test_repository.py tests/test_examples.py

pictures: setup  ## maintenance: take the pictures of the README anew (needs Chromium and PROFILE's results)
	@$(PY) tests/helpers/pictures.py "$(PROFILE)"

doctor: setup  ## what this machine has and lacks
	@$(PY) -m sv_utils.doctor

clean:  ## remove all outputs (asks first)
	@test -d "$(OUTPUTS)" || { echo "make clean: there is no $(OUTPUTS)"; exit 0; }; \
	size=$$(du -sh "$(OUTPUTS)" | cut -f1); \
	printf 'Remove %s with all downloads, models and reports (%s)? [y/N] ' "$(abspath $(OUTPUTS))" "$$size"; \
	read -r answer; if [ "$$answer" = y ]; then rm -rf -- "$(OUTPUTS)" && echo removed; else echo kept; fi

LOCKING := uv pip compile --quiet --universal --generate-hashes --upgrade --no-header --no-annotate --no-emit-index-url
lock:  ## maintenance: resolve both lock files anew (needs uv on the path)
	@$(LOCKING) pyproject.toml --extra cpu --extra demo --extra export --extra test --output-file requirements.lock
	@$(LOCKING) pyproject.toml --extra gpu --extra demo --extra export --extra test --constraint requirements.lock --output-file requirements-gpu.lock

STRIP := -m nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution"
COMPARE := -m nbdime.vcs.git.diffdriver diff --ignore-outputs --ignore-metadata --ignore-details
git-setup: setup  ## in this clone: notebooks are committed without outputs, and compared as notebooks (nbdime)
	@git config filter.nbstripout.clean '"$(PY)" $(STRIP)'
	@git config filter.nbstripout.smudge cat
	@git config filter.nbstripout.required true
	@git config diff.jupyternotebook.command '"$(PY)" $(COMPARE)'
	@git config merge.jupyternotebook.name 'notebooks, by nbdime'
	@git config merge.jupyternotebook.driver '"$(PY)" -m nbdime.vcs.git.mergedriver merge %O %A %B %L %P'
	@echo "git: notebooks are stripped on commit and compared by nbdime in this clone"
