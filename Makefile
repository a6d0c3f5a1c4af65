# SPDX-License-Identifier: BSD-2-Clause
# Portable to GNU and BSD make.  Everything lives in .venv.

PYTHON = python3
PREFIX = /usr/local
VENV = .venv
BIN = $(VENV)/bin
HELPER = src/jaildaemon/libexec/jailprobe
HELPER_SOURCES = helper/build.sh helper/helper.h helper/params.c \
	helper/helper_linux.c helper/helper_freebsd.c helper/syscall_linux.h \
	helper/output.c

all: $(VENV)/ready $(HELPER)

$(VENV)/ready: pyproject.toml hatch_build.py tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV)

$(HELPER): $(HELPER_SOURCES)
	@sh helper/build.sh src/jaildaemon/libexec

demo: all
	@$(BIN)/jaildaemon demo

# make test ONLY=core,kernel: these parts only; tests/README.md says what there is.
# RERUN=3 is for .ci/run: docs/unsteady.md.
test: all
	@ONLY="$(ONLY)" RERUN="$(RERUN)" $(BIN)/python tools/test.py

# make bench BENCH=--quick: in two minutes.  bench/__main__.py has the other options.
bench: all
	@$(BIN)/python -m bench $(BENCH)

# Takes one check after the other out; a test must miss each.  ONLY=random:5 SEED=7, or
# ONLY=TEXT of a file, of the code, or of a test.  Nothing at all: hours.
mutate: all
	@ONLY="$(ONLY)" SEED="$(SEED)" $(BIN)/python tools/mutate.py

soak: all
	@$(BIN)/python bench/soak.py

fuzz: all
	@sh tools/fuzz.sh $(BIN)

# The diagram in docs/architecture.md, and the manual pages as HTML.
docs: all
	@$(BIN)/python tools/diagram.py --write
	@command -v mandoc >/dev/null || { echo "jaildaemon: no mandoc; install the package mandoc" >&2; exit 1; }
	@mkdir -p build/docs
	@for page in man/*.[1-9]; do \
		mandoc -T html "$$page" >"build/docs/$${page##*/}.html" || exit 1; \
	done
	@echo "docs/architecture.md is fresh; the manual is in build/docs"

# What tools/install.sh installs for the shells.
completions: all
	@$(BIN)/python tools/completions.py --write

# What the README shows, made by the program itself.
pictures: all
	@$(BIN)/python tools/pictures.py --write

# Needs no development tools: only python3, its venv module and a C compiler.
install:
	@PYTHON="$(PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" sh tools/install.sh

lint: all
	@sh tools/lint.sh $(BIN)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	rm -f $(HELPER)
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +

.PHONY: all demo test bench mutate soak fuzz docs completions pictures install lint clean
