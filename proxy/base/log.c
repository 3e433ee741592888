/* SPDX-License-Identifier: BSD-2-Clause */
/* log - see pgspan/log.h. A line is formatted on the stack and written with one write(2), so lines
 * of several threads never mix; control characters are replaced so that no name a client chose can
 * forge a line. */
#include "pgspan/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

static _Atomic int threshold = LOG_LEVEL_INFO;
static _Thread_local const char *thread_name = "main";

static const char *const level_names[] = {"DEBUG", "INFO", "WARNING", "ERROR", "FATAL"};

void
log_set_level(enum log_level level)
{
	atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

bool
log_enabled(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void
log_thread_name(const char *name)
{
	thread_name = name;
}

static void
log_va(enum log_level level, const char *fmt, va_list ap)
{
	char line[2048];
	struct timespec now;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof line - n, ".%03ld UTC [%ld/%s] %s ", now.tv_nsec / 1000000, (long)getpid(), thread_name,
	    level_names[level]);
	size_t text = n;
	int m = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
	if (m < 0)
		m = 0;
	n += (size_t)m < sizeof line - n - 1 ? (size_t)m : sizeof line - n - 2;
	for (size_t i = text; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 127)
			line[i] = '?';
	line[n++] = '\n';
	ssize_t rc;
	do
		rc = write(STDERR_FILENO, line, n);
	while (rc == -1 && errno == EINTR);
}

void
log_line(enum log_level level, const char *fmt, ...)
{
	if (!log_enabled(level))
		return;
	int saved = errno;
	va_list ap;
	va_start(ap, fmt);
	log_va(level, fmt, ap);
	va_end(ap);
	errno = saved;
}

void
log_fatal(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	log_va(LOG_LEVEL_FATAL, fmt, ap);
	va_end(ap);
	exit(1);
}
