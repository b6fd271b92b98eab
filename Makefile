# make demo: synthesise the missing contrasts of three generated subjects.   make test: run the tests.
# Both make the environment .venv first (once); both need python3 (3.10 or newer), make and the package index.
# make label STUDIES=DIR: serve a folder of scans with MONAI Label.   make test-label: test that.
# Both make the environment .venv-label first (once); both need python3 from 3.10 to 3.12.
# make gpu SUBJECTS=DIR: train on one GPU for ten minutes (docs/gpu.md); SECONDS=N for another time.
# make bundle-zip: write the bundle for a release, as a folder and a zip file, into build/.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
SECONDS ?= 600

LABEL := .venv-label
LABEL_PY := $(LABEL)/bin/python
LABEL_PIP := $(LABEL_PY) -m pip --disable-pip-version-check
LABEL_REQUIREMENTS := scripts/monai_label/requirements.txt

.DELETE_ON_ERROR:
.PHONY: env demo test gpu lint bundle-zip label-env label test-label clean help

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

gpu: $(if $(SUBJECTS),$(VENV)/.installed)
	@test -n "$(SUBJECTS)" || { echo "error: no folder of subjects is named. Name it: make gpu SUBJECTS=DIR"; exit 1; }
	$(PY) -m scripts.pack --dataset_dir "$(SUBJECTS)" --output_dir runs/packed
	$(PY) -m scripts.gpu --packed runs/packed --output_dir runs/gpu --seconds $(SECONDS)

lint: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e '.[lint]'
	@touch $@

bundle-zip: $(VENV)/.installed
	$(PY) -m scripts.make_zip --output_dir build

label-env: $(LABEL)/.installed

$(LABEL)/.installed: $(LABEL_REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
		|| { echo "error: MONAI Label needs Python 3.10 to 3.12, which $(PYTHON) is not. Name another: PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(LABEL)
	$(LABEL_PIP) install -q -c $< torch==2.13.0
	$(LABEL_PIP) install -q --no-deps -r $<
	@touch $@

label: $(if $(STUDIES),$(LABEL)/.installed)
	@test -n "$(STUDIES)" || { echo "error: no folder of scans is named. Name it: make label STUDIES=DIR"; exit 1; }
	$(LABEL_PY) -m scripts.monai_label.start "$(STUDIES)"

test-label: $(LABEL)/.installed
	$(LABEL_PY) -m pytest tests/label

clean:
	rm -rf $(VENV) $(LABEL) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
