/*
 * fact.c
 *		A fact as rules read it.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "profile/definition.h"
#include "profile/profile.h"
#include "profile/walk.h"

void
crm_fact_set(CrmFact *fact, CrmFactColumn column, Datum value, bool isnull, bool by_value)
{
	CrmFactDetail *detail;

	if (isnull)
		return;
	detail = palloc_object(CrmFactDetail);
	detail->next = fact->details;
	detail->column = column;
	detail->value = by_value ? value : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	fact->details = detail;
}

/* A member of a document as text; false where there is none, or null. */
static bool
member_text(Jsonb *document, const char *key, Datum *text)
{
	JsonbValue value;

	if (getKeyJsonValueFromContainer(&document->root, key, strlen(key), &value) == NULL)
		return false;
	switch (value.type)
	{
		case jbvString:
			*text = PointerGetDatum(
				cstring_to_text_with_len(value.val.string.val, value.val.string.len));
			return true;
		case jbvNumeric:
			*text = CStringGetTextDatum(DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric))));
			return true;
		case jbvBool:
			*text = CStringGetTextDatum(value.val.boolean ? "true" : "false");
			return true;
		case jbvBinary:
			*text = CStringGetTextDatum(
				JsonbToCString(NULL, value.val.binary.data, value.val.binary.len));
			return true;
		default:
			return false;
	}
}

void
crm_fact_values(const CrmDefinitions *definitions, const CrmFact *fact, Datum *values, bool *nulls)
{
	memset(nulls, true, sizeof(bool) * CRM_FACT_COLUMNS);
	for (const CrmFactDetail *detail = fact->details; detail != NULL; detail = detail->next)
	{
		values[detail->column] = detail->value;
		nulls[detail->column] = false;
	}
	if (fact->unseen && !nulls[CRM_F_PROPERTIES])
	{
		Jsonb *change = DatumGetJsonbP(values[CRM_F_PROPERTIES]);

		nulls[CRM_F_FIELD] = !member_text(change, "field", &values[CRM_F_FIELD]);
		nulls[CRM_F_OLD] = !member_text(change, "old", &values[CRM_F_OLD]);
		nulls[CRM_F_NEW] = !member_text(change, "new", &values[CRM_F_NEW]);
	}
	values[CRM_F_KIND] = CStringGetTextDatum(fact->type == CRM_FACT_PURCHASE   ? "purchase"
												 : fact->type == CRM_FACT_SCAN ? "scan"
												 : fact->kind >= 0 ? definitions->kinds[fact->kind]
												 : fact->detail != NULL ? fact->detail
																		: "");
	values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(fact->occurred_at);
	nulls[CRM_F_KIND] = nulls[CRM_F_OCCURRED_AT] = false;
	values[CRM_F_AMOUNT] = fact->amount;
	nulls[CRM_F_AMOUNT] = fact->type != CRM_FACT_PURCHASE;
	if (fact->reference != NULL)
		values[CRM_F_EXTERNAL_REF] = CStringGetTextDatum(fact->reference);
	nulls[CRM_F_EXTERNAL_REF] = fact->reference == NULL;
	values[CRM_F_ACCOUNT_ID] = Int64GetDatum(fact->account_id);
	nulls[CRM_F_ACCOUNT_ID] = fact->account_id == 0;
}
