# Everything a person or a machine runs here. `make` alone lists it.
SHELL := /bin/bash
export CGO_ENABLED ?= 0

.PHONY: help build demo self test check lint fuzz bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## build slipway and slipwayd into bin/
	go build -trimpath -o bin/ ./cmd/slipway ./cmd/slipwayd

demo: ## install what is missing and build an example, to a directory and to an archive
	hack/demo.sh

self: ## Slipway builds Slipway, in a Debian root file system made here
	hack/self.sh

test: ## install what the tests need and run them all
	hack/test.sh

check: ## formatting, vet, linter, import rules, generated and tidy files
	hack/check.sh

lint: ## the linter alone
	hack/lint.sh ./...

fuzz: ## run every fuzz target for a short while
	hack/fuzz.sh

bench: ## measure slipwayd beside buildkitd, as docs/performance.md has it
	go run ./hack/bench

clean: ## remove what was built
	rm -rf bin .demo
