#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# check_layers - an include in proxy/ may go to its own layer or down, never up (docs/architecture.md).
# A header of include/pgspan belongs to the layer of the .c file of its name; those named below have none of their own name.
set -uo pipefail
cd "$(dirname "$0")/.."

order="base net proto sql route upstream exec session ops"
rank() {
	local i=0 l
	for l in $order; do
		[ "$l" = "$1" ] && { echo $i; return; }
		i=$((i + 1))
	done
	echo "unknown layer $1" >&2
	exit 1
}
layer_of_header() { # name without .h
	local f
	case $1 in
	defs | span | dlist | config | plan | sqlstate) echo base; return ;; # contracts that every layer may read
	esac
	f=$(ls proxy/*/"$1".c 2>/dev/null | head -1)
	[ -n "$f" ] && basename "$(dirname "$f")"
}

bad=0
for f in proxy/*/*.[ch]; do
	layer=$(basename "$(dirname "$f")")
	mine=$(rank "$layer") || exit 1
	for h in $(sed -n 's,^#include "pgspan/\([a-z0-9_]*\)\.h".*,\1,p' "$f"); do
		other=$(layer_of_header "$h")
		[ -z "$other" ] && continue
		if [ "$(rank "$other")" -gt "$mine" ]; then
			echo "$f includes pgspan/$h.h of the higher layer $other"
			bad=1
		fi
	done
done
for f in shardmap/*.[ch] include/shardmap.h; do
	if grep -nE '#include "pgspan/(base|net|proto|sql|route|upstream|exec|session|ops|config|plan|router|catalog|loop|conn|log|arena)' "$f"; then
		echo "$f: the shard map knows nothing of the proxy"
		bad=1
	fi
done
exit $bad
