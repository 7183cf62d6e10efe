/* The overlay as slapd sees it: registered once, opened and closed per database. */

#include <limits.h>

#include "shim.h"

static slap_overinst xmppsync;

void xs_log(int level, const char *text)
{
	switch (level) {
	case XS_LOG_ERROR:
	case XS_LOG_INFO: /* an admin has to see it at the default log level */
		Debug(LDAP_DEBUG_ANY, "xmppsync: %s\n", text);
		break;
	default:
		Debug(LDAP_DEBUG_SYNC, "xmppsync: %s\n", text);
		break;
	}
}

static int db_init(BackendDB *be, ConfigReply *cr)
{
	slap_overinst *on = (slap_overinst *)be->bd_info;
	xs_db *db = ch_calloc(1, sizeof(*db));

	db->refs = 1;
	db->be = be->bd_self;
	db->on = on;
	db->instance = xsr_new(db);
	if (db->instance == NULL) {
		xs_db_release(db);
		return 1;
	}
	on->on_bi.bi_private = db;
	return 0;
}

/* bi_op_txn of the overlay stack is a copy of the backend's; every call through the database passes it. */
static void wrap_txn(xs_db *db)
{
	BackendInfo *stack = &db->on->on_info->oi_bi;

	if (stack->bi_op_txn != NULL && stack->bi_op_txn != xs_hook_txn) {
		db->txn_below = stack->bi_op_txn;
		stack->bi_op_txn = xs_hook_txn;
	}
}

static void unwrap_txn(xs_db *db)
{
	BackendInfo *stack = &db->on->on_info->oi_bi;

	if (stack->bi_op_txn == xs_hook_txn) {
		stack->bi_op_txn = db->txn_below;
	}
	db->txn_below = NULL;
}

/* For db_open and db_close: nobody else uses the database, and bd_info points at us while slapd walks the
 * stack, so this goes straight into the backend. */
static void direct_op(xs_op *x, xs_db *db, BackendDB *be, BackendDB *below)
{
	xs_op_init_below(x, db, ldap_pvt_thread_pool_context(), 0, be, below);
}

static int db_open(BackendDB *be, ConfigReply *cr)
{
	slap_overinst *on = (slap_overinst *)be->bd_info;
	xs_db *db = on->on_bi.bi_private;
	char error[SLAP_TEXT_BUFLEN] = "", directory[PATH_MAX], uuid[LDAP_LUTIL_UUIDSTR_BUFSIZE];
	BackendDB below;
	xs_op x;
	int rc;
	xs_database database = {
		.suffix = be->be_suffix ? be->be_suffix[0].bv_val : "",
		.nsuffix = be->be_nsuffix ? be->be_nsuffix[0].bv_val : "",
		.server_id = slap_serverID,
		.has_rootdn = !BER_BVISEMPTY(&be->be_rootndn),
		.has_lastmod = SLAP_LASTMOD(be),
		.has_uuid_index = xs_has_index(be, "entryUUID"),
		.tool_mode = (slapMode & SLAP_TOOL_MODE) != 0,
	};

	db->be = be->bd_self;
	db->on = on;
	db->opened = !database.tool_mode;
	db->attributes_known = 0; /* it may be another file */
	if (database.tool_mode && database.server_id == 0) {
		database.server_id = xs_listed_server_id();
	}
	if (!database.tool_mode) {
		direct_op(&x, db, be, &below);
		xs_suffix_uuid(x.op, uuid, sizeof(uuid), &database.suffix_uuid);
	}
	if (xs_directory(be, directory, sizeof(directory))) {
		database.directory = directory;
	}
	rc = xsr_open(db->instance, &database, database.tool_mode ? NULL : &x, error, sizeof(error));
	if (rc < 0) {
		snprintf(cr->msg, sizeof(cr->msg), "%s%s%s", db->where, db->where[0] ? ": " : "", error);
		Debug(LDAP_DEBUG_ANY, "xmppsync: %s\n", cr->msg);
		return 1;
	}
	if (database.tool_mode || rc > 0) {
		return 0;
	}
	xs_check_order(db);
	__atomic_store_n(&db->closed, 0, __ATOMIC_SEQ_CST);
	xs_set_loading(db, 0);
	wrap_txn(db);
	xs_clock_begin(db);
	db->capturing = 1;
	xs_start_later(db);
	return 0;
}

static int db_close(BackendDB *be, ConfigReply *cr)
{
	slap_overinst *on = (slap_overinst *)be->bd_info;
	xs_db *db = on->on_bi.bi_private;
	BackendDB below;
	xs_op x;

	if (db == NULL || !db->capturing) {
		return 0;
	}
	db->capturing = 0;
	xs_cancel_start(db);
	xs_clock_end(db, unwrap_txn);
	xs_shut(db);
	direct_op(&x, db, be, &below);
	xsr_stop(db->instance, &x, slapd_shutdown != 0);
	db->started = 0;
	return 0;
}

static int db_destroy(BackendDB *be, ConfigReply *cr)
{
	slap_overinst *on = (slap_overinst *)be->bd_info;
	xs_db *db = on->on_bi.bi_private;

	if (db == NULL) {
		return 0;
	}
	on->on_bi.bi_private = NULL;
	xs_shut(db);
	xsr_free(db->instance);
	db->instance = NULL;
	ch_free(db->shown);
	db->shown = NULL;
	xs_db_release(db);
	return 0;
}

/* cn=config changed a directive of a running database: the changed configuration is used at once. */
int xs_reopen(xs_db *db, ConfigReply *reply)
{
	BackendDB be = *db->be;

	be.bd_info = &db->on->on_bi;
	db_close(&be, reply);
	return db_open(&be, reply);
}

int xs_register(void)
{
	int rc;

	if (!xs_layout_matches()) {
		return -1;
	}
	xmppsync.on_bi.bi_type = "xmppsync";
	xmppsync.on_bi.bi_flags = SLAPO_BFLAG_SINGLE | SLAPO_BFLAG_DBONLY;
	xmppsync.on_bi.bi_db_init = db_init;
	xmppsync.on_bi.bi_db_open = db_open;
	xmppsync.on_bi.bi_db_close = db_close;
	xmppsync.on_bi.bi_db_destroy = db_destroy;
	xmppsync.on_bi.bi_op_add = xs_hook_write;
	xmppsync.on_bi.bi_op_modify = xs_hook_write;
	xmppsync.on_bi.bi_op_modrdn = xs_hook_write;
	xmppsync.on_bi.bi_op_delete = xs_hook_write;
	xmppsync.on_bi.bi_op_search = xs_hook_read;
	xmppsync.on_bi.bi_op_compare = xs_hook_read;
	xmppsync.on_bi.bi_operational = xs_operational;
	xmppsync.on_bi.bi_cf_ocs = xs_config_ocs;

	rc = config_register_schema(xs_config, xs_config_ocs);
	if (rc == 0) {
		rc = xs_marks_register();
	}
	if (rc == 0) {
		rc = overlay_register(&xmppsync);
	}
	if (rc == 0) {
		rc = xs_transactions_register();
	}
	if (rc != 0) {
		Debug(LDAP_DEBUG_ANY, "xmppsync: slapd did not take the overlay (%d)\n", rc);
		return -1;
	}
	return 0;
}
