/* The end of an LDAP transaction (RFC 5805) waits for the threads that took its parts.
 *
 * slapd answers a part and looks at the operation again before its thread is done with it (txn.c 357,
 * connection.c 1147-1185). A client that has the answer may end the transaction at once: another thread then carries
 * out the operation and frees it under the hands of the first, and slapd ends by a segmentation fault, after some dozens
 * of transactions on a busy server. */

#include "shim.h"

/* Nothing keeps a part's thread longer than it takes to send an answer. Only a limit in case that the counters do not
 * mean what they seem to. */
enum { WAIT_SECONDS_MAX = 10 };

/* A part is taken out of c_ops when it is put on the transaction's list, and out of the count when its thread is done
 * with it; every other operation leaves both at once. */
static int parts_executing(Connection *conn)
{
	Operation *other;
	int executing = conn->c_n_ops_executing + conn->c_n_ops_async;

	LDAP_STAILQ_FOREACH(other, &conn->c_ops, o_next) {
		executing--;
	}
	return executing > 0;
}

static int txn_end(Operation *op, SlapReply *rs)
{
	Connection *conn = op->o_conn;
	time_t give_up = time(NULL) + WAIT_SECONDS_MAX;

	ldap_pvt_thread_mutex_lock(&conn->c_mutex);
	while (!LDAP_STAILQ_EMPTY(&conn->c_txn_ops) && parts_executing(conn) && time(NULL) < give_up) {
		ldap_pvt_thread_mutex_unlock(&conn->c_mutex);
		ldap_pvt_thread_yield();
		ldap_pvt_thread_mutex_lock(&conn->c_mutex);
	}
	ldap_pvt_thread_mutex_unlock(&conn->c_mutex);
	return txn_end_extop(op, rs);
}

/* The module stays in memory (-z nodelete), so that this is never taken back. */
int xs_transactions_register(void)
{
	return load_extop2(&slap_EXOP_TXN_END, 0, txn_end, 1);
}
