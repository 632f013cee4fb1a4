# Two main targets: `make book` and `make test`. Both use one virtual environment, .venv, made on demand.
PROFILE ?= laptop
PYTHON  ?= python3

BIN   := .venv/bin
STAMP := .venv/installed-$(shell cat constraints.txt pyproject.toml | cksum | cut -d' ' -f1)

.DELETE_ON_ERROR:
.PHONY: help book test release-notebooks clean

help:
	@echo "make book [PROFILE=laptop|smoke|paper]  run the notebooks that changed, build the book"
	@echo "make test                               ruff, mypy, pytest with every notebook and the book"
	@echo "make release-notebooks                  write the release branch for Binder and Colab"
	@echo "make clean                              remove builds and .venv, never data"

book: $(STAMP)
	$(BIN)/geodistill download
	$(BIN)/geodistill book --profile $(PROFILE)

# One thread per worker, or two workers on two cores wait for each other. Tests are distributed by file,
# because fixtures such as the built book are made once per file.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = PASSIVE
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/geodistill download
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

release-notebooks: $(STAMP)
	rm -rf _build/release && mkdir -p _build/release
	git archive HEAD | tar -x -C _build/release
	$(BIN)/python -m geodistill.publish.release

clean:
	rm -rf .venv _build book/_build

# The stamp is written last, so that an interrupted install is repeated.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is missing or older than 3.11; install Python 3.11 or later, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into .venv: minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	@rm -f .venv/installed-* && touch $@
