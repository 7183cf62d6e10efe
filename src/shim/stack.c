/* The overlays of the database: which of them a change of another server passes, and which stand in a wrong place.
 *
 * Some answer a client's write with writes of their own: memberof, refint and autogroup change other entries. These writes are
 * captured as changes of their own where the client was (derived.c), so a change of another server does not pass these
 * overlays again. What each server made by itself would depend on what it has at that moment: a group may come before its
 * members, and a delete before what a server that was cut off has written.
 *
 * ppolicy is left out too: it adds to every new password that failures, lock and last success are to be deleted, also where the
 * change is a whole entry that has them (overlays/ppolicy.c 2393-2490). What it did where the client was is in the change. */

#include "shim.h"

int xs_is_left_out(slap_overinst *on)
{
	static const char *const those[] = { "memberof", "refint", "autogroup", "ppolicy", NULL };
	int i;

	for (i = 0; those[i] != NULL && strcmp(those[i], on->on_bi.bi_type) != 0; i++)
		;
	return those[i] != NULL;
}

static int is_passed(slap_overinst *on)
{
	return !(on->on_bi.bi_flags & SLAPO_BFLAG_DISABLED) && !xs_is_left_out(on);
}

/* As slapd's over_back_response. */
static int on_response(Operation *op, SlapReply *rs)
{
	slap_overinfo *stack = op->o_callback->sc_private;
	BackendDB *be = op->o_bd, db = *op->o_bd;
	slap_overinst *on;
	int rc = SLAP_CB_CONTINUE;

	db.be_flags |= SLAP_DBFLAG_OVERLAY;
	op->o_bd = &db;
	for (on = stack->oi_list; on != NULL && rc == SLAP_CB_CONTINUE; on = on->on_next) {
		if (is_passed(on) && on->on_response != NULL) {
			db.bd_info = (BackendInfo *)on;
			rc = on->on_response(op, rs);
		}
	}
	op->o_bd = be;
	return rc == SLAP_CB_BYPASS ? SLAP_CB_CONTINUE : rc;
}

/* An overlay has ended the operation: the callbacks of those before it are told. */
static void clean_up(Operation *op, SlapReply *rs, slap_callback *end)
{
	slap_callback *next;

	for (; op->o_callback != NULL && op->o_callback != end; op->o_callback = next) {
		next = op->o_callback->sc_next;
		if (op->o_callback->sc_cleanup != NULL) {
			op->o_callback->sc_cleanup(op, rs);
		}
	}
}

int xs_write(xs_op *x, SlapReply *rs, slap_operation_t which)
{
	Operation *op = x->op;
	slap_overinfo *stack = x->db->on->on_info;
	BackendDB *be = op->o_bd, db = *op->o_bd;
	slap_callback cb = { .sc_response = on_response, .sc_private = stack, .sc_next = op->o_callback };
	slap_overinst *on;
	int rc = SLAP_CB_CONTINUE;

	if (be->bd_info == stack->oi_orig) {
		/* In db_open it goes to the backend itself. */
		return (&be->bd_info->bi_op_bind)[which](op, rs);
	}
	db.be_flags |= SLAP_DBFLAG_OVERLAY;
	op->o_bd = &db;
	op->o_callback = &cb;
	for (on = stack->oi_list; on != NULL && rc == SLAP_CB_CONTINUE; on = on->on_next) {
		BI_op_func *hook = (&on->on_bi.bi_op_bind)[which];

		if (hook != NULL && is_passed(on)) {
			db.bd_info = (BackendInfo *)on;
			rc = hook(op, rs);
		}
	}
	if (rc == SLAP_CB_CONTINUE || rc == SLAP_CB_BYPASS) {
		db.bd_info = stack->oi_orig;
		rc = (&db.bd_info->bi_op_bind)[which](op, rs);
	} else {
		clean_up(op, rs, &cb);
	}
	op->o_callback = cb.sc_next;
	op->o_bd = be;
	return rc;
}

/* rwm between us and the backend: the name of a renamed entry is told as clients see it, and the rename fails elsewhere. */
void xs_check_order(xs_db *db)
{
	slap_overinst *on;

	for (on = db->on->on_next; on != NULL && !db->order_checked; on = on->on_next) {
		if (strcmp(on->on_bi.bi_type, "rwm") == 0) {
			Debug(LDAP_DEBUG_ANY, "xmppsync: \"%s\": overlay rwm stands before overlay xmppsync, which then sends names that are not "
				"those of the database; configure overlay xmppsync before overlay rwm\n",
				db->be->be_suffix ? db->be->be_suffix[0].bv_val : "");
		}
	}
	db->order_checked = 1;
}
