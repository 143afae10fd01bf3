# Everything runs in a virtual environment made on first use. Variables:
#   PYTHON    the interpreter that makes it, 3.11 or newer     make test PYTHON=python3.12
#   PIP_ARGS  more for pip, such as another index for a CPU build of torch:
#             make demo PIP_ARGS="--extra-index-url https://..."
#   ASK       the question of the demo                         make demo ASK="How many circles are there?"
#   JOBS      test processes
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ASK ?= What color is the star?
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_ARGS)
# One torch thread per test process: $(JOBS) processes already fill the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

.PHONY: demo test test-long lint clean

demo: $(VENV)/.installed
	$(BIN)/duet run examples/scene.png --ask "$(ASK)" --show kept.png --compare

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not long"

test-long: $(VENV)/.installed-dev
	$(PYTEST) -m long

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy src

clean:
	rm -rf $(VENV) build dist

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
