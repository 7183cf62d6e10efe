/* The backend's own transactions: many changes of other servers share one commit. */

#include "shim.h"

/* Inside a transaction the overlays are told of a change before it is committed, and of some that never will be.
 * These do not mind: they only look, or write into the same transaction; nor do those that are not told. Of the others
 * syncprov and accesslog pass on what may be aborted; dds counts it, and ends slapd by an assertion when the count is
 * wrong. */
static int overlays_take_transactions(xs_db *db)
{
	static const char *const harmless[] = {
		"constraint", "unique", "lastbind", "dynlist", "dyngroup", "valsort", "sssvlv", "deref", NULL
	};
	slap_overinst *on;
	int i;

	for (on = db->on->on_info->oi_list; on != NULL; on = on->on_next) {
		for (i = 0; harmless[i] != NULL && strcmp(harmless[i], on->on_bi.bi_type) != 0; i++)
			;
		if (harmless[i] == NULL && on != db->on && !xs_is_left_out(on)) {
			return 0;
		}
	}
	return 1;
}

int xs_takes_transactions(xs_op *x)
{
	BackendInfo *info = x->op->o_bd->bd_info;

	/* In db_open the operation goes to the backend itself, past all overlays. */
	return info->bi_op_txn != NULL && (info == x->db->on->on_info->oi_orig || overlays_take_transactions(x->db));
}

int xs_txn_begin(xs_op *x)
{
	Operation *op = x->op;

	x->txn = NULL;
	if (!xs_takes_transactions(x)) {
		return 1;
	}
	if (op->o_bd->bd_info->bi_op_txn(op, SLAP_TXN_BEGIN, &x->txn) == 0) {
		return 0;
	}
	if (x->txn != NULL) {
		/* back-mdb has entered it in the list before it failed to begin. */
		LDAP_SLIST_REMOVE(&op->o_extra, x->txn, OpExtra, oe_next);
		op->o_tmpfree(x->txn, op->o_tmpmemctx);
		x->txn = NULL;
	}
	return -1;
}

static int txn_end(xs_op *x, int how)
{
	Operation *op = x->op;
	int rc;

	if (x->txn == NULL) {
		return 0;
	}
	/* The transaction lives in the operation's memory and is freed by its end. */
	LDAP_SLIST_REMOVE(&op->o_extra, x->txn, OpExtra, oe_next);
	rc = op->o_bd->bd_info->bi_op_txn(op, how, &x->txn);
	x->txn = NULL;
	return rc == 0 ? 0 : -1;
}

int xs_txn_commit(xs_op *x)
{
	return txn_end(x, SLAP_TXN_COMMIT);
}

void xs_txn_abort(xs_op *x)
{
	txn_end(x, SLAP_TXN_ABORT);
}
