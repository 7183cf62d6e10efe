/* Which attributes travel, back-mdb's table of their descriptions, and its last entry. */

#include "shim.h"
#include "back-mdb/back-mdb.h"

/* What every server makes itself stays at home. dds gives each new dynamicObject an entryTtl and an
 * entryExpireTimestamp and ends slapd by an assertion where the entry has them already (overlays/dds.c 426-435);
 * from an entryTtl that a refresh set it makes the entryExpireTimestamp again. */
int xs_replicated(AttributeDescription *ad, int in_add)
{
	return ad != NULL && !(ad->ad_type->sat_flags & SLAP_AT_DYNAMIC) && ad != slap_schema.si_ad_contextCSN
		&& !(in_add && ad == slap_schema.si_ad_entryTtl)
		&& strcmp(ad->ad_type->sat_cname.bv_val, "entryExpireTimestamp") != 0;
}

/* The table is kept right when a transaction comes to nothing.
 *
 * An entry on disk names its attributes by their number in this table. A description that is used for the first
 * time gets its number inside the write transaction, in memory and on disk. When a transaction of bi_op_txn is
 * aborted, or its commit fails, back-mdb only sets the count to 0 (back-mdb/id2entry.c 843-850): the number stays in
 * memory and is gone on disk. The next entry with that attribute is written with a number that nobody can resolve;
 * it and every search that meets it fail with "internal error in mdb_entry_decode", for good after a restart.
 *
 * So what a transaction added to the table is made to count for nothing in memory before the transaction ends, whatever its end:
 * back-mdb reads the table anew when it meets a number beyond the count, or a description that has none. The descriptions stay
 * where they are: a search in another thread that has just found a number to be below the count takes what is there, and
 * ends slapd where that is nothing. It may have read the table anew itself, of the transaction before. */
static struct mdb_info *mdb_of(xs_db *db)
{
	return strcmp(db->on->on_info->oi_orig->bi_type, "mdb") == 0 ? db->be->be_private : NULL;
}

/* How many are on disk, or fewer, with the write transaction just opened: nobody else adds to the table. Aborted transactions of
 * clients leave a count of 0; what was there before is still there. */
int xs_attributes_known(xs_db *db)
{
	struct mdb_info *mdb = mdb_of(db);

	return mdb != NULL && mdb->mi_numads > db->attributes_known ? mdb->mi_numads : db->attributes_known;
}

void xs_attributes_forget(xs_db *db, int known)
{
	struct mdb_info *mdb = mdb_of(db);
	AttributeDescription *ad;
	int number;

	if (mdb == NULL) {
		return;
	}
	if (mdb->mi_numads > known) {
		mdb->mi_numads = known;
	}
	for (number = known + 1; number < MDB_MAXADS && (ad = mdb->mi_ads[number]) != NULL; number++) {
		if (mdb->mi_adxs[ad->ad_index] == number) {
			mdb->mi_adxs[ad->ad_index] = 0;
		}
	}
}

/* back-mdb appends what belongs to the entry that was added last (back-mdb/dn2id.c 155-157). Where that one is renamed after
 * others were moved below it, there is something behind its place already, and the rename fails. It is only a hint. */
void xs_forget_last_entry(xs_db *db)
{
	struct mdb_info *mdb = mdb_of(db);

	if (mdb != NULL) {
		mdb->mi_nextid = NOID;
	}
}
