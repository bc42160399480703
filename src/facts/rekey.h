/*
 * rekey.h
 *		The rows of one contact given to another, in whatever tables there are:
 *		found in the catalogue, so that tables of later rooms and of users are
 *		re-keyed too.
 */
#ifndef CRM_REKEY_H
#define CRM_REKEY_H

#include "postgres.h"

/*
 * A column that holds the id of a contact: contact_id of a table of schema crm,
 * or any foreign key to crm.contact.
 */
typedef struct CrmReferrer
{
	Oid relid;
	int16 attnum;
	Oid owner;
	bool stays_whole;   /* rows never give way to others */
	bool protected;     /* triggers refuse changes from outside */
	const char *table;  /* qualified and quoted */
	const char *column; /* quoted */
	const char *label;  /* name in the ledger */
	const char *key;    /* what tells a contact's rows apart, as jsonb */
} CrmReferrer;

/* All of them, in the order of their names. Between crm_connect() and crm_disconnect(). */
extern CrmReferrer *crm_referrers(int *n);

/*
 * Gives the rows of one contact to another. Where the other has an equal row
 * already, the row is deleted instead. Returns a jsonb array for the ledger, of
 * keys and, as objects, of deleted rows; NULL where there was nothing.
 */
extern Datum crm_rekey(const CrmReferrer *referrer, int64 from, int64 to, bool *isnull);

/* Undoes that with what it returned; rows that are no longer there are left out. */
extern void crm_rekey_back(const CrmReferrer *referrer, int64 from, int64 to, Datum rows);

/*
 * Names, comma-separated, of those columns of a table that can be inserted and
 * that the objects among the elements of a jsonb array have.
 */
extern char *crm_stored_columns(Oid relid, Datum rows);

/* merge.c: raises an error while a batch of journeys is at work */
extern void crm_check_no_journeys_move(void);
/* merge.c: raises an error for a contact that has no profile */
extern void crm_check_profiles(const int64 *contacts, int ncontacts);

/* consent.c: the stricter of two, before the rows are given; returns what the ledger keeps */
extern Datum crm_consent_merge(int64 loser, int64 survivor, bool *isnull);
/* consent.c: undoes that with what it returned, after the rows were given back */
extern void crm_consent_unmerge(int64 survivor, int64 other, Datum said);

/* What becomes jsonb does not depend on the session; ended by AtEOXact_GUC(true, …). */
extern int crm_plain_output(void);

#endif /* CRM_REKEY_H */
