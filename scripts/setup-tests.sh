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
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null 2>&1
	command -v "$(go env CC)" >/dev/null
}

promtool || missing+=("promtool (Debian: apt-get install prometheus)")
if [ "${1:-}" = race ]; then
	compiler || missing+=("a C compiler (Debian: apt-get install gcc libc6-dev)")
fi
for m in "${missing[@]+"${missing[@]}"}"; do echo "missing: $m" >&2; done
if [ ${#missing[@]} -gt 0 ] && [ "${CI:-}" = true ]; then exit 1; fi
exit 0
