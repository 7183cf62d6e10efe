/* Which changes of other servers are more than doing what their origin did: these go through the rules for conflicts. */

#include "apply.h"

/* Whether the RDN of the normalised DN has more in it than the entryUUID that it has: the entry is displaced. */
int xs_has_uuid_name(struct berval *ndn)
{
	static const char name[] = "entryUUID=";
	struct berval rdn;
	ber_len_t i;
	int has = 0, parts = 1;

	dnRdn(ndn, &rdn);
	for (i = 0; i < rdn.bv_len; i++) {
		/* Within values it is escaped. */
		parts += rdn.bv_val[i] == '+';
		has |= (i == 0 || rdn.bv_val[i - 1] == '+') && i + sizeof(name) <= rdn.bv_len
			&& strncasecmp(rdn.bv_val + i, name, sizeof(name) - 1) == 0;
	}
	return has && parts > 1;
}

/* A state of the entry that came by itself holds all that its origin did up to then. */
int xs_contained(const target *t, const xs_change *change)
{
	struct berval csn = bv_in(change->csn);
	enum { SERVER_AT = 30, SERVER_LEN = 3 };

	return t->csn.bv_len == XS_CSN_LEN && csn.bv_len == XS_CSN_LEN
		&& memcmp(t->csn.bv_val + SERVER_AT, csn.bv_val + SERVER_AT, SERVER_LEN) == 0 && ber_bvcmp(&t->csn, &csn) >= 0;
}

int xs_later(const target *t, const xs_change *change)
{
	struct berval csn = bv_in(change->csn);

	return !BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) > 0;
}

/* Whether the modify takes away or replaces values of an attribute that is in the entry's name. */
static int touches_name(const xs_change *change, const target *t)
{
	struct berval rdn;
	size_t i;
	LDAPRDN parsed = NULL;
	char *end;
	int touches = 0, k;

	dnRdn((struct berval *)&t->dn, &rdn);
	for (i = 0; i < change->mods_len && !touches; i++) {
		struct berval name = bv_in(change->mods[i].attribute);
		AttributeDescription *ad = NULL, *other;
		const char *text;

		if (change->mods[i].op == XS_MOD_ADD || slap_bv2ad(&name, &ad, &text) != LDAP_SUCCESS) {
			continue;
		}
		if (parsed == NULL && ldap_bv2rdn(&rdn, &parsed, &end, LDAP_DN_FORMAT_LDAP) != LDAP_SUCCESS) {
			return 1;
		}
		for (k = 0; parsed != NULL && parsed[k] != NULL && !touches; k++) {
			other = NULL;
			touches = slap_bv2ad(&parsed[k]->la_attr, &other, &text) != LDAP_SUCCESS || other->ad_type == ad->ad_type;
		}
	}
	if (parsed != NULL) {
		ldap_rdnfree(parsed);
	}
	return touches;
}

/* Whether the parent in the DN of an add is another entry by now. */
static int has_other_parent(Operation *op, const xs_change *change)
{
	struct berval dn = bv_in(change->dn), ndn = BER_BVNULL, parent;
	struct berval uuid = bv_in(change->parent);
	char found[LDAP_LUTIL_UUIDSTR_BUFSIZE];
	int other;

	if (BER_BVISNULL(&uuid) || dnNormalize(0, NULL, NULL, &dn, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return 0;
	}
	dnParent(&ndn, &parent);
	other = !xs_read_uuid(op, &parent, found, sizeof(found)) || strlen(found) != uuid.bv_len
		|| strncasecmp(found, uuid.bv_val, uuid.bv_len) != 0;
	op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
	return other;
}

/* Whether it is more than doing what the origin did: it comes late, or to an entry that is not what the origin saw. */
int xs_needs_care(xs_op *x, const xs_change *change, const target *t, int there)
{
	if (!there) {
		return ((change->operation == XS_ADD || change->operation == XS_PUT) && has_other_parent(x->op, change))
			|| (change->operation == XS_DELETE && !change->is_state);
	}
	switch (change->operation) {
	case XS_MODIFY:
		return t->glue || xs_later(t, change) || touches_name(change, t);
	case XS_DELETE:
		return xs_later(t, change) || t->glue || (!change->is_state && t->elsewhere);
	case XS_PUT:
		return t->glue || (!change->is_state && xs_later(t, change)) || has_other_parent(x->op, change);
	case XS_ADD:
		return t->glue;
	default:
		/* A move has its place among all moves. */
		return t->glue || t->displaced || t->elsewhere || xs_later(t, change) || change->new_superior.ptr != NULL;
	}
}
