/* What the files of the shim share: slapd's headers and the state of one database. */
#ifndef XMPPSYNC_SHIM_H
#define XMPPSYNC_SHIM_H

#include "portable.h"

#include <stdio.h>
#include <ac/string.h>

#include "slap.h"
#include "slap-config.h"
#include "lutil.h"

#include "xmppsync.h"

/* An arc that nobody else has: 2.25 with a random UUID (ITU-T X.667). */
#define XS_ARC "2.25.13638548069559681448616224610908982451"

/* One configured database. Counted, because Rust's runtime and tasks waiting in slapd's pool may
 * outlive the overlay's instance in cn=config. */
struct xs_db {
	int refs;                  /* atomic */
	int closed;                /* atomic: the backend must not be touched any more */
	int busy;                  /* atomic: threads of the pool that use instance */
	int opened;                /* slapd serves the database, whether or not it is replicated */
	int capturing;             /* between db_open and db_close; changes with the pool paused only */
	int started;               /* xsr_start ran since db_open */
	BackendDB *be;             /* the database itself (bd_self); valid while not closed */
	slap_overinst *on;         /* our place in its overlay stack; valid while not closed */
	xsr_instance *instance;    /* valid while not closed */
	char where[256];           /* file and line of the first directive */
	char *shown;               /* the value that cn=config read last */
	struct re_s *start_task;   /* the run queue's entry that calls xsr_start */
	BI_op_txn *txn_below;      /* what bi_op_txn was before we wrapped it */
	int loading;               /* atomic: everybody but us is answered "busy" */
	int suffix_in_txn;         /* the open transaction added or deleted the suffix entry */
	unsigned moves;            /* atomic: changes of the tree that were committed, or may have been: see xs_capture_settle */
	int order_checked;         /* db_open told of overlays in a wrong place */
	int attributes_known;      /* when the last transaction began; the backend has only one at a time */
};

/* An internal operation on a thread of slapd. */
struct xs_op {
	xs_db *db;
	Connection conn;
	OperationBuffer opbuf;
	Operation *op;
	OpExtra own;               /* marks the operation as ours */
	OpExtra local;             /* instead of it, while we write like a client */
	OpExtra *txn;              /* the open transaction */
	int exclusive;             /* the clock's mutex is held for several changes */
	slap_callback quiet;
	char text[SLAP_TEXT_BUFLEN]; /* what the last operation was answered; back-mdb's own words end with its function */
};

#define XS_OUT(bv) ((xs_bytes){ (bv).bv_len, (bv).bv_val })

/* context.c */
void xs_op_init(xs_op *x, xs_db *db, void *thrctx, int newmem);
int xs_op_is_own(Operation *op);
/* While `on`, what the operation does is a write of this server like that of a client. */
void xs_op_set_local(xs_op *x, int on);
/* Whether the operation is one of these; */
int xs_op_is_local(Operation *op);
/* in a transaction that is not committed yet. */
int xs_op_is_local_in_txn(Operation *op);
void xs_op_reset_csn(Operation *op);
/* The same straight into the backend; `below` has to live as long as the operation. */
void xs_op_init_below(xs_op *x, xs_db *db, void *thrctx, int newmem, BackendDB *be, BackendDB *below);
int xs_search(xs_op *x, Filter *filter, slap_callback *cb);
int xs_operational(Operation *op, SlapReply *rs);

/* capture.c */
int xs_hook_write(Operation *op, SlapReply *rs);
int xs_hook_txn(Operation *op, int txnop, OpExtra **ptr);
/* Has the operation captured when it has succeeded, if nobody did so yet. */
void xs_capture_write(xs_db *db, Operation *op);
/* Just before the backend takes it, when nobody else writes: reads once more what may have changed since. */
void xs_capture_settle(Operation *op);
/* The attributes of an entry that travel; `out` may be NULL to count them. */
size_t xs_view_attributes(Attribute *list, xs_modification *out);

/* derived.c: whether another overlay writes this because of something that a client did. */
int xs_is_derived(Operation *op);
/* Around such a write, which becomes a change of its own; returns what is to be given to xs_derived_end. */
Modifications *xs_derived_begin(Operation *op);
void xs_derived_end(Operation *op, Modifications *last);

/* stack.c: a write of ours through the other overlays, but for those that would make something else of it. */
int xs_write(xs_op *x, SlapReply *rs, slap_operation_t which);
int xs_is_left_out(slap_overinst *on);
/* Warns of overlays that stand where they must not. */
void xs_check_order(xs_db *db);

/* A write is committed, or failed, and nobody else writes yet. */
void xs_capture_committed(Operation *op, SlapReply *rs);

/* ordered.c */
int xs_is_ordered(const AttributeDescription *ad);
int xs_touches_ordered(const Modifications *list);
/* Gives the values of ordered attributes their places. */
void xs_number_values(Entry *e);
/* Copies of the entry's ordered attributes, for attrs_free. */
Attribute *xs_ordered_attributes(const Entry *e);

/* marks.c */
int xs_marks_register(void);
/* A client decides about these attributes of the entry, or its name: the marks of what was lost in them go by the same write. */
void xs_marks_clear(Operation *op, Entry *e);
int xs_is_mark(const AttributeDescription *ad);
/* Stands in for a backend's bi_access_allowed. */
int xs_marks_access_allowed(Operation *op, Entry *e, AttributeDescription *desc, struct berval *val, slap_access_t access,
	AccessControlState *state, slap_mask_t *maskp);

/* look.c: the textual entryUUID of the entry with this normalised DN; 0: there is no such entry. */
int xs_read_uuid(Operation *op, struct berval *ndn, char *text, size_t text_len);

/* suffix.c */
/* A copy of the suffix entry's entryUUID in `out`, or NULL in it. */
void xs_suffix_uuid(Operation *op, char *text, size_t text_len, xs_bytes *out);
/* The entry with this normalised DN was added (`uuid`) or deleted (NULL); `txn`: nothing is committed yet. */
void xs_suffix_note(xs_db *db, const struct berval *ndn, const xs_bytes *uuid, int txn);
/* The transaction has ended, either way. */
void xs_suffix_settle(xs_db *db, Operation *op);

/* busy.c */
int xs_hook_read(Operation *op, SlapReply *rs);
/* Whether the operation was answered "busy". */
int xs_refused_busy(xs_db *db, Operation *op, SlapReply *rs);

/* clock.c: whose writes get their CSN from the replica's clock, from begin to end. */
void xs_clock_begin(xs_db *db);
/* `and_then` is called while nobody writes, and nobody is in a transaction. */
void xs_clock_end(xs_db *db, void (*and_then)(xs_db *db));
/* Around a transaction of the backend, in the thread that makes it. */
void xs_clock_txn_begin(Operation *op);
void xs_clock_txn_end(Operation *op);

/* commits.c: whether backend and overlays can do with a transaction. */
int xs_takes_transactions(xs_op *x);

/* transactions.c */
int xs_transactions_register(void);

/* attributes.c */
int xs_replicated(AttributeDescription *ad, int in_add);
int xs_attributes_known(xs_db *db);
void xs_attributes_forget(xs_db *db, int known);
/* Before a rename. */
void xs_forget_last_entry(xs_db *db);

/* pool.c */
void xs_start_later(xs_db *db);
void xs_cancel_start(xs_db *db);
void xs_shut(xs_db *db);

/* config.c */
extern ConfigTable xs_config[];
extern ConfigOCs xs_config_ocs[];
/* Whether the backend says that it has an index of the attribute. */
int xs_has_index(BackendDB *be, const char *attribute);
/* Copies the backend's database directory; 0 when it has none. */
int xs_directory(BackendDB *be, char *out, size_t out_len);
/* The number in the first serverID directive, or 0. */
unsigned xs_listed_server_id(void);

/* register.c */
int xs_reopen(xs_db *db, ConfigReply *reply);

/* layout.c */
int xs_layout_matches(void);

#endif
