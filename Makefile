# `make demo` and `make test` each work alone in a fresh clone: Python 3.11+ and a package index are enough.
# Another interpreter: make test PYTHON=/path/to/python. pip's own configuration is used as it stands.

.PHONY: demo test test-lowest lint doctor docs clean
.DEFAULT_GOAL := test

PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$each && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
LOWEST := .venv-lowest
THREADS := 1

demo: $(STAMP)
	$(BIN)/robust-adapt demo

# A process a core with one thread each: the tests' tensors are tiny, and threads that wait for each other are slow.
# What the tests assert holds for any number: make test THREADS=2.
test: $(STAMP)
	$(BIN)/ruff check .
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -n auto --dist loadfile

# The lowest versions that setup.cfg allows, in an environment of their own. uv chooses them; pip cannot.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=$(THREADS) $(LOWEST)/bin/python -m pytest -q -n auto --dist loadfile

# Style and types. Types need no tests: other versions of torch say others.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

doctor: $(STAMP)
	$(BIN)/robust-adapt doctor

# The site of the documentation in build/docs/site, from the markdown of the repository as it lies.
docs: .venv-docs/.installed
	rm -rf build/docs
	mkdir -p build/docs/pages
	cp -R README.md CHANGELOG.md CONTRIBUTING.md LICENSE docs benchmarks build/docs/pages
	mv build/docs/pages/docs/mkdocs.yml build/docs
	cd build/docs && ../../.venv-docs/bin/zensical build --strict
	@echo "Look at it: python3 -m http.server --directory build/docs/site"

# A virtual environment of $(PYTHON) in the folder $(1).
define venv
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Expected Python 3.11 or newer, but got $$("$(or $(PYTHON),python3)" --version 2>&1);" \
			"install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(1)
	$(1)/bin/python -m pip install --quiet --upgrade pip
endef

# Two mends come last, because any later `pip install` undoes them:
# torchattacks' wheel carries an old `robustbench` of its own, and whichever is installed last wins;
# torchattacks pins requests 2.25, which it never imports and which has known vulnerabilities.
define mends
	$(1)/bin/python -c 'import robust_adapt, robustbench' 2>/dev/null || \
		$(1)/bin/python -m pip install --quiet --force-reinstall --no-deps robustbench==1.1.1
	@echo "pip now says that torchattacks wants an old requests: that is expected and harmless."
	$(1)/bin/python -m pip install --quiet --upgrade requests urllib3 idna
	$(1)/bin/python -m pip uninstall --quiet --yes chardet
	touch $(1)/.installed
endef

$(STAMP): setup.cfg setup.py pyproject.toml
	$(call venv,.venv)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(call mends,.venv)

$(LOWEST)/.installed: setup.cfg setup.py pyproject.toml
	$(call venv,$(LOWEST))
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	$(call mends,$(LOWEST))

# The tools of the extra alone: the package is read, not imported.
.venv-docs/.installed: setup.cfg
	$(call venv,.venv-docs)
	.venv-docs/bin/python -m pip install --quiet $$(sed -n '/^docs =/,/^[^ ]/s/^  *//p' setup.cfg)
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-lowest build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
