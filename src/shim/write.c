/* Writes of this server that no client makes. */

#include "apply.h"

int xs_write_local(xs_op *x, const xs_change *change, int *result, char *text, size_t text_len)
{
	verdict v = { result, text, text_len };
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	target t = { BER_BVNULL, BER_BVNULL, BER_BVNULL, 0, 0, 0 };
	Modifications *mods;
	int outcome;

	*result = LDAP_SUCCESS;
	x->text[0] = '\0';
	op->o_callback = &x->quiet;
	if (!xs_find(x, change, &t)) {
		return xs_say(v, XS_REFUSED, LDAP_NO_SUCH_OBJECT, "no entry has this entryUUID");
	}
	outcome = xs_mods_in(x, change, NULL, &mods, v);
	if (outcome == XS_APPLIED && mods != NULL) {
		op->o_tag = LDAP_REQ_MODIFY;
		op->o_req_dn = t.dn;
		op->o_req_ndn = t.ndn;
		op->orm_modlist = mods;
		op->orm_increment = 0;
		op->orm_no_opattrs = 0;
		/* Two servers made the entry what it is, and nobody else is to be told. */
		op->o_no_schema_check = 1;
		/* A value may be there already, or gone. */
		op->o_permissive_modify = SLAP_CONTROL_NONCRITICAL;
		xs_op_set_local(x, 1);
		outcome = xs_judge(v, op->o_bd->be_modify(op, &rs), x->text);
		xs_op_set_local(x, 0);
		op->o_permissive_modify = SLAP_CONTROL_NONE;
		op->o_no_schema_check = 0;
		slap_mods_free(op->orm_modlist, 1);
		op->orm_modlist = NULL;
		slap_graduate_commit_csn(op);
		xs_op_reset_csn(op);
	}
	xs_target_free(op, &t);
	return outcome;
}
