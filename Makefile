PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test lint docs clean

## bench: the main job on the embedded digits, a few minutes on 2 cores; leaves runs/digits/report.html
bench: .venv/installed
	$(BIN)/ssl-zoo bench --config benchmarks/digits.yaml --out runs/digits

## test: every test and every linter
test: .venv/installed lint
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## docs: the pages that are generated
docs: .venv/installed
	$(BIN)/python docs/generate.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
