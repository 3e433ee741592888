/* SPDX-License-Identifier: BSD-2-Clause */
/* sequence - currval() and lastval() over pooled servers.
 *
 * A server process remembers what nextval() gave it, for as long as it lives and whoever its client was. So they are right in
 * the transaction that has advanced the sequence, and on a server that the client keeps (session pooling, a pin). Elsewhere they
 * would tell another client's number, or that there is none: pgspan refuses them. */
#include "session_int.h"

#include "pgspan/sqlstate.h"

static bool
may_advance(const struct plan *p)
{
	/* currval() itself counts as a write: nobody knows that it is none. */
	return (p->flags & PLAN_ADVANCES_SEQ) || ((p->flags & PLAN_WRITES) && !(p->flags & PLAN_USES_SESSION_SEQ));
}

static bool
is_known(const struct plan *p, bool *advanced)
{
	bool known = true;
	if (p->kind == STMT_MULTI) {
		for (int i = 0; i < p->n_parts; i++)
			known &= is_known(p->parts[i], advanced);
		return known;
	}
	known = *advanced || !(p->flags & PLAN_USES_SESSION_SEQ) || (p->flags & PLAN_ADVANCES_SEQ);
	*advanced |= may_advance(p);
	return known;
}

bool
sequence_is_known(const struct session *s, const struct plan *p, bool *advanced, struct diag *d)
{
	if (s->pins != 0 || s->tenant->db->set.pool_mode == POOL_MODE_SESSION || is_known(p, advanced))
		return true;
	diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "currval() and lastval() are not known outside the transaction that called nextval()");
	diag_hint(d, "The pool may give each transaction another server. Use INSERT … RETURNING, or one transaction for both.");
	return false;
}
