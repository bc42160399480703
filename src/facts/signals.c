/*
 * signals.c
 *		Facts told to journeys, once profiles, stages and segments are as the facts
 *		make them.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "facts/signals.h"
#include "journey/journey.h"
#include "profile/definition.h"
#include "profile/walk.h"

/* contacts whose facts are told together */
#define CHUNK 5000

static const char *
kind_of(const CrmFact *fact)
{
	switch (fact->type)
	{
		case CRM_FACT_PURCHASE:
			return "purchase";
		case CRM_FACT_REFUND:
			return "refund";
		case CRM_FACT_SCAN:
			return "scan";
		case CRM_FACT_EVENT:
		case CRM_FACT_MANUAL_STAGE:
			return fact->type == CRM_FACT_MANUAL_STAGE ? "set_stage" : fact->detail;
		case CRM_FACT_MOBILE:
			break;
	}
	return NULL;
}

bool
crm_signals_wanted(CrmFactType type, const char *kind)
{
	CrmFact fact = { .type = type, .detail = kind };
	const char *known = kind_of(&fact);

	return known != NULL && crm_journey_listens(known);
}

static void
set_scan(CrmSignal *signal, const CrmScanCode *code)
{
	CrmFactValues *fact = &signal->fact;

	fact->values[CRM_F_QR_CODE_ID] = Int64GetDatum(code->qr_code_id);
	fact->values[CRM_F_STORE_ID] = Int64GetDatum(code->store_id);
	fact->values[CRM_F_ACCOUNT_ID] = Int64GetDatum(code->account_id);
	fact->values[CRM_F_CAMPAIGN] = code->campaign;
	fact->nulls[CRM_F_QR_CODE_ID] = fact->nulls[CRM_F_ACCOUNT_ID] = false;
	fact->nulls[CRM_F_STORE_ID] = !code->has_store;
	fact->nulls[CRM_F_CAMPAIGN] = code->campaign == (Datum) 0;
}

static void
tell(const CrmFact *fact, const CrmScanCodes *codes)
{
	CrmSignal signal = { .kind = kind_of(fact),
						 .source_id = fact->id,
						 .occurred_at = fact->occurred_at };

	if (signal.kind == NULL || !crm_journey_listens(signal.kind))
		return;
	crm_fact_values(crm_definitions(), fact, signal.fact.values, signal.fact.nulls);
	signal.fact.contact_id = fact->contact_id;
	if (fact->type == CRM_FACT_REFUND)
	{
		signal.fact.values[CRM_F_AMOUNT] = fact->amount;
		signal.fact.nulls[CRM_F_AMOUNT] = false;
	}
	if (fact->type == CRM_FACT_SCAN)
		set_scan(&signal, &codes->codes[fact->code]);
	crm_journey_signal(&signal);
}

void
crm_facts_signal(const CrmFact *facts, int64 nfacts, const CrmScanCodes *codes)
{
	int64 contacts[CHUNK];
	int n = 0;

	SPI_connect();
	for (int64 i = 0; i < nfacts; i++)
	{
		if (n == 0 || contacts[n - 1] != facts[i].contact_id)
		{
			if (n == CHUNK)
			{
				CHECK_FOR_INTERRUPTS();
				crm_journeys_settle(contacts, n);
				n = 0;
			}
			contacts[n++] = facts[i].contact_id;
		}
		tell(&facts[i], codes);
	}
	crm_journeys_settle(contacts, n);
	SPI_finish();
}
