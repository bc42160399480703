/*
 * won.h
 *		Contacts won, counted by day with what they have bought to date, where
 *		counts are kept: crm.won_tail names those that changed, crm.won_total has
 *		what is added up.
 */
#ifndef CRM_WON_H
#define CRM_WON_H

#include "postgres.h"

#include "profile/profile.h"

/* Contacts whose source, orders or spend a batch has changed. */
typedef struct CrmWon
{
	bool kept; /* else nothing is counted */
	int64 n;
	int64 size;
	int64 *contacts;
	MemoryContext context;
} CrmWon;

/* Under a lock on crm.profile_counter, until they are written. */
extern void crm_won_init(CrmWon *won);
extern void crm_won_changed(CrmWon *won, int64 contact_id);
extern void crm_won_write(const CrmWon *won);
/* Two contacts that were merged or parted: what each counts for has changed. */
extern void crm_won_rekeyed(const int64 *contacts);

/* The rest is for who counts, alone and in SPI; again: all of them, out of the rows. */
extern uint64 crm_won_add_up(bool again);
extern void crm_won_forget(void);
extern void crm_won_verify(CrmAddDifference add, void *arg);

#endif /* CRM_WON_H */
