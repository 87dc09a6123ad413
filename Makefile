# make demo    fit a bundled table, write a model and an HTML report to build/demo
# make test    lint, type check and test
# make test-all    the same, with long tests and every combination of parameters: half an hour
# make test-oldest  test the core on the oldest supported versions
# make bench   measure steps, their growth, first runs and time to a loss beside other libraries; writes build/bench
# make check   lint and type check only
# make clean   remove all that these commands made
#
# Each sets up what it needs in .venv, from Python >= 3.11 alone. Overridable: make PYTHON=/path/to/python VENV=.venv-other

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-oldest bench check clean

PYTHON ?=
VENV ?= .venv
OLDEST := $(VENV)-oldest
BIN := $(VENV)/bin
SETUP := PYTHON="$(PYTHON)" tools/setup.sh
PYTEST_ARGS ?=

# One process a core with single-threaded linear algebra each: compiling, the larger part, uses one core anyway.
WORKERS ?= auto
ONE_THREAD = NPROC=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	XLA_FLAGS="--xla_cpu_multi_thread_eigen=false $(QUICK) $(XLA_FLAGS)"
# Compiling is most of the time of a test: a trust-region step takes 3.5 s with XLA's defaults and 0.6 s with these. An
# XLA that does not know a flag stops at once, so that the oldest versions, and benchmarks, go without.
QUICK =
test test-all: QUICK = --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0
# Compiled programs are kept from one run to the next.
CACHE ?= build/jax-cache
# Small ones too: compiling takes 50 ms, reading 12, and each worker needs them.
CACHED := JAX_COMPILATION_CACHE_DIR="$(CACHE)" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
# Neighbouring tests share programs, and are left to one worker as long as the other has work.
PYTEST := -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo:
	@$(SETUP) "$(VENV)" all
	@mkdir -p build/demo
	"$(BIN)/concordax" fit breast-cancer --output build/demo/breast-cancer.cx --report build/demo/report.html

test: check
	$(ONE_THREAD) $(CACHED) "$(BIN)/python" $(PYTEST)

test-all: check
	$(ONE_THREAD) $(CACHED) "$(BIN)/python" $(PYTEST) --whole

test-oldest:
	@$(SETUP) "$(OLDEST)" test constraints-oldest.txt
	$(ONE_THREAD) $(CACHED) "$(OLDEST)/bin/python" $(PYTEST)

# One core, one thread: two busy threads of a linear algebra library on two cores have been seen to wait for each other.
bench:
	@$(SETUP) "$(VENV)-bench" all,bench
	@mkdir -p build/bench
	$(ONE_THREAD) "$(VENV)-bench/bin/python" benchmarks/step_time.py --output build/bench/step_time.json
	$(ONE_THREAD) "$(VENV)-bench/bin/python" benchmarks/shapes.py --output build/bench/shapes.json
	$(ONE_THREAD) "$(VENV)-bench/bin/python" benchmarks/scaling.py --output build/bench/scaling.json --figure build/bench/scaling.png
	$(ONE_THREAD) "$(VENV)-bench/bin/python" benchmarks/first_run.py --output build/bench/first_run.json
	$(ONE_THREAD) "$(VENV)-bench/bin/python" benchmarks/tables.py --tables diabetes "breast cancer" wine --splits 3 --output build/bench/tables.json
	"$(VENV)-bench/bin/python" benchmarks/time_to_loss.py --workloads A B --output build/bench/time_to_loss.json
	"$(VENV)-bench/bin/python" benchmarks/draw.py build/bench/time_to_loss.json --figure build/bench/time_to_loss.png

check:
	@$(SETUP) "$(VENV)" all,dev
	"$(BIN)/ruff" check
	"$(BIN)/pyright" --pythonpath "$(BIN)/python"

clean:
	rm -rf build dist "$(VENV)" "$(VENV).old" "$(OLDEST)" "$(OLDEST).old" "$(VENV)-bench" "$(VENV)-bench.old" .hypothesis .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
