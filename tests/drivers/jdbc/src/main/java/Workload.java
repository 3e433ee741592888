// SPDX-License-Identifier: BSD-2-Clause

import java.io.*;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.util.PSQLException;

/**
 * JDBC: a small workload that prints one line per check, "name: what was seen", for several of the driver's settings.
 * tests/drivers/run compares the lines of a direct run with those of one through pgspan.
 */
public class Workload {
    interface Check {
        Object run(Connection c) throws Exception;
    }

    static final ExecutorService THREADS = Executors.newCachedThreadPool(r -> {
        Thread t = new Thread(r);
        t.setDaemon(true);
        return t;
    });

    static Connection connect(String url, String settings) throws SQLException {
        URI u = URI.create(url);
        String[] who = u.getUserInfo().split(":");
        return DriverManager.getConnection("jdbc:postgresql://" + u.getHost() + ":" + u.getPort() + u.getPath()
            + "?sslmode=disable&" + settings, who[0], who[1]);
    }

    static void check(String name, String url, String settings, Check one) {
        Future<Object> work = THREADS.submit(() -> {
            try (Connection c = connect(url, settings)) {
                return one.run(c);
            }
        });
        try {
            System.out.println(name + ": " + work.get(20, TimeUnit.SECONDS));
        } catch (TimeoutException e) {
            System.out.println(name + ": FAILED hangs");
        } catch (Exception e) {
            System.out.println(name + ": FAILED " + String.valueOf(e.getCause()).replace('\n', ' '));
        }
    }

    interface Act {
        void run() throws SQLException;
    }

    /** The SQLSTATE of what fails. */
    static String said(Act act) {
        try {
            act.run();
            return "ok";
        } catch (SQLException e) {
            return e.getSQLState();
        }
    }

    static Object value(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getObject(1);
            }
        }
    }

    static int exec(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            s.execute();
            return s.getUpdateCount();
        }
    }

    static void app(String url, String settings) {
        String on = " [" + settings + "]";
        check("setup" + on, url, settings, c -> {
            exec(c, "DROP TABLE IF EXISTS drv_jdbc");
            return exec(c, "CREATE TABLE drv_jdbc (id int PRIMARY KEY, t text)");
        });
        check("types" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int, ?::int8, ?::float8, ?::numeric, ?::text, ?::bytea, ?::bool, ?::date, "
                + "?::timestamp, ?::uuid, ?::int[], NULL::text")) {
                for (int i = 0; i < 8; i++) { // past prepareThreshold, and past the change to binary results
                    s.setInt(1, i);
                    s.setLong(2, 1L << 62);
                    s.setDouble(3, 0.1);
                    s.setBigDecimal(4, new java.math.BigDecimal("123456789.000000001"));
                    s.setString(5, "ü\"'\\");
                    s.setBytes(6, new byte[] {0, -1});
                    s.setBoolean(7, true);
                    s.setObject(8, java.time.LocalDate.of(2024, 2, 29));
                    s.setObject(9, java.time.LocalDateTime.of(1999, 12, 31, 23, 59, 59));
                    s.setObject(10, UUID.fromString("01234567-89ab-cdef-0123-456789abcdef"));
                    s.setArray(11, c.createArrayOf("int4", new Object[] {1, null, 3}));
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        seen.add(r.getInt(1) + " " + r.getLong(2) + " " + r.getDouble(3) + " " + r.getBigDecimal(4) + " " + r.getString(5) + " "
                            + Arrays.toString(r.getBytes(6)) + " " + r.getBoolean(7) + " " + r.getDate(8) + " " + r.getTimestamp(9) + " "
                            + r.getObject(10) + " " + r.getArray(11) + " " + r.getString(12));
                    }
                }
            }
            return seen;
        });
        check("transactions" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            c.setAutoCommit(false);
            exec(c, "INSERT INTO drv_jdbc VALUES (?, ?)", 1, "one");
            Savepoint sp = c.setSavepoint("a");
            seen.add(said(() -> exec(c, "INSERT INTO drv_jdbc VALUES (?, ?)", 1, "twice")));
            c.rollback(sp);
            seen.add(value(c, "SELECT count(*) FROM drv_jdbc"));
            c.commit();
            exec(c, "DELETE FROM drv_jdbc");
            c.rollback();
            c.setReadOnly(true);
            seen.add(value(c, "SHOW transaction_read_only"));
            seen.add(said(() -> exec(c, "DELETE FROM drv_jdbc")));
            c.rollback();
            c.setReadOnly(false);
            c.setAutoCommit(true);
            seen.add(value(c, "SELECT count(*) FROM drv_jdbc"));
            return seen;
        });
        check("failed statement in a transaction" + on, url, settings, c -> { // autosave decides what comes after
            c.setAutoCommit(false);
            exec(c, "DELETE FROM drv_jdbc");
            exec(c, "INSERT INTO drv_jdbc VALUES (?, ?)", 10, "ten");
            String first = said(() -> exec(c, "INSERT INTO drv_jdbc VALUES (?, ?)", 10, "twice"));
            String second = said(() -> exec(c, "INSERT INTO drv_jdbc VALUES (?, ?)", 11, "eleven"));
            String end = said(c::commit);
            return first + " " + second + " " + end + " " + value(c, "SELECT count(*) FROM drv_jdbc WHERE id > 9");
        });
        for (int rows : new int[] {10, 1000}) {
            check("batch of " + rows + on, url, settings, c -> {
                exec(c, "DELETE FROM drv_jdbc");
                c.setAutoCommit(false);
                int sum = 0;
                try (PreparedStatement s = c.prepareStatement("INSERT INTO drv_jdbc VALUES (?, ?)")) {
                    for (int i = 0; i < rows; i++) {
                        s.setInt(1, i);
                        s.setString(2, "r" + i);
                        s.addBatch();
                    }
                    for (int n : s.executeBatch()) sum += n > 0 ? n : 1;
                }
                c.commit();
                c.setAutoCommit(true);
                try (PreparedStatement s = c.prepareStatement("UPDATE drv_jdbc SET t = ? WHERE id = ?")) {
                    for (int i = 0; i < rows; i++) {
                        s.setString(1, "u" + i);
                        s.setInt(2, i);
                        s.addBatch();
                    }
                    for (int n : s.executeBatch()) sum += n;
                }
                return sum + " " + value(c, "SELECT count(*) FROM drv_jdbc WHERE t = 'u' || id");
            });
        }
        check("batch with an error" + on, url, settings, c -> {
            exec(c, "DELETE FROM drv_jdbc");
            List<Object> seen = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("INSERT INTO drv_jdbc VALUES (?, ?)")) {
                for (int id : new int[] {1, 2, 1, 3}) {
                    s.setInt(1, id);
                    s.setString(2, "x");
                    s.addBatch();
                }
                s.executeBatch();
            } catch (BatchUpdateException e) {
                seen.add(Arrays.toString(e.getUpdateCounts()) + e.getSQLState());
            }
            seen.add(value(c, "SELECT count(*) FROM drv_jdbc"));
            return seen;
        });
        check("batch with keys" + on, url, settings, c -> {
            exec(c, "DELETE FROM drv_jdbc");
            List<Object> seen = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("INSERT INTO drv_jdbc VALUES (?, 'k')", new String[] {"id"})) {
                for (int i = 0; i < 5; i++) {
                    s.setInt(1, i);
                    s.addBatch();
                }
                s.executeBatch();
                try (ResultSet r = s.getGeneratedKeys()) {
                    while (r.next()) seen.add(r.getInt(1));
                }
            }
            return seen;
        });
        check("fetch size" + on, url, settings, c -> {
            c.setAutoCommit(false);
            long sum = 0;
            for (int round = 0; round < 3; round++) {
                try (PreparedStatement s = c.prepareStatement("SELECT generate_series(1, ?)")) {
                    s.setFetchSize(37);
                    s.setInt(1, 500);
                    try (ResultSet r = s.executeQuery()) {
                        while (r.next()) sum += r.getInt(1);
                    }
                    try (ResultSet r = s.executeQuery()) { // left in the middle
                        r.next();
                        sum += (Integer) value(c, "SELECT ?::int", 5);
                    }
                }
            }
            c.commit();
            return sum;
        });
        check("errors" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            for (String sql : new String[] {"SELECT nothing", "SELEKT 1", "SELECT 1/0", "INSERT INTO drv_jdbc VALUES (77), (77)", "SELECT 'x'::text::int"}) {
                for (int i = 0; i < 3; i++) seen.add(said(() -> exec(c, sql)));
            }
            try {
                exec(c, "INSERT INTO drv_jdbc VALUES (NULL)");
            } catch (PSQLException e) {
                seen.add(e.getServerErrorMessage().getTable() + "." + e.getServerErrorMessage().getColumn());
            }
            exec(c, "DO $$ BEGIN RAISE NOTICE 'one'; END $$");
            seen.add(value(c, "SELECT 1"));
            return seen;
        });
        check("several statements" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            try (Statement s = c.createStatement()) {
                boolean rows = s.execute("SELECT 1; DELETE FROM drv_jdbc; SELECT 2");
                for (;; rows = s.getMoreResults()) {
                    if (rows) {
                        s.getResultSet().next();
                        seen.add(s.getResultSet().getInt(1));
                    } else if (s.getUpdateCount() == -1) break;
                    else seen.add("updated");
                }
            }
            return seen;
        });
        check("copy" + on, url, settings, c -> {
            exec(c, "DELETE FROM drv_jdbc");
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder rows = new StringBuilder();
            for (int i = 0; i < 5000; i++) rows.append(i).append("\trow ").append(i).append('\n');
            long in = copy.copyIn("COPY drv_jdbc FROM STDIN", new StringReader(rows.toString()));
            StringWriter out = new StringWriter();
            copy.copyOut("COPY (SELECT * FROM drv_jdbc ORDER BY id) TO STDOUT", out);
            CopyIn left = copy.copyIn("COPY drv_jdbc FROM STDIN");
            byte[] row = "9000\tx\n".getBytes(StandardCharsets.UTF_8);
            left.writeToCopy(row, 0, row.length);
            left.cancelCopy();
            String bad = said(() -> {
                try {
                    copy.copyIn("COPY drv_jdbc FROM STDIN", new StringReader("x\ty\n"));
                } catch (IOException e) {
                    throw new SQLException(e);
                }
            });
            return in + " " + out.toString().equals(rows.toString()) + " " + bad + " " + value(c, "SELECT count(*) FROM drv_jdbc");
        });
        check("cancel" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                try (Statement s = c.createStatement()) {
                    THREADS.submit(() -> {
                        Thread.sleep(150);
                        s.cancel();
                        return null;
                    });
                    seen.add(said(() -> s.execute("SELECT pg_sleep(10)")));
                }
                seen.add(value(c, "SELECT 5"));
            }
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                seen.add(said(() -> s.execute("SELECT pg_sleep(10)")));
            }
            return seen;
        });
        check("statement after ddl" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            exec(c, "DROP TABLE IF EXISTS drv_jdbc_ddl");
            exec(c, "CREATE TABLE drv_jdbc_ddl (a int)");
            exec(c, "INSERT INTO drv_jdbc_ddl VALUES (1)");
            try (PreparedStatement s = c.prepareStatement("SELECT * FROM drv_jdbc_ddl")) {
                for (int i = 0; i < 8; i++) {
                    if (i == 6) exec(c, "ALTER TABLE drv_jdbc_ddl ADD b int DEFAULT 2");
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        seen.add(r.getMetaData().getColumnCount());
                    } catch (SQLException e) {
                        seen.add(e.getSQLState());
                    }
                }
            }
            exec(c, "DROP TABLE drv_jdbc_ddl");
            return seen;
        });
        check("metadata" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            try (ResultSet r = c.getMetaData().getColumns(null, "public", "drv_jdbc", null)) {
                while (r.next()) seen.add(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME"));
            }
            try (PreparedStatement s = settings.contains("simple") ? null : c.prepareStatement("SELECT t FROM drv_jdbc WHERE id = ?")) {
                if (s != null) seen.add(s.getMetaData().getColumnTypeName(1) + s.getParameterMetaData().getParameterTypeName(1));
            }
            return seen;
        });
    }

    static void once(String url) {
        check("settings", url, "ApplicationName=mine&options=-c%20statement_timeout=12345&prepareThreshold=1", c -> {
            exec(c, "SET work_mem = '7MB'");
            Map<Object, Integer> seen = new TreeMap<>();
            for (int i = 0; i < 30; i++) {
                seen.merge(value(c, "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')"), 1, Integer::sum);
            }
            return seen;
        });
        check("listen", url, "", c -> {
            List<String> seen = new ArrayList<>();
            exec(c, "LISTEN drv_jdbc");
            try (Connection other = connect(url, "")) {
                for (int i = 0; i < 3; i++) value(other, "SELECT pg_notify('drv_jdbc', ?)::text", "n" + i);
            }
            while (seen.size() < 3) {
                for (PGNotification n : c.unwrap(PGConnection.class).getNotifications(10000)) seen.add(n.getParameter());
            }
            exec(c, "UNLISTEN *");
            return seen;
        });
        check("many clients", url, "", c -> {
            List<Future<Integer>> all = new ArrayList<>();
            for (int g = 0; g < 12; g++) {
                final int group = g;
                all.add(THREADS.submit(() -> {
                    int wrong = 0;
                    try (Connection mine = connect(url, "prepareThreshold=1")) {
                        for (int i = 0; i < 60; i++) {
                            int k = (group + i) % 7; // the driver numbers its statements: S_1 is another text elsewhere
                            if (!value(mine, "SELECT ?::int * " + k, i).equals(i * k)) wrong++;
                        }
                    }
                    return wrong;
                }));
            }
            int wrong = 0;
            for (Future<Integer> one : all) wrong += one.get();
            return wrong;
        });
        check("serializable", url, "prepareThreshold=1", c -> {
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            Object alone = value(c, "SELECT count(*) FROM drv_jdbc WHERE id < 0");
            c.setAutoCommit(false);
            c.setReadOnly(true);
            Object level = value(c, "SHOW transaction_isolation");
            String refused = said(() -> exec(c, "DELETE FROM drv_jdbc"));
            c.rollback();
            c.setReadOnly(false);
            return alone + " " + level + " " + refused + " " + value(c, "SELECT count(*) FROM drv_jdbc WHERE id < 0");
        });
        check("terminated and connected again", url, "prepareThreshold=1", c -> {
            c.setAutoCommit(false);
            exec(c, "SELECT 1");
            String gone = said(() -> exec(c, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)"));
            try (Connection again = connect(url, "")) {
                return gone + " " + value(again, "SELECT 1");
            }
        });
    }

    static void shop(String url, String settings) {
        String on = " [" + settings + "]";
        check("shop setup" + on, url, settings, c -> {
            exec(c, "DROP TABLE IF EXISTS drv_orders");
            return exec(c, "CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))");
        });
        check("shop keyed" + on, url, settings, c -> {
            List<Object> seen = new ArrayList<>();
            for (long k = 0; k < 60; k++) exec(c, "INSERT INTO drv_orders VALUES (?, ?, ?)", k, 0, "o" + k);
            for (long k = 0; k < 60; k++) seen.add(value(c, "SELECT what FROM drv_orders WHERE customer = ?", k));
            seen.add(value(c, "SELECT count(*) FROM drv_orders"));
            seen.add(said(() -> exec(c, "INSERT INTO drv_orders VALUES (?, ?, ?)", 5L, 0, "twice")));
            return seen;
        });
        check("shop transaction" + on, url, settings, c -> {
            c.setAutoCommit(false);
            int n = 0;
            for (long k = 0; k < 20; k++) n += exec(c, "UPDATE drv_orders SET what = ? WHERE customer = ?", "tx", k);
            c.commit();
            return n + " " + value(c, "SELECT count(*) FROM drv_orders WHERE what = 'tx'");
        });
        check("shop fetch size, one shard" + on, url, settings, c -> {
            c.setAutoCommit(false);
            int n = 0;
            try (PreparedStatement s = c.prepareStatement("SELECT what FROM drv_orders WHERE customer = ?")) {
                s.setFetchSize(1);
                s.setLong(1, 7);
                try (ResultSet r = s.executeQuery()) {
                    while (r.next()) n++;
                }
            }
            c.commit();
            return n;
        });
        check("shop fetch size, all shards" + on, url, settings, c -> {
            c.setAutoCommit(false);
            int n = 0;
            try (PreparedStatement s = c.prepareStatement("SELECT what FROM drv_orders WHERE no = ?")) {
                s.setFetchSize(25);
                s.setInt(1, 0);
                try (ResultSet r = s.executeQuery()) {
                    while (r.next()) n++;
                }
            }
            c.commit();
            return n;
        });
        check("shop batch of one key" + on, url, settings, c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO drv_orders VALUES (?, ?, ?)")) {
                for (int i = 1; i < 50; i++) {
                    s.setLong(1, 3);
                    s.setInt(2, i);
                    s.setString(3, "b");
                    s.addBatch();
                }
                s.executeBatch();
            }
            return value(c, "SELECT count(*) FROM drv_orders WHERE customer = ?", 3L);
        });
        check("shop batch of many keys" + on, url, settings, c -> {
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("INSERT INTO drv_orders VALUES (?, ?, ?)")) {
                for (int i = 0; i < 50; i++) {
                    s.setLong(1, i);
                    s.setInt(2, 100);
                    s.setString(3, "m");
                    s.addBatch();
                }
                s.executeBatch();
            }
            c.commit();
            return value(c, "SELECT count(*) FROM drv_orders WHERE no = ?", 100);
        });
    }

    public static void main(String[] args) {
        String app = System.getenv("APP_URL"), shop = System.getenv("SHOP_URL");
        for (String settings : new String[] {"prepareThreshold=1", "prepareThreshold=1&autosave=always&cleanupSavepoints=true",
            "prepareThreshold=5&autosave=conservative&reWriteBatchedInserts=true", "preferQueryMode=simple", "prepareThreshold=0"}) {
            app(app, settings);
        }
        once(app);
        shop(shop, "prepareThreshold=1");
        shop(shop, "preferQueryMode=simple");
        System.exit(0);
    }
}
