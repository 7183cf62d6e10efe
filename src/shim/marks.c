/* Marks of what was lost where changes met: the attributes by which entries show them, who may read them, and how a client's
 * decision takes them away. The node makes them (node::merging::marks).
 *
 * A mark begins with the attribute that it tells of, and a space. */

#include "shim.h"

static AttributeDescription *ad_lost;

/* Clients may write xmppSyncLost: they take away what they have seen. */
int xs_marks_register(void)
{
	AttributeDescription *ad_conflict = NULL;
	int rc = register_at("( " XS_ARC ".2.1 NAME 'xmppSyncConflict' DESC 'What became of the entry because it met another one' "
		"EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 "
		"NO-USER-MODIFICATION USAGE directoryOperation )", &ad_conflict, 0);

	if (rc != 0) {
		return rc;
	}
	return register_at("( " XS_ARC ".2.2 NAME 'xmppSyncLost' DESC 'A value, a name or a change that was lost to a change of another server' "
		"EQUALITY caseExactMatch SUBSTR caseExactSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 "
		"USAGE directoryOperation )", &ad_lost, 0);
}

/* The attribute that the mark tells of; NULL: it is none of the schema's. */
static AttributeDescription *told_of(const struct berval *mark)
{
	struct berval name = *mark;
	AttributeDescription *ad = NULL;
	const char *end = ber_bvchr(mark, ' '), *text;

	if (end != NULL) {
		name.bv_len = end - mark->bv_val;
	}
	return slap_bv2ad(&name, &ad, &text) == LDAP_SUCCESS ? ad : NULL;
}

static int writes(const Modifications *m, const AttributeDescription *ad)
{
	while (m != NULL && m->sml_desc != ad) {
		m = m->sml_next;
	}
	return m != NULL;
}

static Modifications *without(const Attribute *a, unsigned i)
{
	Modifications *m = ch_calloc(1, sizeof(*m));

	m->sml_op = SLAP_MOD_SOFTDEL;
	m->sml_flags = SLAP_MOD_INTERNAL;
	m->sml_desc = ad_lost;
	m->sml_type = ad_lost->ad_cname;
	m->sml_numvals = 1;
	m->sml_values = ch_calloc(2, sizeof(struct berval));
	m->sml_nvalues = ch_calloc(2, sizeof(struct berval));
	ber_dupbv(m->sml_values, &a->a_vals[i]);
	ber_dupbv(m->sml_nvalues, &a->a_nvals[i]);
	return m;
}

/* Whether the mark tells of the entry's name or place. */
static int is_of_name(const struct berval *mark)
{
	static const char name[] = "dn ";

	return mark->bv_len >= sizeof(name) - 1 && memcmp(mark->bv_val, name, sizeof(name) - 1) == 0;
}

int xs_is_mark(const AttributeDescription *ad)
{
	return ad == ad_lost;
}

void xs_marks_clear(Operation *op, Entry *e)
{
	int renames = op->o_tag == LDAP_REQ_MODRDN;
	Modifications **list = renames ? &op->orr_modlist : &op->orm_modlist, **tail;
	Attribute *a = attr_find(e->e_attrs, ad_lost);
	unsigned i;

	/* Who writes the marks themselves says what becomes of them. A list that the frontend did not make nobody would free. */
	if (a == NULL || *list == NULL || writes(*list, ad_lost)) {
		return;
	}
	for (tail = list; *tail != NULL; tail = &(*tail)->sml_next)
		;
	for (i = 0; i < a->a_numvals; i++) {
		AttributeDescription *ad = told_of(&a->a_vals[i]);

		if (renames ? is_of_name(&a->a_vals[i]) : ad != NULL && writes(*list, ad)) {
			*tail = without(a, i);
			tail = &(*tail)->sml_next;
		}
	}
}

/* A mark shows a value: only who may read all attributes that the entry's marks tell of may read, or search for, any of them. The
 * rest is as slapd does it for a backend without a say of its own. */
int xs_marks_access_allowed(Operation *op, Entry *e, AttributeDescription *desc, struct berval *val, slap_access_t access,
	AccessControlState *state, slap_mask_t *maskp)
{
	slap_access_t level = ACL_LEVEL(access);
	Attribute *a = NULL;
	unsigned i;

	if (desc == ad_lost && (level == ACL_READ || level == ACL_SEARCH || level == ACL_COMPARE)) {
		a = attr_find(e->e_attrs, ad_lost);
	}
	for (i = 0; a != NULL && i < a->a_numvals; i++) {
		AttributeDescription *ad = told_of(&a->a_vals[i]);
		/* "entry": the DN of one that is gone. Who might have read it nobody can tell any more. */
		slap_access_t wanted = ad == slap_schema.si_ad_entry ? ACL_MANAGE : access;
		slap_mask_t mask;

		ACL_INIT(mask);
		if (ad != NULL && !slap_access_allowed(op, e, ad, NULL, wanted, NULL, &mask)) {
			return 0;
		}
	}
	return slap_access_allowed(op, e, desc, val, access, state, maskp);
}
