# Every command that the README names. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
UV = $(BIN)/uv
QUICKSTART = examples/quickstart
INSTALL = $(UV) pip install --quiet --python $(BIN)/python --require-hashes --build-constraint requirements/build.txt
SELF = $(UV) pip install --quiet --python $(BIN)/python --no-deps --build-constraint requirements/build.txt --editable .
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM = false

.PHONY: help quickstart test lint unit contract workloads vllm golden chart control-plane e2e fault-campaign store-campaign generate verify lock bench-memory bench-dedup bench-guards bench-rewrite bench-expert bench-training bench-operator clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(UV): requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit("nativealign needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.quickstart: $(UV) requirements/workloads-cpu.txt requirements/report.txt pyproject.toml
	DS_BUILD_OPS=0 $(INSTALL) -r requirements/workloads-cpu.txt -r requirements/report.txt
	$(SELF)
	@touch $@

$(VENV)/.dev: $(UV) requirements/dev.txt pyproject.toml
	DS_BUILD_OPS=0 $(INSTALL) -r requirements/dev.txt
	$(SELF)
	@touch $@ $(VENV)/.quickstart

$(QUICKSTART)/corpus/web.jsonl.gz: $(QUICKSTART)/make_corpus.py $(wildcard $(QUICKSTART)/corpus/*.json $(QUICKSTART)/corpus/*.jsonl)
	$(PYTHON) $(QUICKSTART)/make_corpus.py $(QUICKSTART)/corpus

quickstart: $(VENV)/.quickstart $(QUICKSTART)/corpus/web.jsonl.gz ## install, align, pre-train and evaluate a tiny model; prints the report's path
	$(BIN)/nativealign run $(QUICKSTART)/quickstart.yaml

test: lint unit golden workloads contract chart control-plane ## everything that needs no root

lint: $(VENV)/.dev verify ## style, types, import contracts, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.dev ## pure tests, seconds
	$(BIN)/pytest -q tests/unit

golden: $(VENV)/.dev ## published answers replayed
	$(BIN)/pytest -q tests/golden

workloads: $(VENV)/.dev ## every step with real models, DeepSpeed, an S3 server, a browser
	$(BIN)/pytest -q -n 2 --dist loadfile tests/workloads

.venv-vllm/.done: $(UV) tests/vllm/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	DS_BUILD_OPS=0 $(UV) pip install --quiet --python .venv-vllm/bin/python --require-hashes --no-deps --build-constraint requirements/build.txt -r tests/vllm/requirements.txt
	$(UV) pip install --quiet --python .venv-vllm/bin/python --no-deps --build-constraint requirements/build.txt --editable .
	@touch $@

vllm: .venv-vllm/.done ## rewriting through vLLM's build for processors, in an environment of its own (Linux on x86)
	.venv-vllm/bin/pytest -q tests/vllm

contract: $(VENV)/.dev ## the custom resources in a real kube-apiserver
	$(BIN)/pytest -q tests/contract

chart: $(VENV)/.dev ## the Helm chart: lint, every rendering, schemas, an installation in a real kube-apiserver
	$(BIN)/pytest -q tests/chart

control-plane: $(VENV)/.dev ## the operator on a real control plane, with faults
	$(BIN)/pytest -q -n 2 --dist loadgroup tests/control_plane

# in network, mount and process namespaces of its own; the shell collects what the containers leave behind
e2e: $(VENV)/.dev ## images, chart and quickstart on a real node under containerd (Linux, as root; says what is missing)
	$(BIN)/python -m tests.cluster.node
	unshare --net --mount --pid --fork --kill-child --mount-proc sh -c '$(BIN)/pytest -q -rP tests/e2e; exit $$?'

fault-campaign: $(VENV)/.dev ## every fault at every write and event of the operator (an hour); writes docs/reliability.md
	$(BIN)/python -m tests.control_plane.campaign

store-campaign: $(VENV)/.dev ## an AlignJob on S3 by failing workers over a failing wire, 200 schedules (an hour)
	$(BIN)/python -m tests.workloads.store_campaign

generate: $(VENV)/.dev ## write CRDs and the API reference from the models
	$(BIN)/python -m nativealign_api.generate

verify: $(VENV)/.dev ## fail if a generated file is stale
	$(BIN)/python -m nativealign_api.generate --check

lock: $(UV) ## pin every dependency again
	sh requirements/lock.sh $(UV)

bench-memory: $(VENV)/.dev ## peak memory of AlignJob's steps at 1, 4 and 16 times the input
	$(BIN)/python -m tests.bench.memory

.venv-peers/.done: $(UV) tests/bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	$(UV) pip install --quiet --python .venv-peers/bin/python --require-hashes -r tests/bench/peers/requirements.txt
	@touch $@

bench-dedup: $(VENV)/.dev .venv-peers/.done ## deduplication beside datatrove, datasketch and rensa: speed, memory, precision, recall
	$(BIN)/python -m tests.bench.dedup

bench-guards: $(VENV)/.dev ## precision and recall of the guards on rewritings with known defects
	$(BIN)/python -m tests.bench.guards

bench-rewrite: $(VENV)/.dev ## the rewrite step beside its bare engine, on a GPU where there is one
	$(BIN)/python -m tests.bench.rewrite

bench-expert: $(VENV)/.dev ## the expert's client: occupancy of an endpoint, requests per second, beside the bare library
	$(BIN)/python -m tests.bench.expert

bench-training: $(VENV)/.dev ## the training loop beside transformers' Trainer under DeepSpeed, on a GPU where there is one
	$(BIN)/python -m tests.bench.training

bench-operator: $(VENV)/.dev ## a thousand jobs at once, beside JobSet and Trainer; ten thousand that change: times, memory, API writes
	$(BIN)/python -m tests.bench.many_jobs
	$(BIN)/python -m tests.bench.churn

clean: ## remove local runs and the environment
	rm -rf $(VENV) .nativealign $(QUICKSTART)/corpus/web.jsonl.gz
