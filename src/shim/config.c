/* The directives, for slapd.conf and cn=config alike. Rust keeps the values and judges them. */

#include "shim.h"

#define ARC XS_ARC

static ConfigDriver directive;

#define STRING_ATTRIBUTE(number, name, description) \
	"( " ARC ".1." number " NAME '" name "' DESC '" description "' " \
	"EQUALITY caseExactMatch SYNTAX OMsDirectoryString SINGLE-VALUE )"

/* ARG_BERVAL takes an attribute's value as it is; of any other type, slapd breaks it at blanks and quotes. */
#define DIRECTIVE(name, what, key, attribute) \
	{ name, what, 2, 2, 0, ARG_BERVAL | ARG_MAGIC | key, directive, attribute, NULL, { 0 } }

ConfigTable xs_config[] = {
	DIRECTIVE("xmppsync-replicated", "on|off", XS_KEY_REPLICATED,
		"( " ARC ".1.1 NAME 'olcXmppSyncReplicated' DESC 'Whether this database is replicated over XMPP' "
		"EQUALITY booleanMatch SYNTAX OMsBoolean SINGLE-VALUE )"),
	DIRECTIVE("xmppsync-jid", "user@domain[/resource]", XS_KEY_JID,
		STRING_ATTRIBUTE("2", "olcXmppSyncJid", "The XMPP account of this server")),
	DIRECTIVE("xmppsync-password", "string", XS_KEY_PASSWORD,
		STRING_ATTRIBUTE("3", "olcXmppSyncPassword", "The password of the XMPP account")),
	DIRECTIVE("xmppsync-password-file", "path", XS_KEY_PASSWORD_FILE,
		STRING_ATTRIBUTE("4", "olcXmppSyncPasswordFile", "A file whose first line is the password")),
	DIRECTIVE("xmppsync-server", "host[:port]", XS_KEY_SERVER,
		STRING_ATTRIBUTE("5", "olcXmppSyncServer", "The XMPP server, if DNS does not tell")),
	DIRECTIVE("xmppsync-tls", "starttls|direct|insecure-plaintext", XS_KEY_TLS,
		STRING_ATTRIBUTE("6", "olcXmppSyncTls", "How the connection is protected")),
	DIRECTIVE("xmppsync-tls-ca", "path", XS_KEY_TLS_CA,
		STRING_ATTRIBUTE("7", "olcXmppSyncTlsCa", "PEM file of the authorities that may certify the XMPP server")),
	DIRECTIVE("xmppsync-muc", "jid", XS_KEY_MUC,
		STRING_ATTRIBUTE("8", "olcXmppSyncMuc", "The service that has the room")),
	DIRECTIVE("xmppsync-pubsub", "jid", XS_KEY_PUBSUB,
		STRING_ATTRIBUTE("9", "olcXmppSyncPubsub", "The service that has the nodes")),
	DIRECTIVE("xmppsync-room", "name", XS_KEY_ROOM,
		STRING_ATTRIBUTE("10", "olcXmppSyncRoom", "The room, if it is not named after the suffix")),
	/* Without a type, since slapd knows typed directives with one value only. */
	{ "xmppsync-peer", "jid", 2, 2, 0, ARG_QUOTE | ARG_MAGIC | XS_KEY_PEER, directive,
		"( " ARC ".1.11 NAME 'olcXmppSyncPeer' DESC 'Another member of the group' "
		"EQUALITY caseExactMatch SYNTAX OMsDirectoryString )", NULL, { 0 } },
	DIRECTIVE("xmppsync-live", "muc|pubsub", XS_KEY_LIVE,
		STRING_ATTRIBUTE("12", "olcXmppSyncLive", "What carries the live stream")),
	DIRECTIVE("xmppsync-journal", "directory", XS_KEY_JOURNAL,
		STRING_ATTRIBUTE("13", "olcXmppSyncJournal", "Where the overlay keeps its files")),
	DIRECTIVE("xmppsync-retention", "time", XS_KEY_RETENTION,
		STRING_ATTRIBUTE("14", "olcXmppSyncRetention", "How long the journal keeps changes")),
	DIRECTIVE("xmppsync-journal-size", "bytes", XS_KEY_JOURNAL_SIZE,
		STRING_ATTRIBUTE("15", "olcXmppSyncJournalSize", "How large the journal may become")),
	DIRECTIVE("xmppsync-offline-messages", "number", XS_KEY_OFFLINE_MESSAGES,
		STRING_ATTRIBUTE("16", "olcXmppSyncOfflineMessages", "How many messages wait for an absent peer")),
	DIRECTIVE("xmppsync-check-interval", "time", XS_KEY_CHECK_INTERVAL,
		STRING_ATTRIBUTE("17", "olcXmppSyncCheckInterval", "How often the copy is compared with that of a peer")),
	DIRECTIVE("xmppsync-load-from", "jid", XS_KEY_LOAD_FROM,
		STRING_ATTRIBUTE("18", "olcXmppSyncLoadFrom", "The peer from which an empty database is loaded")),
	DIRECTIVE("xmppsync-serve-while-loading", "on|off", XS_KEY_SERVE_WHILE_LOADING,
		"( " ARC ".1.19 NAME 'olcXmppSyncServeWhileLoading' DESC 'Whether clients are served by a copy that is not whole' "
		"EQUALITY booleanMatch SYNTAX OMsBoolean SINGLE-VALUE )"),
	DIRECTIVE("xmppsync-max-drift", "time", XS_KEY_MAX_DRIFT,
		STRING_ATTRIBUTE("20", "olcXmppSyncMaxDrift", "How far a change may be ahead of the clock of this server")),
	{ NULL, NULL, 0, 0, 0, ARG_IGNORED }
};

ConfigOCs xs_config_ocs[] = {
	{ "( " ARC ".2.1 NAME 'olcXmppSyncConfig' DESC 'Replication over XMPP' SUP olcOverlayConfig "
		"MAY ( olcXmppSyncReplicated $ olcXmppSyncJid $ olcXmppSyncPassword $ olcXmppSyncPasswordFile $ "
		"olcXmppSyncServer $ olcXmppSyncTls $ olcXmppSyncTlsCa $ olcXmppSyncMuc $ olcXmppSyncPubsub $ "
		"olcXmppSyncRoom $ olcXmppSyncPeer $ olcXmppSyncLive $ olcXmppSyncJournal $ olcXmppSyncRetention $ "
		"olcXmppSyncJournalSize $ olcXmppSyncOfflineMessages $ olcXmppSyncCheckInterval $ olcXmppSyncLoadFrom $ "
		"olcXmppSyncServeWhileLoading $ olcXmppSyncMaxDrift ) )",
		Cft_Overlay, xs_config },
	{ NULL, 0, NULL }
};


/* Runs after the last change of one cn=config operation. When the database cannot be opened with what it
 * says now, slapd forgets the change; so do we, and go on with what was. */
static int reopen_if_changed(ConfigArgs *c)
{
	slap_overinst *on = (slap_overinst *)c->bi;
	xs_db *db = on->on_bi.bi_private;
	ConfigReply before = { 0 };

	if (db == NULL || !db->opened || !xsr_config_dirty(db->instance) || xs_reopen(db, &c->reply) == 0) {
		return LDAP_SUCCESS;
	}
	xsr_config_revert(db->instance);
	xs_reopen(db, &before);
	return LDAP_OTHER;
}

/* A copy of value `index`, or NULL. */
static char *value_of(xs_db *db, int key, size_t index)
{
	long len = xsr_config_get(db->instance, key, index, NULL, 0);
	char *value;

	if (len < 0) {
		return NULL;
	}
	value = ch_malloc((size_t)len + 1);
	xsr_config_get(db->instance, key, index, value, (size_t)len + 1);
	return value;
}

static int emit(ConfigArgs *c, xs_db *db)
{
	struct berval bv;
	char *value;
	size_t index;

	if (c->type == XS_KEY_PEER) {
		for (index = 0; (value = value_of(db, c->type, index)) != NULL; index++) {
			ber_str2bv(value, 0, 0, &bv);
			value_add_one(&c->rvalue_vals, &bv);
			ch_free(value);
		}
		return index == 0;
	}
	value = value_of(db, c->type, 0);
	if (value == NULL) {
		return 1;
	}
	if (c->type == XS_KEY_REPLICATED || c->type == XS_KEY_SERVE_WHILE_LOADING) {
		ber_str2bv(strcmp(value, "on") == 0 ? "TRUE" : "FALSE", 0, 0, &c->value_bv);
		ch_free(value);
		return 0;
	}
	/* slapd copies what is in value_bv, after we have returned. */
	ch_free(db->shown);
	db->shown = value;
	ber_str2bv(value, 0, 0, &c->value_bv);
	return 0;
}

static int directive(ConfigArgs *c)
{
	slap_overinst *on = (slap_overinst *)c->bi;
	xs_db *db = on->on_bi.bi_private;
	int rc;

	if (c->op == SLAP_CONFIG_EMIT) {
		return emit(c, db);
	}
	if (db->where[0] == '\0') {
		snprintf(db->where, sizeof(db->where), "%s", c->log);
	}
	if (db->opened) {
		config_push_cleanup(c, reopen_if_changed);
	}
	if (c->op == LDAP_MOD_DELETE) {
		xsr_config_delete(db->instance, c->type, c->valx);
		return 0;
	}
	rc = xsr_config_set(db->instance, c->type, c->argv[1], c->cr_msg, sizeof(c->cr_msg));
	if (c->type != XS_KEY_PEER) {
		ch_free(c->value_bv.bv_val);
	}
	if (rc != 0) {
		Debug(LDAP_DEBUG_ANY, "%s: %s\n", c->log, c->cr_msg);
		return ARG_BAD_CONF;
	}
	return 0;
}

/* The values of a directive of a backend, asked the way cn=config asks; to be freed. */
static BerVarray values_of(BackendInfo *backend, BackendDB *be, const char *name)
{
	ConfigOCs *ocs;
	ConfigTable *row;

	for (ocs = backend->bi_cf_ocs; ocs != NULL && ocs->co_def != NULL; ocs++) {
		for (row = ocs->co_table; row != NULL && row->name != NULL; row++) {
			ConfigArgs c = { 0 };

			c.be = be;
			c.bi = backend;
			if (strcmp(row->name, name) == 0 && config_get_vals(row, &c) == LDAP_SUCCESS) {
				ber_bvarray_free(c.rvalue_nvals);
				return c.rvalue_vals;
			}
		}
	}
	return NULL;
}

/* The same of the backend below us. */
static BerVarray backend_values(BackendDB *be, const char *name)
{
	slap_overinst *on = (slap_overinst *)be->bd_info;
	BackendDB below = *be;

	below.bd_info = on->on_info->oi_orig;
	return values_of(below.bd_info, &below, name);
}

/* Which of several "serverID NUMBER URL" is ours only a slapd that listens knows. The tools have to know
 * that there is one. */
unsigned xs_listed_server_id(void)
{
	BackendInfo *config = backend_info("config");
	BerVarray values = config != NULL ? values_of(config, frontendDB, "serverID") : NULL;
	unsigned id = values != NULL ? (unsigned)strtoul(values[0].bv_val, NULL, 0) : 0;

	ber_bvarray_free(values);
	return id;
}

int xs_directory(BackendDB *be, char *out, size_t out_len)
{
	BerVarray values = backend_values(be, "directory");
	int fits = values != NULL && values[0].bv_len < out_len;

	if (fits) {
		memcpy(out, values[0].bv_val, values[0].bv_len);
		out[values[0].bv_len] = '\0';
	}
	ber_bvarray_free(values);
	return fits;
}

int xs_has_index(BackendDB *be, const char *attribute)
{
	BerVarray values = backend_values(be, "index");
	size_t i, len = strlen(attribute);
	int found = 0;

	if (values == NULL) {
		return 0;
	}
	for (i = 0; !found && !BER_BVISNULL(&values[i]); i++) {
		found = values[i].bv_len > len && strncasecmp(values[i].bv_val, attribute, len) == 0
			&& values[i].bv_val[len] == ' ';
	}
	ber_bvarray_free(values);
	return found;
}
