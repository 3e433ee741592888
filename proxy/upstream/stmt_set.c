/* SPDX-License-Identifier: BSD-2-Clause */
/* stmt_set - see pgspan/stmt_set.h. A hash table with linear probing, at most half full; the least recently used entry is
 * found by looking at all, which happens only when a server that holds its limit of statements meets a new one. */
#include "pgspan/stmt_set.h"

size_t
stmt_id_name(struct stmt_id id, char out[STMT_NAME_BYTES])
{
	/* Written for every Bind of a named statement: snprintf costs more than all else that is done for it. */
	static const char digits[] = "0123456789abcdef";
	char *p = out + 7;
	memcpy(out, "pgspan_", 7);
	for (int shift = 60; shift >= 0; shift -= 4)
		*p++ = digits[id.hi >> shift & 15];
	for (int shift = 60; shift >= 0; shift -= 4)
		*p++ = digits[id.lo >> shift & 15];
	*p = '\0';
	return STMT_NAME_BYTES - 1;
}

static struct stmt_slot *
slot_of(const struct stmt_set *s, struct stmt_id id)
{
	for (uint32_t i = (uint32_t)id.lo & (s->cap - 1);; i = (i + 1) & (s->cap - 1))
		if (s->slots[i].used == 0 || stmt_id_eq(s->slots[i].id, id))
			return &s->slots[i];
}

bool
stmt_set_has(struct stmt_set *s, struct stmt_id id)
{
	if (s->n == 0)
		return false;
	struct stmt_slot *slot = slot_of(s, id);
	if (slot->used == 0)
		return false;
	slot->used = ++s->tick;
	return true;
}

static void
enlarge(struct stmt_set *s)
{
	struct stmt_set old = *s;
	s->cap = old.cap ? old.cap * 2 : 16;
	s->slots = xcalloc(s->cap, sizeof *s->slots);
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.slots[i].used)
			*slot_of(s, old.slots[i].id) = old.slots[i];
	free(old.slots);
}

bool
stmt_set_add(struct stmt_set *s, struct stmt_id id, uint32_t limit, struct stmt_id *evicted)
{
	bool full = false;
	if (stmt_set_has(s, id))
		return false;
	if (s->n >= limit) {
		struct stmt_slot *oldest = NULL;
		for (uint32_t i = 0; i < s->cap; i++)
			if (s->slots[i].used && (!oldest || s->slots[i].used < oldest->used))
				oldest = &s->slots[i];
		*evicted = oldest->id;
		stmt_set_remove(s, *evicted);
		full = true;
	}
	if (s->n * 2 >= s->cap)
		enlarge(s);
	*slot_of(s, id) = (struct stmt_slot){id, ++s->tick};
	s->n++;
	return full;
}

void
stmt_set_remove(struct stmt_set *s, struct stmt_id id)
{
	struct stmt_slot *slot = s->n ? slot_of(s, id) : NULL;
	if (!slot || slot->used == 0)
		return;
	uint32_t hole = (uint32_t)(slot - s->slots), mask = s->cap - 1;
	for (uint32_t i = (hole + 1) & mask; s->slots[i].used; i = (i + 1) & mask) {
		uint32_t home = (uint32_t)s->slots[i].id.lo & mask;
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			s->slots[hole] = s->slots[i];
			hole = i;
		}
	}
	s->slots[hole].used = 0;
	s->n--;
}

void
stmt_set_clear(struct stmt_set *s)
{
	free(s->slots);
	*s = (struct stmt_set){NULL, 0, 0, 0};
}
