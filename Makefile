# Everything runs in .venv, which is made from this checkout. No target needs another to have run before.

PYTHON ?= python3
BIN := .venv/bin
# This is the CPU build of torch, unless the machine has an NVIDIA GPU.
TORCH ?= $(shell command -v nvidia-smi >/dev/null && echo "torch>=2.10,<2.14" || echo "torch==2.13.0+cpu")
TORCH_ELSE ?= torch==2.13.0

.PHONY: demo test test-thorough test-elsewhere lint bench figures report gpu-check sanitize fuzz headers smoke docs clean

demo: .venv/installed  ## restore held-out photographs, four tasks, into gallery.png
	$(BIN)/ccfast demo --out gallery.png --force

test: .venv/installed  ## run the test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-thorough: .venv/installed  ## run the members of long tables that `make test` leaves out (tests/members.py)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --members=others

test-elsewhere: .venv/installed  ## run what another processor, MKL or number of threads could change, with each of them
	$(BIN)/python tests/elsewhere.py

bench: .venv/installed  ## time every kernel and its rivals under pytest-benchmark; BENCH=--busy on a busy machine
	$(BIN)/python -m bench.under_pytest $(BENCH)

figures: .venv/installed  ## make the table of docs/results.md and bench/results/cpu.json; BENCH=--busy where others work
	$(BIN)/python -m bench --page $(BENCH)

report: .venv/installed  ## make docs/report.md and its pictures from the files in bench/results
	$(BIN)/pip install --quiet "matplotlib>=3.8"
	$(BIN)/python -m bench.report

docs: .venv/installed ccfast/kernels  ## build the documentation site into site/; a broken link or reference is an error
	$(BIN)/pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

gpu-check:  ## build, test and time on a machine with an NVIDIA GPU, with the torch there; then GPU="--part second"
	CCFAST_CUDA_ARCH=$$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .) \
	  $(PYTHON) setup.py --quiet build_ext --inplace
	$(PYTHON) -m bench.gpu $(GPU)

lint: .venv/installed ccfast/kernels  ## check with ruff, pyright and clang-format
	$(BIN)/pip install --quiet "ruff==0.17.*" "pyright==1.1.*" "clang-format==21.1.8"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.[ch]* csrc/*/*.[ch]* tests/*.cpp tests/*.h)

headers: .venv/installed  ## parse the native code against the headers of other torch versions, from the package index
	$(BIN)/python tests/headers.py

smoke: .venv/installed  ## install the source distribution into an empty environment (CUDA: see .venv) and use it once
	rm -rf build/smoke && mkdir -p build/smoke
	$(BIN)/python -m build --sdist --outdir build/smoke > build/smoke/sdist.log || (cat build/smoke/sdist.log; false)
	$(PYTHON) -m venv build/smoke/venv
	build/smoke/venv/bin/pip install --quiet "$(TORCH)" || build/smoke/venv/bin/pip install --quiet "$(TORCH_ELSE)"
	CCFAST_NO_CUDA=1 build/smoke/venv/bin/pip install --quiet build/smoke/ccfast-*.tar.gz
	cd build/smoke/venv && bin/python -P ../../../tests/smoke.py

# Pyright and editors look for ccfast.kernels where its name says. Git ignores the link, and nothing else needs it.
ccfast/kernels:
	ln -s ../kernels $@

sanitize:  ## run the CPU kernels, and the CUDA kernels in an emulator, under ASan + UBSan and TSan; needs g++ only
	tests/sanitize.sh

fuzz: .venv/installed  ## call the CPU ops at random, FUZZ_CALLS (20000) times from FUZZ_SEED (0) on, under ASan + UBSan
	$(BIN)/python tests/fuzz.py

.venv/installed: pyproject.toml setup.py $(wildcard csrc/*.* csrc/cpu/*.* csrc/cuda/*.*)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip setuptools
	$(BIN)/pip install --quiet "$(TORCH)" || $(BIN)/pip install --quiet "$(TORCH_ELSE)"
	$(BIN)/pip install --quiet --editable ".[test]" "torch==$$($(BIN)/python -c 'import torch; print(torch.__version__)')"
	$(BIN)/ccfast config
	touch $@

clean:
	rm -rf .venv build dist *.egg-info ccfast/*.so .pytest_cache .ruff_cache
