#!/usr/bin/env bash
# Fetches the script engine out of its npm package again and fails when it is not the one whose digest is in its README.
# Needs npm. For a new version, change it here and in the README, with its digest, after reading what it imports.
set -euo pipefail
cd "$(dirname "$0")/.."
package=quickjs-wasi version=3.6.2
to=host/wasm/script/quickjs
want=$(grep -oE 'sha256 [0-9a-f]{64}' $to/README.md | cut -d' ' -f2)
command -v npm >/dev/null || { echo "npm is missing; it comes with Node.js" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && npm pack --silent "$package@$version" >/dev/null)
tar -xzf "$dir/$package-$version.tgz" -C "$dir" package/quickjs.wasm package/LICENSE
got=$(sha256sum "$dir/package/quickjs.wasm" | cut -d' ' -f1)
if [ "$got" != "$want" ]; then
	echo "quickjs.wasm of $package $version has digest $got, the README says $want" >&2
	exit 1
fi
install -m 644 "$dir/package/quickjs.wasm" "$dir/package/LICENSE" $to/
echo "$to/quickjs.wasm is that of $package $version"
