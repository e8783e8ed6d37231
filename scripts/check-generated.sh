#!/usr/bin/env bash
# Fails when `make generate` changes a file: what is generated must be committed as generated.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
state() {
	# Every file git knows or could know, with its content's hash.
	git ls-files -z --cached --others --exclude-standard | sort -zu | while IFS= read -r -d '' f; do
		[ -f "$f" ] && sha256sum -- "$f"
	done
}
state >"$before"
make --no-print-directory generate
state >"$after"
if ! diff -u "$before" "$after" >&2; then
	echo "generated files were out of date: run 'make generate' and commit what it changes" >&2
	exit 1
fi
echo "generated files are up to date"
