/* Clients are kept out while the copy is being loaded, where the admin wants it so. */

#include "shim.h"

void xs_set_loading(xs_db *db, int on)
{
	__atomic_store_n(&db->loading, on, __ATOMIC_RELEASE);
}

int xs_refused_busy(xs_db *db, Operation *op, SlapReply *rs)
{
	if (!__atomic_load_n(&db->loading, __ATOMIC_ACQUIRE) || xs_op_is_own(op) || xs_op_is_local(op)) {
		return 0;
	}
	send_ldap_error(op, rs, LDAP_BUSY, "xmppsync: this copy is being loaded");
	return 1;
}

int xs_hook_read(Operation *op, SlapReply *rs)
{
	slap_overinst *on = (slap_overinst *)op->o_bd->bd_info;

	return xs_refused_busy(on->on_bi.bi_private, op, rs) ? rs->sr_err : SLAP_CB_CONTINUE;
}
