PYTHON ?= python3
BIN = .venv/bin
DEMO = demo

.PHONY: setup demo test test-slow test-faults lint tables bench

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# --resume: goes on where it was stopped, and trains nothing where it is finished
demo: setup
	$(BIN)/python mnist/train.py --demo --epochs 80 --annealing-epochs 20 --batch-size 50 --save-dir $(DEMO) --resume
	$(BIN)/python mnist/sample.py $(DEMO) --demo --condition-on-image 5
	$(BIN)/python mnist/loglike.py $(DEMO) --demo --json $(DEMO)/loglike.json > $(DEMO)/loglike.md
	@cat $(DEMO)/loglike.md
	@echo
	@echo "samples of the prior        $(DEMO)/samples/prior.png"
	@echo "samples given each digit    $(DEMO)/samples/conditional.png"
	@echo "samples given an image      $(DEMO)/samples/sample_image.png"
	@echo "reconstructions             $(DEMO)/samples/reconstructions.png"
	@echo "curves of the training      $(DEMO)/loss.png"
	@echo "log-likelihoods             $(DEMO)/loglike.md, $(DEMO)/loglike.json"

test: setup
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not faults"

test-slow: setup
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "slow and not faults"

# damaged files, kills, full disks: all, or with FAULTS=3 three twentieths in twelve minutes; FAULTS=1 writes no table
FAULTS ?= 20
test-faults: setup
	rm -f faults.jsonl
	FAULTS=$(FAULTS) FAULTS_LOG=$(CURDIR)/faults.jsonl $(BIN)/python -m pytest -q -n auto --dist worksteal tests/faults
	FAULTS=$(FAULTS) $(BIN)/python -m tests.faults.table faults.jsonl

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# tables of results/, and README.md's of them
tables: setup
	$(BIN)/python reproduce.py all --tables-only --results-dir results --readme README.md

bench: setup
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.faces
	$(BIN)/python -m benchmarks.pixels
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks.polymnist
	$(BIN)/python -m benchmarks.vhe
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.scaling
