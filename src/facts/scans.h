/*
 * scans.h
 *		Which scans count, which are marked, and by what a contact was won. Batches
 *		are arrays for unnest(); their contacts are locked. As the owner, with SPI
 *		open.
 */
#ifndef CRM_SCANS_H
#define CRM_SCANS_H

#include "postgres.h"

#include "base/db.h"

/* contact_id, scan_id, qr_code_id, occurred_at */
#define CRM_SCAN_COLUMNS 4

/* count.c: raises 23503 for a code that does not exist */
extern void crm_scan_count_new(const Datum *scans);

/* limit.c: marks what is over a limit since these scans are there */
extern void crm_scan_flag_new(const Datum *scans);
/*
 * limit.c: keeps others from marking scans of these contacts, which are about
 * to change hands; after the contacts' own locks
 */
extern void crm_scan_flag_lock(const int64 *contacts, int ncontacts);
/* limit.c: the marks of the contacts' scans, found anew */
extern void crm_scan_flag_again(const int64 *contacts, int ncontacts);

/* contact_id, event_id, account_id, occurred_at, scene */
#define CRM_FOLLOW_COLUMNS 5

/* acquisition.c: nothing for contacts that have a source */
extern void crm_acquisition_by_scans(const Datum *scans);
extern void crm_acquisition_by_follows(const Datum *follows);
/* acquisition.c: from all facts of the contacts */
extern void crm_acquisition_again(const int64 *contacts, int ncontacts);
/*
 * acquisition.c: lets the survivor of a merge have the earlier source of the
 * two; what the ledger is told, or NULL. The second undoes it.
 */
extern Datum crm_acquisition_merge(int64 loser, int64 survivor, bool *isnull);
extern void crm_acquisition_swap(int64 contact_id, int64 other);

#endif /* CRM_SCANS_H */
