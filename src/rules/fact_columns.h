/*
 * fact_columns.h
 *		What a rule may read of a fact.
 */
#ifndef CRM_FACT_COLUMNS_H
#define CRM_FACT_COLUMNS_H

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

#endif /* CRM_FACT_COLUMNS_H */
