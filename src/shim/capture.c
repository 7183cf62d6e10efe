/* From a client's committed write to one call of xsr_captured.
 *
 * back-mdb commits, then calls the response callbacks, then answers the client: what the callback
 * sees with LDAP_SUCCESS is durable. Inside an LDAP transaction (RFC 5805) the callbacks of the parts
 * run before the one commit, so the parts wait for bi_op_txn to say how it ended. */

#include "shim.h"

/* What is known before the operation and no longer after it. */
typedef struct xs_capture {
	slap_callback cb;
	xs_db *db;
	slap_overinst *on;
	unsigned moves;      /* as the database's, before the entry was read */
	int settled;         /* what was read is of the entry that is written */
	int captured;        /* it was handed over */
	int committed;       /* `ordered` is known */
	Attribute *ordered;  /* what a modify of ordered attributes led to, see ordered.c */
	struct berval uuid;  /* textual */
	struct berval dn;    /* as the entry spells it */
	char parent[LDAP_LUTIL_UUIDSTR_BUFSIZE];     /* of a rename the new one; empty: not known */
	char old_parent[LDAP_LUTIL_UUIDSTR_BUFSIZE];
	char uuid_text[LDAP_LUTIL_UUIDSTR_BUFSIZE];
} xs_capture;

static int mod_op(int op)
{
	switch (op) {
	case LDAP_MOD_DELETE:
	case SLAP_MOD_SOFTDEL:
		return XS_MOD_DELETE;
	case LDAP_MOD_REPLACE:
		return XS_MOD_REPLACE;
	case LDAP_MOD_INCREMENT:
		return XS_MOD_INCREMENT;
	default: /* LDAP_MOD_ADD and slapd's tolerant forms of it */
		return XS_MOD_ADD;
	}
}

/* Whether the modify named the attribute before. */
static int is_again(const Modifications *first, const Modifications *m)
{
	while (first != m && first->sml_desc != m->sml_desc) {
		first = first->sml_next;
	}
	return first != m;
}

/* All that an ordered attribute has by now. */
static void view_ordered(const xs_capture *c, AttributeDescription *ad, xs_modification *out)
{
	Attribute *a = attr_find(c->ordered, ad);

	out->op = XS_MOD_REPLACE;
	out->attribute = XS_OUT(ad->ad_cname);
	out->values = a != NULL ? (const xs_bytes *)a->a_vals : NULL;
	out->values_len = a != NULL ? a->a_numvals : 0;
}

/* Modifications of an XS_MODIFY, or with `operational_only` stamps and marks that a rename changed beside the RDN. */
static size_t view_mods(const xs_capture *c, Modifications *all, int operational_only, xs_modification *out)
{
	Modifications *list;
	size_t count = 0;

	for (list = all; list != NULL; list = list->sml_next) {
		int ordered = c->committed && xs_is_ordered(list->sml_desc);

		if (!xs_replicated(list->sml_desc, 0)
			|| (operational_only && list->sml_desc != slap_schema.si_ad_entryCSN
				&& list->sml_desc != slap_schema.si_ad_modifiersName
				&& list->sml_desc != slap_schema.si_ad_modifyTimestamp && !xs_is_mark(list->sml_desc))
			|| (ordered && is_again(all, list)))
		{
			continue;
		}
		if (out != NULL && ordered) {
			view_ordered(c, list->sml_desc, &out[count]);
		} else if (out != NULL) {
			out[count].op = mod_op(list->sml_op);
			out[count].attribute = XS_OUT(list->sml_desc->ad_cname);
			out[count].values = (const xs_bytes *)list->sml_values;
			out[count].values_len = list->sml_values ? list->sml_numvals : 0;
		}
		count++;
	}
	return count;
}

size_t xs_view_attributes(Attribute *list, xs_modification *out)
{
	size_t count = 0;

	for (; list != NULL; list = list->a_next) {
		if (!xs_replicated(list->a_desc, 1)) {
			continue;
		}
		if (out != NULL) {
			out[count].op = XS_MOD_ADD;
			out[count].attribute = XS_OUT(list->a_desc->ad_cname);
			out[count].values = (const xs_bytes *)list->a_vals;
			out[count].values_len = list->a_numvals;
		}
		count++;
	}
	return count;
}

/* The CSN of an operation: slapd's own for it, else (a client's write with an entryCSN of its own) the
 * one that it carries. */
static xs_bytes csn_of(Operation *op, Modifications *mods)
{
	if (!BER_BVISEMPTY(&op->o_csn)) {
		return XS_OUT(op->o_csn);
	}
	for (; mods != NULL; mods = mods->sml_next) {
		if (mods->sml_desc == slap_schema.si_ad_entryCSN && mods->sml_values != NULL) {
			return XS_OUT(mods->sml_values[0]);
		}
	}
	return (xs_bytes){ 0, NULL };
}

static void hand_over(xs_db *db, Operation *op, const xs_change *change)
{
	if (op->o_txnSpec || xs_op_is_local_in_txn(op)) {
		xsr_captured_in_txn(db->instance, op->o_conn, change);
	} else {
		xsr_captured(db->instance, change);
	}
}

static xs_bytes uuid_out(char *text)
{
	return (xs_bytes){ strlen(text), text[0] ? text : NULL };
}

static void capture_add(xs_capture *c, Operation *op)
{
	Entry *e = op->ora_e;
	Attribute *uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	size_t len = xs_view_attributes(e->e_attrs, NULL);
	xs_modification *mods = op->o_tmpcalloc(len + 1, sizeof(*mods), op->o_tmpmemctx);
	xs_change change = { .operation = XS_ADD, .mods = mods };

	change.csn = csn_of(op, NULL);
	if (uuid != NULL) {
		change.uuid = XS_OUT(uuid->a_vals[0]);
	}
	change.dn = XS_OUT(e->e_name);
	change.parent = uuid_out(c->parent);
	change.mods_len = xs_view_attributes(e->e_attrs, mods);
	hand_over(c->db, op, &change);
	xs_suffix_note(c->db, &e->e_nname, &change.uuid, op->o_txnSpec);
	op->o_tmpfree(mods, op->o_tmpmemctx);
}

static void capture_other(xs_capture *c, Operation *op)
{
	int renames = op->o_tag == LDAP_REQ_MODRDN;
	Modifications *list = op->o_tag == LDAP_REQ_DELETE ? NULL : renames ? op->orr_modlist : op->orm_modlist;
	size_t len = view_mods(c, list, renames, NULL);
	xs_modification *mods = op->o_tmpcalloc(len + 1, sizeof(*mods), op->o_tmpmemctx);
	xs_change change = { .uuid = XS_OUT(c->uuid), .dn = XS_OUT(c->dn), .mods = mods };

	change.csn = csn_of(op, list);
	change.mods_len = view_mods(c, list, renames, mods);
	switch (op->o_tag) {
	case LDAP_REQ_MODIFY:
		change.operation = XS_MODIFY;
		break;
	case LDAP_REQ_MODRDN:
		change.operation = XS_MODRDN;
		change.delete_old_rdn = op->orr_deleteoldrdn;
		change.new_rdn = XS_OUT(op->orr_newrdn);
		change.old_parent = uuid_out(c->old_parent);
		if (op->orr_newSup != NULL) {
			change.new_superior = XS_OUT(*op->orr_newSup);
			change.parent = uuid_out(c->parent);
		}
		break;
	default:
		change.operation = XS_DELETE;
		change.parent = uuid_out(c->old_parent);
		change.old_parent = change.parent;
		break;
	}
	hand_over(c->db, op, &change);
	op->o_tmpfree(mods, op->o_tmpmemctx);
}

static void note_uuid(xs_capture *c, Entry *e)
{
	Attribute *uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);

	if (uuid != NULL && uuid->a_vals[0].bv_len < sizeof(c->uuid_text)) {
		memcpy(c->uuid_text, uuid->a_vals[0].bv_val, uuid->a_vals[0].bv_len);
		c->uuid.bv_val = c->uuid_text;
		c->uuid.bv_len = uuid->a_vals[0].bv_len;
	}
}

/* Reads what a modify made of ordered attributes, once. */
static void see_ordered(xs_capture *c, Operation *op)
{
	Entry *e = NULL;

	if (c->committed || op->o_tag != LDAP_REQ_MODIFY || !xs_touches_ordered(op->orm_modlist)
		|| overlay_entry_get_ov(op, &op->o_req_ndn, NULL, NULL, 0, &e, c->on) != LDAP_SUCCESS || e == NULL)
	{
		return;
	}
	c->ordered = xs_ordered_attributes(e);
	c->committed = 1;
	overlay_entry_release_ov(op, e, 0, c->on);
}

static void capture(xs_capture *c, Operation *op, SlapReply *rs)
{
	/* A no-op control ends in LDAP_X_NO_OPERATION, so success means committed. */
	if (rs->sr_type != REP_RESULT || rs->sr_err != LDAP_SUCCESS || op->o_noop || c->captured) {
		return;
	}
	c->captured = 1;
	if (op->o_tag == LDAP_REQ_ADD) {
		if (op->ora_e != NULL) {
			capture_add(c, op);
		}
		return;
	}
	see_ordered(c, op);
	capture_other(c, op);
	if (op->o_tag == LDAP_REQ_DELETE) {
		xs_suffix_note(c->db, &op->o_req_ndn, NULL, op->o_txnSpec);
	}
}

/* Of a write that takes no CSN, and so not the clock's mutex either: all others are captured by then. */
static int on_response(Operation *op, SlapReply *rs)
{
	xs_capture *c = op->o_callback->sc_private;

	if (rs->sr_type == REP_RESULT && !c->settled && op->o_tag != LDAP_REQ_MODIFY) {
		__atomic_add_fetch(&c->db->moves, 1, __ATOMIC_SEQ_CST);
	}
	capture(c, op, rs);
	return SLAP_CB_CONTINUE;
}

/* What the operation itself has, if it is captured; a callback that another overlay copied is that of another operation. */
static xs_capture *capture_of(Operation *op)
{
	slap_callback *cb;

	for (cb = op->o_callback; cb != NULL && (cb->sc_response != on_response || cb->sc_private != cb); cb = cb->sc_next)
		;
	return cb != NULL ? cb->sc_private : NULL;
}

void xs_capture_committed(Operation *op, SlapReply *rs)
{
	xs_capture *c = capture_of(op);

	if (c != NULL) {
		capture(c, op, rs);
	}
}

static void forget_dn(xs_capture *c, Operation *op)
{
	if (!BER_BVISNULL(&c->dn)) {
		op->o_tmpfree(c->dn.bv_val, op->o_tmpmemctx);
		BER_BVZERO(&c->dn);
	}
}

static int on_cleanup(Operation *op, SlapReply *rs)
{
	slap_callback *cb = op->o_callback;
	xs_capture *c = cb->sc_private;

	attrs_free(c->ordered);
	forget_dn(c, op);
	op->o_callback = cb->sc_next;
	op->o_tmpfree(c, op->o_tmpmemctx);
	return SLAP_CB_CONTINUE;
}

/* The entryUUID of the entry with this DN, if there is one. */
static void uuid_of(Operation *op, slap_overinst *on, struct berval *ndn, char *text)
{
	Entry *e = NULL;
	Attribute *uuid;

	if (BER_BVISEMPTY(ndn) || overlay_entry_get_ov(op, ndn, NULL, NULL, 0, &e, on) != LDAP_SUCCESS || e == NULL) {
		return;
	}
	uuid = attr_find(e->e_attrs, slap_schema.si_ad_entryUUID);
	if (uuid != NULL && uuid->a_vals[0].bv_len < LDAP_LUTIL_UUIDSTR_BUFSIZE) {
		memcpy(text, uuid->a_vals[0].bv_val, uuid->a_vals[0].bv_len);
	}
	overlay_entry_release_ov(op, e, 0, on);
}

/* Where the entry is and where it goes: parents may be renamed while the change is on its way. */
static void note_parents(xs_capture *c, Operation *op)
{
	struct berval parent = BER_BVNULL;

	if (op->o_tag == LDAP_REQ_MODIFY) {
		return;
	}
	if (!be_issuffix(op->o_bd, &op->o_req_ndn)) {
		dnParent(&op->o_req_ndn, &parent);
	}
	uuid_of(op, c->on, &parent, op->o_tag == LDAP_REQ_ADD ? c->parent : c->old_parent);
	if (op->o_tag == LDAP_REQ_MODRDN && op->orr_nnewSup != NULL) {
		uuid_of(op, c->on, op->orr_nnewSup, c->parent);
	}
}

/* A DN is reused and renamed, the entryUUID stays; it has to be read before the operation. With `first` the marks that the
 * write takes along are added to it. */
static void remember(xs_capture *c, Operation *op, int first)
{
	Entry *e = NULL;

	c->moves = __atomic_load_n(&c->db->moves, __ATOMIC_SEQ_CST);
	BER_BVZERO(&c->uuid);
	c->parent[0] = c->old_parent[0] = '\0';
	if (op->o_tag != LDAP_REQ_ADD) {
		/* Without an entry the operation fails, unless somebody adds it at this moment. */
		overlay_entry_get_ov(op, &op->o_req_ndn, NULL, NULL, 0, &e, c->on);
		forget_dn(c, op);
		ber_dupbv_x(&c->dn, e != NULL ? &e->e_name : &op->o_req_dn, op->o_tmpmemctx);
	}
	if (e != NULL) {
		note_uuid(c, e);
		if (first && (op->o_tag == LDAP_REQ_MODIFY || op->o_tag == LDAP_REQ_MODRDN)) {
			xs_marks_clear(op, e);
		}
		overlay_entry_release_ov(op, e, 0, c->on);
	}
	note_parents(c, op);
}

/* A client gives an entry that was displaced, and so has its entryUUID in its name, another one: the old name's values go, but
 * for that. */
static void keep_uuid(Operation *op)
{
	Modifications **m = &op->orr_modlist, *gone;

	while (*m != NULL) {
		gone = *m;
		if (gone->sml_desc != slap_schema.si_ad_entryUUID
			|| (gone->sml_op != LDAP_MOD_DELETE && gone->sml_op != SLAP_MOD_SOFTDEL))
		{
			m = &gone->sml_next;
			continue;
		}
		*m = gone->sml_next;
		gone->sml_next = NULL;
		slap_mods_free(gone, 1);
	}
}

void xs_capture_write(xs_db *db, Operation *op)
{
	xs_capture *c;

	/* Some overlays write past us: slapd's bd_info is that of the backend when they do. */
	if (capture_of(op) != NULL) {
		return;
	}
	c = op->o_tmpcalloc(1, sizeof(*c), op->o_tmpmemctx);
	c->db = db;
	c->on = db->on;
	remember(c, op, 1);
	c->cb.sc_response = on_response;
	c->cb.sc_cleanup = on_cleanup;
	c->cb.sc_private = c;
	c->cb.sc_next = op->o_callback;
	op->o_callback = &c->cb;
}

/* While the operation waited for the database, another entry may have come to its DN: the one that was read is deleted or
 * renamed, or gave the name to one that was created earlier. The same holds for parents. */
void xs_capture_settle(Operation *op)
{
	xs_capture *c = capture_of(op);

	if (c != NULL) {
		if (__atomic_load_n(&c->db->moves, __ATOMIC_SEQ_CST) != c->moves) {
			remember(c, op, 0);
		}
		c->settled = 1;
	}
}

int xs_hook_write(Operation *op, SlapReply *rs)
{
	slap_overinst *on = (slap_overinst *)op->o_bd->bd_info;
	xs_db *db = on->on_bi.bi_private;

	/* The contextCSN of syncprov sets o_dont_replicate, and what is captured elsewhere (derived.c). */
	if (xs_op_is_own(op) || op->o_dont_replicate || !db->capturing) {
		return SLAP_CB_CONTINUE;
	}
	if (xs_refused_busy(db, op, rs)) {
		return rs->sr_err;
	}
	/* A change without a CSN has no place in the order of all changes. The refresh of dds is one: it leaves the flag as
	 * the bytes of the extended request happen to be (overlays/dds.c 1164-1182). */
	if (op->o_tag == LDAP_REQ_MODIFY && op->orm_no_opattrs && csn_of(op, op->orm_modlist).len == 0) {
		op->orm_no_opattrs = 0;
	}
	if (op->o_tag == LDAP_REQ_MODRDN) {
		keep_uuid(op);
	} else if (op->o_tag == LDAP_REQ_ADD) {
		xs_number_values(op->ora_e);
	}
	xs_capture_write(db, op);
	return SLAP_CB_CONTINUE;
}

static xs_db *db_of(slap_overinfo *oi)
{
	slap_overinst *on;

	for (on = oi->oi_list; on != NULL; on = on->on_next) {
		if (on->on_bi.bi_op_modify == xs_hook_write) {
			return on->on_bi.bi_private;
		}
	}
	return NULL;
}

/* TXN END goes through the frontend and never reaches an overlay of the database; the backend's
 * transaction function does, because backover keeps a copy of the pointer that can be wrapped. */
int xs_hook_txn(Operation *op, int txnop, OpExtra **ptr)
{
	slap_overinfo *oi = (slap_overinfo *)op->o_bd->bd_info;
	xs_db *db = db_of(oi);
	BI_op_txn *below = db != NULL && db->txn_below != NULL ? db->txn_below : oi->oi_orig->bi_op_txn;
	int rc;

	if (db == NULL) {
		rc = below(op, txnop, ptr);
		if (txnop != SLAP_TXN_BEGIN) {
			xs_clock_txn_end(op); /* the overlay was removed since it began */
		}
		return rc;
	}
	if (txnop == SLAP_TXN_BEGIN) {
		if (!xs_op_is_own(op)) {
			xsr_txn_end(db->instance, op->o_conn, 0); /* what a lost connection may have left */
		}
		xs_clock_txn_begin(op);
		rc = below(op, txnop, ptr);
		if (rc == 0) {
			db->attributes_known = xs_attributes_known(db);
		} else {
			xs_clock_txn_end(op);
		}
		return rc;
	}
	xs_attributes_forget(db, db->attributes_known);
	rc = below(op, txnop, ptr);
	/* Before others may write: they have to know of it. */
	xsr_txn_end(db->instance, op->o_conn, txnop == SLAP_TXN_COMMIT && rc == 0);
	xs_clock_txn_end(op);
	xs_suffix_settle(db, op);
	return rc;
}
