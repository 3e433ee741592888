#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# demo - a throw-away fleet, pgspan before it on the repository's own proxy.ini, and a tour whose output is real.
#
#   make demo              stays up until Ctrl-C, so that you can connect
#   make demo ONCE=1       ends by itself; exit status 0 only if every step was right
#
# DEMO_SECONDS (default 5) is the length of each pgbench run, DEMO_SCALE (default 10) the size of its tables.
set -uo pipefail
cd "$(dirname "$0")/.."

PGSPAN=${PGSPAN:-build/pgspan}
TOOL=$(dirname "$PGSPAN")/shardmap-tool
SECONDS_EACH=${DEMO_SECONDS:-5}
SCALE=${DEMO_SCALE:-10}
PORT=6432 # as in proxy.ini, like the ports of the fleet
ACCOUNTS=$((SCALE * 100000))
for name in $(compgen -e PG); do [ "$name" = PGSPAN ] || unset "$name"; done
export PGPASSWORD=app-secret PGCONNECT_TIMEOUT=10 LC_ALL=C.UTF-8

failures=0
proxy_pid=
proxy_status=
fleet_dir=
scratch=$(mktemp -d)

# -- output -------------------------------------------------------------------------------------------------------------

bold=; green=; red=; plain=
[ -t 1 ] && { bold=$'\e[1m'; green=$'\e[32m'; red=$'\e[31m'; plain=$'\e[0m'; }
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { sed 's/^/   /'; }
right() { printf '%s   ok  %s%s\n' "$green" "$*" "$plain"; }
wrong() {
	printf '%s   WRONG  %s%s\n' "$red" "$*" "$plain"
	failures=$((failures + 1))
}
expect() { # what, wanted, got
	if [ "$2" = "$3" ]; then right "$1: $3"; else wrong "$1: $3, not $2"; fi
}
give_up() {
	echo "demo: $*" >&2
	[ -s "$scratch/pgspan.log" ] && tail -20 "$scratch/pgspan.log" >&2
	exit 1
}

# -- servers --------------------------------------------------------------------------------------------------------------

end_proxy() {
	[ -n "$proxy_pid" ] || return 0
	kill -INT "$proxy_pid" 2>/dev/null
	sleep 0.2
	kill -INT "$proxy_pid" 2>/dev/null
	local i
	for ((i = 0; i < 100; i++)); do
		kill -0 "$proxy_pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$proxy_pid" 2>/dev/null
	wait "$proxy_pid"
	proxy_status=$?
	proxy_pid=
}
clean_up() {
	trap '' INT TERM HUP
	end_proxy
	[ -n "$fleet_dir" ] && tests/fleet stop --dir "$fleet_dir" >/dev/null
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

direct() { # port database sql: straight to one server, as its superuser
	psql -XqAt "host=127.0.0.1 port=$1 dbname=$2 user=postgres" -c "$3"
}
on_shards() { # sql: straight to each shard
	local port
	for port in 5511 5512 5513 5514; do direct $port shop "$1"; done
}
via() { # database sql: through pgspan
	psql -XqAt -v ON_ERROR_STOP=1 "host=127.0.0.1 port=$PORT dbname=$1 user=app" -c "$2" 2>&1
}
table() { # as via, but as psql shows it
	psql -Xq -P footer=off "host=127.0.0.1 port=$PORT dbname=$1 user=app" -c "$2" 2>&1 | show
}
wait_for_replicas() {
	local lsn port i
	lsn=$(direct 5501 app "SELECT pg_current_wal_lsn()")
	for port in 5502 5503; do
		for ((i = 0; i < 300; i++)); do
			[ "$(direct $port app "SELECT pg_last_wal_replay_lsn() >= '$lsn'")" = t ] && break
			sleep 0.1
		done
	done
}
commits() { direct "$1" postgres "SELECT xact_commit FROM pg_stat_database WHERE datname = 'app'"; }

# -- pgbench ----------------------------------------------------------------------------------------------------------------

transactions=0 # of the last run
bench() { # database, then pgbench's options
	local db=$1 label
	shift
	label="pgbench $* $db"
	if ! pgbench -h 127.0.0.1 -p $PORT -U app "$@" -n -T "$SECONDS_EACH" -j 2 "$db" >"$scratch/out" 2>"$scratch/err"; then
		wrong "$label"
		tail -5 "$scratch/err" | show
		return
	fi
	transactions=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$scratch/out")
	if grep -q 'failed transactions: 0 ' "$scratch/out" && ! grep -qi -e error -e abort "$scratch/err"; then
		right "$label: $transactions transactions, $(sed -n 's/^tps = \([0-9]*\).*/\1/p' "$scratch/out") a second, no error"
	else
		wrong "$label"
		tail -5 "$scratch/err" | show
	fi
}
init() { # database
	if pgbench -h 127.0.0.1 -p $PORT -U app -i -q -s "$SCALE" "$1" >"$scratch/out" 2>&1; then
		right "pgbench -i -s $SCALE $1:$(tail -1 "$scratch/out" | sed 's/done in/ done in/;s/  / /g')"
	else
		wrong "pgbench -i -s $SCALE $1"
		tail -5 "$scratch/out" | show
	fi
}
# TPC-B adds each amount to an account, a teller and a branch, and notes it in the history: the four sums agree.
check_sums() { # database
	local a t b h
	a=$(via "$1" "SELECT sum(abalance) FROM pgbench_accounts")
	t=$(via "$1" "SELECT sum(tbalance) FROM pgbench_tellers")
	b=$(via "$1" "SELECT sum(bbalance) FROM pgbench_branches")
	h=$(via "$1" "SELECT sum(delta) FROM pgbench_history")
	if [[ "$a" =~ ^-?[0-9]+$ ]] && [ "$a" = "$t" ] && [ "$a" = "$b" ] && [ "$a" = "$h" ]; then
		right "$1: accounts, tellers, branches and history all sum up to $a"
	else
		wrong "$1: the sums differ: accounts $a, tellers $t, branches $b, history $h"
	fi
}

# -- the tour ---------------------------------------------------------------------------------------------------------------

start_all() {
	title "A fleet of real PostgreSQL servers (tests/fleet start)"
	if (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; then
		give_up "port $PORT is taken by another program"
	fi
	fleet_dir=${TMPDIR:-/tmp}/pgspan-demo-$$ # known to clean_up before anything runs in it
	tests/fleet start --dir "$fleet_dir" --port 5500 --only app,shop >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; exit 1; }
	show <"$scratch/out"
	tests/fleet status --dir "$fleet_dir" | show

	title "pgspan on proxy.ini"
	"$PGSPAN" --check proxy.ini >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; give_up "proxy.ini has mistakes"; }
	"$PGSPAN" proxy.ini >"$scratch/pgspan.log" 2>&1 &
	proxy_pid=$!
	local i
	for ((i = 0; i < 100; i++)); do
		(exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null && break
		kill -0 $proxy_pid 2>/dev/null || give_up "pgspan ended at start"
		sleep 0.1
	done
	expect "psql logs in with SCRAM and asks" 1 "$(via app 'SELECT 1')"
}

tour_app() {
	title "app: writes go to the primary (5501), reads to its replicas (5502, 5503)"
	via app "DROP TABLE IF EXISTS tour" >/dev/null
	via app "CREATE TABLE tour (n int PRIMARY KEY, word text)" >/dev/null
	expect "INSERT ... RETURNING inet_server_port()" 5501 \
		"$(via app "INSERT INTO tour VALUES (1, 'hello') RETURNING inet_server_port()")"
	wait_for_replicas
	local answers
	answers=$(for _ in 1 2 3 4 5 6; do via app "SELECT word || ' from ' || inet_server_port() FROM tour WHERE n = 1"; done)
	echo "six reads, each on a connection of its own:" | show
	show <<<"$answers"
	expect "servers that answered" "hello from 5502 hello from 5503" "$(sort -u <<<"$answers" | paste -sd' ')"
	expect "SELECT ... FOR UPDATE" 5501 "$(via app "SELECT inet_server_port() FROM tour WHERE n = 1 FOR UPDATE")"
}

bench_app() {
	title "app: unmodified pgbench, 32 clients"
	init app
	wait_for_replicas
	local mode port before=() total answered i
	for mode in simple extended prepared; do bench app -c 32 -M $mode; done
	wait_for_replicas
	check_sums app
	for mode in simple extended prepared; do
		for port in 5502 5503; do before[port]=$(commits $port); done
		bench app -S -c 32 -M $mode
		# A server counts up to ten seconds late for connections that fell idle.
		for ((i = 0; i < 24; i++)); do
			total=0
			for port in 5502 5503; do total=$((total + $(commits $port) - before[port])); done
			[ $total -ge "$transactions" ] && break
			sleep 0.5
		done
		for port in 5502 5503; do
			answered=$((($(commits $port) - before[port]) * 100 / (transactions > 0 ? transactions : 1)))
			if [ $answered -ge 35 ]; then
				right "replica $port answered $answered % by its own count"
			else
				wrong "replica $port answered $answered % by its own count, not at least 35 %"
			fi
		done
	done
}

tour_shop() {
	title "shop: rows live on the shard that their key's hash says (5511 ... 5514)"
	init shop
	local aid bucket port
	for aid in 0 1 42 4711 $ACCOUNTS; do
		bucket=$("$TOOL" bucket --type bigint $aid | grep -oE '[0-9]+' | tail -1)
		port=$((5511 + bucket / 4096))
		if [ "$aid" = 0 ]; then # the golden vector of shardmap.md; pgbench has no account 0
			expect "bucket of 0" 7099 "$bucket"
			continue
		fi
		expect "aid $aid is in bucket $bucket: shard" $port \
			"$(via shop "SELECT inet_server_port() FROM pgbench_accounts WHERE aid = $aid")"
		expect "   and only there" 1 \
			"$(on_shards "SELECT 1 FROM pgbench_accounts WHERE aid = $aid" | wc -l)"
	done
	table shop "SELECT count(*), min(aid), max(aid), sum(aid) FROM pgbench_accounts"
	for port in 5511 5512 5513 5514; do
		echo "shard $port holds $(direct $port shop "SELECT count(*) FROM pgbench_accounts") accounts"
	done | show
	expect "accounts through pgspan" $ACCOUNTS "$(via shop "SELECT count(*) FROM pgbench_accounts")"
	on_shards "SELECT aid FROM pgbench_accounts" >"$scratch/aids"
	expect "accounts on the shards' own disks" $ACCOUNTS "$(wc -l <"$scratch/aids")"
	expect "of them different" $ACCOUNTS "$(sort -u "$scratch/aids" | wc -l)"

	echo "what cannot be exact yet is refused:" | show
	via shop "SELECT bid, count(*) FROM pgbench_accounts GROUP BY bid" | head -4 | show
}

bench_shop() {
	title "shop: unmodified pgbench over four shards, 16 clients"
	local mode
	for mode in simple extended prepared; do bench shop -c 16 -M $mode; done
	check_sums shop
	expect "prepared transactions left" 0 "$(on_shards "SELECT gid FROM pg_prepared_xacts" | wc -l)"
}

farewell() {
	title "Connect"
	cat <<-END | show
		psql "postgresql://app:app-secret@127.0.0.1:$PORT/app"       a primary and two replicas
		psql "postgresql://app:app-secret@127.0.0.1:$PORT/shop"      four shards
	END
	title "$([ $failures -eq 0 ] && echo "Every step was right" || echo "$failures steps were WRONG")"
}

start_all
tour_app
bench_app
tour_shop
bench_shop
kill -0 $proxy_pid 2>/dev/null || wrong "pgspan ended by itself"
if [ $failures -gt 0 ]; then tail -20 "$scratch/pgspan.log" | show; fi
farewell
if [ -z "${ONCE:-}" ] || [ "$ONCE" = 0 ]; then
	echo "   Ctrl-C ends it."
	trap 'echo; exit $((failures > 0))' INT
	wait $proxy_pid
	give_up "pgspan ended by itself"
fi
end_proxy
[ "$proxy_status" -eq 0 ] || wrong "pgspan ended with exit status $proxy_status"
exit $((failures > 0))
