/* One change of another server into this database, through the overlays (but for some, see stack.c) and the backend: the
 * frontend would refuse attributes that clients may not write. */

#include "apply.h"

int xs_say(verdict v, int outcome, int result, const char *text)
{
	*v.result = result;
	snprintf(v.text, v.text_len, "%s", text && *text ? text : ldap_err2string(result));
	return outcome;
}

int xs_judge(verdict v, int rc, const char *text)
{
	switch (rc) {
	case LDAP_SUCCESS:
		return XS_APPLIED;
	case LDAP_BUSY:
	case LDAP_UNAVAILABLE:
	case LDAP_OTHER: /* back-mdb's word for a full map, a full disk and the like */
		return xs_say(v, XS_TEMPORARY, rc, text);
	default:
		return xs_say(v, XS_FAILED, rc, text);
	}
}

void xs_target_free(Operation *op, target *t)
{
	op->o_tmpfree(t->dn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(t->ndn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(t->csn.bv_val, op->o_tmpmemctx);
	memset(t, 0, sizeof(*t));
}

static void target_set(Operation *op, Entry *e, target *t)
{
	Attribute *csn = attr_find(e->e_attrs, slap_schema.si_ad_entryCSN);

	xs_target_free(op, t);
	t->glue = is_entry_glue(e);
	t->displaced = xs_has_uuid_name(&e->e_nname);
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
int xs_find(xs_op *x, const xs_change *change, target *t)
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
		t->elsewhere = 1;
	}
	op->o_tmpfree(nuuid.bv_val, op->o_tmpmemctx);
	return !BER_BVISNULL(&t->dn);
}

/* Only the newest change of an entry says when and by whom it was changed last. */
static int outdated(const target *t, const xs_change *change, AttributeDescription *ad)
{
	struct berval csn = bv_in(change->csn);

	return t != NULL && !change->is_merged && !BER_BVISEMPTY(&t->csn) && ber_bvcmp(&t->csn, &csn) > 0
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

int xs_mods_in(xs_op *x, const xs_change *change, const target *t, Modifications **out, verdict v)
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
			return xs_say(v, XS_REFUSED, rc, buffer);
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
	rc = slap_mods_check(x->op, *out, &text, buffer, sizeof(buffer), NULL);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(*out, 1);
		*out = NULL;
		return xs_say(v, XS_REFUSED, rc, text);
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
	int rc, outcome, checked;

	outcome = xs_mods_in(x, change, NULL, &mods, v);
	if (outcome != XS_APPLIED) {
		return outcome;
	}
	e = entry_alloc();
	rc = dnPrettyNormal(NULL, &dn, &e->e_name, &e->e_nname, NULL);
	if (rc != LDAP_SUCCESS) {
		slap_mods_free(mods, 1);
		entry_free(e);
		return xs_say(v, XS_REFUSED, rc, "the DN is not valid here");
	}
	op->o_tag = LDAP_REQ_ADD;
	op->o_req_dn = e->e_name;
	op->o_req_ndn = e->e_nname;
	rc = slap_mods2entry(mods, &e, 1, 0, &text, buffer, sizeof(buffer));
	slap_mods_free(mods, 0);
	if (rc != LDAP_SUCCESS) {
		entry_free(e);
		return xs_say(v, XS_REFUSED, rc, text);
	}
	uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	if (uuid == NULL || uuid->a_vals[0].bv_len != change->uuid.len
		|| strncasecmp(uuid->a_vals[0].bv_val, change->uuid.ptr, change->uuid.len) != 0)
	{
		/* slapd would make one up, another on every server. */
		entry_free(e);
		return xs_say(v, XS_REFUSED, LDAP_PROTOCOL_ERROR, "the entry does not have the entryUUID that the change names");
	}
	op->ora_e = e;
	op->ora_modlist = NULL;
	checked = op->o_no_schema_check;
	op->o_no_schema_check |= xs_has_uuid_name(&e->e_nname);
	/* be_add queues the CSN that it finds in the entry. */
	rc = xs_write(x, &rs, op_add);
	op->o_no_schema_check = checked;
	outcome = xs_judge(v, rc, x->text);
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

int xs_modify(xs_op *x, const xs_change *change, const target *t, Modifications *mods, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	int outcome;

	op->o_tag = LDAP_REQ_MODIFY;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orm_modlist = mods;
	op->orm_no_opattrs = 1;
	op->orm_increment = 0;
	queue_csn(op, change);
	outcome = xs_judge(v, xs_write(x, &rs, op_modify), x->text);
	slap_mods_free(op->orm_modlist, 1);
	op->orm_modlist = NULL;
	op->orm_no_opattrs = 0;
	return outcome;
}

/* A client's modify went well where it was made. Where it does not here, the entry is another one, and the rules for conflicts
 * tell what it means. */
static int apply_modify(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Modifications *mods;
	int outcome = xs_mods_in(x, change, t, &mods, v);

	if (outcome != XS_APPLIED || mods == NULL) {
		return outcome;
	}
	x->op->o_no_schema_check = t->displaced;
	outcome = xs_modify(x, change, t, mods, v);
	x->op->o_no_schema_check = 0;
	return outcome;
}

int xs_rename(xs_op *x, const xs_change *change, const target *t, const xs_naming *to, Modifications *mods, verdict v)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	Modifications **tail;
	int outcome, rc;

	if (BER_BVISEMPTY(&to->rdn)) {
		slap_mods_free(mods, 1);
		return xs_say(v, XS_REFUSED, LDAP_INVALID_DN_SYNTAX, "the new RDN is empty");
	}
	if (to->nsuperior != NULL && dnIsSuffix(to->nsuperior, &t->ndn)) {
		/* The frontend would refuse it; back-mdb makes a circle that nobody finds again. */
		slap_mods_free(mods, 1);
		return xs_say(v, XS_FAILED, LDAP_UNWILLING_TO_PERFORM, "bug: it would be below itself");
	}
	op->o_tag = LDAP_REQ_MODRDN;
	op->o_req_dn = t->dn;
	op->o_req_ndn = t->ndn;
	op->orr_newrdn = to->rdn;
	op->orr_nnewrdn = to->nrdn;
	op->orr_newSup = to->superior;
	op->orr_nnewSup = to->nsuperior;
	op->orr_deleteoldrdn = to->delete_old;
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 1;
	if (slap_modrdn2mods(op, &rs) != LDAP_SUCCESS) {
		outcome = xs_say(v, XS_REFUSED, rs.sr_err, rs.sr_text);
		slap_mods_free(mods, 1);
	} else {
		for (tail = &op->orr_modlist; *tail != NULL; tail = &(*tail)->sml_next)
			;
		*tail = mods;
		queue_csn(op, change);
		/* A value of the new RDN may be there already. */
		op->o_permissive_modify = SLAP_CONTROL_NONCRITICAL;
		xs_forget_last_entry(x->db);
		rc = xs_write(x, &rs, op_modrdn);
		op->o_permissive_modify = SLAP_CONTROL_NONE;
		if (rc == LDAP_OTHER && x->txn != NULL && x->text[0] == '\0') {
			/* As with deletes, see there: glue has no other child (back-mdb/modrdn.c 487-552). */
			outcome = xs_say(v, XS_ALONE, rc, "the last entry below glue");
		} else {
			outcome = xs_judge(v, rc, x->text);
		}
	}
	slap_mods_free(op->orr_modlist, 1);
	op->orr_modlist = NULL;
	op->orr_no_opattrs = 0;
	return outcome;
}

static int apply_modrdn(xs_op *x, const xs_change *change, target *t, verdict v)
{
	Operation *op = x->op;
	struct berval rdn = bv_in(change->new_rdn), superior = bv_in(change->new_superior);
	struct berval psup = BER_BVNULL, nsup = BER_BVNULL;
	xs_naming to = { BER_BVNULL, BER_BVNULL, NULL, NULL, change->delete_old_rdn };
	Modifications *operational = NULL;
	int outcome = xs_mods_in(x, change, t, &operational, v);

	if (outcome != XS_APPLIED) {
		return outcome;
	}
	if (rdnPretty(NULL, &rdn, &to.rdn, op->o_tmpmemctx) != LDAP_SUCCESS
		|| rdnNormalize(0, NULL, NULL, &rdn, &to.nrdn, op->o_tmpmemctx) != LDAP_SUCCESS
		|| (superior.bv_val != NULL
			&& dnPrettyNormal(NULL, &superior, &psup, &nsup, op->o_tmpmemctx) != LDAP_SUCCESS))
	{
		slap_mods_free(operational, 1);
		outcome = xs_say(v, XS_REFUSED, LDAP_INVALID_DN_SYNTAX, "the new RDN or superior is not valid here");
	} else {
		to.superior = psup.bv_val ? &psup : NULL;
		to.nsuperior = nsup.bv_val ? &nsup : NULL;
		outcome = xs_rename(x, change, t, &to, operational, v);
	}
	op->o_tmpfree(to.rdn.bv_val, op->o_tmpmemctx);
	op->o_tmpfree(to.nrdn.bv_val, op->o_tmpmemctx);
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
	rc = xs_write(x, &rs, op_delete);
	if (rc == LDAP_OTHER && x->txn != NULL && strcmp(x->text, "commit failed") == 0) {
		/* back-mdb takes "the parent has no other child" for a failed commit, which it does not even try inside
		 * of a transaction (back-mdb/delete.c 345-386). The entry is gone, but other overlays were told that it is not. */
		return xs_say(v, XS_ALONE, rc, x->text);
	}
	return xs_judge(v, rc, x->text);
}

/* What the rules for conflicts came to. */
static int apply_merged(xs_op *x, const xs_change *change, target *t, int there, verdict v)
{
	Operation *op = x->op;
	Modifications *mods;
	int outcome;

	op->o_no_schema_check = change->is_merged == XS_UNCHECKED || t->displaced;
	if (change->operation == XS_ADD) {
		outcome = apply_add(x, change, v);
	} else if (!there) {
		outcome = xs_say(v, XS_FAILED, LDAP_NO_SUCH_OBJECT, "the entry is gone");
	} else if (change->operation == XS_DELETE) {
		outcome = apply_delete(x, change, t, v);
	} else if (change->operation == XS_MODRDN) {
		outcome = apply_modrdn(x, change, t, v);
	} else {
		outcome = xs_mods_in(x, change, t, &mods, v);
		if (outcome == XS_APPLIED && mods != NULL) {
			outcome = xs_modify(x, change, t, mods, v);
		}
	}
	op->o_no_schema_check = 0;
	op->o_delete_glue_parent = 0; /* a wish of back-mdb to the frontend; the rules see to it */
	return outcome;
}

int xs_apply(xs_op *x, const xs_change *change, int *result, char *text, size_t text_len)
{
	verdict v = { result, text, text_len };
	Operation *op = x->op;
	target t = { BER_BVNULL, BER_BVNULL, BER_BVNULL, 0, 0, 0 };
	int there = !change->is_new && xs_find(x, change, &t);
	int outcome;

	*result = LDAP_SUCCESS;
	x->text[0] = '\0';
	op->o_callback = &x->quiet;
	if (change->is_merged) {
		outcome = apply_merged(x, change, &t, there, v);
	} else if (there && change->operation != XS_DELETE && change->operation != XS_PUT && xs_contained(&t, change)) {
		outcome = XS_APPLIED;
	} else if (xs_needs_care(x, change, &t, there)) {
		outcome = XS_CARE;
	} else if (change->operation == XS_ADD || change->operation == XS_PUT) {
		/* An entry that is there was brought by another way, in this state or a later one, or has to become so. */
		outcome = there ? xs_apply_put(x, change, &t, v) : apply_add(x, change, v);
	} else if (change->operation == XS_DELETE) {
		outcome = there ? apply_delete(x, change, &t, v) : XS_APPLIED;
	} else if (!there) {
		outcome = xs_say(v, XS_REFUSED, LDAP_NO_SUCH_OBJECT, "no entry has this entryUUID");
	} else if (change->operation == XS_MODIFY) {
		outcome = apply_modify(x, change, &t, v);
	} else {
		outcome = apply_modrdn(x, change, &t, v);
	}
	if (outcome == XS_APPLIED && change->operation == XS_DELETE && there) {
		xs_suffix_note(x->db, &t.ndn, NULL, x->txn != NULL);
	}
	/* One CSN left pending would hold back all of its server. */
	slap_graduate_commit_csn(op);
	xs_op_reset_csn(op);
	xs_target_free(op, &t);
	return outcome;
}
