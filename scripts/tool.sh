#!/usr/bin/env bash
# Prints the path of a Go tool in exactly the version asked for, after installing it when it is nowhere.
# Usage: tool.sh NAME VERSION MODULE_PATH. Looked for: on PATH, in go's bin folder, in the cache folder.
set -euo pipefail
name=$1 version=$2 module=$3
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tocsin-tools/$version
gobin=$(go env GOBIN)
gobin=${gobin:-$(go env GOPATH)/bin}

# The module's version is in the binary that go install made, whatever the tool itself prints.
right() { [ -x "$1" ] && go version -m "$1" 2>/dev/null | grep -qE "^[[:space:]]*mod[[:space:]].*[[:space:]]$version([[:space:]]|$)"; }

for candidate in "$(command -v "$name" || true)" "$gobin/$name" "$cache/$name"; do
	if [ -n "$candidate" ] && right "$candidate"; then
		echo "$candidate"
		exit 0
	fi
done
echo "installing $name $version (once)" >&2
mkdir -p "$cache"
GOFLAGS= GOBIN=$cache go install "$module@$version" >&2
echo "$cache/$name"
