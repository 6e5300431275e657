# Two commands matter: `make run` makes everything, `make test` checks everything.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tracking and telemetry of the libraries stay off; OpenMP threads sleep instead of spinning.
export DVC_NO_ANALYTICS = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export GX_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = 1
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help venv run test lint ui results docs clean

help:  ## Show the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.locked  ## Make .venv from the hashed lock, byte-compiled

$(VENV)/.locked: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Gestalt needs Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 venv")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --quiet -e .
	@touch $@

run: venv  ## Render, label, train, evaluate, report (dvc repro)
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "This folder is no git repository, DVC needs one: run 'git init' here, or '$(BIN)/dvc config --local core.no_scm true'"; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@echo "Report: reports/index.html    Runs: make ui    Numbers again: $(BIN)/dvc metrics show"

test: venv  ## Run the whole test suite
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: venv  ## Format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: venv  ## Open the MLflow UI on port 5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --workers 1

results: venv  ## Ablations over three seeds -> docs/results.md (an hour and a half)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.results

docs: venv  ## Write docs/params.md from the configuration
	$(BIN)/gestalt configure --table docs/params.md

clean:  ## Remove what runs made; video, truth, champions, the DVC cache and .venv stay
	rm -rf data/manifests data/motion data/normalized_cut data/pseudo_labels data/predictions data/vocabulary.json \
	  models/features models/semantics models/guided models/self_trained \
	  .cache mlruns/mlflow.db mlruns/artifacts \
	  reports/audit reports/status reports/pictures reports/gate.json reports/index.html reports/cost.js
