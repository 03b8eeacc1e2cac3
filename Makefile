# The front door. `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help demo build check test test-matrix soak rounds fuzz bench image deb docs clean

TARGET := x86_64-unknown-linux-gnu
STATIC := target/$(TARGET)/release/wale
SPEED := target/$(TARGET)/release/examples/speed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the static binary, target/…/release/wale
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET) -p wale

demo: ## the main job from nothing: archive, back up, lose everything, restore (KEEP=1 leaves it running)
	@bash scripts/setup.sh demo
	@$(MAKE) --no-print-directory build
	@bash scripts/demo.sh $(abspath $(STATIC))

check: ## format, lints and the tests that need no server
	@bash scripts/test.sh quick

test: ## everything: format, lints, unit tests, integration tests on real servers
	@bash scripts/setup.sh test
	@bash scripts/test.sh

test-matrix: ## the tests that depend on PostgreSQL's major, on every major from 10 on
	@PG_MAJORS="$$(bash scripts/pg-matrix.sh majors)" bash scripts/setup.sh test
	@bash scripts/test.sh matrix

soak: ## random faults for half an hour: 2,000 simulations, 500 kills, 60 losses of power, 10 histories of timelines (SEED=n replays)
	@bash scripts/setup.sh test
	@bash scripts/test.sh soak

rounds: ## every integration test ten times, each alone, beside a busy loop on each core: four hours (as root)
	@bash scripts/setup.sh test
	@bash scripts/rounds.sh

fuzz: ## every decoder against invented input, a minute each
	@bash scripts/setup.sh test
	@bash scripts/fuzz.sh 60

bench: ## wale beside every peer that the registries have, on this machine (as root; BENCH=--quick tries it, BENCH=--publish writes docs/performance.md)
	@bash scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET) -p wale-format --example speed
	@python3 bench/run.py --wale $(abspath $(STATIC)) --speed $(abspath $(SPEED)) $(BENCH)

deb: ## the Debian package, target/wale_….deb
	@$(MAKE) --no-print-directory build
	@bash scripts/deb.sh $(abspath $(STATIC))

image: ## the container image wale:latest (podman or docker)
	@$(MAKE) --no-print-directory build
	@bash scripts/image.sh $(abspath $(STATIC))

docs: ## write the generated reference pages
	cargo run -q -p xtask -- docs

clean:
	cargo clean
