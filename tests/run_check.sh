#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# run_check - builds, runs tests, and closes with "N passed, N failed"; exit status 1 when anything failed.
#
#   tests/run_check.sh [rules] [unit] [fuzz] [live]       all four without an argument
#
# From the environment: CC, SAN, BUILD as for make; PYTEST_ARGS for the live suite; MAKE.
set -uo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-gcc}
SAN=${SAN:-}
BUILD=${BUILD:-build${SAN:+-${SAN//,/-}}}
MAKE=${MAKE:-make}
jobs=$(nproc)
passed=0
failed=0
[ $# -gt 0 ] || set -- rules unit fuzz live

build() { # targets...
	$MAKE -s -k -j"$jobs" CC="$CC" SAN="$SAN" BUILD="$BUILD" "$@"
}
fail() { # what
	echo "FAILED: $*"
	failed=$((failed + 1))
}
# The sum of the numbers that a sed expression finds.
sum() { sed -n "$1" | awk '{ n += $1 } END { print n + 0 }'; }

# The layers of proxy/ and the names of our symbols.
run_rules() {
	local script
	build all || fail "pgspan does not build" # the scripts look at the objects
	for script in tests/check_*.sh; do
		[ -x "$script" ] || continue
		if BUILD="$BUILD" "$script"; then passed=$((passed + 1)); else fail "$script"; fi
	done
}

run_unit() {
	local src name out status bad good targets=()
	for src in tests/unit/*/test_*.c; do
		[ -e "$src" ] || continue
		name=${src#tests/unit/}
		targets+=("$BUILD/unit/${name%.c}")
	done
	[ ${#targets[@]} -gt 0 ] && build "${targets[@]}"
	for name in "${targets[@]}"; do
		if [ ! -x "$name" ]; then
			fail "$name does not build"
			continue
		fi
		out=$(timeout 300 "$name" 2>&1)
		status=$?
		good=$(sum 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' <<<"$out")
		bad=$(sum 's/^\[  FAILED  \] [^:]*: \([0-9]*\) test.*/\1/p;s/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' <<<"$out")
		# A crash, or a sanitizer's exit, leaves no line that counts.
		[ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
		passed=$((passed + good))
		failed=$((failed + bad))
		if [ "$bad" -gt 0 ]; then
			echo "FAILED: $name (exit status $status)"
			grep -v -e '^\[ RUN' -e '^\[       OK' <<<"$out" | tail -60
		fi
	done
}

# Each fuzzer runs once over its corpus: inputs that once broke something, or that reach far.
run_fuzz() {
	local src name corpus out
	ls tests/fuzz/fuzz_*.c >/dev/null 2>&1 || return 0
	$MAKE -s -k -j"$jobs" fuzzers
	for src in tests/fuzz/fuzz_*.c; do
		name=$(basename "$src" .c)
		corpus=tests/fuzz/corpus/${name#fuzz_}
		if [ ! -x "build-fuzz/fuzz/$name" ]; then
			fail "$name does not build"
		elif out=$(timeout 300 "build-fuzz/fuzz/$name" -runs=0 "$corpus" 2>&1); then
			passed=$((passed + 1))
		else
			fail "$name on $corpus"
			tail -40 <<<"$out"
		fi
	done
}

run_live() {
	local out status good bad factor=1 tmp
	if ! build all; then
		fail "pgspan does not build"
		return
	fi
	[ -n "$SAN" ] && factor=4
	tmp=$(mktemp)
	# shellcheck disable=SC2086  # PYTEST_ARGS holds several words
	(eval "set -- ${PYTEST_ARGS:-}"; PYTHONDONTWRITEBYTECODE=1 PGSPAN="$PWD/$BUILD/pgspan" PGSPAN_SLOW_FACTOR=$factor \
		/usr/bin/python3 -m pytest tests/live "$@") 2>&1 | tee "$tmp"
	status=${PIPESTATUS[0]}
	out=$(tail -3 "$tmp")
	rm -f "$tmp"
	good=$(sum 's/.*\b\([0-9]\+\) passed.*/\1/p' <<<"$out")
	bad=$(($(sum 's/.*\b\([0-9]\+\) failed.*/\1/p' <<<"$out") + $(sum 's/.*\b\([0-9]\+\) error.*/\1/p' <<<"$out")))
	[ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
	passed=$((passed + good))
	failed=$((failed + bad))
}

for step in "$@"; do
	echo "--- $step ($CC${SAN:+, $SAN})"
	"run_$step"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
