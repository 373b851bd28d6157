# faultlab: `make` lists the targets. Every target sets up what it needs by itself.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
LAB := $(PYTHON) -m lab
BOOTSTRAP := provision/host/bootstrap
GUESTS ?=
# The axes of the matrix, values by name or all: make lab ARCH=all LIBC=musl. Only the command line counts, for these are
# common names in environments.
named = $(if $(filter command,$(origin $(1))),$($(1)))
PLACED = --provider "$(call named,PROVIDER)"
SELECTED = --guests "$(GUESTS)" --arch "$(call named,ARCH)" --libc "$(call named,LIBC)" \
  --version "$(call named,VERSION)" --kernel "$(call named,KERNEL)" --pages "$(call named,PAGES)"
REPEAT ?=
TIMEOUT :=
# A Dask cluster to run on, such as tcp://host:8786; it needs packages of its own.
SCHEDULER :=
FROM := .
WORKERS := 2

.PHONY: help lab test test-faultprobe test-lab test-boxes test-vagrant test-virtualbox lint doctor up down shell leave selftest repeat worker
.PHONY: report results boxes payload lock bench prune clean environment environment-dask environment-dev environment-vagrant

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# A command of the user's reaches the lab as it was typed: make leaves $ in it alone, and no shell reads it. Only
# the command line counts: CMD is too common a name in environments.
ifeq ($(filter command,$(origin CMD) $(origin FILES)),)
lab: environment$(if $(SCHEDULER),-dask) ## Run the lab: start the guests, measure, compare, report (GUESTS="a b" or all; ARCH= LIBC= VERSION= KERNEL= PAGES=; PROVIDER=vagrant; SCHEDULER=tcp://host:8786).
	@$(LAB) lab $(SELECTED) $(PLACED) $(if $(SCHEDULER),--scheduler "$(SCHEDULER)")
else
lab: export FAULTLAB_CMD := $(value CMD)
lab: export FAULTLAB_FILES := $(value FILES)
lab: environment ## With CMD="./prog-{libc} input" FILES="prog-{libc} input": trace your program in every guest.
	$(if $(SCHEDULER),$(error faultlab: SCHEDULER is not for CMD: a program of yours is traced on this machine))
	@$(LAB) trace $(SELECTED) $(PLACED) --from "$(FROM)" --files "$$FAULTLAB_FILES" \
	  $(if $(REPEAT),--repeat $(REPEAT)) $(if $(TIMEOUT),--timeout $(TIMEOUT)) -- "$$FAULTLAB_CMD"
endif

# With ARGS="..." pytest gets just that. Otherwise faultprobe, a project of its own, is tested as it is installed, beside
# all else: WORKERS processes with guests of their own, which get the modules one by one. Those that wait for guests
# come first and the short ones last, so that all workers are busy to the end. tests/guests is run by the lab itself
# (tests/integration/test_lab_command.py).
test: environment-dev ## Run every test, on real guests too.
ifeq ($(ARGS),)
	@$(PYTHON) -m pip install -qq --no-deps --no-build-isolation --no-input ./lab/faultprobe
	@$(MAKE) -j2 test-faultprobe test-lab
else
	@$(PYTHON) -m pytest $(ARGS)
endif

test-faultprobe: # Its lines would be mixed with the other's: they are shown when it is done.
	@$(PYTHON) -m pytest -c lab/faultprobe/pyproject.toml lab/faultprobe/tests > $(VENV)/test-faultprobe.log 2>&1; \
	 status=$$?; cat $(VENV)/test-faultprobe.log; exit $$status

test-lab:
	@$(PYTHON) -m pytest -p tests.workers -n $(WORKERS) tests/integration tests/unit tests/golden

test-vagrant: environment-vagrant ## Vagrant for real: both guests under libvirt in a sandbox, provisioned, measured, destroyed (root).
	@$(LAB) boxes --provider libvirt
	@tests/vagrant/run $(PYTHON) -m pytest -x -s tests/vagrant

test-virtualbox: environment-dev ## Start our boxes in real VirtualBox; without its driver, the musl box, interpreted.
	@GUESTS="$(GUESTS)" $(PYTHON) -m pytest tests/virtualbox -s $(ARGS)

lint: environment-dev ## Check types, style, playbooks and YAML.
	@$(LAB) lint

doctor: environment ## Say what this machine has and lacks, and why acceleration is on or off.
	@$(LAB) doctor

up: environment ## Start guests that stay (GUESTS="a b" or all).
	@$(LAB) up $(SELECTED) $(PLACED)

down: environment ## Stop the guests that stayed.
	@$(LAB) down $(SELECTED) $(PLACED)

shell: environment ## Open a shell in a guest: make shell GUEST=...
	@$(LAB) shell $(PLACED) "$(GUEST)"

leave: environment ## Leave a machine that is not the lab's own as it was before: make leave GUEST=...
	@$(LAB) leave "$(GUEST)"

selftest: environment ## Check the ledger in every guest with programs known in advance (REPEAT=200 runs of each).
	@$(LAB) selftest $(SELECTED) $(PLACED) --repeat $(or $(REPEAT),200)

worker: environment-dask ## Lend this machine to a Dask cluster for guests (SCHEDULER=tcp://host:8786).
	@$(LAB) worker "$(SCHEDULER)"

repeat: environment ## Measure again and again: are the counts the same every time? (REPEAT=50 times.)
	@$(LAB) repeat $(SELECTED) --times $(or $(REPEAT),50)

report: environment ## Make the report of the newest results again, offline.
	@$(LAB) report

results: environment ## Write docs/results.md from the newest results.
	@$(LAB) report --markdown docs/results.md

boxes: environment ## Build Vagrant boxes of guests (GUESTS="a b" or all; PROVIDER=virtualbox or libvirt) into boxes/.
	@$(LAB) boxes $(SELECTED) --provider "$(or $(call named,PROVIDER),all)" --url "$(call named,URL)"

test-boxes: environment-dev ## Boot the boxes of both libcs with each firmware, disk controller and network card.
	@$(PYTHON) -m pytest tests/boxes

payload: environment ## Build what is installed in guests, for `vagrant up` and for Ansible by hand.
	@$(LAB) payload $(SELECTED)

lock: environment ## Renew the lock of package versions from the mirror.
	@$(LAB) lock

bench: environment ## Print the numbers of the benchmark: start, warm run, cost of a reading and of a record.
	@$(LAB) bench $(SELECTED) $(ARGS)

prune: environment ## Remove what the cache holds and nobody used for long (DAYS=14, or SIZE=5G to be left).
	@$(LAB) prune $(if $(DAYS),--days $(DAYS)) $(if $(SIZE),--size $(SIZE))

clean: ## Remove the virtual environment, results, boxes, payloads and the cache.
	@if [ -x $(PYTHON) ]; then $(LAB) clean; \
	 else echo "faultlab: no $(VENV), so guests, cache, results and boxes stay; \`make environment clean\` removes them" >&2; fi
	@rm -rf $(VENV)

environment:
	@$(BOOTSTRAP) $(VENV)

environment-dask:
	@$(BOOTSTRAP) $(VENV) dask

environment-vagrant:
	@$(BOOTSTRAP) $(VENV) vagrant

environment-dev:
	@$(BOOTSTRAP) $(VENV) dev
