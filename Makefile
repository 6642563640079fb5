PYTHON ?= python3
BIN = .venv/bin
DEMO = demo
# threads that wait sleep soon: docs/speed.md
export GOMP_SPINCOUNT ?= 10000
# compiling all modules anew takes each process that the tests start a second
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-all demo release test test-all test-faults lint docs tables bench

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# with the extras: all programs of all folders, and what the tests need
setup-all: .venv/ready-all

.venv/ready-all: requirements-all.txt .venv/ready
	$(BIN)/pip install --quiet --requirement requirements-all.txt
	touch $@

# --resume: goes on where it was stopped, and trains nothing where it is finished
demo: setup
	$(BIN)/python mnist/train.py --demo --save-dir $(DEMO) --resume
	$(BIN)/python mnist/sample.py $(DEMO) --demo --condition-on-image 5
	$(BIN)/python mnist/loglike.py $(DEMO) --demo --json $(DEMO)/loglike.json > $(DEMO)/loglike.md
	@cat $(DEMO)/loglike.md
	@echo
	@echo "samples of the prior        $(DEMO)/samples/prior.png"
	@echo "samples given each digit    $(DEMO)/samples/conditional.png"
	@echo "samples given an image      $(DEMO)/samples/given_image_5.png"
	@echo "reconstructions             $(DEMO)/samples/reconstructions.png"
	@echo "curves of the training      $(DEMO)/loss.png"
	@echo "log-likelihoods             $(DEMO)/loglike.md, $(DEMO)/loglike.json"

# the model of each folder's --demo, published in release/: weights, options and a model card
release: $(patsubst %/train.py,release/%/README.md,$(wildcard */train.py))

release/%/README.md: | .venv/ready-all
	$(BIN)/python $*/train.py --demo --save-dir release/runs/$* --resume
	$(BIN)/python -m tools.publish release/runs/$* release/$*

test: setup-all
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not faults and not demos"

# everything, hours: also slow tests, the demos of all folders, and twenty times as many examples of each property
test-all: setup-all test-faults
	$(BIN)/pip install --quiet --editable ".[bench,tensorboard,wandb,mlflow]"
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q -rs -n auto --dist worksteal -m "not faults"

# damaged files, kills, full disks: all, or with FAULTS=3 three twentieths in twelve minutes; only all write the table of the docs
FAULTS ?= 20
test-faults: setup-all
	rm -f faults.jsonl
	FAULTS=$(FAULTS) FAULTS_LOG=$(CURDIR)/faults.jsonl $(BIN)/python -m pytest -q -n auto --dist worksteal tests/faults
	FAULTS=$(FAULTS) $(BIN)/python -m tests.faults.table faults.jsonl

lint: setup-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# pages of the documentation, in build/docs/; no network
docs: setup-all
	$(BIN)/python -m mkdocs build --strict

# tables of results/, and that of results/README.md
tables: setup-all
	$(BIN)/python reproduce.py all --tables-only --results-dir results --page results/README.md

bench: setup-all
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python -m tools.benchmarks
	$(BIN)/python -m tools.benchmarks.vhe
