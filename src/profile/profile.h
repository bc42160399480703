/*
 * profile.h
 *		What the profile room offers: it turns batches of facts into counters,
 *		awards and stages. Callers act as the owner.
 */
#ifndef CRM_PROFILE_H
#define CRM_PROFILE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "pg_crm.h"
#include "rules/fact_columns.h"

/*
 * The order of the types is the order in which facts of one instant are
 * walked; a stage set by hand comes last of all.
 */
typedef enum CrmFactType
{
	CRM_FACT_MOBILE, /* a mobile number became known */
	CRM_FACT_EVENT,
	CRM_FACT_SCAN,
	CRM_FACT_PURCHASE,
	CRM_FACT_REFUND,
	CRM_FACT_MANUAL_STAGE
} CrmFactType;

/* A field of the contact that changed, as far as stage rules read it. */
typedef struct CrmFieldChange
{
	int field; /* place in the definitions' fields */
	Datum old;
	bool old_null;
	Datum new;
	bool new_null;
} CrmFieldChange;

/* A value that only rules read; facts may share them. */
typedef struct CrmFactDetail
{
	const struct CrmFactDetail *next;
	Datum value;
	CrmFactColumn column;
} CrmFactDetail;

typedef struct CrmFact
{
	int64 contact_id;
	TimestampTz occurred_at;
	int64 id;
	CrmFactType type;
	bool own_currency;            /* orders: adds to amounts */
	bool unseen;                  /* events: says nothing of when the contact was there */
	bool earns;                   /* events: some earning rule is on this kind, see detail */
	bool counted;                 /* scans: the one that counts; orders: not refunded in full */
	int kind;                     /* events: place in the definitions' kinds, -1 = none */
	int code;                     /* scans: place in the codes of the batch */
	Datum amount;                 /* orders and refunds: numeric */
	const char *reference;        /* orders: external_ref or NULL */
	int64 refund_of;              /* refunds */
	int64 account_id;             /* events */
	const char *detail;           /* events: the kind; manual stage: the stage or NULL */
	const char *reason;           /* manual stage */
	const CrmFactDetail *details; /* where rules read them; those that are NULL are not there */
	CrmFieldChange *change;       /* field changes; NULL where no stage rule reads the field */
} CrmFact;

/* Gives rules a value of a fact, copied: beside what a walk needs, where rules read such. */
extern void crm_fact_set(CrmFact *fact, CrmFactColumn column, Datum value, bool isnull,
						 bool by_value);

/*
 * Under what a scan counts once, beside its contact: columns scope, scope_id and
 * window_start, for scans s (qr_code_id, occurred_at) and CRM_SCAN_CODE after them.
 */
#define CRM_SCAN_KEY                                                              \
	"q.dedup_scope AS scope, (CASE q.dedup_scope WHEN 'campaign' THEN q.campaign" \
	" WHEN 'store' THEN q.store_id::text ELSE q.qr_code_id::text END)"            \
	" COLLATE \"C\" AS scope_id,"                                                 \
	" crm.scan_window_start(s.occurred_at, q.dedup_window, q.valid_from, a.time_zone) AS window_start"
#define CRM_SCAN_CODE                                    \
	" JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id" \
	" JOIN crm.account a ON a.account_id = q.account_id"

/* Sorts into the order in which facts are walked, contact by contact. */
extern void crm_facts_sort(CrmFact *facts, int64 nfacts);

/*
 * Locks the contacts in id order; raises 23503 for one that does not exist.
 * Ids ascending and distinct.
 */
extern void crm_profile_lock(const int64 *contacts, int ncontacts);
/* contact_first.c: do definitions or journeys ask for the contact's row to be locked first? */
extern bool crm_contact_first(void);
/* locks them, where that is so */
extern void crm_contact_lock_first(const int64 *contacts, int ncontacts);
/* Into which contact this one was merged; 0 if it was not. */
extern int64 crm_profile_survivor(int64 contact_id);
CRM_NORETURN extern void crm_unknown_contact(int64 contact_id);

/*
 * Which scans of a batch count: told by who knows the codes, when their contact
 * is at hand.
 */
typedef struct CrmScanCounting CrmScanCounting;
struct CrmScanCounting
{
	/*
	 * Marks those that count of scans that all come after what is known of their
	 * contact, whose profile is given, as the active snapshot shows it. False
	 * where that cannot be told so; the contact is counted anew then.
	 */
	bool (*mark)(CrmScanCounting *counting, CrmFact *facts, int nfacts, const Datum *values,
				 const bool *nulls);
	/* Once the profile is updated: what mark() has found is to be written. */
	void (*keep)(CrmScanCounting *counting);
	/* Writes it, and says for which contacts it met rows that others wrote. */
	int64 *(*write)(CrmScanCounting *counting, int *nconflicts);
	/* Counts all scans of these contacts of the batch, which are locked; set-based. */
	void (*count)(CrmScanCounting *counting, const int64 *contacts, int ncontacts);
};

/*
 * Takes a sorted batch of facts, already in their tables, into the profiles.
 * Counting is NULL where there are no scans.
 */
extern void crm_profile_settle(CrmFact *facts, int64 nfacts, CrmScanCounting *counting);

/*
 * Walks all facts of the contacts (ascending, distinct) anew and mends what
 * differs; cause dates the changes. The contacts need not be locked.
 */
extern void crm_profile_recompute(const int64 *contacts, int ncontacts, TimestampTz cause);

/* Opens the profiles of contacts that have just been inserted. */
extern void crm_profile_open(const int64 *contacts, const TimestampTz *created_at, int ncontacts);

/* Registers the callbacks of the cache of definitions. */
extern void crm_definition_init(void);

/*
 * A part of crm.verify() of a room above, set as the module is loaded; it calls
 * add for each difference, with the snapshot of the statement.
 */
typedef void (*CrmAddDifference)(void *arg, int64 contact_id, const char *check,
								 const char *expected, const char *found);
extern void (*crm_verify_more)(CrmAddDifference add, void *arg);

#endif /* CRM_PROFILE_H */
