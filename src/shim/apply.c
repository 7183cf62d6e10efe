/* One change of another server into this database, through the backend and the overlays below the
 * frontend: the frontend would refuse attributes that clients may not write. */

#include "shim.h"

/* Where a change goes and what it becomes on the way. */
typedef struct target {
	struct berval dn, ndn; /* of the entry, tmpalloc'ed; NULL: there is no such entry */
	struct berval csn;     /* its entryCSN, tmpalloc'ed */
} target;

typedef struct verdict {
	int *result;
	char *text;
	size_t text_len;
} verdict;

static struct berval bv_in(xs_bytes bytes)
{
	return (struct berval){ .bv_len = bytes.len, .bv_val = bytes.ptr };
}

static int say(verdict v, int outcome, int result, const char *text)
{
	*v.result = result;
	snprintf(v.text, v.text_len, "%s", text && *text ? text : ldap_err2string(result));
	return outcome;
}

static int judge(verdict v, int rc, const char *text)
{
	switch (rc) {
	case LDAP_SUCCESS:
		return XS_APPLIED;
	case LDAP_BUSY:
	case LDAP_UNAVAILABLE:
	case LDAP_OTHER: /* back-mdb's word for a full map, a full disk and the like */
		return say(v, XS_TEMPORARY, rc, text);
	default:
		return say(v, XS_FAILED, rc, text);
	}
}

static void target_free(Operation *op, target *t)
{
	op->o_tmpfree(t->dn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(t->ndn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(t->csn.bv_val, op->o_tmpmemctx);
	memset(t, 0, sizeof(*t));
}

static void target_set(Operation *op, Entry *e, target *t)
{
	Attribute *csn = attr_find(e->e_attrs, slap_schema.si_ad_entryCSN);

	target_free(op, t);
	ber_dupbv_x(&t->dn, &e->e_name, op->o_tmpmemctx);
	ber_dupbv_x(&t->ndn, &e->e_nname, op->o_tmpmemctx);
	if (csn != NULL) {
		ber_dupbv_x(&t->csn, &csn->a_vals[0], op->o_tmpmemctx);
	}
}

static int found_response(Operation *op, SlapReply *rs)
{
	if (rs->sr_type == REP_SEARCH) {
		target_set(op, rs->sr_entry, op->o_callback->sc_private);
	}
	return LDAP_SUCCESS;
}

static int has_uuid(Entry *e, const struct berval *nuuid)
{
	Attribute *a = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);

	return a != NULL && bvmatch(&a->a_nvals[0], nuuid);
}

/* The entry was renamed here or there: the entryUUID finds it (index it, or this reads them all). */
static void find_by_uuid(xs_op *x, struct berval *nuuid, target *t)
{
	slap_callback cb = { .sc_response = found_response, .sc_private = t };
	AttributeAssertion ava = ATTRIBUTEASSERTION_INIT;
	Filter filter = { .f_choice = LDAP_FILTER_EQUALITY };

	ava.aa_desc = slap_schema.si_ad_entryUUID;
	ava.aa_value = *nuuid;
	filter.f_ava = &ava;

	xs_search(x, &filter, &cb);
}

/* Looks under the DN that the change names first: nearly always it is right, and costs no search. */
static int find(xs_op *x, const xs_change *change, target *t)
{
	Operation *op = x->op;
	struct berval uuid = bv_in(change->uuid), dn = bv_in(change->dn), nuuid = BER_BVNULL, ndn = BER_BVNULL;
	MatchingRule *mr = slap_schema.si_ad_entryUUID->ad_type->sat_equality;
	Entry *e = NULL;

	if (mr->smr_normalize(SLAP_MR_VALUE_OF_ATTRIBUTE_SYNTAX, NULL, mr, &uuid, &nuuid, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return 0;
	}
	if (dnNormalize(0, NULL, NULL, &dn, &ndn, op->o_tmpmemctx) == LDAP_SUCCESS) {
		if (be_entry_get_rw(op, &ndn, NULL, NULL, 0, &e) == LDAP_SUCCESS && e != NULL) {
			if (has_uuid(e, &nuuid)) {
				target_set(op, e, t);
			}
			be_entry_release_r(op, e);
		}
		op->o_tmpfree(ndn.bv_val, op->o_tmpmemctx);
	}
	if (BER_BVISNULL(&t->dn)) {
		find_by_uuid(x, &nuuid, t);
	}
	op->o_tmpfree(nuuid.bv_val, op->o_tmpmemctx);
	return !BER_BVISNULL(&t->dn);
}

/* Only the newest change of an entry says when and by whom it was changed last. */
static int outdated(const target *t, const xs_change *change, AttributeDescription *ad)
{
	struct berval csn = bv_in(change->csn);

	return t != NULL && !BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) > 0
		&& (ad == slap_schema.si_ad_entryCSN || ad == slap_schema.si_ad_modifiersName
			|| ad == slap_schema.si_ad_modifyTimestamp);
}

static int mod_into(Modifications *m, const xs_modification *from, const char **text)
{
	struct berval name = bv_in(from->attribute);
	size_t i;

	if (slap_bv2ad(&name, &m->sml_desc, text) != LDAP_SUCCESS) {
		return LDAP_UNDEFINED_TYPE;
	}
	if (from->values_len == 0 && from->op != XS_MOD_DELETE && from->op != XS_MOD_REPLACE) {
		*text = "no values"; /* slapd would follow a NULL pointer */
		return LDAP_PROTOCOL_ERROR;
	}
	m->sml_type = m->sml_desc->ad_cname;
	m->sml_flags = SLAP_MOD_INTERNAL;
	m->sml_numvals = from->values_len;
	switch (from->op) {
	case XS_MOD_DELETE:
		m->sml_op = LDAP_MOD_DELETE;
		break;
	case XS_MOD_REPLACE:
		m->sml_op = LDAP_MOD_REPLACE;
		break;
	case XS_MOD_INCREMENT:
		m->sml_op = LDAP_MOD_INCREMENT;
		break;
	default:
		m->sml_op = LDAP_MOD_ADD;
		break;
	}
	if (from->values_len > 0) {
		m->sml_values = ch_calloc(from->values_len + 1, sizeof(struct berval));
		for (i = 0; i < from->values_len; i++) {
			struct berval value = bv_in(from->values[i]);
			ber_dupbv(&m->sml_values[i], &value);
		}
	}
	return LDAP_SUCCESS;
}

/* slapd's own form of the modifications, checked against the schema and normalised. */
static int mods_in(Operation *op, const xs_change *change, const target *t, Modifications **out, verdict v)
{
	char buffer[SLAP_TEXT_BUFLEN];
	const char *text = NULL;
	Modifications *m, **tail = out;
	size_t i;
	int rc;

	*out = NULL;
	for (i = 0; i < change->mods_len; i++) {
		m = ch_calloc(1, sizeof(*m));
		rc = mod_into(m, &change->mods[i], &text);
		if (rc != LDAP_SUCCESS) {
			snprintf(buffer, sizeof(buffer), "%.*s: %s", (int)change->mods[i].attribute.len,
				change->mods[i].attribute.ptr, text ? text : "unknown attribute");
			ch_free(m);
			slap_mods_free(*out, 1);
			*out = NULL;
			return say(v, XS_REFUSED, rc, buffer);
		}
		if (!xs_replicated(m->sml_desc, t == NULL) || outdated(t, change, m->sml_desc)) {
			slap_mods_free(m, 1);
			continue;
		}
		*tail = m;
		tail = &m->sml_next;
	}
	if (*out == NULL) {
		return XS_APPLIED;
	}
	rc = slap_mods_check(op, *out, &text, buffer, sizeof(buffer), NULL);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(*out, 1);
		*out = NULL;
		return say(v, XS_REFUSED, rc, text);
	}
	return XS_APPLIED;
}

/* back-mdb takes any extra of an operation for a sign that the entry is not to be freed (back-mdb/id2entry.c
 * 560-562), and our mark is one. */
static void release_added(xs_op *x, Entry *e)
{
	Operation *op = x->op;

	LDAP_SLIST_REMOVE(&op->o_extra, &x->own, OpExtra, oe_next);
	be_entry_release_w(op, e);
	LDAP_SLIST_INSERT_HEAD(&op->o_extra, &x->own, oe_next);
}

static int apply_add(xs_op *x, const xs_change *change, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	struct berval dn = bv_in(change->dn);
	char buffer[SLAP_TEXT_BUFLEN];
	const char *text = NULL;
	Modifications *mods;
	Attribute *uuid;
	Entry *e;
	int rc, outcome;

	outcome = mods_in(op, change, NULL, &mods, v);
	if (outcome != XS_APPLIED) {
		return outcome;
	}
	e = entry_alloc();
	rc = dnPrettyNormal(NULL, &dn, &e->e_name, &e->e_nname, NULL);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(mods, 1);
		entry_free(e);
		return say(v, XS_REFUSED, rc, "the DN is not valid here");
	}
	op->o_tag = LDAP_REQ_ADD;
	op->o_req_dn = e->e_name;
	op->o_req_ndn = e->e_nname;
	rc = slap_mods2entry(mods, &e, 1, 0, &text, buffer, sizeof(buffer));
	slap_mods_free(mods, 0);
	if (rc != LDAP_SUCCESS) {
		entry_free(e);
		return say(v, XS_REFUSED, rc, text);
	}
	uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	if (uuid == NULL || uuid->a_vals[0].bv_len != change->uuid.len
		|| strncasecmp(uuid->a_vals[0].bv_val, change->uuid.ptr, change->uuid.len) != 0)
	{
		/* slapd would make one up, another on every server. */
		entry_free(e);
		return say(v, XS_REFUSED, LDAP_PROTOCOL_ERROR, "the entry does not have the entryUUID that the change names");
	}
	op->ora_e = e;
	op->ora_modlist = NULL;
	/* be_add queues the CSN that it finds in the entry. */
	rc = op->o_bd->be_add(op, &rs);
	outcome = judge(v, rc, x->text);
	if (op->o_req_dn.bv_val != e->e_name.bv_val) {
		/* back-mdb took the parent's spelling of the DN (ITS#5326) and left the old one to its owner. */
		ch_free(op->o_req_dn.bv_val);
	}
	if (e == op->ora_e) {
		if (outcome == XS_APPLIED) {
			xs_suffix_note(x->db, &e->e_nname, &change->uuid, x->txn != NULL);
		}
		release_added(x, e);
	}
	return outcome;
}

static void queue_csn(Operation *op, const xs_change *change)
{
	struct berval csn = bv_in(change->csn);

	slap_queue_csn(op, &csn);
}

static int apply_modify(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	Modifications *mods, *m;
	int rc, increments = 0, outcome = mods_in(op, change, t, &mods, v);

	if (outcome != XS_APPLIED || mods == NULL) {
		return outcome;
	}
	/* What is there already, or is already gone, is no reason to refuse. */
	for (m = mods; m != NULL; m = m->sml_next) {
		increments |= m->sml_op == LDAP_MOD_INCREMENT;
		if (m->sml_op == LDAP_MOD_ADD) {
			m->sml_op = SLAP_MOD_SOFTADD;
		} else if (m->sml_op == LDAP_MOD_DELETE) {
			m->sml_op = SLAP_MOD_SOFTDEL;
		}
	}
	op->o_tag = LDAP_REQ_MODIFY;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orm_modlist = mods;
	op->orm_no_opattrs = 1;
	op->orm_increment = 0;
	/* Without it, one value that is there already keeps the others of its list from being added (mods.c 86-180). It
	 * would also make up a value to increment. */
	op->o_permissive_modify = increments ? SLAP_CONTROL_NONE : SLAP_CONTROL_NONCRITICAL;
	queue_csn(op, change);
	rc = op->o_bd->be_modify(op, &rs);
	op->o_permissive_modify = SLAP_CONTROL_NONE;
	outcome = judge(v, rc, x->text);
	slap_mods_free(op->orm_modlist, 1);
	op->orm_modlist = NULL;
	op->orm_no_opattrs = 0;
	return outcome;
}

static int apply_modrdn(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	struct berval rdn = bv_in(change->new_rdn), superior = bv_in(change->new_superior);
	struct berval prdn = BER_BVNULL, nrdn = BER_BVNULL, psup = BER_BVNULL, nsup = BER_BVNULL;
	Modifications *operational = NULL, **tail;
	int rc, outcome = mods_in(op, change, t, &operational, v);

	if (outcome != XS_APPLIED) {
		return outcome;
	}
	if (rdnPretty(NULL, &rdn, &prdn, op->o_tmpmemctx) != LDAP_SUCCESS
		|| rdnNormalize(0, NULL, NULL, &rdn, &nrdn, op->o_tmpmemctx) != LDAP_SUCCESS
		|| (superior.bv_val != NULL
			&& dnPrettyNormal(NULL, &superior, &psup, &nsup, op->o_tmpmemctx) != LDAP_SUCCESS))
	{
		outcome = say(v, XS_REFUSED, LDAP_INVALID_DN_SYNTAX, "the new RDN or superior is not valid here");
		goto done;
	}
	op->o_tag = LDAP_REQ_MODRDN;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orr_newrdn = prdn;
	op->orr_nnewrdn = nrdn;
	op->orr_newSup = psup.bv_val ? &psup : NULL;
	op->orr_nnewSup = nsup.bv_val ? &nsup : NULL;
	op->orr_deleteoldrdn = change->delete_old_rdn;
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 1;
	if (slap_modrdn2mods(op, &rs) != LDAP_SUCCESS) {
		outcome = say(v, XS_REFUSED, rs.sr_err, rs.sr_text);
	} else {
		for (tail = &op->orr_modlist; *tail != NULL; tail = &(*tail)->sml_next)
			;
		*tail = operational;
		operational = NULL;
		queue_csn(op, change);
		rc = op->o_bd->be_modrdn(op, &rs);
		outcome = judge(v, rc, x->text);
	}
	slap_mods_free(op->orr_modlist, 1);
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 0;
done:
	slap_mods_free(operational, 1);
	op->o_tmpfree(prdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(nrdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(psup.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(nsup.bv_val, op->o_tmpmemctx);
	return outcome;
}

static int apply_delete(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	int rc;

	op->o_tag = LDAP_REQ_DELETE;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	/* A delete carries no CSN; without one in the queue back-mdb would mint one of this server's. */
	queue_csn(op, change);
	rc = op->o_bd->be_delete(op, &rs);
	if (rc == LDAP_OTHER && x->txn != NULL && strcmp(x->text, "commit failed") == 0) {
		/* back-mdb takes "the parent has no other child" for a failed commit, which it does not even try inside
		 * of a transaction (back-mdb/delete.c 345-386). The entry is gone, but other overlays were told that it is not. */
		return say(v, XS_ALONE, rc, x->text);
	}
	return judge(v, rc, x->text);
}

/* An entry that has to become as the change says: other name, attributes, or both. */
static int rename_to(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	struct berval dn = bv_in(change->dn), pdn = BER_BVNULL, ndn = BER_BVNULL;
	struct berval rdn, nrdn, superior, nsuperior, old;
	int rc, outcome = XS_APPLIED;

	if (dnPrettyNormal(NULL, &dn, &pdn, &ndn, op->o_tmpmemctx) != LDAP_SUCCESS) {
		return say(v, XS_REFUSED, LDAP_INVALID_DN_SYNTAX, "the DN is not valid here");
	}
	if (dn_match(&ndn, &t->ndn)) {
		goto done;
	}
	dnRdn(&pdn, &rdn);
	dnRdn(&ndn, &nrdn);
	dnParent(&pdn, &superior);
	dnParent(&ndn, &nsuperior);
	dnParent(&t->ndn, &old);
	/* The functions that look at an RDN expect its end to be the text's. */
	ber_dupbv_x(&rdn, &rdn, op->o_tmpmemctx);
	ber_dupbv_x(&nrdn, &nrdn, op->o_tmpmemctx);
	op->o_tag = LDAP_REQ_MODRDN;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orr_newrdn = rdn;
	op->orr_nnewrdn = nrdn;
	op->orr_newSup = dn_match(&old, &nsuperior) ? NULL : &superior;
	op->orr_nnewSup = dn_match(&old, &nsuperior) ? NULL : &nsuperior;
	op->orr_deleteoldrdn = 0; /* the modify that follows sets all values */
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 1;
	if (slap_modrdn2mods(op, &rs) != LDAP_SUCCESS) {
		outcome = say(v, XS_REFUSED, rs.sr_err, rs.sr_text);
	} else {
		queue_csn(op, change);
		rc = op->o_bd->be_modrdn(op, &rs);
		outcome = judge(v, rc, x->text);
		slap_graduate_commit_csn(op);
		xs_op_reset_csn(op);
	}
	slap_mods_free(op->orr_modlist, 1);
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 0;
	op->o_tmpfree(rdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(nrdn.bv_val, op->o_tmpmemctx);
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
static int remove_others(xs_db *db, Operation *op, const target *t, Modifications **mods)
{
	struct berval ndn = t->ndn;
	Entry *e = NULL;
	Attribute *a;

	if (be_entry_get_rw(op, &ndn, NULL, NULL, 0, &e) != LDAP_SUCCESS || e == NULL) {
		return LDAP_NO_SUCH_OBJECT;
	}
	for (a = e->e_attrs; a != NULL; a = a->a_next) {
		Modifications *m;

		if (!xs_replicated(a->a_desc, 1) || xs_made_here(db, a->a_desc) || in_mods(*mods, a->a_desc)) {
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
	be_entry_release_r(op, e);
	return LDAP_SUCCESS;
}

static int apply_put(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	struct berval csn = bv_in(change->csn);
	Modifications *mods, *m;
	int rc, outcome;

	if (!BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) >= 0) {
		return XS_APPLIED;
	}
	outcome = mods_in(op, change, NULL, &mods, v);
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
	rc = remove_others(x->db, op, t, &mods);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(mods, 1);
		return say(v, XS_FAILED, rc, "the entry is gone");
	}
	op->o_tag = LDAP_REQ_MODIFY;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orm_modlist = mods;
	op->orm_no_opattrs = 1;
	op->orm_increment = 0;
	queue_csn(op, change);
	rc = op->o_bd->be_modify(op, &rs);
	outcome = judge(v, rc, x->text);
	slap_mods_free(op->orm_modlist, 1);
	op->orm_modlist = NULL;
	op->orm_no_opattrs = 0;
	return outcome;
}

/* A state of the entry that came by itself holds all that its origin did up to then. */
static int contained(const target *t, const xs_change *change)
{
	struct berval csn = bv_in(change->csn);
	enum { SERVER_AT = 30, SERVER_LEN = 3 };

	return t->csn.bv_len == XS_CSN_LEN && csn.bv_len == XS_CSN_LEN
		&& memcmp(t->csn.bv_val + SERVER_AT, csn.bv_val + SERVER_AT, SERVER_LEN) == 0 && ber_bvcmp(&t->csn, &csn) >= 0;
}

static int later(const target *t, const xs_change *change)
{
	struct berval csn = bv_in(change->csn);

	return !BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) > 0;
}

/* See check_uuid in capture.c. */
static void count_move(xs_db *db, const xs_change *change)
{
	if (change->operation != XS_MODIFY) {
		__atomic_add_fetch(&db->moves, 1, __ATOMIC_SEQ_CST);
	}
}

int xs_apply(xs_op *x, const xs_change *change, int *result, char *text, size_t text_len)
{
	verdict v = { result, text, text_len };
	Operation *op = x->op;
	target t = { BER_BVNULL, BER_BVNULL, BER_BVNULL };
	int there = !change->is_new && find(x, change, &t);
	int outcome;

	count_move(x->db, change);
	*result = LDAP_SUCCESS;
	x->text[0] = '\0';
	op->o_callback = &x->quiet;
	if (change->operation == XS_ADD || change->operation == XS_PUT) {
		/* An entry that is there was brought by another way, in this state or a later one, or has to become so. */
		outcome = there ? apply_put(x, change, &t, v) : apply_add(x, change, v);
	} else if (change->operation == XS_DELETE) {
		outcome = there && !(change->is_state && later(&t, change)) ? apply_delete(x, change, &t, v) : XS_APPLIED;
	} else if (!there) {
		outcome = say(v, XS_REFUSED, LDAP_NO_SUCH_OBJECT, "no entry has this entryUUID");
	} else if (contained(&t, change)) {
		outcome = XS_APPLIED;
	} else if (change->operation == XS_MODIFY) {
		outcome = apply_modify(x, change, &t, v);
	} else {
		outcome = apply_modrdn(x, change, &t, v);
	}
	count_move(x->db, change);
	if (outcome == XS_APPLIED && change->operation == XS_DELETE && there) {
		xs_suffix_note(x->db, &t.ndn, NULL, x->txn != NULL);
	}
	/* One CSN left pending would hold back all of its server. */
	slap_graduate_commit_csn(op);
	xs_op_reset_csn(op);
	target_free(op, &t);
	return outcome;
}

/* Inside a transaction the overlays are told of a change before it is committed, and of some that never will be.
 * These do not mind: they only look, or write into the same transaction. Of the others refint searches at once, in
 * another thread, for what the transaction is still hiding from it; syncprov and accesslog pass on what may be
 * aborted; dds counts it, and ends slapd by an assertion when the count is wrong. */
static int overlays_take_transactions(xs_db *db)
{
	static const char *const harmless[] = {
		"memberof", "ppolicy", "constraint", "unique", "lastbind", "dynlist", "dyngroup", "valsort", "sssvlv", "deref", NULL
	};
	slap_overinst *on;
	int i;

	for (on = db->on->on_info->oi_list; on != NULL; on = on->on_next) {
		for (i = 0; harmless[i] != NULL && strcmp(harmless[i], on->on_bi.bi_type) != 0; i++)
			;
		if (harmless[i] == NULL && on != db->on) {
			return 0;
		}
	}
	return 1;
}

int xs_txn_begin(xs_op *x)
{
	Operation *op = x->op;

	x->txn = NULL;
	if (op->o_bd->bd_info->bi_op_txn == NULL
		|| (op->o_bd->bd_info != x->db->on->on_info->oi_orig && !overlays_take_transactions(x->db)))
	{
		return 1;
	}
	if (op->o_bd->bd_info->bi_op_txn(op, SLAP_TXN_BEGIN, &x->txn) == 0) {
		return 0;
	}
	if (x->txn != NULL) {
		/* back-mdb has entered it in the list before it failed to begin. */
		LDAP_SLIST_REMOVE(&op->o_extra, x->txn, OpExtra, oe_next);
		op->o_tmpfree(x->txn, op->o_tmpmemctx);
		x->txn = NULL;
	}
	return -1;
}

static int txn_end(xs_op *x, int how)
{
	Operation *op = x->op;
	int rc;

	if (x->txn == NULL) {
		return 0;
	}
	/* The transaction lives in the operation's memory and is freed by its end. */
	LDAP_SLIST_REMOVE(&op->o_extra, x->txn, OpExtra, oe_next);
	rc = op->o_bd->bd_info->bi_op_txn(op, how, &x->txn);
	x->txn = NULL;
	return rc == 0 ? 0 : -1;
}

int xs_txn_commit(xs_op *x)
{
	return txn_end(x, SLAP_TXN_COMMIT);
}

void xs_txn_abort(xs_op *x)
{
	txn_end(x, SLAP_TXN_ABORT);
}
