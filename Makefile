PYTHON ?= python3
BIN := .venv/bin

EPOCHS ?= 50
LOWEST := $(addprefix tests/test_,bench.py checkpoint.py config.py contract.py decode.py encoder.py evaluation.py \
  folders.py image_tables.py methods.py registry.py report.py resume.py search.py views.py weights.py)

.PHONY: bench test lint docs speed gpu tables faults lowest audit clean

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

## gpu: correctness and speed on CUDA, and CIFAR-10 with ResNet-18 from the folder DATA (benchmarks/gpu.md)
gpu: .venv/installed
	$(BIN)/pytest -n 0 tests/test_cuda.py
	SSL_ZOO_DATA=$(DATA) $(BIN)/python -m benchmarks.gpu
	$(BIN)/ssl-zoo bench --methods dino byol moco --dataset cifar10 --data-dir $(DATA) --backbone resnet18 \
	  --batch-size 256 --budget epochs=$(EPOCHS) --device cuda --set run.compile=true --out runs/gpu

## tables: those of benchmarks/tables on CIFAR-10 and Fashion-MNIST from the folder DATA into runs/; hours, goes on
tables: .venv/installed
	for table in benchmarks/tables/*.yaml; do $(BIN)/ssl-zoo bench --config $$table --data-dir $(DATA) \
	  --out runs/tables/$$(basename $$table .yaml) || exit; done

## faults: a bench is killed 100 times and fed wrong configurations and broken images, half an hour
faults: .venv/installed
	$(BIN)/python -m benchmarks.faults --out benchmarks/results/faults.json

## lowest: the tests of the main paths with the lowest dependencies that pyproject.toml allows; 6 GB in .venv-lowest
lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/requirements.txt
	PIP_CONSTRAINT= .venv-lowest/bin/pip install --quiet -r .venv-lowest/requirements.txt 'pytest>=8' 'pytest-xdist>=3.7' \
	  'hypothesis>=6.100'
	.venv-lowest/bin/pip install --quiet --no-deps --editable .
	.venv-lowest/bin/pytest -n 0 $(LOWEST)

## audit: known vulnerabilities of what is installed
audit: .venv/installed
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info
