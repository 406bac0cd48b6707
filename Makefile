# Everything runs in .venv, made from this checkout; no target needs another to have run before.

PYTHON ?= python3
BIN := .venv/bin
# the CPU build of torch, unless this machine has an NVIDIA GPU
TORCH ?= $(shell command -v nvidia-smi >/dev/null && echo "torch>=2.10" || echo "torch==2.13.0+cpu")
TORCH_ELSE ?= torch==2.13.0

.PHONY: demo test test-elsewhere lint bench figures report gpu-check sanitize clean

demo: .venv/installed  ## restore held-out photographs, four tasks, into gallery.png
	$(BIN)/ccfast demo --out gallery.png --force

test: .venv/installed  ## the whole test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-elsewhere: .venv/installed  ## what another processor, MKL or number of threads could change, with each of them
	$(BIN)/python tests/elsewhere.py

bench: .venv/installed  ## every kernel and its rivals under pytest-benchmark; BENCH=--busy on a busy machine
	$(BIN)/python -m bench.under_pytest $(BENCH)

figures: .venv/installed  ## the README's table and bench/results/cpu.json; BENCH=--busy on a busy machine
	$(BIN)/python -m bench --readme $(BENCH)

report: .venv/installed  ## docs/report.md and its pictures, from the files in bench/results
	$(BIN)/pip install --quiet "matplotlib>=3.8"
	$(BIN)/python -m bench.report

gpu-check:  ## on a machine with an NVIDIA GPU, with the torch that is installed: build, gpu tests, sanitizers, timings
	$(PYTHON) setup.py --quiet build_ext --inplace
	$(PYTHON) -m bench.gpu $(GPU)

lint: .venv/installed  ## ruff, pyright and clang-format
	$(BIN)/pip install --quiet "ruff==0.17.*" "pyright==1.1.*" "clang-format==21.1.8"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.[ch]* csrc/*/*.[ch]* tests/*.cpp tests/*.h)

sanitize:  ## the CPU kernels, and the CUDA kernels in an emulator, under ASan + UBSan and TSan; needs g++ only
	tests/sanitize.sh

.venv/installed: pyproject.toml setup.py $(wildcard csrc/*.* csrc/cpu/*.* csrc/cuda/*.*)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip setuptools
	$(BIN)/pip install --quiet "$(TORCH)" || $(BIN)/pip install --quiet "$(TORCH_ELSE)"
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info ccfast/*.so .pytest_cache .ruff_cache
