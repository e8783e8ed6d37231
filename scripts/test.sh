#!/usr/bin/env bash
# Runs go test over everything with the flags given, then says how many tests passed, failed and skipped, and why.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache/bin
CGO_ENABLED=0 go build -o .cache/bin/testsum ./internal/testkit/testsum
go test -json "$@" ./... | .cache/bin/testsum
