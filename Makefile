PYTHON ?= python3
BIN := .venv/bin

EPOCHS ?= 50

.PHONY: bench test lint docs speed gpu clean

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

## speed: beside lightly, torchvision and kornia on this CPU, a quarter of an hour; renders docs/performance.md
speed: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed --out benchmarks/results/speed.json
	$(BIN)/python -m benchmarks.versus.page

## gpu: correctness on CUDA and CIFAR-10 with ResNet-18 from the folder DATA (benchmarks/gpu.md)
gpu: .venv/installed
	$(BIN)/pytest -n 0 tests/test_cuda.py
	$(BIN)/ssl-zoo bench --methods dino byol moco --dataset cifar10 --data-dir $(DATA) --backbone resnet18 \
	  --batch-size 256 --budget epochs=$(EPOCHS) --device cuda --out runs/gpu

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
