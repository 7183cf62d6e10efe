/* Entries as they are stored: for the scan of db_open, for peers that lack them, and for a copy of the whole. */

#include "shim.h"

/* Parents that a dump remembers. Of one that was forgotten the place in the database is looked up again. */
enum { PARENTS = 4096 };

typedef struct reading {
	xs_op *x;
	void *seen;
	unsigned long long *parents; /* a dump: hashes of DNs, 0 in an empty place */
	unsigned long long parent;   /* the hash of a DN, or 0, and the entryUUID of the entry with it */
	char parent_uuid[LDAP_LUTIL_UUIDSTR_BUFSIZE];
	int may_yield;               /* it ends early when slapd wants its thread back */
	int end;                     /* enum xs_dump_end */
} reading;

static xs_bytes first_value(Entry *e, AttributeDescription *ad)
{
	Attribute *a = attr_find(e->e_attrs, ad);

	return a != NULL && a->a_numvals > 0 ? XS_OUT(a->a_vals[0]) : (xs_bytes){ 0, NULL };
}

static int search_all(xs_op *x, slap_callback *cb)
{
	Filter filter = { .f_choice = LDAP_FILTER_PRESENT };
	int rc;

	filter.f_desc = slap_schema.si_ad_objectClass;
	rc = xs_search(x, &filter, cb);
	return rc == LDAP_NO_SUCH_OBJECT || rc == LDAP_REFERRAL ? LDAP_SUCCESS : rc; /* there is no suffix entry yet */
}

/* back-mdb ends a search whose entry could not be sent for this reason (back-mdb/search.c 1117-1134). */
static int go_on(reading *r)
{
	if (r->end == XS_DUMP_WHOLE && r->may_yield && xs_must_yield(r->x)) {
		r->end = XS_DUMP_YIELDED;
	}
	return r->end == XS_DUMP_WHOLE ? LDAP_SUCCESS : LDAP_UNAVAILABLE;
}

static int walk(reading *r, slap_callback *cb)
{
	int rc = search_all(r->x, cb);

	if (r->end != XS_DUMP_WHOLE) {
		return r->end;
	}
	if (rc != LDAP_SUCCESS && r->may_yield && xs_must_yield(r->x)) {
		return XS_DUMP_YIELDED; /* slapd ends every search when it stops, and some when it pauses */
	}
	return rc;
}

static int scan_response(Operation *op, SlapReply *rs)
{
	reading *r = op->o_callback->sc_private;
	xs_bytes uuid, csn, dn;

	if (rs->sr_type != REP_SEARCH || r->end != XS_DUMP_WHOLE) {
		return LDAP_SUCCESS;
	}
	uuid = first_value(rs->sr_entry, slap_schema.si_ad_entryUUID);
	csn = first_value(rs->sr_entry, slap_schema.si_ad_entryCSN);
	dn = XS_OUT(rs->sr_entry->e_name);
	if (xsr_seen_entry(r->seen, &dn, &uuid, &csn, is_entry_glue(rs->sr_entry) != 0)) {
		r->end = XS_DUMP_STOPPED;
	}
	return go_on(r);
}

int xs_scan_entries(xs_op *x, int in_pool, void *seen)
{
	reading r = { .x = x, .seen = seen, .may_yield = in_pool };
	slap_callback cb = { .sc_response = scan_response, .sc_private = &r };

	return walk(&r, &cb);
}

static unsigned long long hash_of(const struct berval *ndn)
{
	unsigned long long hash = 14695981039346656037ULL; /* FNV-1a */
	ber_len_t i;

	for (i = 0; i < ndn->bv_len; i++) {
		hash = (hash ^ (unsigned char)ndn->bv_val[i]) * 1099511628211ULL;
	}
	return hash + (hash == 0);
}

/* The entryUUID of the parent; that of the last one is remembered, for its next child. Empty for the suffix entry. */
static xs_bytes parent_of(reading *r, Operation *op, Entry *e)
{
	struct berval pndn;
	unsigned long long hash;

	if (be_issuffix(op->o_bd, &e->e_nname)) {
		return (xs_bytes){ 0, NULL };
	}
	dnParent(&e->e_nname, &pndn);
	hash = hash_of(&pndn);
	if (hash != r->parent) {
		r->parent = xs_read_uuid(op, &pndn, r->parent_uuid, sizeof(r->parent_uuid)) ? hash : 0;
	}
	return (xs_bytes){ strlen(r->parent_uuid), r->parent_uuid };
}

/* The same as capture.c makes of an add. */
static int show_state(reading *r, Operation *op, Entry *e)
{
	size_t len = xs_view_attributes(e->e_attrs, NULL);
	xs_modification *mods = op->o_tmpcalloc(len + 1, sizeof(*mods), op->o_tmpmemctx);
	xs_change state = { .operation = XS_ADD, .mods = mods };
	int enough;

	state.csn = first_value(e, slap_schema.si_ad_entryCSN);
	state.uuid = first_value(e, slap_schema.si_ad_entryUUID);
	state.dn = XS_OUT(e->e_name);
	if (r->parents == NULL) {
		state.parent = parent_of(r, op, e);
	}
	state.mods_len = xs_view_attributes(e->e_attrs, mods);
	enough = xsr_seen_state(r->seen, &state);
	op->o_tmpfree(mods, op->o_tmpmemctx);
	return enough;
}

/* Whether the entry's children were met before. */
static int met_parent(reading *r, const struct berval *ndn)
{
	unsigned long long hash = hash_of(ndn);
	unsigned long long *place = &r->parents[hash % PARENTS];

	if (*place == hash) {
		return 1;
	}
	*place = hash;
	return 0;
}

/* The database shows its entries in the order in which they were made, or walks the tree, whichever it takes for cheaper
 * (back-mdb/search.c), so that no number tells how far a search has come. In the first order a subtree that was moved below a younger entry comes
 * before it, and whoever loads the copy could not place as much as one entry of it: so that one is shown first, and once
 * more when its turn comes. `id` is how far the dump has come. */
static int show_parents(reading *r, Operation *op, ID id, const struct berval *ndn)
{
	struct berval pndn;
	Entry *p = NULL;
	int enough = 0;

	if (be_issuffix(op->o_bd, (struct berval *)ndn)) {
		return 0;
	}
	dnParent((struct berval *)ndn, &pndn);
	if (met_parent(r, &pndn) || be_entry_get_rw(op, &pndn, NULL, NULL, 0, &p) != LDAP_SUCCESS || p == NULL) {
		return 0;
	}
	if (p->e_id > id) {
		enough = show_parents(r, op, id, &p->e_nname) || show_state(r, op, p);
	}
	be_entry_release_r(op, p);
	return enough;
}

static int read_response(Operation *op, SlapReply *rs)
{
	Entry *e = rs->sr_entry;
	reading *r = op->o_callback->sc_private;

	if (rs->sr_type != REP_SEARCH || r->end != XS_DUMP_WHOLE) {
		return LDAP_SUCCESS;
	}
	if ((r->parents != NULL && show_parents(r, op, e->e_id, &e->e_nname)) || show_state(r, op, e)) {
		r->end = XS_DUMP_STOPPED;
	}
	return go_on(r);
}

int xs_read_entry(xs_op *x, const xs_bytes *uuid, void *seen)
{
	reading r = { .x = x, .seen = seen };
	slap_callback cb = { .sc_response = read_response, .sc_private = &r };
	AttributeAssertion ava = ATTRIBUTEASSERTION_INIT;
	Filter filter = { .f_choice = LDAP_FILTER_EQUALITY };
	MatchingRule *mr = slap_schema.si_ad_entryUUID->ad_type->sat_equality;
	struct berval text = { .bv_len = uuid->len, .bv_val = uuid->ptr }, nuuid = BER_BVNULL;
	Operation *op = x->op;
	int rc = mr->smr_normalize(SLAP_MR_VALUE_OF_ATTRIBUTE_SYNTAX, NULL, mr, &text, &nuuid, op->o_tmpmemctx);

	if (rc != LDAP_SUCCESS) {
		return rc;
	}
	ava.aa_desc = slap_schema.si_ad_entryUUID;
	ava.aa_value = nuuid;
	filter.f_ava = &ava;
	rc = xs_search(x, &filter, &cb);
	op->o_tmpfree(nuuid.bv_val, op->o_tmpmemctx);
	return rc == LDAP_NO_SUCH_OBJECT || rc == LDAP_REFERRAL || r.end != XS_DUMP_WHOLE ? LDAP_SUCCESS : rc;
}

int xs_dump(xs_op *x, void *seen)
{
	unsigned long long parents[PARENTS] = { 0 };
	reading r = { .x = x, .seen = seen, .parents = parents, .may_yield = 1 };
	slap_callback cb = { .sc_response = read_response, .sc_private = &r };

	return walk(&r, &cb);
}

int xs_read_all(xs_op *x, void *seen)
{
	reading r = { .x = x, .seen = seen, .may_yield = 1 };
	slap_callback cb = { .sc_response = read_response, .sc_private = &r };

	return walk(&r, &cb);
}
