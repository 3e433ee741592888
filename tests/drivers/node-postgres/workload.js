// SPDX-License-Identifier: BSD-2-Clause
//
// node-postgres: a small workload that prints one line per check, "name: what was seen". tests/drivers/run compares the
// lines of a direct run with those of one through pgspan.
'use strict'
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')

const { APP_URL, SHOP_URL } = process.env
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const said = (promise) => promise.then(() => 'ok', (e) => e.code || e.message)

async function check(name, url, one) {
  const client = new Client({ connectionString: url })
  client.on('error', () => {})
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('hangs')), 15000) })
  try {
    const seen = await Promise.race([client.connect().then(() => one(client)), late])
    console.log(`${name}: ${JSON.stringify(seen)}`)
    await Promise.race([client.end(), late])
  } catch (e) {
    console.log(`${name}: FAILED ${e.message}`)
    client.connection.stream.destroy()
  } finally {
    clearTimeout(timer)
  }
}

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0]

async function appChecks() {
  await check('setup', APP_URL, async (c) => {
    await c.query('DROP TABLE IF EXISTS drv_node')
    return (await c.query('CREATE TABLE drv_node (id int PRIMARY KEY, t text)')).command
  })
  await check('types', APP_URL, async (c) => {
    const seen = []
    for (let i = 0; i < 3; i++) {
      for (const [type, v] of [['int', 5], ['int8', '4611686018427387904'], ['float8', 0.1], ['text', 'ü"\'\\'], ['bool', true],
        ['bytea', Buffer.from([0, 255])], ['timestamptz', new Date(1700000000000)], ['jsonb', { a: [1] }], ['int[]', [1, null, 3]], ['text', null]]) {
        seen.push(await value(c, `SELECT $1::${type}`, [v]))
      }
    }
    return seen
  })
  await check('named statements', APP_URL, async (c) => {
    const seen = []
    for (let i = 0; i < 30; i++) {
      seen.push((await c.query({ name: `s${i % 4}`, text: `SELECT $1::int + ${i % 4} AS a`, values: [i] })).rows[0].a)
    }
    seen.push(await said(c.query({ name: 'bad', text: 'SELECT * FROM nowhere' })))
    seen.push(await said(c.query({ name: 'bad', text: 'SELECT 1' })))
    return seen
  })
  await check('binary results', APP_URL, async (c) => (await c.query({ text: 'SELECT $1::int a, 2.5::float8 b', values: [1], binary: true })).rows)
  await check('row mode and fields', APP_URL, async (c) => {
    const r = await c.query({ text: 'SELECT 1 AS a, 2 AS a, $1::text AS b', values: ['x'], rowMode: 'array' })
    return [r.rows, r.fields.map((f) => [f.name, f.dataTypeID, f.format])]
  })
  await check('transactions', APP_URL, async (c) => {
    const seen = []
    await c.query('BEGIN')
    await c.query('INSERT INTO drv_node VALUES ($1, $2)', [1, 'one'])
    await c.query('SAVEPOINT a')
    seen.push(await said(c.query('INSERT INTO drv_node VALUES ($1, $2)', [1, 'twice'])))
    seen.push(await said(c.query('SELECT 1')))
    await c.query('ROLLBACK TO a')
    seen.push((await c.query('COMMIT')).command)
    await c.query('BEGIN')
    await said(c.query('SELECT 1/0'))
    seen.push((await c.query('COMMIT')).command)
    return [...seen, await value(c, 'SELECT count(*) FROM drv_node')]
  })
  await check('queued queries', APP_URL, async (c) => {
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => value(c, 'SELECT $1::int', [i])))
    return all.reduce((a, b) => a + b)
  })
  await check('several statements', APP_URL, async (c) => (await c.query('SELECT 1 AS a; SELECT 2 AS b; SET work_mem = \'2MB\'; SHOW work_mem')).map((r) => [r.command, r.rows]))
  await check('cursor', APP_URL, async (c) => {
    const cursor = c.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [250]))
    const seen = []
    for (let rows; (rows = await cursor.read(100)).length > 0;) seen.push(rows.length)
    await cursor.close()
    const left = c.query(new Cursor('SELECT generate_series(1, 100000)'))
    seen.push((await left.read(5)).length)
    await left.close()
    return [...seen, await value(c, 'SELECT 3')]
  })
  await check('copy', APP_URL, async (c) => {
    await c.query('TRUNCATE drv_node')
    const rows = Array.from({ length: 10000 }, (_, i) => `${i}\trow ${i}\n`)
    await pipeline(Readable.from(rows), c.query(copy.from('COPY drv_node FROM STDIN')))
    let bytes = 0
    for await (const chunk of c.query(copy.to('COPY (SELECT * FROM drv_node ORDER BY id) TO STDOUT'))) bytes += chunk.length
    const bad = await said(pipeline(Readable.from(['x\ty\n']), c.query(copy.from('COPY drv_node FROM STDIN'))))
    return [bytes, bad, await value(c, 'SELECT count(*) FROM drv_node')]
  })
  await check('copy left in the middle', APP_URL, async (c) => {
    const source = new Readable({ read() { this.push('70000\tx\n'); this.destroy(new Error('source broke')) } })
    const broken = await said(pipeline(source, c.query(copy.from('COPY drv_node FROM STDIN'))))
    return [broken, await value(c, 'SELECT count(*) FROM drv_node WHERE id = 70000')]
  })
  await check('listen', APP_URL, async (c) => {
    const seen = []
    const other = new Client({ connectionString: APP_URL })
    await other.connect()
    c.on('notification', (n) => seen.push(n.payload))
    await c.query('LISTEN drv_node')
    for (let i = 0; i < 3; i++) await other.query("SELECT pg_notify('drv_node', $1)", [`n${i}`])
    for (let i = 0; i < 100 && seen.length < 3; i++) await sleep(50)
    await c.query('UNLISTEN *')
    await other.end()
    return seen
  })
  await check('notices', APP_URL, async (c) => {
    const seen = []
    c.on('notice', (n) => seen.push(n.message))
    await c.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    return seen
  })
  await check('errors', APP_URL, async (c) => {
    const seen = []
    for (const [text, values] of [['SELECT nothing'], ['SELEKT 1'], ['SELECT 1/$1::int', [0]], ['INSERT INTO drv_node VALUES (1), ($1)', [1]],
      ['SELECT $1::int', ['x']], ['SELECT $1::int'], ['SELECT 1', [1]], ['']]) {
      seen.push(await said(c.query(text, values)))
    }
    const e = await c.query('INSERT INTO drv_node VALUES ($1)', [null]).catch((e) => e)
    return [...seen, e.message, e.table, e.column, await value(c, 'SELECT 1')]
  })
  await check('cancel', APP_URL, async (c) => {
    const seen = []
    for (let i = 0; i < 3; i++) {
      const query = said(c.query('SELECT pg_sleep(10)'))
      await sleep(150)
      const killer = new Client({ connectionString: APP_URL })
      killer.connection.on('error', () => {})
      killer.cancel(c, c._getActiveQuery ? c._getActiveQuery() : c.activeQuery)
      seen.push(await query, await value(c, 'SELECT 5'))
    }
    return seen
  })
  await check('settings', APP_URL + '?application_name=mine&statement_timeout=12345', async (c) => {
    await c.query("SET work_mem = '7MB'")
    const seen = {}
    for (let i = 0; i < 30; i++) {
      const v = await value(c, "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')")
      seen[v] = (seen[v] || 0) + 1
    }
    return seen
  })
  await check('many clients', APP_URL, async () => {
    const pool = new Pool({ connectionString: APP_URL, max: 12 })
    const wrong = {}
    await Promise.all(Array.from({ length: 400 }, async (_, i) => {
      const k = i % 7
      const got = await pool.query({ name: `k${k}`, text: `SELECT $1::int * ${k} AS v`, values: [i] }).then((r) => r.rows[0].v, (e) => e.code)
      if (got !== i * k) wrong[got] = (wrong[got] || 0) + 1
    }))
    await pool.end()
    return wrong
  })
  await check('terminated and connected again', APP_URL, async (c) => {
    const pool = new Pool({ connectionString: APP_URL, max: 1 })
    pool.on('error', () => {})
    await c.query('BEGIN')
    const seen = await said(c.query('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)'))
    const again = await value(pool, 'SELECT 1')
    await pool.end()
    return [seen, again]
  })
}

async function shopChecks() {
  await check('shop setup', SHOP_URL, async (c) => {
    await c.query('DROP TABLE IF EXISTS drv_orders')
    return (await c.query('CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))')).command
  })
  await check('shop keyed', SHOP_URL, async (c) => {
    const seen = []
    for (let i = 0; i < 60; i++) await c.query({ name: 'put', text: 'INSERT INTO drv_orders VALUES ($1, $2, $3)', values: [i, 0, `o${i}`] })
    for (let i = 0; i < 60; i++) seen.push(await value(c, 'SELECT what FROM drv_orders WHERE customer = $1', [i]))
    await c.query('BEGIN')
    for (let i = 0; i < 20; i++) await c.query('UPDATE drv_orders SET what = $2 WHERE customer = $1', [i, 'tx'])
    await c.query('COMMIT')
    seen.push(await value(c, "SELECT count(*) FROM drv_orders WHERE what = 'tx'"))
    seen.push(await said(c.query('INSERT INTO drv_orders VALUES ($1, $2, $3)', [5, 0, 'twice'])))
    seen.push((await c.query('SELECT customer FROM drv_orders ORDER BY customer DESC LIMIT 5')).rows)
    return seen
  })
  await check('shop copy', SHOP_URL, async (c) => {
    const rows = Array.from({ length: 2000 }, (_, i) => `${i + 1000}\t0\trow ${i}\n`)
    await pipeline(Readable.from(rows), c.query(copy.from('COPY drv_orders FROM STDIN')))
    return [await value(c, 'SELECT count(*) FROM drv_orders'), await value(c, 'SELECT what FROM drv_orders WHERE customer = $1', [1500])]
  })
  await check('shop cursor', SHOP_URL, async (c) => {
    const cursor = c.query(new Cursor('SELECT what FROM drv_orders WHERE customer = $1', [30]))
    const rows = await cursor.read(10)
    await cursor.close()
    return rows
  })
  await check('shop cursor over all', SHOP_URL, async (c) => {
    const cursor = c.query(new Cursor('SELECT customer FROM drv_orders WHERE no = $1 ORDER BY customer', [0]))
    const seen = []
    for (let rows; (rows = await cursor.read(500)).length > 0;) seen.push(rows.length, rows[0])
    await cursor.close()
    return seen
  })
}

appChecks().then(shopChecks).then(() => process.exit(0))
