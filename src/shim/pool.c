/* Work on the threads of slapd's own pool. A foreign thread must not call into a backend: it would
 * get the main thread's memory context. */

#include <sys/prctl.h>
#include <time.h>

#include "shim.h"
#include "ldap_rq.h"

void xs_db_hold(xs_db *db)
{
	__atomic_add_fetch(&db->refs, 1, __ATOMIC_ACQ_REL);
}

void xs_db_release(xs_db *db)
{
	if (__atomic_sub_fetch(&db->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		ch_free(db);
	}
}

/* slapd closes a database while its pool is paused or gone, but for one case: the overlay is deleted
 * through cn=config, and db_close and db_destroy run after the pool goes on. What uses `instance` on a
 * thread of the pool is between enter and leave. */
static int enter(xs_db *db)
{
	__atomic_add_fetch(&db->busy, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&db->closed, __ATOMIC_SEQ_CST)) {
		return 1;
	}
	__atomic_sub_fetch(&db->busy, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static void leave(xs_db *db)
{
	__atomic_sub_fetch(&db->busy, 1, __ATOMIC_SEQ_CST);
}

/* Nobody enters any more; waits for who is in, at most for one transaction (xs_must_yield). */
void xs_shut(xs_db *db)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	__atomic_store_n(&db->closed, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&db->busy, __ATOMIC_SEQ_CST) != 0) {
		nanosleep(&pause, NULL);
	}
}

static void *apply_task(void *thrctx, void *arg)
{
	xs_db *db = arg;

	if (enter(db)) {
		if (db->started) {
			xs_op x;

			xs_op_init(&x, db, thrctx, 1);
			xsr_apply(db->instance, &x);
		}
		leave(db);
	}
	xs_db_release(db);
	return NULL;
}

/* Reads go past the overlays, which would show clients more than is stored. */
static void *read_task(void *thrctx, void *arg)
{
	xs_db *db = arg;

	if (enter(db)) {
		if (db->started) {
			BackendDB below;
			xs_op x;

			xs_op_init_below(&x, db, thrctx, 1, db->be, &below);
			xsr_read(db->instance, &x);
		}
		leave(db);
	}
	xs_db_release(db);
	return NULL;
}

static int submit(xs_db *db, ldap_pvt_thread_start_t *task)
{
	char name[16] = ""; /* as long as Linux lets a thread's name be */
	int rc;

	if (__atomic_load_n(&db->closed, __ATOMIC_ACQUIRE)) {
		return -1;
	}
	xs_db_hold(db);
	/* The pool may start a thread for it, which inherits the name of this one. It is slapd's, and stays. */
	prctl(PR_GET_NAME, name);
	prctl(PR_SET_NAME, "slapd");
	rc = ldap_pvt_thread_pool_submit(&connection_pool, task, db);
	prctl(PR_SET_NAME, name);
	if (rc != 0) {
		xs_db_release(db);
		return -1;
	}
	return 0;
}

int xs_submit_apply(xs_db *db)
{
	return submit(db, apply_task);
}

int xs_submit_read(xs_db *db)
{
	return submit(db, read_task);
}

int xs_must_yield(xs_op *x)
{
	return slapd_shutdown || ldap_pvt_thread_pool_pausing(&connection_pool) > 0
		|| __atomic_load_n(&x->db->closed, __ATOMIC_ACQUIRE);
}

static void *start_task(void *thrctx, void *arg)
{
	struct re_s *task = arg;
	xs_db *db = task->arg;
	int wanted;

	ldap_pvt_thread_mutex_lock(&slapd_rq.rq_mutex);
	wanted = db->start_task == task;
	if (wanted) {
		db->start_task = NULL;
	}
	if (ldap_pvt_runqueue_isrunning(&slapd_rq, task)) {
		ldap_pvt_runqueue_stoptask(&slapd_rq, task);
	}
	ldap_pvt_runqueue_remove(&slapd_rq, task);
	ldap_pvt_thread_mutex_unlock(&slapd_rq.rq_mutex);

	if (wanted && !slapd_shutdown && enter(db)) {
		db->started = 1;
		xsr_start(db->instance);
		leave(db);
	}
	xs_db_release(db);
	return NULL;
}

/* db_open comes before slapd has opened its other databases; the run queue is served after that. */
void xs_start_later(xs_db *db)
{
	xs_db_hold(db);
	ldap_pvt_thread_mutex_lock(&slapd_rq.rq_mutex);
	/* The first time is now. With an interval of 0 it would be due without end, and the listener would spin. */
	db->start_task = ldap_pvt_runqueue_insert(&slapd_rq, 3600, start_task, db, "xmppsync", db->be->be_suffix[0].bv_val);
	ldap_pvt_thread_mutex_unlock(&slapd_rq.rq_mutex);
	slap_wake_listener();
}

void xs_cancel_start(xs_db *db)
{
	struct re_s *task;
	int removed = 0;

	ldap_pvt_thread_mutex_lock(&slapd_rq.rq_mutex);
	task = db->start_task;
	db->start_task = NULL;
	/* A running one may still wait in the pool, where the task is its argument: it removes itself. */
	if (task != NULL && !ldap_pvt_runqueue_isrunning(&slapd_rq, task)) {
		ldap_pvt_runqueue_remove(&slapd_rq, task);
		removed = 1;
	}
	ldap_pvt_thread_mutex_unlock(&slapd_rq.rq_mutex);
	if (removed) {
		xs_db_release(db);
	}
}
