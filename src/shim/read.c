/* Entries as they are: for the journal's inventory, and for peers that lack them. */

#include "shim.h"

static int scan_response(Operation *op, SlapReply *rs)
{
	if (rs->sr_type == REP_SEARCH) {
		Attribute *uuid = attr_find(rs->sr_entry->e_attrs, slap_schema.si_ad_entryUUID);
		Attribute *csn = attr_find(rs->sr_entry->e_attrs, slap_schema.si_ad_entryCSN);

		if (uuid != NULL) {
			xs_bytes u = XS_OUT(uuid->a_vals[0]), c = { 0, NULL };

			if (csn != NULL) {
				c = XS_OUT(csn->a_vals[0]);
			}
			xsr_seen_entry(op->o_callback->sc_private, &u, &c);
		}
	}
	return LDAP_SUCCESS;
}

int xs_scan_entries(xs_op *x, void *seen)
{
	slap_callback cb = { .sc_response = scan_response, .sc_private = seen };
	Filter filter = { .f_choice = LDAP_FILTER_PRESENT };
	int rc;

	filter.f_desc = slap_schema.si_ad_objectClass;
	rc = xs_search(x, &filter, &cb);
	return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc;
}

/* The view of an entry as the change that would add it, for the duration of one call of xsr_seen_state. */
static void show_state(Operation *op, Entry *e, void *seen)
{
	Attribute *uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	Attribute *csn = attr_find(e->e_attrs, slap_schema.si_ad_entryCSN);
	size_t len = xs_view_attributes(e->e_attrs, NULL);
	xs_modification *mods;
	xs_change change = { .operation = XS_ADD };

	if (uuid == NULL || csn == NULL) {
		return;
	}
	mods = op->o_tmpcalloc(len + 1, sizeof(*mods), op->o_tmpmemctx);
	change.uuid = XS_OUT(uuid->a_vals[0]);
	change.csn = XS_OUT(csn->a_vals[0]);
	change.dn = XS_OUT(e->e_name);
	change.mods = mods;
	change.mods_len = xs_view_attributes(e->e_attrs, mods);
	xsr_seen_state(seen, &change);
	op->o_tmpfree(mods, op->o_tmpmemctx);
}

static int state_response(Operation *op, SlapReply *rs)
{
	if (rs->sr_type == REP_SEARCH) {
		show_state(op, rs->sr_entry, op->o_callback->sc_private);
	}
	return LDAP_SUCCESS;
}

int xs_read_entry(xs_op *x, const xs_bytes *uuid, void *seen)
{
	Operation *op = x->op;
	slap_callback cb = { .sc_response = state_response, .sc_private = seen };
	struct berval value = { .bv_len = uuid->len, .bv_val = uuid->ptr }, nuuid = BER_BVNULL;
	MatchingRule *mr = slap_schema.si_ad_entryUUID->ad_type->sat_equality;
	AttributeAssertion ava = ATTRIBUTEASSERTION_INIT;
	Filter filter = { .f_choice = LDAP_FILTER_EQUALITY };
	int rc;

	if (mr->smr_normalize(SLAP_MR_VALUE_OF_ATTRIBUTE_SYNTAX, NULL, mr, &value, &nuuid, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return LDAP_INVALID_SYNTAX;
	}
	ava.aa_desc = slap_schema.si_ad_entryUUID;
	ava.aa_value = nuuid;
	filter.f_ava = &ava;
	rc = xs_search(x, &filter, &cb);
	op->o_tmpfree(nuuid.bv_val, op->o_tmpmemctx);
	return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc;
}

/* Shows every entry, in one search. Ends early when the callee of xsr_seen_state says so, or slapd wants its threads. */
typedef struct walk {
	xs_op *x;
	void *seen;
} walk;

static int dump_response(Operation *op, SlapReply *rs)
{
	walk *w = op->o_callback->sc_private;

	if (rs->sr_type == REP_SEARCH) {
		show_state(op, rs->sr_entry, w->seen);
		if (xs_must_yield(w->x) || xsr_enough(w->seen)) {
			return rs->sr_err = SLAPD_ABANDON;
		}
	}
	return LDAP_SUCCESS;
}

int xs_dump(xs_op *x, void *seen)
{
	walk w = { x, seen };
	slap_callback cb = { .sc_response = dump_response, .sc_private = &w };
	Filter filter = { .f_choice = LDAP_FILTER_PRESENT };
	int rc;

	filter.f_desc = slap_schema.si_ad_objectClass;
	rc = xs_search(x, &filter, &cb);
	return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc;
}

/* Which data set the database is a copy of: its suffix entry. */
void xs_read_suffix(xs_op *x)
{
	Operation *op = x->op;
	xs_bytes none = { 0, NULL }, uuid = { 0, NULL };
	Entry *e = NULL;
	Attribute *a;

	if (be_entry_get_rw(op, &op->o_bd->be_nsuffix[0], NULL, NULL, 0, &e) != LDAP_SUCCESS || e == NULL) {
		xsr_suffix(x->db->instance, &none);
		return;
	}
	a = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	if (a != NULL) {
		uuid = XS_OUT(a->a_vals[0]);
	}
	xsr_suffix(x->db->instance, &uuid);
	be_entry_release_r(op, e);
}
