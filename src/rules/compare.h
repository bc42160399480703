/*
 * compare.h
 *		Rules as comparisons of single columns with constants, joined by AND.
 */
#ifndef CRM_COMPARE_H
#define CRM_COMPARE_H

#include "postgres.h"

/* What a rule may name: the caller's columns, values are found by position. */
typedef struct CrmRuleColumn
{
	const char *name;    /* "orders", or "fact.amount" */
	Oid type;            /* INT8OID, NUMERICOID, TIMESTAMPTZOID, TEXTOID, BOOLOID */
	bool null_test_only; /* only IS [NOT] NULL makes sense */
	int position;        /* of the value in what the caller evaluates on */
} CrmRuleColumn;

typedef enum CrmComparison
{
	CRM_IS_NULL,
	CRM_IS_NOT_NULL,
	CRM_LT,
	CRM_LE,
	CRM_EQ,
	CRM_NE,
	CRM_GE,
	CRM_GT
} CrmComparison;

typedef struct CrmTerm
{
	int position;
	CrmComparison comparison;
	Oid type;
	Datum constant;
	bool widened; /* the constant is numeric, the column int8 */
} CrmTerm;

typedef struct CrmRule
{
	bool never; /* the constant false */
	int nterms; /* none: the constant true */
	CrmTerm terms[FLEXIBLE_ARRAY_MEMBER];
} CrmRule;

/*
 * Reads a rule into the current memory context. An error 42601, 42703 or
 * 0A000 with a hint where it is none.
 */
extern CrmRule *crm_rule_parse(const char *text, const CrmRuleColumn *columns, int ncolumns);

/* A comparison with NULL is not true. */
extern bool crm_rule_holds(const CrmRule *rule, const Datum *values, const bool *nulls);

extern bool crm_rule_names(const CrmRule *rule, int position);

#endif /* CRM_COMPARE_H */
