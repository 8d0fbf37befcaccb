# imapgate: two commands matter, `make demo` and `make test`; the rest is for developers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CORE   := imapgate/wire/*,imapgate/model/*,imapgate/session/*,imapgate/pooling/*,imapgate/sharing/*,imapgate/errors.py,imapgate/limits.py

.PHONY: help demo test soak check docs peers clean
help:
	@echo "make demo    a mailbox to try imapgate on, on this machine"
	@echo "make test    everything the tests need, then the tests (a quarter of an hour)"
	@echo "make soak    fuzzing, sweeps and long runs"
	@echo "make check   lint, types, layers, docs"
	@echo "make docs    the documentation as HTML in docs/_build"

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test,soak,check,docs]'
	$(BIN)/twistd --help >/dev/null
	touch $@

# The demo needs less than the tests, and is there sooner.
$(VENV)/.demo: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[demo]'
	$(BIN)/twistd --help >/dev/null
	touch $@

peers:
	tests/peers/install

demo: $(VENV)/.demo
	$(BIN)/twistd -n imapgate --demo

test: $(STAMP) peers
	$(BIN)/python -m pytest -m 'not soak' --ignore=tests/integration --ignore=tests/fuzz --cov=imapgate --cov-report=
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100
	$(BIN)/python -m pytest -m 'not soak' tests/fuzz tests/integration --durations=10

soak: $(STAMP) peers
	$(BIN)/python -m pytest -m soak --durations=0

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check imapgate tests twisted
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

docs: $(STAMP)
	$(BIN)/sphinx-build -W -b html docs docs/_build

clean:
	rm -rf $(VENV) .peers docs/_build
