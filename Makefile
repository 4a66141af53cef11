# Each target installs its requirements: PYTHON chooses the interpreter, VENV the folder of its environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Otherwise pyright would check online for a newer version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
# Always empty, so that test workers, and processes that they start, find compiled modules.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test test-only test-openai test-others test-integrations test-integrations-newest test-clients
.PHONY: lint format shape coverage bench bench-servers fleet soak soak-fleet pictures clean
# Most tests wait for sockets, disks and processes rather than for a processor: two processors keep four workers busy.
PARALLEL = -n 4 --dist worksteal
# Two installations into one environment would conflict.
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@echo "make demo       a conversation with a support assistant, logged (no key needed)"
	@echo "make test       lint, then the tests"
	@echo "make test-only  the tests alone"
	@echo "make test-openai  the OpenAI tests, with older versions of its client"
	@echo "make test-others  the OpenAI client's tests, beside nine other tools that instrument it"
	@echo "make test-integrations  the tests with the packages of other integrations (test-integrations-newest: their newest releases)"
	@echo "make test-clients  third-party clients for Athina and OTLP, against a gateway"
	@echo "make lint       ruff, mypy, pyright and the import contracts"
	@echo "make format     fix with ruff what it can fix"
	@echo "make shape      figures about the code's shape, each with its limit (PACKAGE=athina_trace/viewer: of a part)"
	@echo "make coverage   the tests, with a report of uncovered branches"
	@echo "make bench      measure this package and its peers, in 10 minutes (BENCH=--quick: in 2)"
	@echo "make bench-servers  deliver to slow, failing, strict and busy servers, in 2 minutes (ROWS=quick: to one)"
	@echo "make soak       kill workers for four minutes while Athina fails or is slow, and deliver a large backlog"
	@echo "make soak-fleet  kill pods, workers and servers of a fleet for ten minutes"
	@echo "make fleet      a smaller version for a minute, to watch (examples/run_fleet.py)"
	@echo "make pictures   the README's pictures of the viewer (needs Chromium, and the fonts Inter and JetBrains Mono)"
	@echo "make clean      remove environments, caches and builds"

demo: $(VENV)/.installed-examples
	@$(BIN)/python examples/support_chat.py

test: lint test-only

test-only: $(VENV)/.installed-test
	@$(BIN)/python -m pytest $(PARALLEL)

# One small environment for each major version of OpenAI's client but the newest, which the whole suite runs with.
OPENAI_VERSIONS = 1 2

test-openai: $(OPENAI_VERSIONS:%=test-openai-%)

test-openai-%: $(VENV)-openai-%/.installed
	@echo "openai $*.x"
	@$(VENV)-openai-$*/bin/python -m pytest tests/openai $(PARALLEL)

# Precious, so that make keeps it.
.PRECIOUS: $(VENV)-openai-%/.installed
$(VENV)-openai-%/.installed: pyproject.toml
	@echo "Installing athina_trace and openai $*.x in $(VENV)-openai-$*"
	@$(PYTHON) -m venv $(VENV)-openai-$*
	@$(VENV)-openai-$*/bin/python -m pip install -qq --disable-pip-version-check --editable . \
		'openai==$*.*' 'hypothesis>=6.100' 'pytest>=9.0' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
	@touch $@

# The other tools have many dependencies, so they get a separate environment.
test-others: $(VENV)-others/.installed
	@$(VENV)-others/bin/python -m pytest tests/openai/test_beside.py

$(VENV)-others/.installed: tests/openai/beside.txt pyproject.toml
	@echo "Installing the other tools in $(VENV)-others"
	@$(PYTHON) -m venv $(VENV)-others
	@$(VENV)-others/bin/python -m pip install -qq --disable-pip-version-check --editable . -r tests/openai/beside.txt
	@touch $@

# The packages of other integrations are large, so they get a separate environment.
test-integrations: $(VENV)-integrations/.installed
	@$(VENV)-integrations/bin/python -m pytest tests/integrations

$(VENV)-integrations/.installed: tests/integrations/requirements.txt pyproject.toml
	@echo "Installing the packages of other sources in $(VENV)-integrations"
	@$(PYTHON) -m venv $(VENV)-integrations
	@$(VENV)-integrations/bin/python -m pip install -qq --disable-pip-version-check --editable '.[examples,otel]' -r $<
	@touch $@

# Recreated each time, to show whether today's releases still work, even outside the allowed ranges.
test-integrations-newest:
	@$(PYTHON) -m venv --clear $(VENV)-newest
	@sed 's/[<>=~! #].*//' tests/integrations/requirements.txt >$(VENV)-newest/requirements.txt
	@$(VENV)-newest/bin/python -m pip install -qq --disable-pip-version-check --editable '.[examples,otel]' -r $(VENV)-newest/requirements.txt
	@$(VENV)-newest/bin/python -m pytest tests/integrations

# These clients have many dependencies, so they get a separate environment; the JavaScript ones need npm.
test-clients: $(VENV)-clients/.installed
	@$(VENV)-clients/bin/python -m pytest tests/clients

$(VENV)-clients/.installed: tests/clients/requirements.txt tests/clients/package.json pyproject.toml
	@echo "Installing other people's clients in $(VENV)-clients"
	@$(PYTHON) -m venv $(VENV)-clients
	@$(VENV)-clients/bin/python -m pip install -qq --disable-pip-version-check --editable '.[gateway,ui]' \
		-r tests/clients/requirements.txt
	@if command -v npm >/dev/null; then cp tests/clients/package.json $(VENV)-clients/ && \
		npm install --prefix $(VENV)-clients --no-audit --no-fund --silent; fi
	@touch $@

# The type checkers take nearly all the time, and each of them one processor, so they run beside each other.
lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy & $(BIN)/pyright --pythonpath $(BIN)/python; pyright=$$?; wait $$! && exit $$pyright

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# Uses the standard library only, so it needs no environment.
shape:
	@$(PYTHON) -m tests.support.shape $(PACKAGE)

coverage: $(VENV)/.installed-test
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# The peers have many dependencies, so they get a separate environment.
bench: .venv-bench/.installed
	@.venv-bench/bin/python -m tests.benchmarks $(BENCH)

bench-servers: $(VENV)/.installed-test
	@$(BIN)/python -m tests.benchmarks.servers $(ROWS)

.venv-bench/.installed: tests/benchmarks/requirements.txt tests/benchmarks/apart.txt pyproject.toml
	@echo "Installing what is measured in .venv-bench"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --editable . -r tests/benchmarks/requirements.txt
	@.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r tests/benchmarks/apart.txt
	@touch $@

soak: $(VENV)/.installed-test
	@$(BIN)/python -m tests.support.crashes --seconds 120
	@$(BIN)/python -m tests.support.crashes --seconds 120 --server slow
	@$(BIN)/python -m tests.support.backlog

soak-fleet: $(VENV)/.installed-test
	@$(BIN)/python -m tests.support.fleet --seconds 600

fleet: $(VENV)/.installed-examples
	@$(BIN)/python examples/run_fleet.py

pictures: $(VENV)/.installed-test
	@$(BIN)/python -m tests.viewer.pictures

clean:
	rm -rf .venv .venv-* .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra (examples, test, dev), renewed when the list of requirements changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/pip
	@echo "Installing athina_trace[$*] in $(VENV)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

# The target is pip rather than python, so that an interrupted environment is created again.
$(BIN)/pip:
	@$(PYTHON) -m venv $(VENV)
