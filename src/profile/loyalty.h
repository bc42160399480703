/*
 * loyalty.h
 *		Points and tiers of the members of loyalty programmes. Callers act as
 *		the owner and hold the lock of the contacts they name.
 */
#ifndef CRM_LOYALTY_H
#define CRM_LOYALTY_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"

#include "profile/profile.h"

/* points of one entry at most */
#define CRM_MAX_POINTS INT64CONST(1000000000000000)

/*
 * Gives the points that a sorted batch of facts, already in their tables, earns
 * by the earning rules, takes back those of refunded orders, and moves tiers.
 */
extern void crm_loyalty_settle(const CrmFact *facts, int64 nfacts);

/*
 * The same for all facts of the contacts (ascending, distinct); reason goes
 * into the ledger and dates what changes.
 */
extern void crm_loyalty_recompute(const int64 *contacts, int ncontacts, TimestampTz cause,
								  const char *reason);

/* An entry by hand, points below 0 where they are spent; returns the balance. */
extern int64 crm_points_enter(int64 contact_id, int64 loyalty_program_id, int64 points,
							  const char *reason, int64 *point_entry_id);

/* Tells what differs from the facts, by the snapshot of the calling statement. */
typedef void (*CrmDifference)(void *arg, int64 contact_id, const char *check, const char *expected,
							  const char *found);
extern void crm_points_verify(const int64 *contacts, int ncontacts, CrmDifference differs,
							  void *arg);
extern void crm_tiers_verify(const int64 *contacts, int ncontacts, CrmDifference differs,
							 void *arg);

/* tier.c: tiers of the contacts, each dated by its cause, after something was earned */
extern void crm_tiers_settle(const int64 *contacts, const TimestampTz *causes, int ncontacts,
							 const char *reason);

/* Ends the tiers of these contacts (ascending, locked) that are due as of a time. */
extern void crm_tiers_due(const int64 *contacts, int ncontacts, TimestampTz as_of);

/* define_loyalty.c: is it a table of these definitions? */
extern bool crm_is_loyalty_definition(Oid relid);
/* define_loyalty.c: refuses a row that cannot work */
extern void crm_check_loyalty_definition(Oid relid, TupleDesc descriptor, HeapTuple tuple);
/* define_loyalty.c: applies changed rules and tiers to all members */
extern void crm_loyalty_recompute_all(void);

#endif /* CRM_LOYALTY_H */
