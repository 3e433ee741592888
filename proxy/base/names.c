/* SPDX-License-Identifier: BSD-2-Clause */
/* names - see pgspan/names.h. Open addressing with linear probing; a removal moves later entries of the run back, so there
 * are no tombstones. */
#include "pgspan/names.h"

#include <xxhash.h>

static uint64_t
hash_of(struct span name)
{
	return XXH3_64bits(name.p ? name.p : "", name.n);
}

static struct name_slot *
slot_of(const struct names *m, struct span name, uint64_t hash)
{
	for (uint32_t i = (uint32_t)hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct name_slot *s = &m->slots[i];
		if (!s->name || (s->hash == hash && s->len == name.n && memcmp(s->name, name.p ? name.p : "", name.n) == 0))
			return s;
	}
}

void *
names_get(const struct names *m, struct span name)
{
	if (m->n == 0)
		return NULL;
	return slot_of(m, name, hash_of(name))->value;
}

static void
enlarge(struct names *m)
{
	struct names old = *m;
	m->cap = old.cap ? old.cap * 2 : 8;
	m->slots = xcalloc(m->cap, sizeof *m->slots);
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.slots[i].name)
			*slot_of(m, span_of(old.slots[i].name, old.slots[i].len), old.slots[i].hash) = old.slots[i];
	free(old.slots);
}

void *
names_put(struct names *m, struct span name, void *value)
{
	assert(value);
	if (m->n * 2 >= m->cap)
		enlarge(m);
	uint64_t hash = hash_of(name);
	struct name_slot *s = slot_of(m, name, hash);
	void *old = s->value;
	if (!s->name) {
		s->name = xstrndup(name.p ? name.p : "", name.n);
		s->len = (uint32_t)name.n;
		s->hash = hash;
		m->n++;
	}
	s->value = value;
	return old;
}

void *
names_take(struct names *m, struct span name)
{
	if (m->n == 0)
		return NULL;
	struct name_slot *s = slot_of(m, name, hash_of(name));
	if (!s->name)
		return NULL;
	void *value = s->value;
	free(s->name);
	uint32_t hole = (uint32_t)(s - m->slots), mask = m->cap - 1;
	for (uint32_t i = (hole + 1) & mask; m->slots[i].name; i = (i + 1) & mask) {
		uint32_t home = (uint32_t)m->slots[i].hash & mask;
		/* May the entry at i stand in the hole? Only if its home is not between the two. */
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole] = (struct name_slot){0, NULL, 0, NULL};
	if (--m->n == 0) {
		free(m->slots);
		m->slots = NULL;
		m->cap = 0;
	}
	return value;
}

bool
names_find(const struct names *m, bool (*fn)(struct span name, const void *value, const void *arg), const void *arg, struct span *name)
{
	for (uint32_t i = 0; i < m->cap; i++) {
		*name = span_of(m->slots[i].name, m->slots[i].len);
		if (m->slots[i].name && fn(*name, m->slots[i].value, arg))
			return true;
	}
	*name = SPAN_NONE;
	return false;
}

void
names_clear(struct names *m, void (*fn)(void *value))
{
	for (uint32_t i = 0; i < m->cap; i++) {
		if (!m->slots[i].name)
			continue;
		if (fn)
			fn(m->slots[i].value);
		free(m->slots[i].name);
	}
	free(m->slots);
	*m = (struct names){NULL, 0, 0};
}
