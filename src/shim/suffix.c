/* The entryUUID of the suffix entry, by which two copies of a database know each other. */

#include "shim.h"

void xs_suffix_uuid(Operation *op, char *text, size_t text_len, xs_bytes *out)
{
	*out = (xs_bytes){ 0, NULL };
	if (xs_read_uuid(op, &op->o_bd->be_nsuffix[0], text, text_len)) {
		*out = (xs_bytes){ strlen(text), text };
	}
}

void xs_suffix_note(xs_db *db, const struct berval *ndn, const xs_bytes *uuid, int txn)
{
	if (!dn_match(ndn, &db->be->be_nsuffix[0])) {
		return;
	}
	if (txn) {
		db->suffix_in_txn = 1; /* the backend has only one open at a time */
	} else {
		xsr_suffix(db->instance, uuid != NULL && uuid->ptr != NULL ? uuid : NULL);
	}
}

/* An aborted transaction leaves what was before, so this looks instead of believing. */
void xs_suffix_settle(xs_db *db, Operation *op)
{
	char text[LDAP_LUTIL_UUIDSTR_BUFSIZE];
	xs_bytes uuid;

	if (!db->suffix_in_txn) {
		return;
	}
	db->suffix_in_txn = 0;
	xs_suffix_uuid(op, text, sizeof(text), &uuid);
	xsr_suffix(db->instance, uuid.ptr != NULL ? &uuid : NULL);
}
