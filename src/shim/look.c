/* What the rules for conflicts ask of the database and the schema. */

#include "apply.h"

int xs_read_uuid(Operation *op, struct berval *ndn, char *text, size_t text_len)
{
	Entry *e = NULL;
	Attribute *uuid;

	text[0] = '\0';
	if (be_entry_get_rw(op, ndn, NULL, NULL, 0, &e) != LDAP_SUCCESS || e == NULL) {
		return 0;
	}
	uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	if (uuid != NULL && uuid->a_vals[0].bv_len < text_len) {
		memcpy(text, uuid->a_vals[0].bv_val, uuid->a_vals[0].bv_len);
		text[uuid->a_vals[0].bv_len] = '\0';
	}
	be_entry_release_r(op, e);
	return text[0] != '\0';
}

void xs_uuid_of(xs_op *x, const xs_bytes *dn, void *seen)
{
	Operation *op = x->op;
	struct berval name = bv_in(*dn), ndn = BER_BVNULL;
	char text[LDAP_LUTIL_UUIDSTR_BUFSIZE];

	if (dnNormalize(0, NULL, NULL, &name, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return;
	}
	if (xs_read_uuid(op, &ndn, text, sizeof(text))) {
		xs_bytes uuid = { strlen(text), text };
		xsr_seen_bytes(seen, &uuid);
	}
	op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
}

int xs_has_children(xs_op *x, const xs_bytes *dn)
{
	Operation *op = x->op;
	struct berval name = bv_in(*dn), ndn = BER_BVNULL;
	Entry *e = NULL;
	int has = LDAP_COMPARE_FALSE, rc = LDAP_OTHER;

	if (dnNormalize(0, NULL, NULL, &name, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return -1;
	}
	if (be_entry_get_rw(op, &ndn, NULL, NULL, 0, &e) == LDAP_SUCCESS && e != NULL) {
		if (op->o_bd->be_has_subordinates != NULL) {
			rc = op->o_bd->be_has_subordinates(op, e, &has);
		}
		be_entry_release_r(op, e);
	}
	op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
	return rc != LDAP_SUCCESS ? -1 : has == LDAP_COMPARE_TRUE;
}

void xs_schema_problem(xs_op *x, const xs_bytes *dn, void *seen)
{
	Operation *op = x->op;
	struct berval name = bv_in(*dn), ndn = BER_BVNULL;
	char buffer[SLAP_TEXT_BUFLEN] = "";
	const char *text = NULL;
	Entry *e = NULL;

	if (dnNormalize(0, NULL, NULL, &name, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return;
	}
	/* The entryUUID in the name of a displaced entry is ours. */
	if (!xs_has_uuid_name(&ndn) && be_entry_get_rw(op, &ndn, NULL, NULL, 0, &e) == LDAP_SUCCESS && e != NULL) {
		if (entry_schema_check(op, e, NULL, 0, 0, NULL, &text, buffer, sizeof(buffer)) != LDAP_SUCCESS && text != NULL) {
			xs_bytes bytes = { strlen(text), (char *)text };
			xsr_seen_bytes(seen, &bytes);
		}
		be_entry_release_r(op, e);
	}
	op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
}

static AttributeDescription *attribute(const xs_bytes *name)
{
	struct berval text = bv_in(*name);
	AttributeDescription *ad = NULL;
	const char *problem;

	return slap_bv2ad(&text, &ad, &problem) == LDAP_SUCCESS ? ad : NULL;
}

int xs_is_single(const xs_bytes *name)
{
	AttributeDescription *ad = attribute(name);

	return ad == NULL ? -1 : is_at_single_value(ad->ad_type) != 0;
}

int xs_is_of_clients(const xs_bytes *name)
{
	AttributeDescription *ad = attribute(name);

	return ad == NULL || !is_at_no_user_mod(ad->ad_type);
}

int xs_normalize(xs_op *x, const xs_bytes *name, const xs_bytes *value, void *seen)
{
	Operation *op = x->op;
	AttributeDescription *ad = attribute(name);
	struct berval in = bv_in(*value), pretty = BER_BVNULL, out = BER_BVNULL;
	int rc = LDAP_SUCCESS;

	if (ad != NULL) {
		MatchingRule *mr = ad->ad_type->sat_equality;
		Syntax *syntax = ad->ad_type->sat_syntax;

		/* As slap_mods_check does: some rules compare what was made pretty. */
		if (syntax->ssyn_pretty != NULL) {
			rc = ordered_value_pretty(ad, &in, &pretty, op->o_tmpmemctx);
		}
		if (rc == LDAP_SUCCESS && mr != NULL && mr->smr_normalize != NULL) {
			rc = ordered_value_normalize(SLAP_MR_VALUE_OF_ATTRIBUTE_SYNTAX, ad, mr, pretty.bv_val ? &pretty : &in, &out,
				op->o_tmpmemctx);
		}
	}
	if (rc == LDAP_SUCCESS) {
		xs_bytes bytes = out.bv_val ? XS_OUT(out) : pretty.bv_val ? XS_OUT(pretty) : *value;
		xsr_seen_bytes(seen, &bytes);
	}
	op->o_tmpfree(pretty.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(out.bv_val, op->o_tmpmemctx);
	return rc;
}
