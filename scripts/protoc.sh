#!/usr/bin/env bash
# Writes the Go of the plugin contract from sdk/proto/plugin.proto. Needs protoc (apt-get install protobuf-compiler).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v protoc >/dev/null || { echo "protoc is missing; install it with: apt-get install protobuf-compiler" >&2; exit 1; }
tools=$PWD/.cache/bin
mkdir -p "$tools"
GOBIN=$tools go install google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN=$tools go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PATH=$tools:$PATH protoc --proto_path=. --go_out=. --go_opt=module=github.com/tocsinhq/tocsin \
	--go-grpc_out=. --go-grpc_opt=module=github.com/tocsinhq/tocsin sdk/proto/plugin.proto
# The version of protoc differs between systems and changes nothing.
sed -i -E "s|^(// [-\t ]*protoc) +v?[0-9.]+$|\1|" sdk/proto/*.pb.go
