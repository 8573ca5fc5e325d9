# Everything that a developer runs. `make` alone lists the targets.

BIN := .venv/bin
# Three processes keep two processors busy: tests that sync files wait for the disk.
PYTEST_FLAGS ?= -n 3 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench fuzz

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

setup: ## make .venv, install the missing system packages (apt), fetch the guest's kernel
	@scripts/setup

demo: setup ## the main job as a story, on a real guest (two minutes)
	$(BIN)/drivebay demo

test: setup ## all tests (PYTEST_FLAGS="-k name" for some)
	$(BIN)/pytest $(PYTEST_FLAGS)

lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## compare with the other NBD servers; appends to BENCHMARKS.md
	$(BIN)/python -m bench

fuzz: setup ## damage images of every format and use them, for five minutes; findings go to fuzz/findings
	$(BIN)/python -m fuzz --seconds 300
