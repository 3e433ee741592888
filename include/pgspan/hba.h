/* SPDX-License-Identifier: BSD-2-Clause */
/* hba - who may come in from where, and how they prove who they are: pg_hba.conf's format (PostgreSQL docs 21.1).
 *
 *   # TYPE   DATABASE     USER        ADDRESS                  METHOD          OPTIONS
 *   local    all          all                                  peer            map=unix
 *   hostssl  shop,app     "jane doe"  10.0.0.0/8               cert            map=staff
 *   host     replication  @admins     192.168.1.0  255.255.255.0   scram-sha-256
 *   host     all          all         all                      reject
 *
 * The first rule that fits decides. Quotes, lists, @files, comments and lines that go on behind a backslash are PostgreSQL's.
 * What pgspan cannot do (groups, host names, other methods) is refused when the file is read: a rule that is passed over
 * would let in whom it was to keep out.  Immutable after parsing.  Thread: any. */
#ifndef PGSPAN_HBA_H
#define PGSPAN_HBA_H

#include "pgspan/defs.h"
#include "pgspan/span.h"

#include <sys/socket.h>

enum hba_method { HBA_TRUST, HBA_REJECT, HBA_PASSWORD, HBA_MD5, HBA_SCRAM, HBA_CERT, HBA_PEER };
enum hba_clientcert { HBA_CERT_NOT_ASKED, HBA_CERT_VALID /* verify-ca */, HBA_CERT_OF_USER /* verify-full */ };

struct hba_rule {
	enum hba_method method;
	enum hba_clientcert clientcert;
	const char *map; /* of user names, for cert, peer and clientcert=verify-full; NULL: names are the same */
	unsigned line;
};

struct hba;

/* Who asks. */
struct hba_client {
	const struct sockaddr *addr; /* AF_UNIX: a local connection. An IPv4 address within IPv6 counts as IPv4 */
	bool tls;
	bool physical_replication;   /* which only the word "replication" lets in */
	const char *database, *user;
};

/* How files behind '@' are read: their text in malloc's memory, or NULL with the reason in *why*. A relative *name* is in the
 * folder of the file that names it, *from* (NULL: the rules' own file). *path* becomes the whole name. */
struct hba_reader {
	char *(*read)(void *arg, const char *from, const char *name, char **path, size_t *n, char *why, size_t why_size);
	void *arg;
};

/* All mistakes are told, one call for each; NULL when there was one. Asks the system for its addresses if a rule says samehost or samenet. */
typedef void (*hba_mistake_fn)(void *arg, unsigned line, const char *text);
struct hba *hba_parse(struct span text, const struct hba_reader *reader, hba_mistake_fn mistake, void *arg) WARN_UNUSED;
void hba_free(struct hba *h); /* NULL is allowed */

/* The rules in their order, NULL behind the last: for checks. */
const struct hba_rule *hba_rule_at(const struct hba *h, size_t i);
/* NULL: no rule fits, which is a refusal. Borrowed. */
const struct hba_rule *hba_match(const struct hba *h, const struct hba_client *c);

#endif
