#!/usr/bin/env bash
# Gets what the tests need besides Go, when it is missing and this is Debian and root.
#   setup-tests.sh        what `make test` needs
#   setup-tests.sh race   a C compiler as well, which the race detector needs
# It never fails a run at home: what cannot be had is named. With CI=true a missing tool is an error.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.cache/bin # on PATH in the Makefile
missing=()

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
updated=
apt_update() {
	[ -n "$updated" ] && return
	updated=yes
	apt-get update -qq >/dev/null 2>&1 || true
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; }

# promtool alone is taken out of Debian's package, so that no Prometheus server is set up on this machine.
promtool() {
	PATH=$PWD/$bin:$PATH command -v promtool >/dev/null && return
	can_apt || return 1
	apt_update
	local dir
	dir=$(mktemp -d) || return 1
	chmod 755 "$dir"
	(cd "$dir" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb x) &&
		mkdir -p $bin && cp "$dir/x/usr/bin/promtool" $bin/promtool
	local rc=$?
	rm -rf "$dir"
	return $rc
}

compiler() {
	command -v "$(go env CC)" >/dev/null && return
	can_apt || return 1
	apt_update
	apt_install gcc libc6-dev
	command -v "$(go env CC)" >/dev/null
}

# For the plugins in C. The runtime library is packaged for each version of clang.
wasm_clang() {
	local dir rc
	dir=$(mktemp -d) || return 1
	echo 'int main(void) { return 0; }' >"$dir/x.c"
	clang --target=wasm32-wasi -o "$dir/x.wasm" "$dir/x.c" >/dev/null 2>&1
	rc=$?
	rm -rf "$dir"
	return $rc
}

clang_for_wasm() {
	wasm_clang && return
	can_apt || return 1
	apt_update
	apt_install clang lld wasi-libc
	apt_install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev-wasm32"
	wasm_clang
}

# For the modules in host/testdata that are written as text.
wat2wasm() {
	type -P wat2wasm >/dev/null && return
	can_apt || return 1
	apt_update
	apt_install wabt
	type -P wat2wasm >/dev/null
}

# The server's program is in the package of its tools, so that no Redis server is set up on this machine.
redis() {
	PATH=$PWD/$bin:$PATH type -P redis-server >/dev/null && return
	if [ ! -x /usr/bin/redis-check-rdb ]; then
		can_apt || return 1
		apt_update
		apt_install redis-tools
	fi
	mkdir -p $bin && [ -x /usr/bin/redis-check-rdb ] && ln -sf /usr/bin/redis-check-rdb $bin/redis-server
}

# For scripts/protoc.sh.
protoc() {
	type -P protoc >/dev/null && return
	can_apt || return 1
	apt_update
	apt_install protobuf-compiler
	type -P protoc >/dev/null
}

promtool || missing+=("promtool (Debian: apt-get install prometheus)")
clang_for_wasm || missing+=("clang for WebAssembly (Debian: apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32)")
wat2wasm || missing+=("wat2wasm (Debian: apt-get install wabt)")
redis || missing+=("redis-server (Debian: apt-get install redis-server)")
protoc || missing+=("protoc (Debian: apt-get install protobuf-compiler)")
if [ "${1:-}" = race ]; then
	compiler || missing+=("a C compiler (Debian: apt-get install gcc libc6-dev)")
fi
for m in "${missing[@]+"${missing[@]}"}"; do echo "missing: $m" >&2; done
if [ ${#missing[@]} -gt 0 ] && [ "${CI:-}" = true ]; then exit 1; fi
exit 0
