#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# check_symbols - none of our global names may be one that libpg_query or libev exports: the linker would quietly take one
# for the other. libpg_query 15-4.0.0 exports over two thousand.
set -uo pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}

lib() { ls /usr/lib/*/"$1" /usr/lib/"$1" 2>/dev/null | head -1; }
theirs=$(for l in libpg_query.so libev.so; do nm -D --defined-only "$(lib $l)" | awk '{ print $3 }'; done | sed 's/@.*//' | sort -u)
objects=$(find "$BUILD/proxy" "$BUILD/shardmap" -name '*.o' 2>/dev/null)
[ -n "$objects" ] || { echo "no objects in $BUILD: build first"; exit 1; }
ours=$(nm --defined-only -g $objects 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRC]/ { print $3 }' | sort -u)
both=$(comm -12 <(printf '%s\n' "$theirs") <(printf '%s\n' "$ours") | grep -vx main)
[ -z "$both" ] || { echo "names that a library exports too:"; echo "$both"; exit 1; }
