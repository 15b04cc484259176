# The ways to run, test and keep LoggerHub. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help up down status env seed load-test bench test chaos fuzz check generate lint

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo '  LOGGERHUB_INSTANCE=name    another stack beside the first (default dev)'
	@echo '  LOGGERHUB_CLUSTER=kind     make up in a cluster by kind, with Docker or Podman'
	@echo '  LOGGERHUB_CLUSTER=current  make up on the current kubectl context; .env.example lists the rest'

up: ## the whole system on this machine, three tenants and a tour
	@dev/up

down: ## end it; PURGE=1 forgets its data too
	@dev/down

status: ## what runs
	@dev/status

env: ## addresses and credentials for a shell: eval "$(make -s env)"
	@dev/env

seed: ## made-up events for the sample tenants; COUNT=10000
	@dev/seed

load-test: ## how fast events are accepted and stored; COUNT=200000
	@dev/load-test

bench: ## how fast it is, and CPU per event of each stage; ONLY=accept,searchable
	@dev/bench

test: ## everything, against real servers; KEEP=1 leaves the test stack running
	@dev/test

chaos: ## break everything that can break, and check that every 202 was kept; SEED, KILLS=40, ONLY=redis
	@dev/chaos

fuzz: ## feed every decoder of foreign bytes with what it never saw; FUZZ_SECONDS=60, ONLY=body
	@dev/fuzz

check: lint ## what needs no servers: lints, and whether generated files are fresh
	@dev/check

lint: ## format and lints only
	@dev/lint

generate: ## write the generated files anew
	@dev/generate
