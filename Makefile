# Needs Python 3.11 or newer and make; all else goes into .venv beside this file.
PYTHON ?= python3
VENV := .venv
DEMO := $(VENV)/.installed-demo
STAMP := $(VENV)/.installed
INSTALL := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e
HRG := $(VENV)/bin/hrg
OUT ?= results/gpu
# The demo's network: hiresnet18 narrowed to 8 channels, for the grey images of the digits at twice their size.
SMALL := width=8 input.channels=1 input.height=16 input.width=16

.PHONY: help demo test test-slow gpu lint types reference docs results clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %d.%d. Set PYTHON=..." % sys.version_info[:2])'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	@touch $@

$(STAMP): $(DEMO)
	$(INSTALL) '.[dev]'
	@touch $@

demo: $(DEMO) ## check, count, draw and train a small ablation on scikit-learn's digits (two minutes)
	rm -rf demo && mkdir demo
	$(HRG) validate hiresnet18
	$(HRG) show hiresnet18 --variant full
	$(HRG) render hiresnet18 --variant full -o demo/hiresnet18.svg
	$(HRG) ablate hiresnet18 $(SMALL) --variants none,full,in,out --seeds 2 --data digits --epochs 12 --lr 0.003 -o demo/ablation
	$(HRG) report demo/ablation
	$(HRG) report demo/ablation --format md > demo/table.md
	@echo
	@echo "picture: demo/hiresnet18.svg"
	@echo "table:   demo/table.md"
	@echo "runs:    demo/ablation/runs (one folder a run: result.json, spec.yaml, model.safetensors)"

test: $(STAMP) ## run the tests
	$(VENV)/bin/python -m pytest -n auto

test-slow: $(STAMP) ## run the tests marked slow
	$(VENV)/bin/python -m pytest -n auto -m slow

gpu: ## with a GPU: its tests, benchmarks and Table 2, 9 minutes a call; the next call continues (OUT=results/gpu)
	$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON)) -m benchmarks.gpu --out $(OUT)

lint: $(STAMP) ## run the linter and check the formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP) ## check the types
	$(VENV)/bin/mypy

reference: $(STAMP) ## write docs/reference from the code
	$(VENV)/bin/python docs/generate.py

docs: $(STAMP) ## build the documentation site in build/docs
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs

results: $(STAMP) ## write results/README.md and its figures from the ledgers
	$(VENV)/bin/python results/make.py

clean: ## remove all that was made here, .venv too
	rm -rf $(VENV) demo build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
