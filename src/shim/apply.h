/* What the files share that make a change of another server. */

#ifndef XMPPSYNC_APPLY_H
#define XMPPSYNC_APPLY_H

#include "shim.h"

/* Where a change goes and what it becomes on the way. */
typedef struct target {
	struct berval dn, ndn; /* of the entry, tmpalloc'ed; NULL: there is no such entry */
	struct berval csn;     /* its entryCSN, tmpalloc'ed */
	int glue;              /* it is there because of its children only */
	int displaced;         /* its name has its entryUUID, which the schema allows nobody */
	int elsewhere;         /* it does not have the DN that the change names */
} target;

typedef struct verdict {
	int *result;
	char *text;
	size_t text_len;
} verdict;

/* A new name. */
typedef struct xs_naming {
	struct berval rdn, nrdn;
	struct berval *superior, *nsuperior; /* NULL: the same as before */
	int delete_old;
} xs_naming;

static inline struct berval bv_in(xs_bytes bytes)
{
	return (struct berval){ .bv_len = bytes.len, .bv_val = bytes.ptr };
}

/* apply.c: enum xs_outcome of an LDAP result. */
int xs_say(verdict v, int outcome, int result, const char *text);
int xs_judge(verdict v, int rc, const char *text);
/* The entry with the change's entryUUID, if there is one. */
int xs_find(xs_op *x, const xs_change *change, target *t);
void xs_target_free(Operation *op, target *t);
/* slapd's own form of the modifications, checked against the schema and normalised; freed by slap_mods_free. `t`: what
 * the entry's newer state knows better is left out; NULL: nothing is. */
int xs_mods_in(xs_op *x, const xs_change *change, const target *t, Modifications **out, verdict v);
/* Modifies the entry, and frees `mods` whatever becomes of it. */
int xs_modify(xs_op *x, const xs_change *change, const target *t, Modifications *mods, verdict v);
/* Renames the entry, with these modifications of the same change, which it takes over; NULL: none. */
int xs_rename(xs_op *x, const xs_change *change, const target *t, const xs_naming *to, Modifications *mods, verdict v);

/* care.c */
/* Whether the entry's state, which came by itself, has the change in it: it holds all that its origin did up to then. */
int xs_contained(const target *t, const xs_change *change);
/* Whether the entry was changed after the change. */
int xs_later(const target *t, const xs_change *change);
/* Whether it comes late, or to an entry that is not what its origin saw. */
int xs_needs_care(xs_op *x, const xs_change *change, const target *t, int there);
int xs_has_uuid_name(struct berval *ndn);

/* put.c: the entry becomes as the change says. */
int xs_apply_put(xs_op *x, const xs_change *change, target *t, verdict v);

#endif
