# One command per job. `make help` lists them; each does the set-up it needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8000

# One thread per process: the same numbers on every run, and no waiting for a busy core.
export OMP_NUM_THREADS ?= 1
# glibc: keep freed memory for the next step. Returned to the system and taken back, it costs a CPU
# training about a quarter of its time.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
# Agg would leave the figures out of the chapters.
unexport MPLBACKEND

# The first Python that is new enough; name another with `make book PYTHON=...`.
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; \
	done)

# Two workers fill the smallest machine; more would fight over memory with the models.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))

.PHONY: help
help: ## list the commands
	@echo "make COMMAND, where COMMAND is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-10s %s\n", $$1, $$2 }'

# ---- set-up: a virtual environment with the pinned tool chain, made once ----

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ramlib needs Python 3.11 or newer: install it, or name it with PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON): a few minutes, once"
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	@touch $@

.PHONY: setup
setup: $(READY) ## make .venv and install everything (the other commands do it by themselves)

# ---- the book ----

.PHONY: book
book: $(READY) ## build the book into _build/html and print the path to open
	@rm -rf _build  # an incremental build does not repeat its warnings
	$(BIN)/jupyter-book build . --quiet -W -n --keep-going
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

.PHONY: serve
serve: $(READY) ## serve the built book on http://localhost:8000 (PORT=... for another port)
	@test -f _build/html/index.html || $(MAKE) book
	$(BIN)/python -m http.server --directory _build/html $(PORT)

.PHONY: lab
lab: $(READY) ## open the chapters in JupyterLab (ARGS=--no-browser on a remote machine)
	JUPYTER_CONFIG_PATH="$(CURDIR)/tools/jupyter:$${JUPYTER_CONFIG_PATH:-}" \
		$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/book $(ARGS)

.PHONY: chapters
chapters: $(READY) ## run the chapters whose text changed (ALL=1: every one; CHAPTER=book/02_glimpse.md: that one)
	$(BIN)/python tools/run_chapters.py $(if $(ALL),--all) $(CHAPTER)
	$(BIN)/python tools/make_pages.py

.PHONY: plain
plain: $(READY) ## write the chapters as plain notebooks into notebooks/, for Colab and Kaggle
	$(BIN)/jupyter-book build . --quiet
	$(BIN)/python tools/plain_notebooks.py

# ---- experiments ----

.PHONY: train
train: $(READY) ## train a recipe: make train RECIPE=digit-context (ARGS="--resume --max-time 1h" for more)
	@test -n "$(RECIPE)" || { echo "name a recipe, as in: make train RECIPE=digit-context" >&2; $(BIN)/ramlib list >&2; exit 2; }
	$(BIN)/ramlib train $(RECIPE) $(ARGS)

.PHONY: bench
bench: $(READY) ## time the read, a training step and each module on this machine
	$(BIN)/python benchmarks/bench.py $(ARGS)

.PHONY: gpu
gpu: ## on a machine with a GPU and torch, and no set-up: check the devices, and time a step
	"$(PYTHON)" benchmarks/gpu.py $(ARGS)

.PHONY: bench-loader
bench-loader: $(READY) ## time the loader of house numbers on 30,000 images, and its memory
	$(BIN)/python benchmarks/loader.py $(ARGS)

# ---- checks: `make test` runs these in turn ----

.PHONY: test
test: ## check everything: style, package, chapters, book, pages
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory notebooks
	@$(MAKE) --no-print-directory book
	@$(MAKE) --no-print-directory pages

.PHONY: versions
versions: ## unit tests with the lowest versions (ARGS="pinned": unit tests and book; PYTHON=... for another one)
	"$(PYTHON)" tools/check_versions.py $(or $(ARGS),lowest)

.PHONY: lint
lint: $(READY) ## part of test: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: unit
unit: $(READY) ## part of test: the package and the texts of the chapters
	$(BIN)/pytest -q -m "not pages" -n $(WORKERS)

.PHONY: notebooks
notebooks: $(READY) ## part of test: run every chapter again and compare with its stored outputs
	$(BIN)/pytest -q book --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg \
		--nbval-cell-timeout 600 --timeout 0 -n $(WORKERS) --dist loadfile

.PHONY: pages
pages: $(READY) ## part of test: open every built page in a headless browser
	@test -f _build/html/index.html || $(MAKE) book
	$(BIN)/pytest -q -ra -m pages tests/book

.PHONY: format
format: $(READY) ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## remove what was built (the virtual environment and finished runs stay)
	rm -rf _build .venv-lowest .venv-pinned build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find ramlib tests tools benchmarks book -name __pycache__ -prune -exec rm -rf {} +
