# The menu. Every target sets up what it needs; nothing needs root. `make setup` first.
#   setup  builds `.venv/bin/tftpbench`: virtual environment, native core (release build)
#   run    answers "epoll or threads?" with the bundled scenario (about four minutes)
#   notebook  the notebooks in Jupyter, on a recorded run or on yours
#   test   every check: lint, Rust tests, Python tests, the wheel in an empty folder
#   soak   the long forms of tests that `make test` has in a bounded form
#   peers  other people's servers and clients, fetched into peers/ and never installed; tests use those that are there
#   gate   this tree's epoll server against the last release's, or make gate BASE=revision: is it slower?
#   release  dist/ with wheel, sources and checksums, and the version's tag; pushes nothing; after `make test`
#   bench  times the hot loops, and holds their instructions to committed bounds (only that: bench-instructions)
#   lint   formatting, lints, types, import rules          fuzz   fuzz targets, a minute each (nightly Rust)
#   fix    formats and mends what lints can mend           wheel  dist/*.whl
#   docs   renews the tables of docs and docs/schema that follow from the code
#   lock   renews the dependency locks                     clean  removes what was built

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null)
BIN := .venv/bin
CARGO := cargo --locked
FUZZ_SECONDS ?= 60
# Many tests wait for timers, so one process more than there are cores keeps the cores busy.
TEST_PROCESSES ?= $(shell expr $$(nproc) + 1)
RUST_SOURCES := $(shell find crates servers -name '*.rs' -o -name Cargo.toml | grep -v '^crates/fuzz') Cargo.toml Cargo.lock

.PHONY: help setup run notebook test soak peers gate bench bench-instructions lint fix fuzz wheel release docs lock clean \
	test-rust test-python

help:
	@sed -n '2,/^$$/s/^# *//p' Makefile

setup: .venv/.core
	@echo "The program is .venv/bin/tftpbench. Nothing was installed outside this folder."
	@echo "A first result in 5 seconds:  .venv/bin/tftpbench run smoke"
	@echo "Epoll or threads, in four minutes:  make run     (all targets: make)"

run: .venv/.core
	@$(BIN)/tftpbench run scenarios/concurrency.yaml

notebook: .venv/.core .venv/.notebooks
	@cd notebooks && ../$(BIN)/jupyter lab

test: lint test-rust wheel test-python

peers: .venv/.core
	@$(BIN)/tftpbench servers --fetch > /dev/null
	@$(BIN)/python -m tests.interop.clients

# The base is built from its own sources, into build/gate, once for each revision.
gate:
	@[ -n '$(BASE)' ] || { \
		git diff --quiet HEAD && last=HEAD~1 || last=HEAD; \
		echo "make gate: no release is tagged here, so name the revision to compare with: make gate BASE=$$last" >&2; exit 2; }
	@revision=$$(git rev-parse --verify --quiet '$(BASE)^{commit}') || { \
		echo "make gate: $(BASE) is no revision of this repository; name one: make gate BASE=HEAD~1" >&2; exit 2; }; \
	$(MAKE) --no-print-directory .venv/.core; \
	base=build/gate/$$revision; mkdir -p $$base; git archive $$revision | tar -x -C $$base; \
	$(MAKE) --no-print-directory -C $$base .venv/.core || { \
		echo "make gate: $(BASE) does not build; see above, or name another: make gate BASE=REVISION" >&2; exit 2; }; \
	$(BIN)/tftpbench gate ab --base $$base/.venv/bin/python --head $(BIN)/python --as epoll

bench: .venv/.core
	$(CARGO) bench --package tftpbench-benches -- --quiet --discard-baseline
	$(CARGO) test --package tftpbench-epoll --test behaviours -- --ignored
	@$(MAKE) --no-print-directory bench-instructions

bench-instructions: .venv/.core
	$(BIN)/python -m tests.instructions.bounds $(if $(RENEW),--renew)

lint: .venv/.core
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest tftpbench._core
	$(BIN)/lint-imports

test-rust: .venv/.core
	$(CARGO) test --workspace

test-python: .venv/.core
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadscope

soak: .venv/.core
	$(BIN)/python -m pytest -m soak --timeout 3600

wheel: .venv/.core
	@rm -rf dist
	$(BIN)/maturin build --release --locked --out dist

# What it refuses, it refuses before it builds. The sources are all that is in git: an sdist would lack docs and tests.
release:
	@version=$$(sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml); tag=v$$version; dist=tftpbench-$$version; \
	refuse() { echo "make release: $$1" >&2; exit 2; }; \
	grep -qxF "version = \"$$version\"" Cargo.toml || refuse "Cargo.toml has another version than pyproject.toml; set it to $$version"; \
	grep -qxF "## $$version" CHANGELOG.md || refuse "CHANGELOG.md has no section of this version; write one: ## $$version"; \
	! git rev-parse --quiet --verify "refs/tags/$$tag" > /dev/null || refuse "the tag $$tag is there already; raise version in pyproject.toml and Cargo.toml"; \
	[ -z "$$(git status --porcelain)" ] || refuse "there are changes that are not committed; commit or remove them (git status)"; \
	$(MAKE) --no-print-directory wheel; \
	git archive --prefix=$$dist/ --output=dist/$$dist.tar.gz HEAD; \
	(cd dist; sha256sum *.whl *.tar.gz > SHA256SUMS; sha256sum --check --quiet SHA256SUMS); \
	git tag --annotate --message="tftpbench $$version" $$tag; \
	echo "tag $$tag; files: $$(cd dist; echo *)"; \
	echo "To publish it: git push origin $$tag, and the files of dist/ beside it."

fix: .venv/.core
	cargo fmt --all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz and a nightly toolchain: cargo install cargo-fuzz; rustup toolchain install nightly" >&2; exit 1; }
	cd crates/fuzz && for target in $$(cargo +nightly fuzz list --fuzz-dir .); do \
		cargo +nightly fuzz run --fuzz-dir . $$target -- -max_total_time=$(FUZZ_SECONDS); done

docs: .venv/.core
	$(BIN)/python -m tftpbench.render.reference docs

# uv names the files of its hashes only in the form of PEP 751; those that Linux has no use for are left out.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra hosts --group dev pyproject.toml
lock: .venv/.packages
	$(BIN)/python -m pip install --quiet uv
	@mkdir -p build
	$(UV_COMPILE) --generate-hashes --upgrade --custom-compile-command "make lock" -o requirements.lock
	$(UV_COMPILE) --generate-hashes --upgrade --constraint requirements.lock --extra notebooks \
		$$(sed -n 's/^\([a-z0-9._-]*\)==[^ ]* \\$$/--no-emit-package \1/p' requirements.lock) \
		--custom-compile-command "make lock" -o requirements-notebooks.lock
	$(UV_COMPILE) --constraint requirements.lock --constraint requirements-notebooks.lock --extra notebooks -o build/pylock.toml
	$(BIN)/python -m tests.packaging.lock build/pylock.toml requirements.lock requirements-notebooks.lock
	cargo update --quiet

clean:
	rm -rf .venv target dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/.packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tftpbench needs Python 3.11 or later as $(PYTHON); on Debian and Ubuntu: apt install python3 (or make PYTHON=/path/to/python3)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "tftpbench needs Python's venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "tftpbench is built into .venv: first its Python packages,"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/.notebooks: requirements-notebooks.lock .venv/.packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-notebooks.lock
	@touch $@

.venv/.core: .venv/.packages pyproject.toml $(RUST_SOURCES)
	@command -v cargo >/dev/null || { \
		echo "tftpbench needs cargo (Rust 1.88 or later) to build its native core: see https://rustup.rs, or apt install cargo where that is new enough" >&2; exit 1; }
	@command -v cc >/dev/null || { \
		echo "tftpbench needs a C compiler as linker; on Debian and Ubuntu: apt install gcc" >&2; exit 1; }
	@echo "then its native core, in Rust: some three minutes the first time, on two cores, and seconds later on."
	@said=$$($(BIN)/maturin develop --quiet --release --locked 2>&1) || { echo "$$said" >&2; exit 1; }
	@touch $@
