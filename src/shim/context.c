/* Internal operations and the contextCSN. */

#include "shim.h"

static const char own_key, local_key;

static OpExtra *extra_of(Operation *op, const char *key)
{
	OpExtra *extra;

	LDAP_SLIST_FOREACH(extra, &op->o_extra, oe_next) {
		if (extra->oe_key == (void *)key) {
			return extra;
		}
	}
	return NULL;
}

int xs_op_is_own(Operation *op)
{
	return extra_of(op, &own_key) != NULL;
}

void xs_op_set_local(xs_op *x, int on)
{
	Operation *op = x->op;
	OpExtra *from = on ? &x->own : &x->local, *to = on ? &x->local : &x->own;

	LDAP_SLIST_REMOVE(&op->o_extra, from, OpExtra, oe_next);
	LDAP_SLIST_INSERT_HEAD(&op->o_extra, to, oe_next);
}

int xs_op_is_local(Operation *op)
{
	return extra_of(op, &local_key) != NULL;
}

int xs_op_is_local_in_txn(Operation *op)
{
	OpExtra *extra = extra_of(op, &local_key);

	return extra != NULL && ((xs_op *)((char *)extra - offsetof(xs_op, local)))->txn != NULL;
}

static int quiet_response(Operation *op, SlapReply *rs)
{
	xs_op *x = op->o_callback->sc_private;

	if (rs->sr_type == REP_RESULT) {
		snprintf(x->text, sizeof(x->text), "%s", rs->sr_text ? rs->sr_text : "");
	}
	return LDAP_SUCCESS;
}

void xs_op_init(xs_op *x, xs_db *db, void *thrctx, int newmem)
{
	memset(x, 0, sizeof(*x));
	x->db = db;
	connection_fake_init2(&x->conn, &x->opbuf, thrctx, newmem);
	x->op = &x->opbuf.ob_op;
	x->op->o_bd = db->be;
	x->op->o_dn = db->be->be_rootdn;
	x->op->o_ndn = db->be->be_rootndn;
	x->op->o_managedsait = SLAP_CONTROL_NONCRITICAL;
	/* A sync connection, or ppolicy, constraint and unique judge the write as a client's (ITS#9953).
	 * The number only has to be below SLAPD_SYNC_SYNCCONN_OFFSET. */
	x->op->o_connid = SLAPD_SYNC_RID2SYNCCONN(SLAP_SYNC_RID_MAX);
	x->quiet.sc_response = quiet_response;
	x->quiet.sc_private = x;
	x->op->o_callback = &x->quiet;
	x->own.oe_key = (void *)&own_key;
	x->local.oe_key = (void *)&local_key;
	LDAP_SLIST_INSERT_HEAD(&x->op->o_extra, &x->own, oe_next);
}

void xs_op_init_below(xs_op *x, xs_db *db, void *thrctx, int newmem, BackendDB *be, BackendDB *below)
{
	*below = *be;
	below->bd_info = db->on->on_info->oi_orig;
	xs_op_init(x, db, thrctx, newmem);
	x->op->o_bd = below;
}

/* slap_queue_csn left a copy in the operation; the next change must not find it there. */
void xs_op_reset_csn(Operation *op)
{
	if (!BER_BVISNULL(&op->o_csn)) {
		op->o_tmpfree(op->o_csn.bv_val, op->o_tmpmemctx);
		BER_BVZERO(&op->o_csn);
	}
}

static int suffix_exists(Operation *op)
{
	Entry *e = NULL;

	if (be_entry_get_rw(op, &op->o_bd->be_nsuffix[0], NULL, NULL, 0, &e) != LDAP_SUCCESS || e == NULL) {
		return 0;
	}
	be_entry_release_r(op, e);
	return 1;
}

int xs_write_context_csn(xs_op *x, const xs_bytes *csns, size_t csns_len)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	Modifications mod = { { 0 } };
	BerVarray values;
	int rc;

	if (csns_len == 0) {
		return 0;
	}
	if (!suffix_exists(op)) {
		return 1;
	}
	values = op->o_tmpcalloc(csns_len + 1, sizeof(struct berval), op->o_tmpmemctx);
	memcpy(values, csns, csns_len * sizeof(struct berval));

	mod.sml_op = LDAP_MOD_REPLACE;
	mod.sml_flags = SLAP_MOD_INTERNAL;
	mod.sml_desc = slap_schema.si_ad_contextCSN;
	mod.sml_type = mod.sml_desc->ad_cname;
	mod.sml_values = values;
	mod.sml_numvals = csns_len;

	op->o_tag = LDAP_REQ_MODIFY;
	op->o_req_dn = op->o_bd->be_suffix[0];
	op->o_req_ndn = op->o_bd->be_nsuffix[0];
	op->orm_modlist = &mod;
	op->orm_no_opattrs = 1;
	op->o_dont_replicate = 1;
	x->text[0] = '\0';
	rc = xs_write(x, &rs, op_modify);
	op->o_dont_replicate = 0;
	op->orm_no_opattrs = 0;
	/* back-mdb does not give the modification list to anybody who keeps it. */
	if (mod.sml_next != NULL) {
		slap_mods_free(mod.sml_next, 1);
	}
	slap_graduate_commit_csn(op);
	xs_op_reset_csn(op);
	op->o_tmpfree(values, op->o_tmpmemctx);
	if (rc != LDAP_SUCCESS) {
		Debug(LDAP_DEBUG_ANY, "xmppsync: contextCSN could not be written to \"%s\": %s (%d)\n",
			op->o_bd->be_suffix[0].bv_val, x->text[0] ? x->text : ldap_err2string(rc), rc);
		return -1;
	}
	return 0;
}

int xs_read_context_csn(xs_op *x, void *seen)
{
	Operation *op = x->op;
	Entry *e = NULL;
	Attribute *a;
	unsigned i, found = 0;

	if (be_entry_get_rw(op, &op->o_bd->be_nsuffix[0], NULL, NULL, 0, &e) != LDAP_SUCCESS || e == NULL) {
		return 0;
	}
	a = attr_find(e->e_attrs, slap_schema.si_ad_contextCSN);
	if (a != NULL) {
		for (i = 0; i < a->a_numvals; i++) {
			xs_bytes csn = XS_OUT(a->a_vals[i]);
			xsr_seen_csn(seen, &csn);
		}
		found = a->a_numvals;
	}
	be_entry_release_r(op, e);
	return (int)found;
}

/* Shows every entry of the database that the filter matches to the callback. An LDAP result code. */
int xs_search(xs_op *x, Filter *filter, slap_callback *cb)
{
	Operation *op = x->op;
	SlapReply rs = { REP_RESULT };
	/* Past all overlays: the entries are looked at as they are stored. */
	BackendDB *be = op->o_bd, below = *be;

	below.bd_info = x->db->on->on_info->oi_orig;
	op->o_bd = &below;
	op->o_tag = LDAP_REQ_SEARCH;
	op->o_req_dn = op->o_bd->be_suffix[0];
	op->o_req_ndn = op->o_bd->be_nsuffix[0];
	op->o_callback = cb;
	op->ors_scope = LDAP_SCOPE_SUBTREE;
	op->ors_deref = LDAP_DEREF_NEVER;
	op->ors_limit = NULL;
	op->ors_slimit = SLAP_NO_LIMIT;
	op->ors_tlimit = SLAP_NO_LIMIT;
	op->ors_attrs = NULL;
	op->ors_attrsonly = 0;
	op->ors_filter = filter;
	filter2bv_x(op, filter, &op->ors_filterstr);
	below.bd_info->bi_op_search(op, &rs);
	op->o_bd = be;
	op->o_tmpfree(op->ors_filterstr.bv_val, op->o_tmpmemctx);
	BER_BVZERO(&op->ors_filterstr);
	op->o_callback = &x->quiet;
	return rs.sr_err;
}

static int scan_response(Operation *op, SlapReply *rs)
{
	if (rs->sr_type == REP_SEARCH) {
		Attribute *a = attr_find(rs->sr_entry->e_attrs, slap_schema.si_ad_entryCSN);

		if (a != NULL && a->a_numvals > 0) {
			xs_bytes csn = XS_OUT(a->a_vals[0]);
			xsr_seen_csn(op->o_callback->sc_private, &csn);
		}
	}
	return LDAP_SUCCESS;
}

int xs_scan_entry_csn(xs_op *x, const xs_bytes *from, void *seen)
{
	slap_callback cb = { 0 };
	AttributeAssertion ava = ATTRIBUTEASSERTION_INIT;
	Filter filter = { 0 };
	int rc;

	if (from != NULL) {
		ava.aa_desc = slap_schema.si_ad_entryCSN;
		ava.aa_value.bv_len = from->len;
		ava.aa_value.bv_val = from->ptr;
		filter.f_choice = LDAP_FILTER_GE;
		filter.f_ava = &ava;
	} else {
		filter.f_choice = LDAP_FILTER_PRESENT;
		filter.f_desc = slap_schema.si_ad_objectClass;
	}
	cb.sc_response = scan_response;
	cb.sc_private = seen;

	rc = xs_search(x, &filter, &cb);
	return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc;
}

void xs_new_csn(xs_csn *out)
{
	char text[LDAP_PVT_CSNSTR_BUFSIZE];

	if (ldap_pvt_csnstr(text, sizeof(text), slap_serverID, 0) != XS_CSN_LEN) {
		memset(text, '0', XS_CSN_LEN); /* no CSN: whoever gets it refuses it */
	}
	memcpy(out->text, text, XS_CSN_LEN);
}

size_t xs_pending_csns(xs_db *db, unsigned server_id, xs_csn *out, size_t max)
{
	struct slap_csn_entry *pending;
	be_pcsn *list;
	size_t count = 0;

	if (__atomic_load_n(&db->closed, __ATOMIC_ACQUIRE)) {
		return 0;
	}
	list = db->be->be_pcsn_p;
	ldap_pvt_thread_mutex_lock(&list->be_pcsn_mutex);
	LDAP_TAILQ_FOREACH(pending, &list->be_pcsn_list, ce_csn_link) {
		if (pending->ce_sid == (int)server_id && pending->ce_csn.bv_len == XS_CSN_LEN) {
			if (count < max) {
				memcpy(out[count].text, pending->ce_csn.bv_val, XS_CSN_LEN);
			}
			count++;
		}
	}
	ldap_pvt_thread_mutex_unlock(&list->be_pcsn_mutex);
	return count;
}

/* Replaces the stored contextCSN in an answer. With syncprov on the database, syncprov's came first. */
static void show_context_csn(Operation *op, SlapReply *rs, slap_overinst *on, BerVarray values, size_t count)
{
	Attribute **tail;

	if (attr_find(rs->sr_entry->e_attrs, slap_schema.si_ad_contextCSN) != NULL) {
		rs_entry2modifiable(op, rs, on);
		attr_delete(&rs->sr_entry->e_attrs, slap_schema.si_ad_contextCSN);
		attr_merge(rs->sr_entry, slap_schema.si_ad_contextCSN, values, NULL);
		return;
	}
	for (tail = &rs->sr_operational_attrs; *tail != NULL; tail = &(*tail)->a_next) {
		if ((*tail)->a_desc == slap_schema.si_ad_contextCSN) {
			return;
		}
	}
	*tail = attr_alloc(slap_schema.si_ad_contextCSN);
	attr_valadd(*tail, values, NULL, count);
}

/* Shows the vector as it is now; the copy on the suffix entry is only as new as the last
 * transaction that we applied. */
int xs_operational(Operation *op, SlapReply *rs)
{
	slap_overinst *on = (slap_overinst *)op->o_bd->bd_info;
	xs_db *db = on->on_bi.bi_private;
	xs_csn *csns;
	BerVarray values;
	size_t count, max, i;

	if (rs->sr_entry == NULL || !dn_match(&rs->sr_entry->e_nname, &op->o_bd->be_nsuffix[0])
		|| op->o_sync != SLAP_CONTROL_NONE
		|| !(SLAP_OPATTRS(rs->sr_attr_flags) || ad_inlist(slap_schema.si_ad_contextCSN, rs->sr_attrs)))
	{
		return SLAP_CB_CONTINUE;
	}
	max = xsr_context_csn(db->instance, NULL, 0);
	csns = op->o_tmpalloc((max + 1) * sizeof(xs_csn), op->o_tmpmemctx);
	values = op->o_tmpcalloc(max + 1, sizeof(struct berval), op->o_tmpmemctx);
	count = xsr_context_csn(db->instance, csns, max);
	for (i = 0; i < count && i < max; i++) {
		values[i].bv_val = csns[i].text;
		values[i].bv_len = XS_CSN_LEN;
	}
	if (count > 0 && i == count) { /* else the stored one is all there is to show */
		show_context_csn(op, rs, on, values, count);
	}
	op->o_tmpfree(values, op->o_tmpmemctx);
	op->o_tmpfree(csns, op->o_tmpmemctx);
	return SLAP_CB_CONTINUE;
}
