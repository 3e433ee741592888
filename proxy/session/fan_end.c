/* SPDX-License-Identifier: BSD-2-Clause */
/* fan_end - the end of a block that several legs are in (see fan_int.h, and docs/architecture.md, "Two-phase commit").
 *
 *   one leg wrote, or none:  COMMIT on all; what the one says is the answer
 *   more:  PREPARE on the writers ──► decision on the first of them ──► COMMIT PREPARED on the writers, COMMIT on the others
 *              │ one fails                 │ refused: as before the decision    │ one does not answer: the monitor goes on; it is
 *              ▼                           ▼ lost: 08007, the monitor finds out   committed all the same, and the client is told so
 *          ROLLBACK PREPARED where it was prepared, ROLLBACK elsewhere
 *
 * A PREPARE that fails has ended its own transaction. */
#include "fan_int.h"

#include "pgspan/fault.h"
#include "pgspan/log.h"
#include "pgspan/sqlstate.h"

static bool
wrote(const struct fan_leg *k)
{
	return k->leg->wrote;
}

static bool
in_block(const struct fan_leg *k)
{
	return k->leg->server && k->leg->server->tx_status != 'I';
}

static const char *
sql_commit(const struct fan *f, const struct fan_leg *k)
{
	(void)f;
	return in_block(k) ? "COMMIT" : NULL;
}

static const char *
sql_rollback(const struct fan *f, const struct fan_leg *k)
{
	(void)f;
	return in_block(k) ? "ROLLBACK" : NULL;
}

/* Statements of two-phase commit for this fan; in its memory. */
static const char *
sql_2pc(const struct fan *f, enum twophase_step step)
{
	static _Thread_local char buf[TWOPHASE_SQL_MAX];
	(void)twophase_sql(buf, step, &f->gid);
	return buf;
}

static const char *
sql_prepare(const struct fan *f, const struct fan_leg *k)
{
	return wrote(k) ? sql_2pc(f, TWOPHASE_PREPARE) : NULL;
}

static int
first_writer(const struct fan *f)
{
	for (int i = 0; i < f->n; i++)
		if (wrote(&f->legs[i]))
			return i;
	return 0;
}

static const char *
sql_decide(const struct fan *f, const struct fan_leg *k)
{
	return k == &f->legs[first_writer(f)] ? sql_2pc(f, TWOPHASE_DECIDE) : NULL;
}

static const char *
sql_finish(const struct fan *f, const struct fan_leg *k)
{
	if (wrote(k))
		return sql_2pc(f, TWOPHASE_COMMIT_PREPARED);
	return sql_commit(f, k);
}

static const char *
sql_undo(const struct fan *f, const struct fan_leg *k)
{
	if (in_block(k))
		return "ROLLBACK";
	return wrote(k) && k->outcome != LEG_ERROR ? sql_2pc(f, TWOPHASE_ROLLBACK_PREPARED) : NULL;
}

static void
leave_block(struct fan *f)
{
	for (int i = 0; i < f->n; i++)
		f->legs[i].leg->in_block = f->legs[i].leg->wrote = false;
}

static bool
any(const struct fan *f, enum leg_outcome o)
{
	for (int i = 0; i < f->n; i++)
		if (f->legs[i].outcome == o)
			return true;
	return false;
}

/* --- plain COMMIT and ROLLBACK --- */

static void
ended(struct fan *f)
{
	leave_block(f);
	fan_answer(f);
}

void
fan_rollback(struct fan *f)
{
	fan_exchange(f, sql_rollback, ended);
}

static void
committed_plainly(struct fan *f)
{
	if (any(f, LEG_LOST)) {
		struct diag d;
		diag_clear(&d);
		diag_set(&d, SQLSTATE_TRANSACTION_RESOLUTION_UNKNOWN, "a server was lost while it committed: whether it did is not known");
		wbuf_clear(&f->error);
		msg_put_error(&f->error, "ERROR", &d);
	}
	ended(f);
}

/* --- two-phase commit --- */

static void
hand_over(struct fan *f)
{
	twophase_in_doubt(f->s->env->twophase, f->s->tenant->db->name, &f->gid, f->outcome);
	f->gid.text[0] = '\0';
}

void
fan_end_abandoned(struct fan *f)
{
	hand_over(f);
}

static void
undone(struct fan *f)
{
	if (any(f, LEG_LOST) || any(f, LEG_ERROR))
		hand_over(f);
	f->gid.text[0] = '\0';
	ended(f);
}

static void
finished(struct fan *f)
{
	/* It is committed, whatever the legs say: one that failed or was lost is finished by the monitor. */
	if (any(f, LEG_LOST) || any(f, LEG_ERROR)) {
		log_warning("transaction %s is committed, but not yet finished on every shard", f->gid.text);
		hand_over(f);
	} else {
		twophase_finished(f->s->env->twophase, f->s->tenant->db->name, &f->gid);
	}
	f->gid.text[0] = '\0';
	f->failed = false;
	for (int i = 0; i < f->n; i++)
		if (f->legs[i].outcome == LEG_LOST)
			f->legs[i].outcome = LEG_IDLE; /* nothing of the block hung on it any more */
	fault_point("twophase_finished");
	ended(f);
}

static void
decided(struct fan *f)
{
	struct fan_leg *k = &f->legs[first_writer(f)];
	if (k->outcome == LEG_OK) {
		f->outcome = TWOPHASE_COMMITTED;
		fault_point("twophase_decided");
		fan_exchange(f, sql_finish, finished);
		return;
	}
	if (k->outcome == LEG_ERROR) {
		f->outcome = TWOPHASE_ABORTED;
		k->outcome = LEG_IDLE; /* its transaction is prepared still */
		fan_exchange(f, sql_undo, undone);
		return;
	}
	struct diag d;
	diag_clear(&d);
	diag_set(&d, SQLSTATE_TRANSACTION_RESOLUTION_UNKNOWN, "a server was lost while the commit was decided: whether it was is not known yet");
	diag_hint(&d, "pgspan settles it as soon as the server answers again.");
	struct session *s = f->s;
	f->outcome = TWOPHASE_UNKNOWN;
	session_fatal(s, &d);
}

static void
prepared(struct fan *f)
{
	fault_point("twophase_prepared");
	if (f->failed) {
		fan_exchange(f, sql_undo, undone);
		return;
	}
	f->outcome = TWOPHASE_UNKNOWN;
	fan_exchange(f, sql_decide, decided);
}

void
fan_commit(struct fan *f)
{
	struct session *s = f->s;
	int writers = 0;
	for (int i = 0; i < f->n; i++)
		writers += wrote(&f->legs[i]);
	if (writers <= 1) {
		fan_exchange(f, sql_commit, committed_plainly);
		return;
	}
	static _Thread_local uint64_t sequence;
	f->gid = gid_make(s->cfg->instance_name, twophase_run(), s->env->worker, ++sequence, f->legs[first_writer(f)].shard);
	f->outcome = TWOPHASE_ABORTED;
	fault_point("twophase_begin");
	fan_exchange(f, sql_prepare, prepared);
}

/* --- statements that end or mark a block --- */

static void
add_open_legs(struct fan *f)
{
	struct session *s = f->s;
	int n = s->tenant->db->n_shards;
	f->legs = arena_zalloc(&f->mem, (size_t)n * sizeof *f->legs);
	for (int i = 0; i < n; i++) {
		struct leg *l = s->by_shard ? s->by_shard[i] : NULL;
		if (!l || !l->server)
			continue;
		f->legs[f->n] = (struct fan_leg){.leg = l, .shard = i, .outcome = LEG_IDLE};
		l->fan = f;
		f->n++;
	}
	f->n_attached = f->n;
}

static void
answered(struct fan *f)
{
	fan_answer(f);
}

enum rc
fan_control(struct session *s, struct plan_entry *e, struct span sql, const struct wbuf *before, bool more, struct diag *d)
{
	const struct plan *p = e->plan;
	if ((p->flags & PLAN_CHAIN) || p->kind == STMT_PREPARE_TRANSACTION) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "%s cannot be used in a transaction that several shards are in",
		    p->kind == STMT_PREPARE_TRANSACTION ? "PREPARE TRANSACTION" : "AND CHAIN");
		diag_hint(d, "End the transaction with COMMIT or ROLLBACK, and begin the next one with BEGIN.");
		return RC_FAIL;
	}
	struct fan *f = fan_new(s, e);
	f->extended = before != NULL;
	f->more = more;
	if (before)
		wbuf_bytes(&f->before, before->p, before->n);
	add_open_legs(f);
	f->effect = effect_new(e, sql);
	s->fan = f;
	bool failed = session_status(s) == 'E';
	if (p->kind == STMT_ROLLBACK || (p->kind == STMT_COMMIT && failed)) {
		f->tag = "ROLLBACK";
		if (p->kind == STMT_COMMIT)
			s->failed_now = true; /* its settings are dropped */
		fan_rollback(f);
	} else if (p->kind == STMT_COMMIT) {
		f->tag = "COMMIT";
		fan_commit(f);
	} else {
		struct merge_spec spec = {.kind = MULTI_SAME, .n_legs = f->n, .limit = -1, .hide_row_description = true};
		f->merge = merge_new(&spec);
		f->then = answered;
		char *copy = arena_strndup(&f->mem, sql.p, sql.n);
		for (int i = 0; i < f->n; i++)
			fan_send_query(f, i, span_of(copy, sql.n));
		fan_pump(f);
	}
	return RC_OK;
}

void
fan_end_pieces(struct session *s, bool failed, bool told)
{
	struct fan *f = fan_new(s, NULL);
	f->extended = true;
	f->more = !told;
	add_open_legs(f);
	s->fan = f;
	s->failed_now = failed;
	if (failed)
		fan_rollback(f);
	else
		fan_commit(f);
}
