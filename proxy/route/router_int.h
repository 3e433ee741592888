/* SPDX-License-Identifier: BSD-2-Clause */
/* router_int - between router.c (which shards) and router_value.c (which bytes). */
#ifndef PGSPAN_ROUTER_INT_H
#define PGSPAN_ROUTER_INT_H

#include "pgspan/router.h"

enum fold_result {
	FOLD_OK,             /* canonical bytes */
	FOLD_NULL,
	FOLD_NO_ROW,         /* equals no row */
	FOLD_SERVER_DECIDES, /* PostgreSQL raises an error for it */
	FOLD_UNKNOWN,
	FOLD_REFUSED,        /* text beyond ASCII in another encoding than UTF-8 */
};

/* Room for one value on its way. Reused for the next: results live until then. */
struct folder {
	const struct route_values *values;
	struct key_scratch scratch;
	char *heap; /* of a text that was longer than *fixed* */
	size_t heap_cap;
	bool saw_typed; /* some value since it was last cleared was not left for the server to type */
	char fixed[256];
};

void folder_init(struct folder *f, const struct route_values *v);
void folder_fini(struct folder *f);

/* One value of a key column of type *type*. Not for arrays. */
enum fold_result fold_source(struct folder *f, const struct key_source *s, enum key_type type, enum key_mode mode,
    struct span *out);

/* Each element of an array source. FOLD_OK: all went to *each*, which may be called with what fold_source()
 * can give; FOLD_NULL, FOLD_UNKNOWN: of the array as a whole. */
typedef void (*fold_each_fn)(void *arg, enum fold_result r, struct span bytes);
enum fold_result fold_array(struct folder *f, const struct key_source *s, enum key_type type, fold_each_fn each, void *arg);

/* A COPY field: no casts, always assigned. */
enum fold_result fold_field(struct folder *f, struct span field, bool binary, bool utf8, enum key_type type, struct span *out);

#endif
