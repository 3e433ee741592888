// SPDX-License-Identifier: BSD-2-Clause

// lib-pq runs a small workload with the driver of that name and prints one line per check: "name: what was seen".
// tests/drivers/run compares the lines of a direct run with those of one through pgspan.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/lib/pq"
)

var appURL, shopURL = os.Getenv("APP_URL") + "?sslmode=disable", os.Getenv("SHOP_URL") + "?sslmode=disable"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// said is what a test may compare of an error: the SQLSTATE where there is one.
func said(err error) string {
	var p *pq.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &p):
		return string(p.Code)
	default:
		return err.Error()
	}
}

// check runs one with a pool of its own and a time limit, and prints what it returns.
func check(name, url string, one func(ctx context.Context, db *sql.DB) any) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	db := must(sql.Open("postgres", url))
	defer func() {
		if e := recover(); e != nil {
			fmt.Printf("%s: FAILED %v\n", name, e)
		}
		db.Close()
	}()
	done := make(chan any, 1)
	go func() {
		defer func() {
			if e := recover(); e != nil {
				done <- fmt.Sprint("FAILED ", e)
			}
		}()
		done <- one(ctx, db)
	}()
	select {
	case v := <-done:
		fmt.Printf("%s: %v\n", name, v)
	case <-time.After(20 * time.Second):
		fmt.Printf("%s: FAILED hangs\n", name)
	}
}

type queryer interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}

func row[T any](ctx context.Context, q queryer, text string, args ...any) (v T) {
	if err := q.QueryRowContext(ctx, text, args...).Scan(&v); err != nil {
		panic(err)
	}
	return v
}

func exec(ctx context.Context, q queryer, text string, args ...any) int64 {
	return must(must(q.ExecContext(ctx, text, args...)).RowsAffected())
}

func appChecks(variant, url string) {
	check("setup"+variant, url, func(ctx context.Context, db *sql.DB) any {
		exec(ctx, db, "DROP TABLE IF EXISTS drv_libpq")
		return exec(ctx, db, "CREATE TABLE drv_libpq (id int PRIMARY KEY, t text)")
	})
	check("types"+variant, url, func(ctx context.Context, db *sql.DB) any {
		var out []any
		for i := 0; i < 3; i++ {
			out = append(out, row[int64](ctx, db, "SELECT $1::int8", int64(1)<<62), row[float64](ctx, db, "SELECT $1::float8", 0.1),
				row[string](ctx, db, "SELECT $1::text", "ü\"'\\"), row[[]byte](ctx, db, "SELECT $1::bytea", []byte{0, 255}),
				row[bool](ctx, db, "SELECT $1::bool", true), row[time.Time](ctx, db, "SELECT $1::timestamptz", time.Unix(1700000000, 0)).UTC(),
				row[pq.Int64Array](ctx, db, "SELECT $1::int8[]", pq.Array([]int64{1, 2})), row[sql.NullString](ctx, db, "SELECT NULL::text"))
		}
		return out
	})
	check("transactions"+variant, url, func(ctx context.Context, db *sql.DB) any {
		tx := must(db.BeginTx(ctx, nil))
		exec(ctx, tx, "INSERT INTO drv_libpq VALUES ($1, $2)", 1, "one")
		exec(ctx, tx, "SAVEPOINT a")
		_, twice := tx.ExecContext(ctx, "INSERT INTO drv_libpq VALUES ($1, $2)", 1, "one")
		_, aborted := tx.ExecContext(ctx, "SELECT 1")
		exec(ctx, tx, "ROLLBACK TO a")
		committed := tx.Commit()
		ro := must(db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true}))
		level := row[string](ctx, ro, "SHOW transaction_isolation")
		_, refused := ro.ExecContext(ctx, "DELETE FROM drv_libpq")
		failed := ro.Commit()
		return []any{said(twice), said(aborted), said(committed), level, said(refused), said(failed), row[int](ctx, db, "SELECT count(*) FROM drv_libpq")}
	})
	check("prepared"+variant, url, func(ctx context.Context, db *sql.DB) any {
		statement := must(db.PrepareContext(ctx, "SELECT $1::int * 2"))
		defer statement.Close()
		var wg sync.WaitGroup
		var mutex sync.Mutex
		wrong := map[string]int{}
		for g := 0; g < 10; g++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; i < 50; i++ {
					var v int
					if err := statement.QueryRowContext(ctx, i).Scan(&v); err != nil || v != 2*i {
						mutex.Lock()
						wrong[fmt.Sprint(said(err), v-2*i)]++
						mutex.Unlock()
					}
				}
			}()
		}
		wg.Wait()
		_, bad := db.PrepareContext(ctx, "SELECT * FROM nowhere")
		return []any{wrong, said(bad)}
	})
	check("copy"+variant, url, func(ctx context.Context, db *sql.DB) any {
		exec(ctx, db, "TRUNCATE drv_libpq")
		copyIn := func(first, n int) error {
			tx := must(db.BeginTx(ctx, nil))
			defer tx.Rollback()
			s, err := tx.PrepareContext(ctx, pq.CopyIn("drv_libpq", "id", "t"))
			if err != nil {
				return err
			}
			for i := 0; i < n; i++ {
				if _, err = s.ExecContext(ctx, first+i, fmt.Sprint("row\t", i)); err != nil {
					return err
				}
			}
			if _, err = s.ExecContext(ctx); err != nil {
				return err
			}
			if err = s.Close(); err != nil {
				return err
			}
			return tx.Commit()
		}
		return []any{said(copyIn(0, 10000)), said(copyIn(20000, 1)), said(copyIn(9999, 1)), row[int](ctx, db, "SELECT count(*) FROM drv_libpq")}
	})
	check("errors"+variant, url, func(ctx context.Context, db *sql.DB) any {
		var seen []any
		for _, text := range []string{"SELECT nothing", "SELEKT 1", "SELECT 1/0", "INSERT INTO drv_libpq VALUES (5), (5)"} {
			_, err := db.ExecContext(ctx, text)
			seen = append(seen, said(err))
		}
		_, err := db.ExecContext(ctx, "SELECT $1::int", "not a number")
		return append(seen, err, row[int](ctx, db, "SELECT 1"))
	})
	check("cancel"+variant, url, func(ctx context.Context, db *sql.DB) any {
		var seen []any
		for i := 0; i < 3; i++ {
			short, stop := context.WithTimeout(ctx, 150*time.Millisecond)
			_, err := db.ExecContext(short, "SELECT pg_sleep(10)")
			stop()
			seen = append(seen, said(err), row[int](ctx, db, "SELECT 1"))
		}
		return seen
	})
	check("rows left in the middle"+variant, url, func(ctx context.Context, db *sql.DB) any {
		rows := must(db.QueryContext(ctx, "SELECT generate_series(1, $1::int)", 50000))
		rows.Next()
		return []any{rows.Close(), row[int](ctx, db, "SELECT 3")}
	})
	check("several results"+variant, url, func(ctx context.Context, db *sql.DB) any {
		rows := must(db.QueryContext(ctx, "SELECT 1; SELECT 2; SELECT 3"))
		defer rows.Close()
		var seen []int
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				var v int
				rows.Scan(&v)
				seen = append(seen, v)
			}
		}
		return seen
	})
	check("terminated and connected again"+variant, url, func(ctx context.Context, db *sql.DB) any {
		tx := must(db.BeginTx(ctx, nil))
		_, err := tx.ExecContext(ctx, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)")
		tx.Rollback()
		return []any{said(err), row[int](ctx, db, "SELECT 1")}
	})
}

func main() {
	appChecks("", appURL)
	appChecks(", binary_parameters", appURL+"&binary_parameters=yes")
	check("settings", appURL+"&application_name=mine&statement_timeout=12345&work_mem=7MB", func(ctx context.Context, db *sql.DB) any {
		seen := map[string]int{}
		for i := 0; i < 30; i++ {
			seen[row[string](ctx, db, "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')")]++
		}
		return seen
	})
	check("listen", appURL, func(ctx context.Context, db *sql.DB) any {
		l := pq.NewListener(appURL, 10*time.Millisecond, time.Second, nil)
		defer l.Close()
		err := l.Listen("drv_libpq")
		var seen []string
		for i := 0; i < 3; i++ {
			exec(ctx, db, "SELECT pg_notify('drv_libpq', $1)", fmt.Sprint("n", i))
		}
		for len(seen) < 3 {
			select {
			case n := <-l.Notify:
				if n != nil {
					seen = append(seen, n.Extra)
				}
			case <-ctx.Done():
				panic(fmt.Sprint("only ", seen))
			}
		}
		return []any{said(err), seen, said(l.Ping()), said(l.UnlistenAll())}
	})
	check("shop", shopURL, func(ctx context.Context, db *sql.DB) any {
		exec(ctx, db, "DROP TABLE IF EXISTS drv_orders")
		exec(ctx, db, "CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))")
		for i := 0; i < 60; i++ {
			exec(ctx, db, "INSERT INTO drv_orders VALUES ($1, $2, $3)", i, 0, fmt.Sprint("o", i))
		}
		var seen []any
		for i := 0; i < 60; i++ {
			seen = append(seen, row[string](ctx, db, "SELECT what FROM drv_orders WHERE customer = $1", i))
		}
		tx := must(db.BeginTx(ctx, nil))
		for i := 0; i < 20; i++ {
			exec(ctx, tx, "UPDATE drv_orders SET what = 'tx' WHERE customer = $1", i)
		}
		seen = append(seen, said(tx.Commit()))
		_, twice := db.ExecContext(ctx, "INSERT INTO drv_orders VALUES ($1, $2, $3)", 5, 0, "twice")
		return append(seen, said(twice), row[int](ctx, db, "SELECT count(*) FROM drv_orders WHERE what = 'tx'"))
	})
}
