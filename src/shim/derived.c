/* What other overlays write because of something that a client did: memberof, refint, autogroup.
 *
 * They write without operational attributes and ask that it is not replicated, as their authors want every server to make it
 * itself. Here it is made where the client was, gets a CSN, and travels (stack.c says why). Some of it goes to the backend past
 * all overlays (of memberof, what follows from the add of a group), so it is recognised around the backend.
 *
 * The operation is a copy that the overlay made of the client's, or its own. */

#include "shim.h"

static int is_stamp(AttributeDescription *ad)
{
	return ad == slap_schema.si_ad_entryCSN || ad == slap_schema.si_ad_modifiersName
		|| ad == slap_schema.si_ad_modifyTimestamp;
}

int xs_is_derived(Operation *op)
{
	Modifications *m;

	/* A read-only copy gets these writes from elsewhere, as does one that syncrepl writes to. */
	if (op->o_tag != LDAP_REQ_MODIFY || !op->o_dont_replicate || !op->orm_no_opattrs || xs_op_is_own(op)
		|| !SLAP_LASTMOD(op->o_bd) || SLAP_SINGLE_SHADOW(op->o_bd) || SLAPD_SYNC_IS_SYNCCONN(op->o_connid))
	{
		return 0;
	}
	/* memberof takes every member for an entry of the database; back-mdb reads before the DN where it is none of its own. */
	if (op->o_bd->be_nsuffix == NULL || !dnIsSuffix(&op->o_req_ndn, &op->o_bd->be_nsuffix[0])) {
		return 0;
	}
	/* contextCSN is nobody's change. */
	for (m = op->orm_modlist; m != NULL && (is_stamp(m->sml_desc) || !xs_replicated(m->sml_desc, 0)); m = m->sml_next)
		;
	return m != NULL;
}

Modifications *xs_derived_begin(Operation *op)
{
	Modifications *last = op->orm_modlist;

	while (last->sml_next != NULL) {
		last = last->sml_next;
	}
	/* That of the client's operation. */
	BER_BVZERO(&op->o_csn);
	op->orm_no_opattrs = 0;
	return last;
}

/* The overlay frees the list its own way, and may use the operation again. */
void xs_derived_end(Operation *op, Modifications *last)
{
	slap_mods_free(last->sml_next, 1);
	last->sml_next = NULL;
	op->orm_no_opattrs = 1;
	xs_op_reset_csn(op);
}
