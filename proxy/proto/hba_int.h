/* SPDX-License-Identifier: BSD-2-Clause */
/* hba_int - what hba.c (rules) and hba_token.c (the fields of lines) share. */
#ifndef PGSPAN_HBA_INT_H
#define PGSPAN_HBA_INT_H

#include "pgspan/arena.h"
#include "pgspan/hba.h"

struct hba_token {
	const char *text;
	bool quoted; /* began with a quote: no keyword */
	struct hba_token *next; /* in the same field's list */
};

struct hba_field {
	struct hba_token *first;
	unsigned n;
};

enum { HBA_FIELDS_MAX = 32 }; /* more are a mistake */

struct hba_line {
	struct hba_field fields[HBA_FIELDS_MAX];
	unsigned n;
	unsigned number; /* where it begins in the file */
};

struct hba_tokens {
	struct arena *mem;
	const struct hba_reader *reader;
	struct span rest;
	unsigned number; /* lines taken so far */
	unsigned files;  /* read behind '@', so that a file that names itself ends */
};

/* Takes the next line that holds anything, with those that it goes on in. RC_AGAIN: there is none; RC_FAIL: *why* says what is
 * wrong with out->number. */
enum rc hba_next_line(struct hba_tokens *t, struct hba_line *out, char *why, size_t why_size);

#endif
