// SPDX-License-Identifier: BSD-2-Clause

// pgx runs a small workload with the driver of that name and prints one line per check: "name: what was seen".
// tests/drivers/run compares the lines of a direct run with those of one through pgspan.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

var appURL, shopURL = os.Getenv("APP_URL"), os.Getenv("SHOP_URL")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func connect(ctx context.Context, url string) *pgx.Conn { return must(pgx.Connect(ctx, url)) }

// said is what a test may compare of an error: the SQLSTATE where there is one.
func said(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &pg):
		return pg.Code
	default:
		return err.Error()
	}
}

// check runs one with a connection of its own and a time limit, and prints what it returns.
func check(name, url string, one func(ctx context.Context, c *pgx.Conn) any) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	defer func() {
		if e := recover(); e != nil {
			fmt.Printf("%s: FAILED %v\n", name, e)
		}
	}()
	c := connect(ctx, url)
	defer c.Close(ctx)
	fmt.Printf("%s: %v\n", name, one(ctx, c))
}

func row[T any](ctx context.Context, c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, args ...any) (v T) {
	if err := c.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		panic(err)
	}
	return v
}

func exec(ctx context.Context, c *pgx.Conn, sql string, args ...any) string {
	return must(c.Exec(ctx, sql, args...)).String()
}

func appChecks() {
	check("setup", appURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "DROP TABLE IF EXISTS drv_pgx")
		return exec(ctx, c, "CREATE TABLE drv_pgx (id int PRIMARY KEY, t text, n numeric)")
	})
	check("types", appURL, func(ctx context.Context, c *pgx.Conn) any {
		var out []any
		for i := 0; i < 3; i++ {
			out = append(out, row[int64](ctx, c, "SELECT $1::int8", int64(1)<<62), row[float64](ctx, c, "SELECT $1::float8", 0.1),
				row[string](ctx, c, "SELECT $1::text", "ü\"'\\"), row[[]byte](ctx, c, "SELECT $1::bytea", []byte{0, 255}),
				row[bool](ctx, c, "SELECT $1::bool", true), row[[]int32](ctx, c, "SELECT $1::int4[]", []int32{1, 2, 3}),
				row[time.Time](ctx, c, "SELECT $1::timestamptz", time.Unix(1700000000, 0)).UTC(),
				row[map[string]any](ctx, c, "SELECT $1::jsonb", map[string]any{"a": 1}), row[*string](ctx, c, "SELECT NULL::text") == nil)
		}
		return out
	})
	for mode, name := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		check("mode "+name, appURL+"?default_query_exec_mode="+name, func(ctx context.Context, c *pgx.Conn) any {
			sum := int32(0)
			for i := 0; i < 30; i++ {
				sum += row[int32](ctx, c, fmt.Sprintf("SELECT $1::int + %d", i%7), int32(i))
			}
			return []any{mode, sum}
		})
	}
	check("transactions", appURL, func(ctx context.Context, c *pgx.Conn) any {
		tx := must(c.Begin(ctx))
		must(tx.Exec(ctx, "INSERT INTO drv_pgx VALUES ($1, $2)", 1, "one"))
		nested := must(tx.Begin(ctx))
		_, err := nested.Exec(ctx, "INSERT INTO drv_pgx VALUES ($1, $2)", 1, "twice")
		nested.Rollback(ctx)
		inside := row[int](ctx, tx, "SELECT count(*) FROM drv_pgx")
		tx.Commit(ctx)
		failed := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			must(tx.Exec(ctx, "DELETE FROM drv_pgx"))
			return errors.New("undo")
		})
		ro := must(c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}))
		level := row[string](ctx, ro, "SHOW transaction_isolation")
		_, refused := ro.Exec(ctx, "DELETE FROM drv_pgx")
		ro.Rollback(ctx)
		return []any{said(err), inside, failed, level, said(refused), row[int](ctx, c, "SELECT count(*) FROM drv_pgx")}
	})
	check("batch", appURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "TRUNCATE drv_pgx")
		b := &pgx.Batch{}
		for i := 0; i < 200; i++ {
			b.Queue("INSERT INTO drv_pgx VALUES ($1, $2)", i, "b")
			b.Queue("SELECT $1::int * 2", i)
		}
		r, sum, n := c.SendBatch(ctx, b), 0, int64(0)
		for i := 0; i < 200; i++ {
			n += must(r.Exec()).RowsAffected()
			var v int
			if err := r.QueryRow().Scan(&v); err != nil {
				panic(err)
			}
			sum += v
		}
		return []any{n, sum, r.Close(), row[int](ctx, c, "SELECT count(*) FROM drv_pgx")}
	})
	check("batch with error", appURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "TRUNCATE drv_pgx")
		var all []any
		for _, id := range []int{1, 0} {
			b := &pgx.Batch{}
			b.Queue("INSERT INTO drv_pgx VALUES ($1, 'x')", 1)
			b.Queue("SELECT 1 / $1::int", id)
			b.Queue("INSERT INTO drv_pgx VALUES ($1, 'x')", 2)
			all = append(all, said(c.SendBatch(ctx, b).Close()), row[int](ctx, c, "SELECT count(*) FROM drv_pgx"))
			exec(ctx, c, "TRUNCATE drv_pgx")
		}
		return all
	})
	check("batch of unknown statement", appURL, func(ctx context.Context, c *pgx.Conn) any {
		b := &pgx.Batch{}
		b.Queue("SELECT $1::int", 1)
		b.Queue("SELECT nothing FROM nowhere")
		return []any{said(c.SendBatch(ctx, b).Close()), row[int](ctx, c, "SELECT 1")}
	})
	check("pipeline", appURL, func(ctx context.Context, c *pgx.Conn) any {
		p := c.PgConn().StartPipeline(ctx)
		p.SendPrepare("s1", "SELECT $1::int + 1", nil)
		for i := 0; i < 20; i++ {
			p.SendQueryPrepared("s1", [][]byte{[]byte(fmt.Sprint(i))}, nil, nil)
			p.SendQueryParams("SELECT $1::text", [][]byte{[]byte("x")}, nil, nil, nil)
			if i == 10 {
				p.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
			}
			p.SendPipelineSync()
		}
		p.SendDeallocate("s1")
		p.SendPipelineSync()
		p.Flush()
		var seen []string
		for {
			r, err := p.GetResults()
			if err != nil {
				seen = append(seen, said(err))
				continue
			}
			if r == nil {
				break
			}
			switch r := r.(type) {
			case *pgconn.ResultReader:
				got := r.Read()
				if got.Err != nil {
					seen = append(seen, said(got.Err))
				} else {
					seen = append(seen, string(got.Rows[0][0]))
				}
			case *pgconn.StatementDescription:
				seen = append(seen, "described")
			case *pgconn.PipelineSync:
				seen = append(seen, "sync")
			default:
				seen = append(seen, "closed")
			}
		}
		return []any{strings.Join(seen, " "), said(p.Close())}
	})
	check("copy", appURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "TRUNCATE drv_pgx")
		n, err := c.CopyFrom(ctx, pgx.Identifier{"drv_pgx"}, []string{"id", "t"}, pgx.CopyFromSlice(10000, func(i int) ([]any, error) {
			return []any{i, fmt.Sprint("row\t", i)}, nil
		}))
		var out bytes.Buffer
		tag := must(c.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM drv_pgx ORDER BY id) TO STDOUT"))
		_, twice := c.CopyFrom(ctx, pgx.Identifier{"drv_pgx"}, []string{"id", "t"}, pgx.CopyFromRows([][]any{{1, "x"}}))
		_, broken := c.CopyFrom(ctx, pgx.Identifier{"drv_pgx"}, []string{"id", "t"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) {
			if i == 4000 {
				return nil, errors.New("source broke")
			}
			return []any{i + 20000, "x"}, nil
		}))
		return []any{n, err, tag, out.Len(), said(twice), said(broken), row[int](ctx, c, "SELECT count(*) FROM drv_pgx")}
	})
	check("listen", appURL, func(ctx context.Context, c *pgx.Conn) any {
		other := connect(ctx, appURL)
		defer other.Close(ctx)
		exec(ctx, c, "LISTEN drv_pgx")
		go func() {
			for i := 0; i < 3; i++ {
				time.Sleep(20 * time.Millisecond)
				other.Exec(ctx, "SELECT pg_notify('drv_pgx', $1)", fmt.Sprint("n", i))
			}
		}()
		var seen []string
		for len(seen) < 3 {
			seen = append(seen, must(c.WaitForNotification(ctx)).Payload)
		}
		return []any{seen, exec(ctx, c, "UNLISTEN drv_pgx")}
	})
	check("errors", appURL, func(ctx context.Context, c *pgx.Conn) any {
		var seen []any
		for _, sql := range []string{"SELECT nothing", "SELEKT 1", "SELECT 1/$1::int", "INSERT INTO drv_pgx VALUES (1), ($1)", "SELECT $1::int"} {
			var args []any
			if strings.Contains(sql, "$1") {
				args = append(args, 0)
			}
			_, err := c.Exec(ctx, sql, args...)
			seen = append(seen, said(err))
		}
		_, err := c.Exec(ctx, "SELECT $1::text::int", "not a number")
		return append(seen, err)
	})
	check("cancel", appURL, func(ctx context.Context, c *pgx.Conn) any {
		var seen []any
		for i := 0; i < 3; i++ {
			one := connect(ctx, appURL)
			time.AfterFunc(150*time.Millisecond, func() { one.PgConn().CancelRequest(ctx) })
			_, err := one.Exec(ctx, "SELECT pg_sleep($1)", 10)
			seen = append(seen, said(err), row[int](ctx, one, "SELECT 5"))
			one.Close(ctx)
		}
		short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		defer stop()
		_, err := c.Exec(short, "SELECT pg_sleep(10)")
		return append(seen, pgconn.Timeout(err), c.IsClosed())
	})
	check("settings", appURL+"?application_name=mine&statement_timeout=12345", func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "SET work_mem = '7MB'")
		seen := map[string]int{}
		for i := 0; i < 30; i++ {
			seen[row[string](ctx, c, "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')")]++
		}
		return seen
	})
	check("prepare", appURL, func(ctx context.Context, c *pgx.Conn) any {
		d := must(c.Prepare(ctx, "mine", "SELECT $1::int AS a, $2::text AS b"))
		sum := 0
		for i := 0; i < 20; i++ {
			var b string
			var a int
			if err := c.QueryRow(ctx, "mine", i, "x").Scan(&a, &b); err != nil {
				panic(err)
			}
			sum += a
		}
		gone := c.Deallocate(ctx, "mine")
		_, err := c.Prepare(ctx, "bad", "SELECT * FROM nowhere")
		_, again := c.Prepare(ctx, "bad", "SELECT 1")
		return []any{d.ParamOIDs, len(d.Fields), sum, gone, said(err), said(again), said(c.DeallocateAll(ctx)), row[int](ctx, c, "SELECT 1")}
	})
	check("rows left in the middle", appURL, func(ctx context.Context, c *pgx.Conn) any {
		rows := must(c.Query(ctx, "SELECT generate_series(1, $1::int)", 100000))
		rows.Next()
		rows.Close()
		return []any{rows.Err(), row[int](ctx, c, "SELECT 3")}
	})
	check("many statements in one string", appURL, func(ctx context.Context, c *pgx.Conn) any {
		got, err := c.PgConn().Exec(ctx, "SELECT 1; TRUNCATE drv_pgx; INSERT INTO drv_pgx VALUES (1); SELECT 2, 3; SELECT 1/0; SELECT 4").ReadAll()
		return []any{len(got), said(err), row[int](ctx, c, "SELECT count(*) FROM drv_pgx WHERE id = 1")}
	})
	check("statement after ddl", appURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "DROP TABLE IF EXISTS drv_pgx_ddl")
		exec(ctx, c, "CREATE TABLE drv_pgx_ddl (a int)")
		var seen []any
		for i := 0; i < 2; i++ {
			_, err := c.Exec(ctx, "SELECT * FROM drv_pgx_ddl")
			seen = append(seen, said(err))
		}
		exec(ctx, c, "ALTER TABLE drv_pgx_ddl ADD b int")
		for i := 0; i < 3; i++ {
			_, err := c.Exec(ctx, "SELECT * FROM drv_pgx_ddl")
			seen = append(seen, said(err))
		}
		return append(seen, exec(ctx, c, "DROP TABLE drv_pgx_ddl"))
	})
	check("many clients", appURL, func(ctx context.Context, c *pgx.Conn) any {
		pool := must(pgxpool.New(ctx, appURL+"?pool_max_conns=12"))
		defer pool.Close()
		var wg sync.WaitGroup
		var mutex sync.Mutex
		wrong := map[string]int{}
		for g := 0; g < 24; g++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; i < 40; i++ {
					var v int
					err := pool.QueryRow(ctx, fmt.Sprintf("SELECT $1::int * %d", (g+i)%9), i).Scan(&v)
					if err != nil || v != i*((g+i)%9) {
						mutex.Lock()
						wrong[said(err)]++
						mutex.Unlock()
					}
				}
			}()
		}
		wg.Wait()
		return wrong
	})
	check("terminated and connected again", appURL, func(ctx context.Context, c *pgx.Conn) any {
		tx := must(c.Begin(ctx))
		_, err := tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)")
		again := connect(ctx, appURL)
		defer again.Close(ctx)
		return []any{said(err), row[int](ctx, again, "SELECT 1")}
	})
}

func shopChecks() {
	check("shop setup", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		exec(ctx, c, "DROP TABLE IF EXISTS drv_orders")
		return exec(ctx, c, "CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))")
	})
	check("shop insert", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		n := int64(0)
		for i := 0; i < 60; i++ {
			n += must(c.Exec(ctx, "INSERT INTO drv_orders VALUES ($1, $2, $3)", int64(i), 0, fmt.Sprint("o", i))).RowsAffected()
		}
		return []any{n, row[int](ctx, c, "SELECT count(*) FROM drv_orders")}
	})
	check("shop by key", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		var seen []string
		for i := 0; i < 60; i++ {
			seen = append(seen, row[string](ctx, c, "SELECT what FROM drv_orders WHERE customer = $1", int64(i)))
		}
		return seen
	})
	check("shop batch", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		b := &pgx.Batch{}
		for i := 0; i < 60; i++ {
			b.Queue("INSERT INTO drv_orders VALUES ($1, $2, $3)", int64(i), 1, "batch")
			b.Queue("UPDATE drv_orders SET what = 'u' WHERE customer = $1 AND no = $2", int64(i), 0)
		}
		return []any{said(c.SendBatch(ctx, b).Close()), row[int](ctx, c, "SELECT count(*) FROM drv_orders"),
			row[int](ctx, c, "SELECT count(*) FROM drv_orders WHERE what = 'u'")}
	})
	check("shop batch with error", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		b := &pgx.Batch{}
		b.Queue("INSERT INTO drv_orders VALUES ($1, 2, 'undone')", int64(1))
		b.Queue("INSERT INTO drv_orders VALUES ($1, 0, 'twice')", int64(2))
		return []any{said(c.SendBatch(ctx, b).Close()), row[int](ctx, c, "SELECT count(*) FROM drv_orders WHERE no = 2")}
	})
	check("shop transaction", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			for i := 0; i < 20; i++ {
				must(tx.Exec(ctx, "UPDATE drv_orders SET what = 'tx' WHERE customer = $1", int64(i)))
			}
			return nil
		})
		return []any{said(err), row[int](ctx, c, "SELECT count(*) FROM drv_orders WHERE what = 'tx' AND no = 0")}
	})
	check("shop copy", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		n, err := c.CopyFrom(ctx, pgx.Identifier{"drv_orders"}, []string{"customer", "no", "what"}, pgx.CopyFromSlice(2000, func(i int) ([]any, error) {
			return []any{int64(i + 1000), 0, "c"}, nil
		}))
		return []any{n, said(err), row[int](ctx, c, "SELECT count(*) FROM drv_orders WHERE customer >= 1000")}
	})
	check("shop rows of all", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		rows := must(c.Query(ctx, "SELECT customer FROM drv_orders WHERE no = $1 AND customer < 60 ORDER BY customer", 0))
		return must(pgx.CollectRows(rows, pgx.RowTo[int64]))
	})
	check("shop errors", shopURL, func(ctx context.Context, c *pgx.Conn) any {
		_, twice := c.Exec(ctx, "INSERT INTO drv_orders VALUES ($1, $2, '')", int64(5), 0)
		_, unknown := c.Exec(ctx, "SELECT nothing FROM drv_orders WHERE customer = $1", int64(5))
		return []any{said(twice), said(unknown), row[int](ctx, c, "SELECT 1")}
	})
}

func main() {
	appChecks()
	shopChecks()
}
