/*
 * recompute.h
 *		The general lane, inside the profile room.
 */
#ifndef CRM_RECOMPUTE_H
#define CRM_RECOMPUTE_H

#include "postgres.h"

#include "base/db.h"
#include "profile/history.h"

/* Contacts whose stage changed, ascending, and since when they have it. */
typedef struct CrmMoved
{
	int n;
	int64 *contacts;
	TimestampTz *since;
} CrmMoved;

/* What is new in a batch: it dates and orders the changes. */
typedef struct CrmNews
{
	TimestampTz cause; /* of all contacts, unless each has its own: */
	int ncontacts;
	const int64 *contacts;     /* ascending */
	const TimestampTz *causes; /* time of the contact's latest new fact */
	int nrefunds;
	int64 *refunds; /* ids of new refunds, ascending */
	/* moves by time alone are made until then, and where such were made already; 0: only there */
	TimestampTz until;
	bool time_alone; /* nothing else is new: the contacts have a row in crm.stage_due */
	CrmMoved *moved; /* NULL, or with room for all contacts, to be filled in */
} CrmNews;

extern void crm_recompute(const int64 *contacts, int ncontacts, const CrmNews *news);

/*
 * Has this transaction walked a contact anew? Such a walk counts rows whose own
 * trigger is still to come (another part of the same statement).
 */
extern bool crm_recomputed_in_transaction(void);

/* Does the stored counter differ from what the walk found? */
extern bool crm_profile_differs(const CrmHistory *history, const CrmWalk *walk,
								CrmProfileColumn column);

/*
 * define.c: does work for all contacts of a plan, some thousands at a time. The
 * plan's parameters are the last contact before and how many.
 */
extern void crm_for_all_contacts(CrmPlan *next, void (*work)(const int64 *contacts, int ncontacts));

/*
 * due.c: contacts that time alone will move, columns contact_id and due_at. Only
 * an earlier moment than the one kept is written: one look too many does no harm.
 */
extern void crm_stage_due_add(CrmColumn *due);
/* The same exactly; NULL where nothing is due. */
extern void crm_stage_due_set(CrmColumn *due);

/*
 * For tick(), between crm_connect() and crm_disconnect(). Contacts whose stage or
 * tier is due as of a time, ascending; of stages and of tiers at most limit, those
 * that are due first.
 */
extern int64 *crm_due_find(TimestampTz as_of, int64 limit, int *ncontacts);

/*
 * Locks them, all before the first is moved, and returns those that it got,
 * ascending. Whoever is busy in another transaction is passed over, and left to
 * the next tick().
 */
extern int64 *crm_due_lock(const int64 *contacts, int nfound, int *ncontacts);

/* The first moment at which a stage, tier or segment is due; DT_NOEND where none ever is. */
extern TimestampTz crm_due_next(void);

/* Moves those of them whose stage is due, each at its own moment, and then their segments. */
extern void crm_stages_due(const int64 *contacts, int ncontacts, TimestampTz as_of);

#endif /* CRM_RECOMPUTE_H */
