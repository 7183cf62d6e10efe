/* An entry that is there has to become as a state of it says: another name, other attributes, or both. */

#include "apply.h"

static int rename_to(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	struct berval dn = bv_in(change->dn), pdn = BER_BVNULL, ndn = BER_BVNULL;
	struct berval superior, nsuperior, old;
	xs_naming to = { BER_BVNULL, BER_BVNULL, NULL, NULL, 0 }; /* the modify that follows sets all values */
	int outcome = XS_APPLIED;

	if (dnPrettyNormal(NULL, &dn, &pdn, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return xs_say(v, XS_REFUSED, LDAP_INVALID_DN_SYNTAX, "the DN is not valid here");
	}
	if (dn_match(&ndn, &t->ndn)) {
		goto done;
	}
	dnRdn(&pdn, &to.rdn);
	dnRdn(&ndn, &to.nrdn);
	dnParent(&pdn, &superior);
	dnParent(&ndn, &nsuperior);
	dnParent(&t->ndn, &old);
	/* The functions that look at an RDN expect its end to be the text's. */
	ber_dupbv_x(&to.rdn, &to.rdn, op->o_tmpmemctx);
	ber_dupbv_x(&to.nrdn, &to.nrdn, op->o_tmpmemctx);
	if (!dn_match(&old, &nsuperior)) {
		to.superior = &superior;
		to.nsuperior = &nsuperior;
	}
	outcome = xs_rename(x, change, t, &to, NULL, v);
	/* The modify that follows queues the CSN again. */
	slap_graduate_commit_csn(op);
	xs_op_reset_csn(op);
	op->o_tmpfree(to.rdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(to.nrdn.bv_val, op->o_tmpmemctx);
	if (outcome == XS_APPLIED) {
		op->o_tmpfree(t->dn.bv_val, op->o_tmpmemctx);
		op->o_tmpfree(t->ndn.bv_val, op->o_tmpmemctx);
		t->dn = pdn;
		t->ndn = ndn;
		return outcome;
	}
done:
	op->o_tmpfree(pdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
	return outcome;
}

static int in_mods(const Modifications *m, const AttributeDescription *ad)
{
	for (; m != NULL && m->sml_desc != ad; m = m->sml_next)
		;
	return m != NULL;
}

/* Attributes that the entry has and the state does not go. */
static int remove_others(xs_op *x, const target *t, Modifications **mods)
{
	struct berval ndn = t->ndn;
	Entry *e = NULL;
	Attribute *a;

	/* As it is stored: what overlays before us show of it is not to be removed. */
	if (overlay_entry_get_ov(x->op, &ndn, NULL, NULL, 0, &e, x->db->on) != LDAP_SUCCESS || e == NULL) {
		return LDAP_NO_SUCH_OBJECT;
	}
	for (a = e->e_attrs; a != NULL; a = a->a_next) {
		Modifications *m;

		if (!xs_replicated(a->a_desc, 1) || in_mods(*mods, a->a_desc)) {
			continue;
		}
		m = ch_calloc(1, sizeof(*m));
		m->sml_op = LDAP_MOD_REPLACE;
		m->sml_flags = SLAP_MOD_INTERNAL;
		m->sml_desc = a->a_desc;
		m->sml_type = a->a_desc->ad_cname;
		m->sml_next = *mods;
		*mods = m;
	}
	overlay_entry_release_ov(x->op, e, 0, x->db->on);
	return LDAP_SUCCESS;
}

int xs_apply_put(xs_op *x, const xs_change *change, target *t, verdict v)
{
	struct berval csn = bv_in(change->csn);
	Modifications *mods, *m;
	int rc, outcome;

	if (!BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) >= 0) {
		return XS_APPLIED;
	}
	outcome = xs_mods_in(x, change, NULL, &mods, v);
	if (outcome != XS_APPLIED) {
		return outcome;
	}
	outcome = rename_to(x, change, t, v);
	if (outcome != XS_APPLIED) {
		slap_mods_free(mods, 1);
		return outcome;
	}
	for (m = mods; m != NULL; m = m->sml_next) {
		m->sml_op = LDAP_MOD_REPLACE;
	}
	rc = remove_others(x, t, &mods);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(mods, 1);
		return xs_say(v, XS_FAILED, rc, "the entry is gone");
	}
	return xs_modify(x, change, t, mods, v);
}
