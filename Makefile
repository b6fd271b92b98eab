# make demo: synthesise the missing contrasts of three generated subjects.   make test: run the tests.
# Both make the environment .venv first (once); both need python3 (3.10 or newer), make and the package index.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: env demo test lint clean help

help:
	@sed -n 's/^# //p' Makefile

env: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than 3.10. Name a newer one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt -e '.[test,demo]'
	@touch $@

demo: $(VENV)/.installed demo/.subjects
	$(PY) -W "ignore:parsing config_file:UserWarning" -m monai.bundle run inference --config_file configs/inference.json --dataset_dir demo/scans --output_dir demo/output
	$(PY) -m scripts.score_demo --truth_dir demo/truth --output_dir demo/output
	@echo
	@echo "Volumes:  demo/output/<subject>/<subject>_<contrast>_synth.nii.gz"
	@echo "Pictures: demo/output/<subject>/<subject>_qc.png"
	@ls demo/output/*/*_synth.nii.gz demo/output/*/*_qc.png

demo/.subjects: $(VENV)/.installed scripts/make_subjects.py $(wildcard bundle/data/*.py)
	rm -rf demo
	$(PY) -m scripts.make_subjects --demo --output_dir demo
	@touch $@

test: $(VENV)/.installed
	$(PY) -m pytest

lint: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
