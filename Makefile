# Two commands on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
DEMO ?= demo
SEED ?= 0
BUNDLE := bundles/brain_mri_fair_classification
BIN := .venv/bin
# MONAI Label needs another numpy and Python 3.11 or 3.12
LABEL_PYTHON ?= $(PYTHON)
LABEL_BIN := .venv-label/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test clean

demo: .venv/installed
	$(BIN)/python -m monai_fair simulate brain --out $(DEMO)/brain --n 240 --seed $(SEED) --spacing 3 \
	  --disease_effect 0.8 --group_effect 0.5
	$(BIN)/python -m monai_fair check $(DEMO)/brain/manifest.csv --root $(DEMO)/brain
	$(BIN)/python -W ignore::UserWarning -m monai.bundle run --config_file $(BUNDLE)/configs/study.yaml \
	  --bundle_root $(BUNDLE) --dataset_dir $(DEMO)/brain --output_dir $(DEMO)/study --base "['train.yaml','small.yaml']"

# one thread per worker: the cores are already busy with workers
test: .venv/installed-dev .venv-label/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
	OMP_NUM_THREADS=1 $(LABEL_BIN)/python -m pytest -n auto --dist loadfile tests/label/server

clean:
	rm -rf .venv .venv-label $(DEMO)

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; make PYTHON=python3.11')"
	@echo 'Installing into .venv; PyTorch is large, this takes a few minutes'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

.venv-label/installed: pyproject.toml
	$(LABEL_PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and 'MONAI Label needs Python 3.11 or 3.12; make LABEL_PYTHON=python3.11')"
	@echo 'Installing MONAI Label into .venv-label; this takes a few minutes more'
	$(LABEL_PYTHON) -m venv .venv-label
	$(LABEL_BIN)/python -m pip install --quiet --editable ".[label-dev]"
	@touch $@
