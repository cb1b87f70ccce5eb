# The front door. `make demo` runs the main job, `make test` the tests; both install what they need and can be repeated.

.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help demo test test-faults bench check up down build prerequisites

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

prerequisites: ## Installs what building and testing need (root on Debian), else prints the command
	@infra/prerequisites

build: prerequisites ## Builds every program
	cargo build --workspace --all-targets --locked

demo: build ## Archives a directory tree twice, on declared and on learned reservations; INPUT=DIR chooses it
	@infra/demo/run $(if $(INPUT),--input "$(INPUT)")

test: prerequisites ## Runs every test against the real RabbitMQ (3.10 and 4.3) and ClickHouse; needs root
	@infra/run-tests

test-faults: build ## Injects faults: 500 seeds of simulated systems, 40 runs of real ones on both RabbitMQs; needs root, loopback only
	@infra/test-faults

bench: build ## Measures, without asserting anything: cold against warm starts, fleets of 10 to 10,000 simulated workers
	$${CARGO_TARGET_DIR:-target}/debug/examples/measure-starts
	$${CARGO_TARGET_DIR:-target}/debug/examples/simulate-fleets 10 100 1000 10000

check: ## What is run before a change lands: format, lints, documentation, tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@$(MAKE) --no-print-directory test

up: ## Starts the local stack: RabbitMQ and ClickHouse of this checkout
	@infra/stack up

down: ## Stops it; the data stay
	@infra/stack down
