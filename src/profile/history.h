/*
 * history.h
 *		Everything recorded about some contacts, and what a walk over it gives.
 */
#ifndef CRM_HISTORY_H
#define CRM_HISTORY_H

#include "postgres.h"

#include "profile/profile.h"
#include "profile/walk.h"

/* contacts whose history is held in memory at once */
#define CRM_HISTORY_CHUNK 2000

typedef struct CrmStoredAward
{
	const char *achievement;
	Datum threshold; /* numeric */
	TimestampTz awarded_at;
	int64 source_id;
	bool revoked;
	TimestampTz revoked_at;
	bool found;  /* by the walk at hand */
	bool is_new; /* not in the table yet */
	bool changed;
} CrmStoredAward;

typedef struct CrmStoredMove
{
	TimestampTz since;
	const char *stage;
	const char *reason;
} CrmStoredMove;

typedef struct CrmHistory
{
	int64 contact_id;
	TimestampTz created_at;
	const char *contact_stage;         /* the kept copy, NULL if none */
	Datum values[CRM_PROFILE_COLUMNS]; /* the stored counters */
	bool nulls[CRM_PROFILE_COLUMNS];
	TimestampTz due_at; /* as kept; only of crm_history_load_stored() */

	int64 events;         /* all of them, walked or not, still there or gone */
	int64 opening_events; /* of those that are gone (crm.opening_balance) */
	int64 opening_scans;
	bool seen;
	TimestampTz first_seen_at;
	TimestampTz last_seen_at;

	Datum *fields; /* of the contact as they are now, by place; only those wanted */
	bool *field_nulls;

	int nfacts;
	CrmFact *facts; /* in walking order */
	int nawards;
	int awards_size;
	CrmStoredAward *awards;
	int nmoves;
	CrmStoredMove *moves;
} CrmHistory;

/*
 * Reads the histories of the contacts (ascending, distinct, at most a chunk)
 * into the current memory context; contacts without a profile are left out.
 * Called between crm_connect() and crm_disconnect(). read_only: as the snapshot
 * of the calling statement shows them, else as of now.
 */
extern CrmHistory *crm_history_load(const CrmDefinitions *definitions, const int64 *contacts,
									int ncontacts, bool read_only, int *nhistories);

/* The same without facts, awards and moves, of contacts that have a row in crm.stage_due. */
extern CrmHistory *crm_history_load_stored(const int64 *contacts, int ncontacts, int *nhistories);

/*
 * Walks a history without some of its refunds (ids ascending; none: all count).
 * Moves by time alone are made until then, and at least as far as they were
 * made already.
 */
extern void crm_history_walk(CrmHistory *history, CrmWalk *walk, const int64 *left_out,
							 int nleft_out, TimestampTz until);

/* Takes a column of the current result as what rules read of a fact, beside what a walk needs. */
extern void crm_fact_detail(CrmFact *fact, CrmFactColumn column, uint64 row, int result_column,
							bool by_value);

/*
 * field.c: fields of contacts, for stage rules. The first loads those of now; the
 * second the changes, an event each, to be found by its id.
 */
extern void crm_fields_load(const CrmDefinitions *definitions, CrmHistory *histories,
							int nhistories, Datum contacts, bool read_only, MemoryContext context);
extern void crm_field_changes_load(const CrmDefinitions *definitions, CrmFact *facts, int64 nfacts,
								   Datum contacts, bool read_only, MemoryContext context);

/* The fields as they were before the first change, into what rules read. */
extern void crm_fields_begin(const CrmHistory *history, CrmWalk *walk);

/* The stored award of a threshold, NULL if there is none. */
extern CrmStoredAward *crm_history_award(CrmHistory *history, const CrmAchievement *achievement,
										 int threshold);

/* May the award be taken back? Also when its definition is gone. */
extern bool crm_award_is_revocable(const CrmDefinitions *definitions, const CrmStoredAward *award);

#endif /* CRM_HISTORY_H */
