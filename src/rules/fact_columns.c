/*
 * fact_columns.c
 *		What a rule may read of a fact.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "rules/fact_columns.h"

const CrmVariable crm_fact_variables[CRM_FACT_COLUMNS] = {
	{ "fact.kind", TEXTOID, CRM_F_KIND },
	{ "fact.occurred_at", TIMESTAMPTZOID, CRM_F_OCCURRED_AT },
	{ "fact.amount", NUMERICOID, CRM_F_AMOUNT },
	{ "fact.currency", TEXTOID, CRM_F_CURRENCY },
	{ "fact.external_ref", TEXTOID, CRM_F_EXTERNAL_REF },
	{ "fact.items", JSONBOID, CRM_F_ITEMS },
	{ "fact.store_id", INT8OID, CRM_F_STORE_ID },
	{ "fact.account_id", INT8OID, CRM_F_ACCOUNT_ID },
	{ "fact.properties", JSONBOID, CRM_F_PROPERTIES },
	{ "fact.qr_code_id", INT8OID, CRM_F_QR_CODE_ID },
	{ "fact.campaign", TEXTOID, CRM_F_CAMPAIGN },
	/* of a field that changed, as text */
	{ "field", TEXTOID, CRM_F_FIELD },
	{ "old", TEXTOID, CRM_F_OLD },
	{ "new", TEXTOID, CRM_F_NEW },
};

int
crm_fact_column(const char *name)
{
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		if (strcmp(crm_fact_variables[i].name, name) == 0)
			return i;
	return -1;
}
