// SPDX-License-Identifier: BSD-2-Clause
//
// postgres.js: a small workload that prints one line per check, "name: what was seen". The driver pipelines of its own
// accord and prepares every statement. tests/drivers/run compares the lines of a direct run with those through pgspan.
import postgres from 'postgres'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const { APP_URL, SHOP_URL } = process.env
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const said = (promise) => promise.then(() => 'ok', (e) => e.code || e.message)

async function check(name, url, options, one) {
  const notices = []
  const sql = postgres(url, { max: 1, onnotice: (n) => notices.push(n.message), ...options })
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('hangs')), 15000) })
  try {
    console.log(`${name}: ${JSON.stringify(await Promise.race([one(sql, notices), late]))}`)
  } catch (e) {
    console.log(`${name}: FAILED ${e.message}`)
  } finally {
    clearTimeout(timer)
    await sql.end({ timeout: 1 })
  }
}

async function appChecks() {
  await check('setup', APP_URL, {}, async (sql) => {
    await sql`DROP TABLE IF EXISTS drv_pjs`
    return (await sql`CREATE TABLE drv_pjs (id int PRIMARY KEY, t text)`).command
  })
  await check('types', APP_URL, {}, async (sql) => {
    const seen = []
    for (let i = 0; i < 3; i++) {
      seen.push(...await sql`SELECT ${5}::int a, ${'4611686018427387904'}::int8 b, ${0.1}::float8 c, ${'ü"\'\\'}::text d, ${true}::bool e,
        ${Buffer.from([0, 255])}::bytea f, ${new Date(1700000000000)}::timestamptz g, ${sql.json({ a: [1] })}::jsonb h, ${[1, 2]}::int[] i, ${null}::text j`)
    }
    return seen
  })
  for (const max_pipeline of [1, 100]) {
    await check(`pipelined ${max_pipeline}`, APP_URL, { max_pipeline }, async (sql) => {
      const all = await Promise.all(Array.from({ length: 300 }, (_, i) => sql`SELECT ${i}::int AS v`))
      const mixed = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => sql`SELECT 10 / ${i % 6}::int AS v`))
      return [all.reduce((a, r) => a + r[0].v, 0), mixed.map((r) => (r.status === 'fulfilled' ? r.value[0].v : r.reason.code))]
    })
  }
  await check('many clients', APP_URL, { max: 12 }, async (sql) => {
    const wrong = {}
    await Promise.all(Array.from({ length: 600 }, async (_, i) => {
      const k = i % 7
      const got = await sql.unsafe(`SELECT $1::int * ${k} AS v`, [i], { prepare: true }).then((r) => r[0].v, (e) => e.code)
      if (got !== i * k) wrong[got] = (wrong[got] || 0) + 1
    }))
    return wrong
  })
  await check('not prepared', APP_URL, { prepare: false, max: 3 }, async (sql) =>
    (await Promise.all(Array.from({ length: 50 }, (_, i) => sql`SELECT ${i}::int AS v`))).reduce((a, r) => a + r[0].v, 0))
  await check('transactions', APP_URL, { max: 2 }, async (sql) => {
    const seen = []
    await sql.begin(async (tx) => {
      await tx`INSERT INTO drv_pjs VALUES (${1}, ${'one'})`
      seen.push(await said(tx.savepoint((sp) => sp`INSERT INTO drv_pjs VALUES (${1}, ${'twice'})`)))
      seen.push((await tx`SELECT count(*) FROM drv_pjs`)[0].count)
    })
    seen.push(await said(sql.begin(async (tx) => { await tx`DELETE FROM drv_pjs`; throw new Error('undo') })))
    seen.push(await said(sql.begin('read only', (tx) => tx`DELETE FROM drv_pjs`)))
    seen.push(await sql.begin((tx) => [tx`SELECT 1 AS a`, tx`SELECT count(*) FROM drv_pjs`, tx`SELECT 3 AS c`]))
    return seen
  })
  await check('insert of many rows', APP_URL, {}, async (sql) => {
    await sql`TRUNCATE drv_pjs`
    const rows = Array.from({ length: 2000 }, (_, id) => ({ id, t: `r${id}` }))
    const r = await sql`INSERT INTO drv_pjs ${sql(rows, 'id', 't')} RETURNING id`
    return [r.count, r[1999].id, (await sql`SELECT count(*) FROM drv_pjs WHERE id IN ${sql([1, 2, 3])}`)[0].count]
  })
  await check('cursor', APP_URL, {}, async (sql) => {
    const seen = []
    await sql`SELECT generate_series(1, 250) AS n`.cursor(100, (rows) => { seen.push(rows.length) })
    for await (const rows of sql`SELECT generate_series(1, 100000) AS n`.cursor(10)) { seen.push(rows[0].n); if (rows[0].n > 20) break }
    return [...seen, (await sql`SELECT 3 AS n`)[0].n]
  })
  await check('for each', APP_URL, {}, async (sql) => {
    let sum = 0
    await sql`SELECT generate_series(1, 5000) AS n`.forEach((r) => { sum += r.n })
    return sum
  })
  await check('copy in', APP_URL, {}, async (sql) => {
    await sql`TRUNCATE drv_pjs`
    const into = await sql`COPY drv_pjs FROM STDIN`.writable()
    await pipeline(Readable.from([Array.from({ length: 5000 }, (_, i) => `${i}\trow ${i}\n`).join('')]), into) // many small chunks hang the driver at times
    return (await sql`SELECT count(*) FROM drv_pjs`)[0].count
  })
  await check('copy out', APP_URL, {}, async (sql) => { // the driver's last statement: the next hangs at times, directly too
    let bytes = 0
    for await (const chunk of await sql`COPY (SELECT * FROM drv_pjs ORDER BY id) TO STDOUT`.readable()) bytes += chunk.length
    return bytes
  })
  await check('listen', APP_URL, { max: 2 }, async (sql) => {
    const seen = []
    const { unlisten } = await sql.listen('drv_pjs', (v) => seen.push(v))
    for (let i = 0; i < 3; i++) await sql.notify('drv_pjs', `n${i}`)
    for (let i = 0; i < 100 && seen.length < 3; i++) await sleep(50)
    await unlisten()
    return seen
  })
  await check('notices', APP_URL, {}, async (sql, notices) => {
    await sql.unsafe("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    return notices
  })
  await check('errors', APP_URL, {}, async (sql) => {
    const seen = []
    for (const q of [() => sql`SELECT nothing`, () => sql`SELEKT 1`, () => sql`SELECT 1/${0}::int`, () => sql`INSERT INTO drv_pjs VALUES (1)`,
      () => sql`SELECT ${'x'}::text::int`, () => sql.unsafe('SELECT 1; SELECT 1/0; SELECT 2'), () => sql`SELECT 1`]) seen.push(await said(q()))
    return seen
  })
  await check('several statements', APP_URL, {}, async (sql) => await sql.unsafe("SELECT 1 AS a; SET work_mem = '2MB'; SHOW work_mem"))
  await check('describe', APP_URL, {}, async (sql) => {
    const d = await sql`SELECT ${1}::int AS a, ${'x'}::text AS b`.describe()
    return [d.types, d.columns.map((c) => [c.name, c.type])]
  })
  await check('cancel', APP_URL, {}, async (sql) => {
    const seen = []
    for (let i = 0; i < 3; i++) {
      const query = sql`SELECT pg_sleep(10)`
      const end = said(query)
      await sleep(150)
      query.cancel()
      seen.push(await end, (await sql`SELECT 5 AS v`)[0].v)
    }
    return seen
  })
  await check('settings', APP_URL, { connection: { application_name: 'mine', statement_timeout: 12345 } }, async (sql) => {
    await sql`SET work_mem = '7MB'`
    const seen = {}
    for (let i = 0; i < 30; i++) {
      const v = (await sql`SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem') AS v`)[0].v
      seen[v] = (seen[v] || 0) + 1
    }
    return seen
  })
  await check('statement after ddl', APP_URL, {}, async (sql) => {
    const seen = []
    await sql`DROP TABLE IF EXISTS drv_pjs_ddl`
    await sql`CREATE TABLE drv_pjs_ddl (a int)`
    await sql`INSERT INTO drv_pjs_ddl VALUES (1)`
    const read = () => sql`SELECT * FROM drv_pjs_ddl`
    for (let i = 0; i < 2; i++) seen.push(await read())
    await sql`ALTER TABLE drv_pjs_ddl ADD b int DEFAULT 2`
    for (let i = 0; i < 2; i++) seen.push(await read().catch((e) => e.code))
    await sql`DROP TABLE drv_pjs_ddl`
    return seen
  })
  await check('terminated and connected again', APP_URL, {}, async (sql) => {
    const seen = await said(sql`SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)`) // in a transaction it crashes the driver; its error may come twice
    const again = () => sql`SELECT 1 AS v`.then((r) => r[0].v)
    return [seen, await again().catch(again)]
  })
}

async function shopChecks() {
  await check('shop setup', SHOP_URL, {}, async (sql) => {
    await sql`DROP TABLE IF EXISTS drv_orders`
    return (await sql`CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))`).command
  })
  await check('shop keyed', SHOP_URL, { max: 4 }, async (sql) => {
    await Promise.all(Array.from({ length: 60 }, (_, i) => sql`INSERT INTO drv_orders VALUES (${i}, 0, ${`o${i}`})`))
    const all = await Promise.all(Array.from({ length: 60 }, (_, i) => sql`SELECT what FROM drv_orders WHERE customer = ${i}`))
    await sql.begin(async (tx) => { for (let i = 0; i < 20; i++) await tx`UPDATE drv_orders SET what = 'tx' WHERE customer = ${i}` })
    return [all.map((r) => r[0]?.what), (await sql`SELECT count(*) FROM drv_orders WHERE what = 'tx'`)[0].count,
      await said(sql`INSERT INTO drv_orders VALUES (${5}, 0, 'twice')`), await sql`SELECT customer FROM drv_orders ORDER BY customer DESC LIMIT 5`]
  })
  await check('shop transaction pipelined', SHOP_URL, {}, async (sql) => {
    await sql.begin((tx) => Array.from({ length: 20 }, (_, i) => tx`UPDATE drv_orders SET what = 'pip' WHERE customer = ${i}`))
    return (await sql`SELECT count(*) FROM drv_orders WHERE what = 'pip'`)[0].count
  })
}

await appChecks()
await shopChecks()
process.exit(0)
