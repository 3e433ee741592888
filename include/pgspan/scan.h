/* SPDX-License-Identifier: BSD-2-Clause */
/* scan - SQL text to tokens, by PostgreSQL 15's lexical rules, and from the tokens to a statement's shape.
 *
 * Two ways in: scan_next() walks a text token by token; scan_sql() makes one pass over it and gives the
 * 128-bit hash of its shape and the place of every literal. Neither copies, parses or checks grammar, neither
 * recurses, and neither reads a byte outside the text, which need not end in NUL.
 *
 * A text is read as bytes of an encoding in which no byte below 0x80 is part of a longer character. SJIS, BIG5,
 * GBK, UHC, GB18030 and JOHAB, which PostgreSQL allows as client_encoding only, are not such; the caller must
 * not believe a scan of a session that uses one of them. */
#ifndef PGSPAN_SCAN_H
#define PGSPAN_SCAN_H

#include "pgspan/defs.h"

enum scan_kind {
	SCAN_END, /* no token is left */

	/* Literals, and $n: what scan_sql() notes in scan.literals. */
	SCAN_LIT_STRING,  /* '…', with all its segments when it is continued over lines */
	SCAN_LIT_ESTRING, /* E'…' */
	SCAN_LIT_USTRING, /* U&'…'; UESCAPE and its string are tokens of their own */
	SCAN_LIT_DOLLAR,  /* $$…$$, $tag$…$tag$ */
	SCAN_LIT_BIT,     /* B'…' */
	SCAN_LIT_HEX,     /* X'…' */
	SCAN_LIT_INT,     /* an integer in the range of int4 */
	SCAN_LIT_BIGINT,  /* an integer beyond int4 in the range of int8 */
	SCAN_LIT_FLOAT,   /* any other number; PostgreSQL makes it numeric */
	SCAN_PARAM,       /* $n */

	SCAN_IDENT,  /* unquoted identifier or keyword, TRUE, FALSE and NULL among them */
	SCAN_QIDENT, /* "…" */
	SCAN_UIDENT, /* U&"…" */
	SCAN_NCHAR,  /* the N before the string of N'…' */
	SCAN_OP,     /* an operator that is none of those below */
	SCAN_SELF,   /* one of , ( ) [ ] . ; : + - * / % ^ < > = */
	SCAN_TYPECAST, SCAN_DOT_DOT, SCAN_COLON_EQUALS, SCAN_EQUALS_GREATER, /* :: .. := => */
	SCAN_LESS_EQUALS, SCAN_GREATER_EQUALS, SCAN_NOT_EQUALS,              /* <= >= and both <> and != */
	SCAN_JUNK,  /* a number or $n with letters right after it: an error in 15, and since 16 0x2A and 1_000 */
	SCAN_OTHER, /* a byte that begins no token */
};

static inline bool
scan_is_literal(uint8_t kind)
{
	return kind >= SCAN_LIT_STRING && kind <= SCAN_LIT_FLOAT;
}

/* Flags for scanning. */
enum scan_flag {
	SCAN_SCS_OFF = 1 << 0, /* standard_conforming_strings = off: a backslash escapes in '…' too */
};

/* What was found wrong with a text. */
enum scan_found {
	SCAN_UNTERMINATED = 1 << 0, /* a string, quoted identifier or comment runs to the end of the text */
	SCAN_INVALID = 1 << 1,      /* a SCAN_JUNK or SCAN_OTHER token, or "" : PostgreSQL 15 refuses it */
};

struct scan_token {
	uint32_t off, len; /* in the text */
	uint8_t kind;      /* enum scan_kind */
};

/* A piece of the text; len 0 with off 0: there is none. */
struct scan_place {
	uint32_t off, len;
};

/* A walk over one text. Read only, but for *found* and the hint, which grow as the walk goes on.
 * The text must outlive it. */
struct scan_iter {
	const char *sql;
	size_t len;
	size_t pos;             /* where the next token is looked for */
	unsigned flags;         /* enum scan_flag */
	unsigned found;         /* enum scan_found */
	unsigned n_hints;       /* routing-hint comments passed */
	struct scan_place hint; /* body of the first, between its comment marks */
};

/* *len* is below 4 GB (a protocol message is below 2 GB). */
void scan_iter_init(struct scan_iter *it, const char *sql, size_t len, unsigned flags);

/* The next token behind white space and comments; false, and kind SCAN_END, at the end of the text.
 * A token that SCAN_UNTERMINATED speaks of reaches to the end of the text. */
bool scan_next(struct scan_iter *it, struct scan_token *tok);

/* Is the token the unquoted word *word*, which is given in lower case? */
bool scan_is_word(const char *sql, const struct scan_token *tok, const char *word);

enum scan_literal_flag {
	SCAN_LIT_UESCAPE = 1 << 0, /* U&'…' with UESCAPE behind it: scan_literal_text() leaves it to PostgreSQL */
};

/* A literal's or parameter's place. */
struct scan_literal {
	uint32_t off, len;
	uint8_t kind;  /* SCAN_LIT_* or SCAN_PARAM */
	uint8_t flags; /* enum scan_literal_flag */
};

enum {
	SCAN_INLINE_LITERALS = 16,
	SCAN_BUF_BYTES = 2048,
};

/* What scan_sql() tells of a text. Set up once by scan_init(), used for one text after the other without malloc
 * unless one has more literals than any before; must not be copied or moved (*literals* may point into it).
 * Owner: a worker.  Lives until: scan_fini().  Thread: its owner's only. */
struct scan {
	uint64_t shape[2];             /* hash of the shape; means nothing when found has SCAN_UNTERMINATED */
	struct scan_literal *literals; /* in the order of the text; a plan's "literal k" is its index here */
	uint32_t n_literals;           /* parameters are counted too */
	uint32_t n_statements;         /* not empty ones, by the semicolons outside ( ) and BEGIN ATOMIC … END */
	unsigned found;                /* enum scan_found */
	unsigned n_hints;              /* comments with "pgspan:" or "pgdog_" in them */
	struct scan_place hint;        /* body of the first of these */
	struct scan_place first_word;  /* the first SCAN_IDENT: SELECT of "(select 1)" */

	/* scan.c's own */
	uint32_t cap_literals;
	void *stream; /* XXH3 state, for shapes that outgrow buf */
	struct scan_literal inline_literals[SCAN_INLINE_LITERALS];
	char buf[SCAN_BUF_BYTES];
};

void scan_init(struct scan *s);
void scan_fini(struct scan *s);

/* Scans a text whole. Two texts have the same shape if they are the same tokens up to white space, comments, the
 * case of ASCII letters in unquoted identifiers, and the values of literals of one kind. The literals' number, kinds
 * and order, and the parameters' numbers, are part of the shape. Flags are not: a cache that is shared by sessions
 * with different standard_conforming_strings must have it in its key.
 * Returns 0, or -1 if the text is unterminated or 4 GB long: then all but *found* tells only of its tokens so far. */
int scan_sql(const char *sql, size_t len, unsigned flags, struct scan *out) WARN_UNUSED;

/* The index of the first literal or parameter at or behind *off*, n_literals if there is none. For locations in a
 * parse tree: PostgreSQL puts a constant's location at its first byte, a negated one's at the minus sign. */
uint32_t scan_literal_at(const struct scan *s, uint32_t off);

/* Writes a literal's value to *out*: of a string the bytes it stands for, of a number its text. *flags* are those
 * it was scanned with, *cap* is lit->len or more (a value is never longer than its literal). No NUL is added.
 * Returns the length, or -1 for what PostgreSQL has to judge: wrong escapes, escapes that do not make UTF-8 or that
 * its versions read differently (\v), UESCAPE, bit strings, parameters; also if the value does not fit. */
ssize_t scan_literal_text(const char *sql, const struct scan_literal *lit, unsigned flags, char *out,
                          size_t cap) WARN_UNUSED;

/* For scan_literal.c: where the next segment of a string begins, behind its opening quote, when the text at p (just
 * behind a closing quote) continues the string; NULL when it does not. Documentation, section 4.1.2.1. */
const unsigned char *scan_continuation(const unsigned char *p, const unsigned char *end);

#endif
