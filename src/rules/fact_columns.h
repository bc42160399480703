/*
 * fact_columns.h
 *		What a rule may read of a fact.
 */
#ifndef CRM_FACT_COLUMNS_H
#define CRM_FACT_COLUMNS_H

#include "postgres.h"

#include "rules/expression.h"

/* What a rule may read of a fact; NULL where its kind has no such thing. */
typedef enum CrmFactColumn
{
	CRM_F_KIND,
	CRM_F_OCCURRED_AT,
	CRM_F_AMOUNT, /* of orders: net of refunds */
	CRM_F_CURRENCY,
	CRM_F_EXTERNAL_REF,
	CRM_F_ITEMS,
	CRM_F_STORE_ID, /* of orders; of the code of scans */
	CRM_F_ACCOUNT_ID,
	CRM_F_PROPERTIES,
	CRM_F_QR_CODE_ID,
	CRM_F_CAMPAIGN,
	CRM_F_FIELD, /* of field changes, as CRM_F_OLD and CRM_F_NEW */
	CRM_F_OLD,
	CRM_F_NEW,
	CRM_FACT_COLUMNS
} CrmFactColumn;

/* the columns that every fact has; the others are of field changes */
#define CRM_FACT_COLUMNS_OF_ALL CRM_F_FIELD

/* Their names and types, by their places: "fact.amount" and so on, field, old, new. */
extern const CrmVariable crm_fact_variables[CRM_FACT_COLUMNS];

/* The place of a name, -1 where it is none of a fact. */
extern int crm_fact_column(const char *name);

#endif /* CRM_FACT_COLUMNS_H */
