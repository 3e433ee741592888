/* SPDX-License-Identifier: BSD-2-Clause */
/* log - one line an event, to standard error.
 *
 *   2026-11-25 05:30:00.123 UTC [pid/thread] LEVEL text
 *
 * Literals of statements and passwords never go into a log line. Thread: any. */
#ifndef PGSPAN_LOG_H
#define PGSPAN_LOG_H

#include "pgspan/defs.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR, LOG_LEVEL_FATAL };

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* The name that this thread's lines carry ("main", "w0", "monitor"). *name* must outlive the thread. */
void log_thread_name(const char *name);
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_debug(...) do { if (log_enabled(LOG_LEVEL_DEBUG)) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__); } while (0)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
/* Logs and ends the process: only for start-up failures and broken invariants. */
void log_fatal(const char *fmt, ...) PRINTF_LIKE(1, 2) NORETURN;

#endif
