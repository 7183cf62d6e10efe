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
	unsigned moves;            /* atomic: adds, renames and deletes begun or ended, which may reuse a DN */
	int attributes_known;      /* when the open transaction began; the backend has only one at a time */
};

/* An internal operation on a thread of slapd. */
struct xs_op {
	xs_db *db;
	Connection conn;
	OperationBuffer opbuf;
	Operation *op;
	OpExtra own;               /* marks the operation as ours */
	OpExtra *txn;              /* the open transaction */
	slap_callback quiet;
	char text[SLAP_TEXT_BUFLEN]; /* what the last operation was answered; back-mdb's own words end with its function */
};

#define XS_OUT(bv) ((xs_bytes){ (bv).bv_len, (bv).bv_val })

/* context.c */
void xs_op_init(xs_op *x, xs_db *db, void *thrctx, int newmem);
int xs_op_is_own(Operation *op);
void xs_op_reset_csn(Operation *op);
int xs_search(xs_op *x, Filter *filter, slap_callback *cb);
int xs_operational(Operation *op, SlapReply *rs);

/* capture.c */
/* Views of the attributes that travel; counts them when `out` is NULL. */
size_t xs_view_attributes(Attribute *list, xs_modification *out);
int xs_hook_write(Operation *op, SlapReply *rs);
int xs_hook_txn(Operation *op, int txnop, OpExtra **ptr);

/* read.c */
void xs_read_suffix(xs_op *x);

/* transactions.c */
int xs_transactions_register(void);

/* attributes.c */
int xs_replicated(AttributeDescription *ad, int in_add);
int xs_attributes_known(xs_db *db);
void xs_attributes_forget(xs_db *db, int known);

/* pool.c */
void xs_start_later(xs_db *db);
void xs_cancel_start(xs_db *db);
void xs_shut(xs_db *db);

/* config.c */
extern ConfigTable xs_config[];
extern ConfigOCs xs_config_ocs[];
/* Whether the backend says that it has an index of the attribute. */
int xs_has_index(BackendDB *be, const char *attribute);
/* The value of one of the backend's directives, to be freed; NULL when there is none. */
char *xs_backend_value(BackendDB *be, const char *name);
/* The number in the first serverID directive, or 0. */
unsigned xs_listed_server_id(void);

/* register.c */
int xs_reopen(xs_db *db, ConfigReply *reply);

/* layout.c */
int xs_layout_matches(void);

#endif
