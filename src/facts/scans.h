/*
 * scans.h
 *		Which scans count, which are marked, and by what a contact was won. As the
 *		owner.
 */
#ifndef CRM_SCANS_H
#define CRM_SCANS_H

#include "postgres.h"

#include "base/db.h"
#include "base/table.h"
#include "facts/window.h"
#include "profile/profile.h"

/* code.c: a code as scans are counted by it */
typedef struct CrmScanCode
{
	int64 qr_code_id;
	int subject; /* the same for codes of the same scope */
	Datum scope;
	Datum scope_id;
	CrmScanWindows windows;
	/* what a contact won by it is stamped with */
	int64 account_id;
	bool has_store;
	int64 store_id;
	bool has_associate;
	int64 associate_id;
	Datum campaign; /* 0: none */
} CrmScanCode;

/* code.c: the codes of a batch; facts know them by their places */
typedef struct CrmScanCodes
{
	MemoryContext context;
	int n;
	int size;
	CrmScanCode *codes;
	struct code_places_hash *places;
} CrmScanCodes;

extern CrmScanCodes *crm_scan_codes_create(void);
/* The place of a code, known or new. */
extern int crm_scan_codes_place(CrmScanCodes *codes, int64 qr_code_id);
/* Reads what is to be known of them; raises 23503 for one that does not exist. */
extern void crm_scan_codes_load(CrmScanCodes *codes);

/* Batches for statements are arrays for unnest(): contact_id, scan_id, qr_code_id, occurred_at. */
#define CRM_SCAN_COLUMNS 4

/* code.c: of those scans whose contacts are among these, ascending; of all where they are NULL */
extern void crm_scan_arrays(const CrmScanCodes *codes, const CrmFact *facts, int64 nfacts,
							const int64 *contacts, int ncontacts, Datum *arrays);

/* mark.c: which of a sorted batch of scans count, for the profile room to ask */
extern CrmScanCounting *crm_scan_counting(const CrmScanCodes *codes, const CrmFact *facts,
										  int64 nfacts);

/*
 * The rest is set-based, with SPI open; contacts are locked.
 */

/* count.c: of scans whose codes exist */
extern void crm_scan_count_new(const Datum *scans);

/* limit.c: is there any? Whoever defines one waits for those that are recording. */
extern bool crm_scan_limits_exist(void);
extern void crm_scan_limits_forget(void);
extern void crm_scan_limit_init(void);
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

/* acquisition.c: rows written directly; NULL where that would not do */
extern CrmTarget *crm_acquisition_open(void);
extern void crm_acquisition_add(CrmTarget *target, const CrmFact *scan, const CrmScanCode *code);
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
