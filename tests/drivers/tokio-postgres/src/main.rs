// SPDX-License-Identifier: BSD-2-Clause

//! tokio-postgres: a small workload that prints one line per check, "name: what was seen". The driver prepares every
//! statement and pipelines what is asked at once. tests/drivers/run compares a direct run with one through pgspan.

use futures_util::{future, pin_mut, SinkExt, StreamExt, TryStreamExt};
use std::{env, error::Error, future::Future, time::Duration};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

type Seen = Result<String, Box<dyn Error>>;

/// What a test may compare of an error: the SQLSTATE where there is one.
fn said<T>(r: Result<T, tokio_postgres::Error>) -> String {
    match r {
        Ok(_) => "ok".into(),
        Err(e) => e.code().map_or_else(|| if e.is_closed() { "closed".into() } else { e.to_string() }, |c| c.code().into()),
    }
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::task::spawn_local(connection);
    Ok(client)
}

/// Runs one check with a connection of its own and a time limit.
async fn check<F: Future<Output = Seen>>(name: &str, url: &str, one: impl FnOnce(Client) -> F) {
    let work = async { one(connect(url).await?).await };
    match tokio::time::timeout(Duration::from_secs(15), work).await {
        Ok(Ok(seen)) => println!("{name}: {seen}"),
        Ok(Err(e)) => println!("{name}: FAILED {e} {}", e.source().map_or(String::new(), |s| s.to_string())),
        Err(_) => println!("{name}: FAILED hangs"),
    }
}

async fn app_checks(url: &str) {
    check("setup", url, |c| async move {
        c.batch_execute("DROP TABLE IF EXISTS drv_tokio; CREATE TABLE drv_tokio (id int PRIMARY KEY, t text)").await?;
        Ok("ok".into())
    })
    .await;
    check("types", url, |c| async move {
        let mut seen = vec![];
        for _ in 0..3 {
            let sql = "SELECT $1::int8, $2::float8, $3::text, $4::bytea, $5::bool, $6::int4[], NULL::text";
            let r = c.query_one(sql, &[&(1i64 << 62), &0.1f64, &"ü\"'\\", &vec![0u8, 255], &true, &vec![Some(1i32), None]]).await?;
            seen.push(format!("{:?}", (
                r.get::<_, i64>(0), r.get::<_, f64>(1), r.get::<_, String>(2), r.get::<_, Vec<u8>>(3), r.get::<_, bool>(4),
                r.get::<_, Vec<Option<i32>>>(5), r.get::<_, Option<String>>(6),
            )));
        }
        Ok(seen.join(" "))
    })
    .await;
    check("pipelined", url, |c| async move {
        let s = c.prepare("SELECT $1::int * 2").await?;
        let params: Vec<i32> = (0..300).collect();
        let all = future::try_join_all(params.iter().map(|i| async { c.query_one(&s, &[i]).await.map(|r| r.get::<_, i32>(0)) })).await?;
        let ten = c.prepare("SELECT 10 / $1::int").await?;
        let mixed = future::join_all(params.iter().take(40).map(|i| {
            let (c, ten, v) = (&c, &ten, i % 4);
            async move { said(c.query_one(ten, &[&v]).await) }
        }))
        .await;
        Ok(format!("{} {}", all.iter().sum::<i32>(), mixed.join(" ")))
    })
    .await;
    check("statements prepared at once", url, |c| async move {
        let texts: Vec<String> = (0..40).map(|i| format!("SELECT {i} + $1::int")).collect();
        let all = future::try_join_all(texts.iter().map(|t| c.query_one(t.as_str(), &[&1i32]))).await?;
        let bad = future::join(c.prepare("SELECT * FROM nowhere"), c.prepare("SELECT 1")).await;
        Ok(format!("{} {} {}", all.iter().map(|r| r.get::<_, i32>(0)).sum::<i32>(), said(bad.0), said(bad.1)))
    })
    .await;
    check("transactions", url, |mut c| async move {
        let mut tx = c.transaction().await?;
        tx.execute("INSERT INTO drv_tokio VALUES ($1, $2)", &[&1i32, &"one"]).await?;
        let sp = tx.transaction().await?;
        let twice = said(sp.execute("INSERT INTO drv_tokio VALUES ($1, $2)", &[&1i32, &"twice"]).await);
        sp.rollback().await?;
        let inside: i64 = tx.query_one("SELECT count(*) FROM drv_tokio", &[]).await?.get(0);
        tx.commit().await?;
        let tx = c.transaction().await?;
        tx.execute("DELETE FROM drv_tokio", &[]).await?;
        drop(tx);
        let tx = c.build_transaction().read_only(true).isolation_level(tokio_postgres::IsolationLevel::Serializable).start().await?;
        let refused = said(tx.execute("DELETE FROM drv_tokio", &[]).await);
        tx.rollback().await?;
        let after: i64 = c.query_one("SELECT count(*) FROM drv_tokio", &[]).await?.get(0);
        Ok(format!("{twice} {inside} {refused} {after}"))
    })
    .await;
    check("portal", url, |mut c| async move {
        let tx = c.transaction().await?;
        let portal = tx.bind("SELECT generate_series(1, $1::int)", &[&25i32]).await?;
        let mut seen = vec![];
        loop {
            let rows = tx.query_portal(&portal, 10).await?;
            seen.push(rows.len());
            if rows.len() < 10 {
                break;
            }
        }
        Ok(format!("{seen:?}"))
    })
    .await;
    check("copy", url, |c| async move {
        c.execute("TRUNCATE drv_tokio", &[]).await?;
        let sink = c.copy_in("COPY drv_tokio FROM STDIN").await?;
        pin_mut!(sink);
        for i in 0..5000 {
            sink.send(std::io::Cursor::new(format!("{i}\trow {i}\n").into_bytes())).await?;
        }
        let n = sink.finish().await?;
        let out: Vec<_> = c.copy_out("COPY (SELECT * FROM drv_tokio ORDER BY id) TO STDOUT").await?.try_collect().await?;
        let sink = c.copy_in::<_, std::io::Cursor<Vec<u8>>>("COPY drv_tokio FROM STDIN").await?;
        let mut sink = Box::pin(sink);
        sink.send(std::io::Cursor::new(b"7000\tx\n".to_vec())).await?;
        drop(sink); // CopyFail
        let sink = c.copy_in("COPY drv_tokio FROM STDIN").await?;
        pin_mut!(sink);
        sink.send(std::io::Cursor::new(b"1\tx\n".to_vec())).await?;
        let twice = said(sink.finish().await);
        let left: i64 = c.query_one("SELECT count(*) FROM drv_tokio", &[]).await?.get(0);
        Ok(format!("{n} {} {twice} {left}", out.iter().map(|b| b.len()).sum::<usize>()))
    })
    .await;
    check("listen", url, |c| async move {
        let (listener, mut connection) = tokio_postgres::connect(url, NoTls).await?;
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
            while let Some(Ok(m)) = messages.next().await {
                if let AsyncMessage::Notification(n) = m {
                    let _ = tx.send(n.payload().to_string());
                }
            }
        });
        listener.batch_execute("LISTEN drv_tokio").await?;
        for i in 0..3 {
            c.execute("SELECT pg_notify('drv_tokio', $1)", &[&format!("n{i}")]).await?;
        }
        let mut seen = vec![];
        while seen.len() < 3 {
            seen.push(rx.recv().await.ok_or("closed")?);
        }
        Ok(seen.join(" "))
    })
    .await;
    check("errors", url, |c| async move {
        let mut seen = vec![];
        for sql in ["SELECT nothing", "SELEKT 1", "SELECT 1/0", "INSERT INTO drv_tokio VALUES (1), (1)", "SELECT 'x'::text::int", ""] {
            seen.push(said(c.execute(sql, &[]).await));
        }
        Ok(format!("{} {}", seen.join(" "), said(c.query_one("SELECT 1", &[]).await)))
    })
    .await;
    check("simple query", url, |c| async move {
        let all = c.simple_query("SELECT 1 AS a; SET work_mem = '2MB'; SHOW work_mem; SELECT 2").await?;
        Ok(all.iter().map(|m| match m {
            SimpleQueryMessage::Row(r) => format!("row {}", r.get(0).unwrap_or("null")),
            SimpleQueryMessage::CommandComplete(n) => format!("done {n}"),
            _ => "columns".into(),
        }).collect::<Vec<_>>().join(", "))
    })
    .await;
    check("cancel", url, |c| async move {
        let mut seen = vec![];
        for _ in 0..3 {
            let token = c.cancel_token();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(150)).await;
                let _ = token.cancel_query(NoTls).await;
            });
            seen.push(said(c.query_one("SELECT pg_sleep($1)", &[&10f64]).await));
            seen.push(said(c.query_one("SELECT 5", &[]).await));
        }
        Ok(seen.join(" "))
    })
    .await;
    check("settings", &format!("{url}?application_name=mine&options=-c%20statement_timeout%3D12345"), |c| async move {
        c.batch_execute("SET work_mem = '7MB'").await?;
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..30 {
            let sql = "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')";
            *seen.entry(c.query_one(sql, &[]).await?.get::<_, String>(0)).or_insert(0) += 1;
        }
        Ok(format!("{seen:?}"))
    })
    .await;
    check("statement after ddl", url, |c| async move {
        c.batch_execute("DROP TABLE IF EXISTS drv_tokio_ddl; CREATE TABLE drv_tokio_ddl (a int); INSERT INTO drv_tokio_ddl VALUES (1)").await?;
        let s = c.prepare("SELECT * FROM drv_tokio_ddl").await?;
        let before = c.query_one(&s, &[]).await?.len();
        c.batch_execute("ALTER TABLE drv_tokio_ddl ADD b int DEFAULT 2").await?;
        let after = said(c.query_one(&s, &[]).await);
        let anew = c.query_one("SELECT * FROM drv_tokio_ddl", &[]).await?.len();
        c.batch_execute("DROP TABLE drv_tokio_ddl").await?;
        Ok(format!("{before} {after} {anew}"))
    })
    .await;
    check("terminated and connected again", url, |c| async move {
        let gone = said(c.batch_execute("BEGIN; SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)").await);
        let again = connect(url).await?;
        Ok(format!("{gone} {}", said(again.query_one("SELECT 1", &[]).await)))
    })
    .await;
}

async fn shop_checks(url: &str) {
    check("shop setup", url, |c| async move {
        c.batch_execute("DROP TABLE IF EXISTS drv_orders").await?;
        c.batch_execute("CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))").await?;
        Ok("ok".into())
    })
    .await;
    check("shop keyed", url, |mut c| async move {
        let put = c.prepare("INSERT INTO drv_orders VALUES ($1, 0, $2)").await?;
        let get = c.prepare("SELECT what FROM drv_orders WHERE customer = $1").await?;
        let keys: Vec<i64> = (0..60).collect();
        future::try_join_all(keys.iter().map(|k| {
            let (c, put) = (&c, &put);
            async move { c.execute(put, &[k, &format!("o{k}")]).await }
        })).await?;
        let all = future::try_join_all(keys.iter().map(|k| async { c.query_one(&get, &[k]).await.map(|r| r.get::<_, String>(0)) })).await?;
        let tx = c.transaction().await?;
        for k in &keys[..20] {
            tx.execute("UPDATE drv_orders SET what = 'tx' WHERE customer = $1", &[k]).await?;
        }
        tx.commit().await?;
        let n: i64 = c.query_one("SELECT count(*) FROM drv_orders WHERE what = 'tx'", &[]).await?.get(0);
        let twice = said(c.execute(&put, &[&5i64, &"twice"]).await);
        let last = c.query("SELECT customer FROM drv_orders ORDER BY customer DESC LIMIT $1", &[&5i64]).await?;
        Ok(format!("{} {n} {twice} {:?}", all.join(" "), last.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>()))
    })
    .await;
    check("shop copy", url, |c| async move {
        let sink = c.copy_in("COPY drv_orders FROM STDIN").await?;
        pin_mut!(sink);
        for i in 0..2000 {
            sink.send(std::io::Cursor::new(format!("{}\t0\trow {i}\n", i + 1000).into_bytes())).await?;
        }
        let n = sink.finish().await?;
        let count: i64 = c.query_one("SELECT count(*) FROM drv_orders", &[]).await?.get(0);
        Ok(format!("{n} {count}"))
    })
    .await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let work = async {
        app_checks(&env::var("APP_URL").expect("APP_URL")).await;
        shop_checks(&env::var("SHOP_URL").expect("SHOP_URL")).await;
    };
    tokio::task::LocalSet::new().run_until(work).await;
}
