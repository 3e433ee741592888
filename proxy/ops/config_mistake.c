/* SPDX-License-Identifier: BSD-2-Clause */
/* config_mistake - what is wrong with a proxy.ini: collected while it is read, reported in the order of its lines. */
#include "config_int.h"

#include <stdarg.h>

void
mistakes_init(struct mistakes *m, const char *path)
{
	*m = (struct mistakes){.path = path};
	arena_init(&m->mem);
}

void
mistakes_fini(struct mistakes *m)
{
	free(m->all);
	arena_fini(&m->mem);
}

static void __attribute__((format(printf, 5, 0)))
add(struct mistakes *m, bool is_error, int line, const char *key, const char *fmt, va_list ap)
{
	if (m->n == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 16;
		m->all = xrealloc(m->all, (size_t)m->cap * sizeof *m->all);
	}
	char *what;
	if (vasprintf(&what, fmt, ap) == -1)
		abort();
	char *at = line ? arena_printf(&m->mem, "%s:%d", m->path, line) : arena_printf(&m->mem, "%s", m->path);
	char *text = key ? arena_printf(&m->mem, "%s: %s: %s", at, key, what) : arena_printf(&m->mem, "%s: %s", at, what);
	free(what);
	m->all[m->n] = (struct mistake){text, line, m->n, is_error};
	m->n++;
	m->n_errors += is_error;
}

void
mistake_add(struct mistakes *m, int line, const char *key, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add(m, true, line, key, fmt, ap);
	va_end(ap);
}

void
mistake_warn(struct mistakes *m, int line, const char *key, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add(m, false, line, key, fmt, ap);
	va_end(ap);
}

static int
by_line(const void *a, const void *b)
{
	const struct mistake *x = a, *y = b;
	return x->line != y->line ? (x->line > y->line) - (x->line < y->line) : x->seq - y->seq;
}

void
mistakes_report(struct mistakes *m, config_report_fn report, void *arg)
{
	if (m->n)
		qsort(m->all, (size_t)m->n, sizeof *m->all, by_line);
	for (int i = 0; report && i < m->n; i++)
		report(arg, m->all[i].is_error, m->all[i].text);
}
