# Run `make help` for what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
GOFUMPT_VERSION := v0.12.0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFILES = $(shell git ls-files --cached --others --exclude-standard '*.go' ':!*.pb.go')

comma := ,

export PATH := $(CURDIR)/.cache/bin:$(PATH)

.PHONY: run build plugins test race lint fmt check-fmt generate check-generated bench clean help

run: build ## build, then start a demo server that watches this machine (Ctrl-C stops it)
	exec bin/tocsin serve --demo

build: plugins ## write bin/tocsin, one static binary, and bin/plugins
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/tocsin ./cmd/tocsin

plugins: ## build the plugins into bin/plugins, or some with PLUGINS=redis,ntp
	scripts/plugins.sh $(subst $(comma), ,$(PLUGINS))

test: ## run every test; installs what they need when root on Debian
	scripts/setup-tests.sh
	scripts/test.sh

race: ## run every test under the race detector
	scripts/setup-tests.sh race
	CGO_ENABLED=1 scripts/test.sh -race -timeout 20m

lint: ## run golangci-lint
	"$$(scripts/tool.sh golangci-lint $(GOLANGCI_LINT_VERSION) github.com/golangci/golangci-lint/v2/cmd/golangci-lint)" run ./...

fmt: ## format the Go files
	"$$(scripts/tool.sh gofumpt $(GOFUMPT_VERSION) mvdan.cc/gofumpt)" -w $(GOFILES)

check-fmt: ## fail when a Go file is not formatted
	@unformatted=$$("$$(scripts/tool.sh gofumpt $(GOFUMPT_VERSION) mvdan.cc/gofumpt)" -l $(GOFILES)); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run 'make fmt':"; echo "$$unformatted"; exit 1; fi

generate: ## write the files that are made from the code
	go test ./internal/config -run '^TestOperationsDoc$$' -update
	go test ./engine -run '^TestStatesDocument$$' -update
	go test ./engine/check -run '^TestDocs$$' -update
	go test ./host -run '^TestManifestSchema' -update
	go test ./engine/alert -run '^TestProvidersDocumentation$$' -update
	scripts/protoc.sh

check-generated: ## fail when a generated file is out of date
	scripts/check-generated.sh

bench: build ## measure against a bare loop and print the figures
	go run ./internal/bench

clean: ## remove what was built
	rm -rf bin .cache tocsin-demo

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'
