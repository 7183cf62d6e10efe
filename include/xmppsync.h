/* The whole boundary between the shim (C, knows slapd) and the overlay (Rust, does not).
 *
 * xs_*  are functions of the shim that Rust calls.
 * xsr_* are functions of Rust that the shim calls; none of them unwinds or blocks on IO.
 *
 * No slapd structure and no C macro appears here. Pointers are borrowed for the duration of the
 * call unless the comment says otherwise. Nothing allocated on one side is freed on the other. */
#ifndef XMPPSYNC_H
#define XMPPSYNC_H

#include <stddef.h>
#include <stdint.h>

/* Length and pointer, as slapd's struct berval: not terminated, not necessarily UTF-8.
 * A NULL pointer means absent, which is not the same as empty. */
typedef struct xs_bytes {
	unsigned long len;
	char *ptr;
} xs_bytes;

/* ---- changes ------------------------------------------------------------------------------ */

/* XS_PUT, in xs_apply only: the entry becomes as the change says, unless it is newer. */
enum xs_operation { XS_ADD = 1, XS_MODIFY = 2, XS_MODRDN = 3, XS_DELETE = 4, XS_PUT = 5 };

/* The values are those of RFC 4511 and RFC 4525. */
enum xs_mod_op { XS_MOD_ADD = 0, XS_MOD_DELETE = 1, XS_MOD_REPLACE = 2, XS_MOD_INCREMENT = 3 };

typedef struct xs_modification {
	int32_t op;             /* enum xs_mod_op; XS_MOD_ADD in an XS_ADD */
	xs_bytes attribute;     /* attribute description with its options */
	const xs_bytes *values; /* values_len of them */
	size_t values_len;
} xs_modification;

/* Whether the rules for conflicts were applied, so that just this is to be done, whatever the entry's CSN; and if so, whether the
 * schema has a say: what two servers did at the same time may be against it. */
enum xs_merged { XS_PLAIN = 0, XS_MERGED = 1, XS_UNCHECKED = 2 };

typedef struct xs_change {
	int32_t operation;      /* enum xs_operation */
	int32_t delete_old_rdn; /* XS_MODRDN */
	int32_t is_new;         /* XS_PUT: no entry of the database has the entryUUID */
	int32_t is_state;       /* XS_DELETE: the entry as it was at the CSN is gone; not one that is later */
	int32_t is_merged;      /* enum xs_merged */
	xs_bytes csn;
	xs_bytes uuid;          /* textual entryUUID */
	xs_bytes dn;            /* before the operation */
	xs_bytes new_rdn;       /* XS_MODRDN */
	xs_bytes new_superior;  /* XS_MODRDN; NULL when the parent stays */
	xs_bytes parent;        /* textual entryUUID of the entry's parent: after an XS_ADD or a move, before an XS_DELETE; or NULL */
	xs_bytes old_parent;    /* captured XS_MODRDN and XS_DELETE: the same, before it */
	const xs_modification *mods;
	size_t mods_len;
} xs_change;

/* ---- the shim, called by Rust ------------------------------------------------------------- */

typedef struct xs_db xs_db; /* one configured database; counted, see xs_db_hold */
typedef struct xs_op xs_op; /* an internal operation, valid inside the call that it is given to */

enum xs_log_level { XS_LOG_ERROR = 0, XS_LOG_INFO = 1, XS_LOG_DEBUG = 2 };

/* Any thread. `text` is terminated and has no line end. */
void xs_log(int level, const char *text);

/* Registers the overlay after comparing slapd with the headers of the build.
 * 0, or -1 after having logged why not. Called once, by init_module. */
int xs_register(void);

/* Any thread. Another owner of `db`; each is matched by one xs_db_release. */
void xs_db_hold(xs_db *db);
void xs_db_release(xs_db *db);

#define XS_CSN_LEN 40
typedef struct xs_csn {
	char text[XS_CSN_LEN];
} xs_csn;

/* Any thread. The CSNs of `server_id` that slapd has handed out and whose operations have not
 * ended. Writes at most `max` of them and returns how many there are. */
size_t xs_pending_csns(xs_db *db, unsigned server_id, xs_csn *out, size_t max);

/* Any thread. Asks for one call of xsr_apply on a thread of slapd's pool. 0, or -1 when the
 * database is being closed or the pool does not take it. */
int xs_submit_apply(xs_db *db);

/* Any thread. Asks for one call of xsr_read, with the same answers. */
int xs_submit_read(xs_db *db);

/* Any thread. While `on`, everybody but us is answered "busy" below this database. */
void xs_set_loading(xs_db *db, int on);

/* In xsr_apply and xsr_read: slapd wants its threads back; return soon, what is left is submitted again. */
int xs_must_yield(xs_op *op);

/* In xsr_apply: brackets around many changes. Without a transaction (xs_txn_begin returns 1, the
 * backend or another overlay cannot do with one) each change commits by itself. Negative: failed, see slapd's log. */
int xs_txn_begin(xs_op *op);
int xs_txn_commit(xs_op *op);
void xs_txn_abort(xs_op *op);

/* In xsr_apply, around changes that commit each by itself: no client writes in between, where the overlays allow that. */
void xs_exclusive(xs_op *op, int on);

/* What xs_apply says of a change. */
enum xs_outcome {
	XS_APPLIED = 0,
	XS_REFUSED = 1,   /* nothing was touched: the transaction can go on without the change */
	XS_FAILED = 2,    /* the transaction has to be aborted */
	XS_TEMPORARY = 3, /* as XS_FAILED, but it may go well later */
	XS_ALONE = 4,     /* as XS_FAILED, but it will go well without a transaction */
	XS_CARE = 5,      /* nothing was touched: it meets other changes, and the rules for conflicts have to be applied */
};

/* In xsr_apply. `result` receives the LDAP result code, `text` why it was not applied. */
int xs_apply(xs_op *op, const xs_change *change, int *result, char *text, size_t text_len);

/* In xsr_apply. Makes an XS_MODIFY as a write of this server: it gets a CSN and is captured like that of a client, where a
 * transaction is open when that is committed. The schema is not looked at, nor the CSN of `change`. Enum xs_outcome. */
int xs_write_local(xs_op *op, const xs_change *change, int *result, char *text, size_t text_len);

/* In xsr_open and xsr_read: calls xsr_seen_state for the entry with this entryUUID, if there is one. 0, or an LDAP result code. */
int xs_read_entry(xs_op *op, const xs_bytes *uuid, void *seen);

/* In xsr_open and xsr_apply: calls xsr_seen_bytes with the textual entryUUID of the entry with this DN, if there is one. */
void xs_uuid_of(xs_op *op, const xs_bytes *dn, void *seen);
/* In xsr_apply: whether there are entries below the one with this DN. Negative: that cannot be told. */
int xs_has_children(xs_op *op, const xs_bytes *dn);
/* In xsr_apply: calls xsr_seen_bytes with what the schema has against the entry with this DN, if anything. */
void xs_schema_problem(xs_op *op, const xs_bytes *dn, void *seen);
/* Any thread. Whether the attribute has at most one value; negative: it is not known here. */
int xs_is_single(const xs_bytes *attribute);
/* Any thread. Whether clients may write the attribute, as far as the schema has a say. */
int xs_is_of_clients(const xs_bytes *attribute);
/* In xsr_apply: calls xsr_seen_bytes with the value in the form in which equal values are equal bytes. 0, or an LDAP result code. */
int xs_normalize(xs_op *op, const xs_bytes *attribute, const xs_bytes *value, void *seen);

/* How a walk through the database ended; anything else is an LDAP result code. */
enum xs_dump_end { XS_DUMP_WHOLE = 0, XS_DUMP_STOPPED = -1, XS_DUMP_YIELDED = -2 };

/* In xsr_read: calls xsr_seen_state for each entry of the database. The walk is no snapshot of one moment. */
int xs_dump(xs_op *op, void *seen);

/* In xsr_read: as xs_dump, but each entry once, in any order, and with its parent. */
int xs_read_all(xs_op *op, void *seen);

/* In xsr_apply and xsr_stop: writes contextCSN to the suffix entry. 0, 1 when there is no suffix
 * entry yet, negative when it failed. */
int xs_write_context_csn(xs_op *op, const xs_bytes *csns, size_t csns_len);

/* Any thread. The CSN of this server at this moment by slapd's clock, which may be behind what was seen; the replica's
 * clock makes a later one of it. */
void xs_new_csn(xs_csn *out);

/* In xsr_open: calls xsr_seen_csn for each contextCSN of the suffix entry. Returns how many. */
int xs_read_context_csn(xs_op *op, void *seen);

/* In xsr_open: calls xsr_seen_csn for the entryCSN of each entry whose entryCSN is not earlier
 * than `from` (NULL: of every entry). 0, or an LDAP result code. */
int xs_scan_entry_csn(xs_op *op, const xs_bytes *from, void *seen);

/* Calls xsr_seen_entry for each entry of the database. `in_pool`: in xsr_read, and it ends early when slapd wants its thread
 * back; otherwise in xsr_open. enum xs_dump_end, or an LDAP result code. */
int xs_scan_entries(xs_op *op, int in_pool, void *seen);

/* ---- Rust, called by the shim ------------------------------------------------------------- */

typedef struct xsr_instance xsr_instance;

/* The directives. XS_KEY_PEER is the only one with several values. */
enum xs_key {
	XS_KEY_REPLICATED = 1,
	XS_KEY_JID,
	XS_KEY_PASSWORD,
	XS_KEY_PASSWORD_FILE,
	XS_KEY_SERVER,
	XS_KEY_TLS,
	XS_KEY_TLS_CA,
	XS_KEY_MUC,
	XS_KEY_PUBSUB,
	XS_KEY_ROOM,
	XS_KEY_PEER,
	XS_KEY_LIVE,
	XS_KEY_JOURNAL,
	XS_KEY_RETENTION,
	XS_KEY_JOURNAL_SIZE,
	XS_KEY_OFFLINE_MESSAGES,
	XS_KEY_CHECK_INTERVAL,
	XS_KEY_LOAD_FROM,
	XS_KEY_SERVE_WHILE_LOADING,
	XS_KEY_MAX_DRIFT,
};

/* Makes the instance of a database; NULL when that failed. `db` is held until xsr_free. */
xsr_instance *xsr_new(xs_db *db);
void xsr_free(xsr_instance *instance);

/* Sets one value. 0, or -1 with a sentence in `error`. */
int xsr_config_set(xsr_instance *instance, int key, const char *value, char *error, size_t error_len);
/* Copies value `index` to `out` (terminated). Its length, or -1 when there is none; a length of
 * `out_len` or more means that `out` was too small. */
long xsr_config_get(xsr_instance *instance, int key, size_t index, char *out, size_t out_len);
/* Removes value `index`, or all when it is negative. */
void xsr_config_delete(xsr_instance *instance, int key, int index);

/* What Rust has to know of the database, terminated strings and plain numbers. */
typedef struct xs_database {
	const char *suffix;     /* as configured */
	const char *nsuffix;    /* normalised */
	const char *directory;  /* where the backend keeps its files; NULL: it has no such place */
	xs_bytes suffix_uuid;   /* textual entryUUID of the suffix entry; NULL: there is no such entry, or `tool_mode` */
	unsigned server_id;     /* 0: not set */
	int has_rootdn;
	int has_lastmod;
	int has_uuid_index;
	int tool_mode;          /* only check; nothing is started */
} xs_database;

/* db_open: checks the configuration as a whole and reads the state of the database through `op`, which is
 * NULL in tool mode. Nobody writes meanwhile. 0; 1 when nothing is to be replicated; or -1 with a sentence in
 * `error`. */
int xsr_open(xsr_instance *instance, const xs_database *database, xs_op *op, char *error, size_t error_len);
/* slapd is up: replication begins. */
void xsr_start(xsr_instance *instance);
/* db_close: stops and joins everything that xsr_open and xsr_start began. `op` writes the last
 * contextCSN. `ends`: slapd ends, so the other databases may begin to stop as well. */
void xsr_stop(xsr_instance *instance, xs_op *op, int ends);
/* Whether a directive was changed while the database was open, so that it has to be reopened. */
int xsr_config_dirty(xsr_instance *instance);
/* Goes back to the directives with which the database was opened last. */
void xsr_config_revert(xsr_instance *instance);

/* A write of this server begins. `csn` is that of this moment; where something later was seen, it becomes the next one after
 * that. Between this and the commit no other write begins. */
void xsr_mint_csn(xsr_instance *instance, xs_csn *csn);

/* A committed change of this server, in the thread of the client's operation. */
void xsr_captured(xsr_instance *instance, const xs_change *change);
/* A part of the transaction `txn`, which is not committed yet. */
void xsr_captured_in_txn(xsr_instance *instance, const void *txn, const xs_change *change);
void xsr_txn_end(xsr_instance *instance, const void *txn, int committed);

/* On a thread of slapd's pool, after xs_submit_apply; never twice at once for one instance. */
void xsr_apply(xsr_instance *instance, xs_op *op);

/* On a thread of slapd's pool, after xs_submit_read; beside xsr_apply, and maybe more than once at a time. */
void xsr_read(xsr_instance *instance, xs_op *op);

/* The suffix entry was added (its textual entryUUID) or deleted (NULL). Any thread that writes. */
void xsr_suffix(xsr_instance *instance, const xs_bytes *uuid);

/* The contextCSN to show: writes at most `max`, returns how many there are. */
size_t xsr_context_csn(xsr_instance *instance, xs_csn *out, size_t max);

/* `seen` is what Rust gave to xs_uuid_of, xs_schema_problem or xs_normalize. */
void xsr_seen_bytes(void *seen, const xs_bytes *bytes);

/* `seen` is what Rust gave to xs_read_context_csn or xs_scan_entry_csn. */
void xsr_seen_csn(void *seen, const xs_bytes *csn);

/* `seen` is what Rust gave to xs_scan_entries. entryUUID and entryCSN are empty where the entry has none; `glue`: it is deleted,
 * and only there because of its children. Not 0: no further entry is wanted. */
int xsr_seen_entry(void *seen, const xs_bytes *dn, const xs_bytes *uuid, const xs_bytes *csn, int glue);

/* `seen` is what Rust gave to xs_read_entry or xs_dump; `state` is an XS_ADD. Not 0: no further entry is wanted. */
int xsr_seen_state(void *seen, const xs_change *state);

#endif
