/*
 * tally.h
 *		Facts counted by day as they come in: a row of crm.fact_tail for each key
 *		that a statement touches. The worker adds them to crm.fact_day.
 */
#ifndef CRM_TALLY_H
#define CRM_TALLY_H

#include "postgres.h"

#include "base/db.h"
#include "profile/profile.h"

#define CRM_TALLY_COLUMNS 7

#define CRM_TALLY_NAMES   8

typedef struct CrmTally
{
	bool kept; /* else nothing is counted */
	CrmColumn columns[CRM_TALLY_COLUMNS];
	/* names met last, as text */
	int nnames;
	const char *names[CRM_TALLY_NAMES];
	Datum texts[CRM_TALLY_NAMES];
} CrmTally;

typedef struct CrmTallied
{
	const char *kind;
	TimestampTz occurred_at;
	int64 account_id; /* 0: none, as in the next two */
	int64 qr_code_id;
	int64 store_id;
	const char *currency; /* NULL: has no amount */
	Datum amount;         /* numeric; must live until it is written */
} CrmTallied;

extern void crm_tally_init(CrmTally *tally);
extern void crm_tally_add(CrmTally *tally, const CrmTallied *fact);
extern void crm_tally_write(CrmTally *tally);
/* What refunds, which are in their table, take back of the orders, on the orders' days; in SPI. */
extern void crm_tally_refunds(Datum contacts, Datum refunds);

/* Part of crm.verify(): days as they are counted, and as they come out of the facts. */
extern void crm_tally_verify(CrmAddDifference add, void *arg);

#endif /* CRM_TALLY_H */
