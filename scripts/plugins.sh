#!/usr/bin/env bash
# Builds the plugins of this repository into bin/plugins/NAME-VERSION.tar.gz: those that are named, else all.
#   plugins.sh [-o DIRECTORY] [NAME…]
# -o puts the archives, and all that is made on the way, into another directory.
# What has not changed since the last time is not built again. The same sources make the same bytes.
# A plugin in C needs clang for WebAssembly. Without it the plugin is left out, which is an error with CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
out=bin/plugins work=.cache/plugins
if [ "${1:-}" = -o ]; then
	out=$2 work=$2/.work
	shift 2
fi

fail() { echo "plugins: $*" >&2; exit 1; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
# A field of a manifest that is one word on a line of its own.
field() { sed -n "s/^$2: *\"\{0,1\}\([^\" ]*\)\"\{0,1\} *\$/\1/p" "plugins/$1/tocsin-plugin.yaml"; }

language() {
	if [ -n "$(field "$1" script)" ]; then
		echo script
	elif compgen -G "plugins/$1/*.go" >/dev/null; then
		echo go
	elif compgen -G "plugins/$1/*.c" >/dev/null; then
		echo c
	else
		fail "plugins/$1 has neither a script nor Go nor C"
	fi
}

# One line for all that the archive is made from.
inputs() {
	{
		find "plugins/$1" -type f ! -name '*_test.go' ! -path '*/testdata/*' -print0 | LC_ALL=C sort -z | xargs -0 cat
		find "plugins/$1" -type f ! -name '*_test.go' ! -path '*/testdata/*' | LC_ALL=C sort
		cat scripts/plugins.sh
		case $2 in
		go)
			cat go.mod
			find sdk -maxdepth 1 -name '*.go' ! -name '*_test.go' -print0 | LC_ALL=C sort -z | xargs -0 cat
			go env GOVERSION
			;;
		c) clang --version ;;
		esac
	} | sha256 | cut -d' ' -f1
}

# Whether clang can build for WebAssembly: it needs a linker, a C library and its own runtime library.
have_clang() {
	command -v clang >/dev/null || return 1
	local dir rc=0
	dir=$(mktemp -d)
	echo 'int main(void) { return 0; }' >"$dir/x.c"
	clang --target=wasm32-wasi -o "$dir/x.wasm" "$dir/x.c" >/dev/null 2>&1 || rc=1
	rm -rf "$dir"
	return $rc
}

compile() { # NAME LANGUAGE TO
	case $2 in
	go) GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags='-s -w' -o "$3" "./plugins/$1" ;;
	c) clang --target=wasm32-wasi -mexec-model=reactor -Os -s -Wall -Wextra -Werror -o "$3" "plugins/$1"/*.c ;;
	script) cp "plugins/$1/$(field "$1" script)" "$3" ;;
	esac
}

# The manifest with the digest of the file that it names; one that is there already is replaced.
manifest() { # NAME DIGEST
	awk -v digest="$2" '/^sha256:/ { next } { print } /^(entry|script):/ { print "sha256: " digest }' "plugins/$1/tocsin-plugin.yaml"
}

pack() { # DIRECTORY TO
	local files=$1.files
	(cd "$1" && find . -type f | sed 's|^\./||' | LC_ALL=C sort) >"$files"
	if tar --version 2>/dev/null | grep -q 'GNU tar'; then
		tar --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r -cf - -C "$1" -T "$files"
	else # it writes the times of the files: it reads as well, but is other bytes each time
		COPYFILE_DISABLE=1 tar -cf - -C "$1" -T "$files"
	fi | gzip -9n >"$2.new"
	mv "$2.new" "$2"
}

build() {
	local name=$1 kind version stage archive entry stamp
	[ -f "plugins/$name/tocsin-plugin.yaml" ] || fail "there is no plugin $name; there are: $(known)"
	version=$(field "$name" version) kind=$(language "$name")
	entry=$(field "$name" entry)$(field "$name" script)
	[ "$(field "$name" name)" = "$name" ] && [ -n "$version" ] && [ -n "$entry" ] || fail "plugins/$name/tocsin-plugin.yaml must have name: $name, a version and an entry or a script, each on a line of its own"
	archive=$out/$name-$version.tar.gz stage=$work/$name/stage
	if [ "$kind" = c ] && ! have_clang; then
		rm -f "$out/$name"-[0-9]*.tar.gz
		echo "plugins: $name is left out: clang for WebAssembly is missing; install it with: apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32" >&2
		[ "${CI:-}" != true ] || exit 1
		return 0
	fi
	stamp=$(inputs "$name" "$kind")
	if [ -f "$archive" ] && [ "$(cat "$work/$name/inputs" 2>/dev/null)" = "$stamp" ]; then
		return 0
	fi
	rm -rf "${work:?}/$name" && mkdir -p "$stage/$(dirname "$entry")"
	compile "$name" "$kind" "$stage/$entry"
	chmod 644 "$stage/$entry"
	manifest "$name" "$(sha256 "$stage/$entry" | cut -d' ' -f1)" >"$stage/tocsin-plugin.yaml"
	cp "plugins/$name/README.md" "$stage/"
	rm -f "$out/$name"-[0-9]*.tar.gz
	pack "$stage" "$archive"
	echo "$stamp" >"$work/$name/inputs"
	echo "built $archive ($(wc -c <"$archive" | tr -d ' ') bytes)"
}

known() { for m in plugins/*/tocsin-plugin.yaml; do basename "$(dirname "$m")"; done | tr '\n' ' '; }

mkdir -p $out $work
if [ $# -eq 0 ]; then
	# shellcheck disable=SC2046 # names of plugins have no spaces
	set -- $(known)
fi
for name in "$@"; do build "$name"; done
