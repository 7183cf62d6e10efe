/* Every write of this server gets a CSN that is later than all that the server has seen.
 *
 * back-mdb makes a CSN of the time of day inside its write transaction, unless the operation has one (op->o_csn). So the
 * operation gets one just before the backend takes it, and the order of the commits stays that of the CSNs because a mutex is
 * held from there until the backend has committed. The changes of other servers are made under it too: a CSN that is minted
 * after such a change was committed is later than that of the change, which the clock was told of before.
 *
 * The place is between the overlays and the backend: slap_overinfo names the backend by a pointer, which is exchanged for
 * one to a copy with other functions for writes. Earlier (in the overlay's own hook) the mutex would be held while other
 * overlays do what they do before a write, and some of that waits: syncprov for the end of another modification of the entry
 * and for slapd's pause, accesslog for a mutex of its own, unique for a search.
 *
 * Why nobody waits for ever: who takes the mutex takes the backend's write lock next, and gives both back together (of a
 * single operation before any other callback runs and before the client is answered, or else when the backend returns; of a
 * transaction when that ends). So whoever could wait for the mutex would wait for the backend's lock at the same place, by the
 * same thread. In particular:
 * - Other overlays write after the backend has committed (memberof, ppolicy, accesslog, refint in a task of its own), when
 *   the mutex is given back, or inside a transaction, in the thread that holds it: it is recursive.
 * - What is written without a new CSN (contextCSN of syncprov) does not take it.
 * - Two databases have two mutexes. A thread that holds one can come to another only where it holds the first one's write lock
 *   as well.
 * - slapd's pause waits for those who hold it and those who wait for it, and both only wait for the backend.
 * - The clock's own lock, in Rust, is taken last and held for a few instructions. */

#include "shim.h"

struct xs_below {
	BackendInfo info;              /* first: what slapd takes for the backend */
	BackendInfo *backend;          /* the backend itself */
	BackendDB *be;                 /* whose it is; only compared */
	ldap_pvt_thread_mutex_t mutex; /* recursive */
	xs_db *db;                     /* NULL while the database is not replicated; changes with the mutex held */
	int in_transaction;            /* atomic */
	ldap_pvt_thread_t owner;       /* of the transaction */
	struct xs_below *next;
};

/* One for each database that was ever replicated. They stay, for slapd may hold on to a pointer: it takes what is found
 * below the last overlay for the backend when that is removed. Changed with slapd's pool paused only, or before it runs. */
static struct xs_below *all;

static struct xs_below *find(BackendDB *be)
{
	struct xs_below *b;

	for (b = __atomic_load_n(&all, __ATOMIC_ACQUIRE); b != NULL && b->be != be; b = b->next)
		;
	return b;
}

/* The mutex, for as long as the backend needs it. */
typedef struct hold {
	slap_callback cb;
	struct xs_below *below; /* NULL: given back */
	int moves;              /* it may give a DN to another entry */
} hold;

/* Before anybody else gets the mutex, who has read an entry by its DN meanwhile. */
static void count_move(struct xs_below *b)
{
	if (b->db != NULL) {
		__atomic_add_fetch(&b->db->moves, 1, __ATOMIC_SEQ_CST);
	}
}

static void give_back(hold *h)
{
	struct xs_below *b = h->below;

	if (b != NULL) {
		h->below = NULL;
		if (h->moves) {
			count_move(b);
		}
		ldap_pvt_thread_mutex_unlock(&b->mutex);
	}
}

/* The backend has committed, or failed. It was put on the list last, so it comes first. What is captured before anybody else may write
 * is kept in the order of the commits: whoever finds a change kept after the process was killed finds all that was before it. */
static int on_response(Operation *op, SlapReply *rs)
{
	if (rs->sr_type == REP_RESULT) {
		xs_capture_committed(op, rs);
		give_back(op->o_callback->sc_private);
	}
	return SLAP_CB_CONTINUE;
}

static int has_entry_csn(Modifications *mods)
{
	while (mods != NULL && mods->sml_desc != slap_schema.si_ad_entryCSN) {
		mods = mods->sml_next;
	}
	return mods != NULL;
}

/* Whether the backend would make a CSN: slap_add_opattrs, slap_mods_opattrs, mdb_delete. */
static int needs_csn(Operation *op)
{
	if (!BER_BVISEMPTY(&op->o_csn)) {
		return 0;
	}
	switch (op->o_tag) {
	case LDAP_REQ_DELETE:
		return 1;
	case LDAP_REQ_ADD:
		return SLAP_LASTMOD(op->o_bd) && attr_find(op->ora_e->e_attrs, slap_schema.si_ad_entryCSN) == NULL;
	case LDAP_REQ_MODRDN:
		return SLAP_LASTMOD(op->o_bd) && !op->orr_no_opattrs && !has_entry_csn(op->orr_modlist);
	default:
		return SLAP_LASTMOD(op->o_bd) && !op->orm_no_opattrs && !has_entry_csn(op->orm_modlist);
	}
}

static void mint(xs_db *db, Operation *op)
{
	char text[LDAP_PVT_CSNSTR_BUFSIZE];
	xs_csn csn;
	struct berval bv = { XS_CSN_LEN, text };

	xs_new_csn(&csn);
	xsr_mint_csn(db->instance, &csn);
	memcpy(text, csn.text, XS_CSN_LEN);
	text[XS_CSN_LEN] = '\0';
	slap_queue_csn(op, &bv);
}

static void forget_callback(Operation *op, slap_callback *cb)
{
	slap_callback **at;

	for (at = &op->o_callback; *at != NULL && *at != cb; at = &(*at)->sc_next)
		;
	if (*at != NULL) {
		*at = cb->sc_next;
	}
}

static int write_below(Operation *op, SlapReply *rs, slap_operation_t which);

static int add_below(Operation *op, SlapReply *rs)
{
	return write_below(op, rs, op_add);
}

static int modify_below(Operation *op, SlapReply *rs)
{
	return write_below(op, rs, op_modify);
}

static int modrdn_below(Operation *op, SlapReply *rs)
{
	return write_below(op, rs, op_modrdn);
}

static int delete_below(Operation *op, SlapReply *rs)
{
	return write_below(op, rs, op_delete);
}

/* Some call the backend's function without telling that they do: bd_info is still theirs. */
static struct xs_below *below_of(Operation *op)
{
	BackendInfo *info = op->o_bd->bd_info;

	return info->bi_op_modify == modify_below ? (struct xs_below *)info : find(op->o_bd->bd_self);
}

static int write_below(Operation *op, SlapReply *rs, slap_operation_t which)
{
	struct xs_below *b = below_of(op);
	BI_op_func *backend;
	Modifications *last = NULL;
	int derived, minting, rc;
	hold h = { .cb = { .sc_response = on_response }, .below = b, .moves = op->o_tag != LDAP_REQ_MODIFY };

	if (b == NULL) {
		send_ldap_error(op, rs, LDAP_OTHER, "xmppsync: whose database this is cannot be told");
		return rs->sr_err;
	}
	backend = (&b->backend->bi_op_bind)[which];
	derived = xs_is_derived(op);
	minting = derived || needs_csn(op);
	if (!minting && !xs_op_is_own(op)) {
		return backend(op, rs);
	}
	ldap_pvt_thread_mutex_lock(&b->mutex);
	if (b->db == NULL) {
		ldap_pvt_thread_mutex_unlock(&b->mutex);
		return backend(op, rs);
	}
	if (derived) {
		last = xs_derived_begin(op);
	}
	if (minting) {
		if (derived || !(op->o_dont_replicate || xs_op_is_own(op))) {
			xs_capture_write(b->db, op);
			xs_capture_settle(op);
		}
		mint(b->db, op);
	}
	h.cb.sc_private = &h;
	h.cb.sc_next = op->o_callback;
	op->o_callback = &h.cb;
	rc = backend(op, rs);
	/* An abandoned operation is not answered, and its callbacks do not hear of it. From its answer on the database may be closed:
	 * nothing of it is looked at any more. */
	give_back(&h);
	forget_callback(op, &h.cb);
	/* The last entry below glue went. slapd would delete that one as well, as another change with the same CSN; here the rules
	 * see to it, on all servers alike. */
	op->o_delete_glue_parent = 0;
	if (minting) {
		/* The backend does that too; one CSN left pending would hold back all of this server. */
		slap_graduate_commit_csn(op);
	}
	if (derived) {
		xs_derived_end(op, last);
	}
	return rc;
}

static void set_backend(struct xs_below *b, BackendInfo *backend)
{
	b->backend = backend;
	b->info = *backend;
	b->info.bi_op_add = backend->bi_op_add != NULL ? add_below : NULL;
	b->info.bi_op_modify = backend->bi_op_modify != NULL ? modify_below : NULL;
	b->info.bi_op_modrdn = backend->bi_op_modrdn != NULL ? modrdn_below : NULL;
	b->info.bi_op_delete = backend->bi_op_delete != NULL ? delete_below : NULL;
	/* The backend asks here who may read what; an overlay is not asked. */
	b->info.bi_access_allowed = backend->bi_access_allowed != NULL ? backend->bi_access_allowed : xs_marks_access_allowed;
}

void xs_clock_begin(xs_db *db)
{
	slap_overinfo *stack = db->on->on_info;
	struct xs_below *b = find(db->be);

	if (b == NULL) {
		b = ch_calloc(1, sizeof(*b));
		ldap_pvt_thread_mutex_recursive_init(&b->mutex);
		b->be = db->be;
		b->next = all;
		__atomic_store_n(&all, b, __ATOMIC_RELEASE);
	}
	if (stack->oi_orig != &b->info) {
		set_backend(b, stack->oi_orig);
		stack->oi_orig = &b->info;
	}
	ldap_pvt_thread_mutex_lock(&b->mutex);
	b->db = db;
	ldap_pvt_thread_mutex_unlock(&b->mutex);
}

/* With the pool paused nobody holds the mutex. When the overlay is deleted through cn=config it is not: this waits for one
 * operation or one transaction, and for neither does cn=config hold anything that it needs. */
void xs_clock_end(xs_db *db, void (*and_then)(xs_db *db))
{
	struct xs_below *b = find(db->be);

	if (b == NULL) {
		and_then(db);
		return;
	}
	ldap_pvt_thread_mutex_lock(&b->mutex);
	b->db = NULL;
	if (db->on->on_info->oi_orig == &b->info) {
		db->on->on_info->oi_orig = b->backend;
	}
	if (db->be->bd_info == &b->info) {
		/* The last overlay was removed, and slapd took this for the backend. */
		db->be->bd_info = b->backend;
	}
	and_then(db);
	ldap_pvt_thread_mutex_unlock(&b->mutex);
}

void xs_exclusive(xs_op *x, int on)
{
	struct xs_below *b = find(x->db->be);

	if (b == NULL) {
		return;
	}
	/* Other overlays may have mutexes of their own, which clients take before they come here (accesslog): where those are that
	 * cannot do with a transaction, nothing may be held that is taken before they are. */
	if (on && xs_takes_transactions(x)) {
		ldap_pvt_thread_mutex_lock(&b->mutex);
		x->exclusive = 1;
	} else if (!on && x->exclusive) {
		x->exclusive = 0;
		ldap_pvt_thread_mutex_unlock(&b->mutex);
	}
}

/* The connection's c_mutex is held here (txn.c 222-262), as it is while the backend waits for its lock. */
void xs_clock_txn_begin(Operation *op)
{
	struct xs_below *b = find(op->o_bd->bd_self);

	if (b == NULL) {
		return;
	}
	ldap_pvt_thread_mutex_lock(&b->mutex);
	/* The thread itself, since o_tid is still that of the thread that took the request (txn.c 258). */
	b->owner = ldap_pvt_thread_self();
	__atomic_store_n(&b->in_transaction, 1, __ATOMIC_RELEASE);
}

void xs_clock_txn_end(Operation *op)
{
	struct xs_below *b = find(op->o_bd->bd_self);

	/* A transaction that was begun past us does not hold it. */
	if (b != NULL && __atomic_load_n(&b->in_transaction, __ATOMIC_ACQUIRE)
		&& ldap_pvt_thread_self() == b->owner)
	{
		__atomic_store_n(&b->in_transaction, 0, __ATOMIC_RELEASE);
		/* What the parts have done is there only now. */
		count_move(b);
		ldap_pvt_thread_mutex_unlock(&b->mutex);
	}
}
