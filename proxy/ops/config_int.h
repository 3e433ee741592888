/* SPDX-License-Identifier: BSD-2-Clause */
/* config_int - what the files behind pgspan/config.h share.
 *
 *   config_ini.c      bytes of proxy.ini -> struct ini_doc: sections and entries with their lines
 *   config_key.c      the table of keys: it drives parsing, printing and docs/configuration.md
 *   config_value.c    values with a grammar of their own: connection strings, table lines, bucket ranges
 *   config.c          ini_doc -> struct config, all checks
 *   config_mistake.c  what is reported
 *   config_print.c    struct config -> text
 */
#ifndef PGSPAN_CONFIG_INT_H
#define PGSPAN_CONFIG_INT_H

#include "pgspan/arena.h"
#include "pgspan/config.h"

/* Mistakes and warnings, kept until all are known and then given out in the order of their lines. */
struct mistake {
	char *text;
	int line, seq;
	bool is_error;
};

struct mistakes {
	struct arena mem;
	const char *path; /* borrowed */
	struct mistake *all;
	int n, cap, n_errors;
};

void mistakes_init(struct mistakes *m, const char *path);
void mistakes_fini(struct mistakes *m);
/* "path:line: key: text". Line 0 and a NULL key are left out. */
void mistake_add(struct mistakes *m, int line, const char *key, const char *fmt, ...) PRINTF_LIKE(4, 5);
void mistake_warn(struct mistakes *m, int line, const char *key, const char *fmt, ...) PRINTF_LIKE(4, 5);
void mistakes_report(struct mistakes *m, config_report_fn report, void *arg);

/* One "key = value" line. The value is whole: its comment is off, its quotes are on. */
struct ini_entry {
	const char *key;
	char *value;
	int line;
};

struct ini_section {
	const char *name; /* what stands between the brackets, trimmed */
	int line;
	int first; /* its entries begin here in ini_doc.entries, and end where the next section's begin */
	bool lost; /* a line of it was refused: what seems to be missing may have been meant there */
};

struct ini_doc {
	struct arena mem; /* all strings */
	struct ini_section *sections;
	int n_sections, cap_sections;
	struct ini_entry *entries;
	int n_entries, cap_entries;
};

/* Longest line and longest file that are read; a longer one is a mistake, never cut. */
#define INI_LINE_MAX_BYTES (64 * 1024)
#define INI_FILE_MAX_BYTES (16 * 1024 * 1024)

/* Fills *doc* with what could be read; the rest is in *m*. Thread: any (inih's globals are locked). */
void ini_doc_read(struct ini_doc *doc, FILE *in, struct mistakes *m);
void ini_doc_fini(struct ini_doc *doc);

/* Where a key may stand. */
enum key_place { IN_PROXY = 1, IN_DATABASE = 2, IN_SHARD = 4 };

enum value_type {
	VAL_TEXT,      /* char * */
	VAL_WORDS,     /* char ** and int: a comma list */
	VAL_INT,       /* int */
	VAL_TIME,      /* int64_t, milliseconds */
	VAL_SIZE,      /* uint32_t, bytes */
	VAL_ENUM,      /* an enum: the word's index */
	VAL_UNUSED,    /* taken and warned about: a later version's */
	VAL_SERVER,    /* primary, replica: repeated lines; config.c keeps them */
	VAL_TABLE,     /* table: repeated lines */
	VAL_BUCKETS,   /* a number in [database:x], ranges in [shard:x:n] */
};

struct config_key {
	const char *name;
	unsigned places;  /* enum key_place bits */
	enum value_type type;
	bool for_database; /* at/count are offsets in struct database_settings; else in struct config */
	const char *def;   /* as it would stand in proxy.ini; NULL: none, or worked out (doc says how) */
	int64_t min, max;  /* of VAL_INT, VAL_TIME (ms), VAL_SIZE */
	const char *const *words; /* VAL_ENUM, ends with NULL */
	size_t at, count;
	const char *doc; /* one or two sentences for docs/configuration.md */
};

extern const struct config_key config_keys[];
extern const int n_config_keys;

/* NULL when there is none of that name. */
const struct config_key *config_key_find(const char *name);
/* The known key of *place* that *name* was probably meant to be; NULL when none is near. */
const char *config_key_nearest(const char *name, unsigned place);
/* The nearest of *words* (ends with NULL), or NULL. */
const char *config_word_nearest(const char *name, const char *const *words);
/* Puts *value* into *base*, which is what key->at is an offset of. Strings go to *mem*. Mistakes go to *m*. */
void config_key_set(const struct config_key *key, void *base, const char *value, struct arena *mem, struct mistakes *m,
                    int line);
/* The key's value as it would be written in proxy.ini. Owner of the result: *mem*. */
const char *config_key_text(const struct config_key *key, const void *base, struct arena *mem);

/* A value without the quotes around it. NULL: something follows the closing quote. */
char *config_unquote(const char *value, struct arena *mem);
/* *text* as a value that reads back as itself: in double quotes when it must be. */
const char *config_quote(const char *text, struct arena *mem);

/* Reads a libpq connection string. *dbname* is used when it names none. RC_FAIL: a mistake was added. */
enum rc config_server_parse(struct server_config *s, const char *value, const char *dbname, struct arena *mem,
                            struct mistakes *m, int line, const char *key) WARN_UNUSED;
/* s->conninfo with every secret replaced by ***. Owner of the result: *mem*. */
const char *config_server_masked(const struct server_config *s, struct arena *mem);

/* Reads the value of a table line. RC_FAIL: a mistake was added. */
enum rc config_table_parse(struct table_config *t, const char *value, struct arena *mem, struct mistakes *m, int line)
	WARN_UNUSED;
/* The value of a table line that reads back as *t*. */
const char *config_table_text(const struct table_config *t, struct arena *mem);

/* A growing string in an arena, for the printers above. */
struct text {
	char *p; /* ends with NUL */
	size_t n, cap;
	struct arena *mem;
};
void text_init(struct text *t, struct arena *mem);
void text_add(struct text *t, const char *s, size_t n);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);

#endif
