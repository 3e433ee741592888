// SPDX-License-Identifier: BSD-2-Clause

//! sqlx: a small workload that prints one line per check, "name: what was seen". The driver keeps a cache of prepared
//! statements for each connection. tests/drivers/run compares a direct run with one through pgspan.

use futures_util::{future, TryStreamExt};
use sqlx::{postgres::*, query, query_as, query_scalar, Connection, Executor, PgConnection, Row};
use std::{env, error::Error, future::Future, time::Duration};

type Seen = Result<String, Box<dyn Error>>;

/// What a test may compare of an error: the SQLSTATE where there is one.
fn said<T>(r: Result<T, sqlx::Error>) -> String {
    match r {
        Ok(_) => "ok".into(),
        Err(sqlx::Error::Database(e)) => e.code().unwrap_or_default().into_owned(),
        Err(e) => e.to_string(),
    }
}

/// Runs one check with a connection of its own and a time limit.
async fn check<F: Future<Output = Seen>>(name: &str, url: &str, one: impl FnOnce(PgConnection) -> F) {
    let work = async { one(PgConnection::connect(url).await?).await };
    match tokio::time::timeout(Duration::from_secs(15), work).await {
        Ok(Ok(seen)) => println!("{name}: {seen}"),
        Ok(Err(e)) => println!("{name}: FAILED {e}"),
        Err(_) => println!("{name}: FAILED hangs"),
    }
}

async fn app_checks(url: &str) {
    check("setup", url, |mut c| async move {
        c.execute("DROP TABLE IF EXISTS drv_sqlx; CREATE TABLE drv_sqlx (id int PRIMARY KEY, t text)").await?;
        Ok("ok".into())
    })
    .await;
    check("types", url, |mut c| async move {
        let mut seen = vec![];
        for _ in 0..3 {
            let r = query("SELECT $1::int8, $2::float8, $3::text, $4::bytea, $5::bool, $6::int4[], $7::jsonb, NULL::text")
                .bind(1i64 << 62).bind(0.1f64).bind("ü\"'\\").bind(vec![0u8, 255]).bind(true).bind(vec![1i32, 2])
                .bind(sqlx::types::Json(vec!["a"])).fetch_one(&mut c).await?;
            seen.push(format!("{:?}", (
                r.get::<i64, _>(0), r.get::<f64, _>(1), r.get::<String, _>(2), r.get::<Vec<u8>, _>(3), r.get::<bool, _>(4),
                r.get::<Vec<i32>, _>(5), r.get::<sqlx::types::Json<Vec<String>>, _>(6).0, r.get::<Option<String>, _>(7),
            )));
        }
        Ok(seen.join(" "))
    })
    .await;
    check("statement cache", &format!("{url}?statement-cache-capacity=3"), |mut c| async move {
        let mut sum = 0;
        for i in 0..50 {
            sum += query_scalar::<_, i32>(&format!("SELECT $1::int + {}", i % 5)).bind(i).fetch_one(&mut c).await?;
        }
        let cached = c.cached_statements_size();
        c.clear_cached_statements().await?;
        sum += query_scalar::<_, i32>("SELECT $1::int + 1").bind(1).fetch_one(&mut c).await?;
        Ok(format!("{sum} {cached}"))
    })
    .await;
    check("not persistent", url, |mut c| async move {
        let mut sum = 0;
        for i in 0..20 {
            sum += query_scalar::<_, i32>("SELECT $1::int").bind(i).persistent(false).fetch_one(&mut c).await?;
        }
        Ok(sum.to_string())
    })
    .await;
    check("transactions", url, |mut c| async move {
        let mut tx = c.begin().await?;
        query("INSERT INTO drv_sqlx VALUES ($1, $2)").bind(1).bind("one").execute(&mut *tx).await?;
        let mut sp = tx.begin().await?;
        let twice = said(query("INSERT INTO drv_sqlx VALUES ($1, $2)").bind(1).bind("twice").execute(&mut *sp).await);
        sp.rollback().await?;
        let inside: i64 = query_scalar("SELECT count(*) FROM drv_sqlx").fetch_one(&mut *tx).await?;
        tx.commit().await?;
        let mut tx = c.begin().await?;
        query("DELETE FROM drv_sqlx").execute(&mut *tx).await?;
        drop(tx); // rolled back with the connection's next use
        let after: i64 = query_scalar("SELECT count(*) FROM drv_sqlx").fetch_one(&mut c).await?;
        Ok(format!("{twice} {inside} {after}"))
    })
    .await;
    check("batch of rows", url, |mut c| async move {
        query("TRUNCATE drv_sqlx").execute(&mut c).await?;
        let n = query("INSERT INTO drv_sqlx SELECT * FROM unnest($1::int[], $2::text[])")
            .bind((0..500).collect::<Vec<i32>>()).bind((0..500).map(|i| format!("r{i}")).collect::<Vec<_>>()).execute(&mut c).await?;
        let mut rows = query_as::<_, (i32, String)>("SELECT id, t FROM drv_sqlx WHERE id >= $1 ORDER BY id").bind(100).fetch(&mut c);
        let (mut sum, mut seen) = (0, 0);
        while let Some((id, _)) = rows.try_next().await? {
            sum += id;
            seen += 1;
            if seen == 50 {
                break;
            }
        }
        drop(rows);
        Ok(format!("{} {sum} {}", n.rows_affected(), query_scalar::<_, i32>("SELECT 3").fetch_one(&mut c).await?))
    })
    .await;
    check("several statements", url, |mut c| async move {
        let rows = c.fetch_all(sqlx::raw_sql("SELECT 1; SET work_mem = '2MB'; SELECT 2")).await?;
        Ok(format!("{} {}", rows.len(), said(c.execute("SELECT 1; SELECT 1/0; SELECT 2").await)))
    })
    .await;
    check("copy", url, |mut c| async move {
        query("TRUNCATE drv_sqlx").execute(&mut c).await?;
        let mut into = c.copy_in_raw("COPY drv_sqlx FROM STDIN").await?;
        for i in 0..5000 {
            into.send(format!("{i}\trow {i}\n").into_bytes()).await?;
        }
        let n = into.finish().await?;
        let out: Vec<_> = c.copy_out_raw("COPY (SELECT * FROM drv_sqlx ORDER BY id) TO STDOUT").await?.try_collect().await?;
        let mut into = c.copy_in_raw("COPY drv_sqlx FROM STDIN").await?;
        into.send(&b"7000\tx\n"[..]).await?;
        into.abort("enough").await?;
        let mut into = c.copy_in_raw("COPY drv_sqlx FROM STDIN").await?;
        into.send(&b"1\tx\n"[..]).await?;
        let twice = said(into.finish().await);
        let left: i64 = query_scalar("SELECT count(*) FROM drv_sqlx").fetch_one(&mut c).await?;
        Ok(format!("{n} {} {twice} {left}", out.iter().map(|b| b.len()).sum::<usize>()))
    })
    .await;
    check("listen", url, |mut c| async move {
        let mut listener = PgListener::connect(url).await?;
        listener.listen_all(["drv_sqlx", "drv_sqlx_2"]).await?;
        for i in 0..3 {
            query("SELECT pg_notify('drv_sqlx', $1)").bind(format!("n{i}")).execute(&mut c).await?;
        }
        let mut seen = vec![];
        while seen.len() < 3 {
            seen.push(listener.recv().await?.payload().to_string());
        }
        listener.unlisten_all().await?;
        Ok(seen.join(" "))
    })
    .await;
    check("errors", url, |mut c| async move {
        let mut seen = vec![];
        for sql in ["SELECT nothing", "SELEKT 1", "SELECT 1/0", "INSERT INTO drv_sqlx VALUES (1), (1)", "SELECT 'x'::text::int"] {
            seen.push(said(query(sql).execute(&mut c).await));
        }
        Ok(format!("{} {}", seen.join(" "), said(query("SELECT 1").execute(&mut c).await)))
    })
    .await;
    check("describe", url, |mut c| async move {
        let d = c.describe("SELECT id, t, $1::int FROM drv_sqlx").await?;
        Ok(format!("{:?} {:?}", d.columns().iter().map(|c| format!("{c:?}").contains("drv")).collect::<Vec<_>>(), d.columns().len()))
    })
    .await;
    check("settings", &format!("{url}?application_name=mine&options=-c%20statement_timeout%3D12345"), |mut c| async move {
        query("SET work_mem = '7MB'").execute(&mut c).await?;
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..30 {
            let sql = "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')";
            *seen.entry(query_scalar::<_, String>(sql).fetch_one(&mut c).await?).or_insert(0) += 1;
        }
        Ok(format!("{seen:?}"))
    })
    .await;
    check("statement after ddl", url, |mut c| async move {
        c.execute("DROP TABLE IF EXISTS drv_sqlx_ddl; CREATE TABLE drv_sqlx_ddl (a int); INSERT INTO drv_sqlx_ddl VALUES (1)").await?;
        let mut seen = vec![];
        for step in ["", "ALTER TABLE drv_sqlx_ddl ADD b int DEFAULT 2", ""] {
            c.execute(step).await?;
            let got = query("SELECT * FROM drv_sqlx_ddl").fetch_one(&mut c).await;
            seen.push(got.as_ref().map(|r| r.len().to_string()).unwrap_or_default() + &said(got));
        }
        c.execute("DROP TABLE drv_sqlx_ddl").await?;
        Ok(seen.join(" "))
    })
    .await;
    check("pool of many clients", url, |_c| async move {
        let pool = PgPoolOptions::new().max_connections(12).connect(url).await?;
        let all = future::join_all((0..300).map(|i| {
            let pool = pool.clone();
            async move {
                let sql = format!("SELECT $1::int * {}", i % 7);
                query_scalar::<_, i32>(&sql).bind(i).fetch_one(&pool).await.is_ok_and(|v| v == i * (i % 7))
            }
        }))
        .await;
        pool.close().await;
        Ok(format!("{}", all.iter().filter(|ok| **ok).count()))
    })
    .await;
    check("cancelled by a timeout", &format!("{url}?options=-c%20statement_timeout%3D200"), |mut c| async move {
        Ok(format!("{} {}", said(query("SELECT pg_sleep(10)").execute(&mut c).await), said(query("SELECT 1").execute(&mut c).await)))
    })
    .await;
    check("terminated and connected again", url, |mut c| async move {
        let mut tx = c.begin().await?;
        let gone = said(query("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)").execute(&mut *tx).await);
        let mut again = PgConnection::connect(url).await?;
        Ok(format!("{gone} {}", said(query("SELECT 1").execute(&mut again).await)))
    })
    .await;
}

async fn shop_checks(url: &str) {
    check("shop", url, |mut c| async move {
        c.execute("DROP TABLE IF EXISTS drv_orders").await?;
        c.execute("CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))").await?;
        for k in 0..60i64 {
            query("INSERT INTO drv_orders VALUES ($1, 0, $2)").bind(k).bind(format!("o{k}")).execute(&mut c).await?;
        }
        let mut all = vec![];
        for k in 0..60i64 {
            all.push(query_scalar::<_, String>("SELECT what FROM drv_orders WHERE customer = $1").bind(k).fetch_one(&mut c).await?);
        }
        let mut tx = c.begin().await?;
        for k in 0..20i64 {
            query("UPDATE drv_orders SET what = 'tx' WHERE customer = $1").bind(k).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        let n: i64 = query_scalar("SELECT count(*) FROM drv_orders WHERE what = 'tx'").fetch_one(&mut c).await?;
        let twice = said(query("INSERT INTO drv_orders VALUES ($1, 0, $2)").bind(5i64).bind("twice").execute(&mut c).await);
        let last: Vec<i64> = query_scalar("SELECT customer FROM drv_orders ORDER BY customer DESC LIMIT $1").bind(5i64).fetch_all(&mut c).await?;
        Ok(format!("{} {n} {twice} {last:?}", all.join(" ")))
    })
    .await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    app_checks(&env::var("APP_URL").expect("APP_URL")).await;
    shop_checks(&env::var("SHOP_URL").expect("SHOP_URL")).await;
}
