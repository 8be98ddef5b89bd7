# The two commands are `make demo` and `make test`; the others are parts of them, or longer.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON_BIN := .venv/bin/python

.PHONY: help
help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Two nights of four hosts on this machine, for real; VAULT=vm: the vault is a machine booted by qemu
	@tools/prepare $(if $(filter vm,$(VAULT)),vm,night)
	@$(PYTHON_BIN) -m tests.demo $(if $(VAULT),--vault '$(VAULT)')

.PHONY: worst-day
worst-day: ## Host gone, vault terminated, volume deleted, newest points empty and damaged: the data, got back and compared
	@tools/prepare night
	@$(PYTHON_BIN) -m tests.worst_day

# Four workers for two cores: a night waits, for machines and clients, as long as it works.
.PHONY: test
test: lint ## All tests: unit, contract, api, client, vault, end to end
	@tools/prepare night
	$(PYTHON_BIN) -m pytest -q -n 4 --dist worksteal -m 'not soak and not stack and not browser and not vm'

.PHONY: e2e-stack
e2e-stack: ## The stack deployed by CloudFormation on a local AWS: its nights, its permissions, its updates
	@tools/prepare stack
	$(PYTHON_BIN) -m pytest -q -n 2 --dist worksteal -m stack

.PHONY: e2e-vm
e2e-vm: ## The vault as a real machine, booted by qemu: its nights, its disks, its security
	@tools/prepare vm
	$(PYTHON_BIN) -m pytest -q -n 2 --dist loadfile -m vm

.PHONY: test-look
test-look: ## The timeline in headless Chromium: every lane, run and hover text, light and dark
	@tools/prepare look
	$(PYTHON_BIN) -m pytest -q -n 2 --dist worksteal -m browser

.PHONY: soak
soak: ## 200 windows of 24 hosts over HTTP, and longer random lives
	@tools/prepare night
	$(PYTHON_BIN) -m pytest -q -n 2 --dist worksteal -m soak

.PHONY: lint
lint: ## ruff, mypy --strict, shellcheck
	@tools/prepare venv
	@echo 'lint: ruff, mypy, shellcheck'
	@$(PYTHON_BIN) -m ruff check --quiet .
	@$(PYTHON_BIN) -m ruff format --quiet --check .
	@$(PYTHON_BIN) -m mypy --no-error-summary
	@.venv/bin/shellcheck tools/prepare host-client/nightvault* .ci/run vault-image/install.sh

# STAGE=name for another than prod; SUBNET=, EMAIL=, SET='WindowHours=2 InstanceType=t4g.medium'. The account and the
# region are those of AWS_PROFILE and AWS_REGION.
.PHONY: deploy
deploy: ## Put nightvault into your AWS account, or bring it up to date there
	@tools/prepare venv
	@$(PYTHON_BIN) -m deploy up $(if $(STAGE),--stage '$(STAGE)') $(if $(SUBNET),--subnet '$(SUBNET)') \
		$(if $(EMAIL),--email '$(EMAIL)') $(foreach setting,$(SET),--set '$(setting)')

.PHONY: destroy
destroy: ## Remove it, all but data; asks first (YES=1 does not)
	@tools/prepare venv
	@$(PYTHON_BIN) -m deploy down $(if $(STAGE),--stage '$(STAGE)') $(if $(filter 1,$(YES)),--yes)

# Those that need root, for they boot machines, come last.
.PHONY: bench
bench: ## Every benchmark: pushes and restores against restic and borg, the control plane, a vault's boot and throughput
	@tools/prepare bench
	$(PYTHON_BIN) -m benchmarks.control_plane
	$(PYTHON_BIN) -m benchmarks.cold_start
	$(PYTHON_BIN) -m benchmarks.push
	$(PYTHON_BIN) -m benchmarks.manifest
	$(PYTHON_BIN) -m benchmarks.restore
	$(PYTHON_BIN) -m benchmarks.vault_boot
	$(PYTHON_BIN) -m benchmarks.throughput

.PHONY: screenshots
screenshots: ## The pictures in docs/images, in Chromium
	@tools/prepare look
	@$(PYTHON_BIN) -m tests.look.screenshots

.PHONY: clean
clean: ## Remove the virtual environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
