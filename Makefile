# make report   the main job on the synthetic cohort (DATA=dir WEIGHTS=dir for your own); prints where the report is
# make test     every test, with coverage          make check   style, doctests and the fast tests
# make reports  every report of reports/ again (ONLY="idc-sample leakage" for some), from the folders that the
#               environment variables HISTOFEAT_DATA and HISTOFEAT_WEIGHTS name
# make full     README's results from all of IDC: DATA=dir, its folder (goes on where it was interrupted)
# make bench    the speed benchmarks               make docs    the site, in docs/_build/html
# make long     the tests of five seconds or more, which `make test` leaves out
# make matrix   every head saved and loaded between the oldest and newest packages (minutes, needs pip)
# make release-check   build wheel and source archive, and check what a release needs (minutes, needs a package index)
# make clean    remove what these wrote
# Each sets up .venv from requirements.lock first.

PYTHON ?= python3
DATA ?=
WEIGHTS ?=
ONLY ?=
OPTIONS = $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")
PY = .venv/bin/python
export MPLBACKEND = Agg
export TF_CPP_MIN_LOG_LEVEL = 3
# Bytecode is kept, whatever the environment says: without it each process compiles all modules again.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL = report
.PHONY: report reports full test long check bench docs matrix release-check clean

report: .venv/installed
	$(PY) benchmarks/run_all.py $(OPTIONS)

reports: .venv/installed
	$(PY) benchmarks/reports.py $(ONLY)

full: .venv/installed
	HISTOFEAT_FULL="$(DATA)" HISTOFEAT_WEIGHTS="$(or $(WEIGHTS),$(HISTOFEAT_WEIGHTS))" $(PY) benchmarks/reports.py idc-full

test: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m coverage erase
	$(PY) -m pytest -n auto --dist loadfile -m "not long" --cov --cov-report=term

long: .venv/installed
	$(PY) -m pytest -q -n auto --dist loadfile -m long

check: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -q -m "not slow and not long"

bench: .venv/installed
	$(PY) benchmarks/speed/run.py --full --overwrite $(OPTIONS)

docs: .venv/installed
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

matrix: .venv/installed
	$(PY) tests/matrix.py

# Stale builds would put files into the wheel that are gone.
release-check: .venv/installed
	rm -rf build dist histofeat.egg-info
	$(PY) -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
	$(PY) tests/measure_release.py dist/*

clean:
	rm -rf .venv .pytest_cache .ruff_cache .coverage .coverage.* build dist docs/_build docs/generated docs/gallery *.egg-info reports/*-20??????-??????
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"histofeat needs Python 3.11 or later, found {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
