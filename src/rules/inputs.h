/*
 * inputs.h
 *		An expression's inside, for the files that compile and evaluate it.
 */
#ifndef CRM_INPUTS_H
#define CRM_INPUTS_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "nodes/params.h"

#include "rules/expression.h"

#define CRM_MAX_INPUTS  64
#define CRM_MAX_MOMENTS 32

typedef enum CrmInputKind
{
	CRM_INPUT_VALUE,
	CRM_INPUT_AS_OF,
	CRM_INPUT_TODAY
} CrmInputKind;

/* What a parameter stands for. */
typedef struct CrmInput
{
	CrmInputKind kind;
	int position; /* of a value */
	Oid type;
	bool presence;
} CrmInput;

/* Where what grows with time goes back now and then, by calendar arithmetic. */
typedef enum CrmSlack
{
	CRM_SLACK_NONE,
	CRM_SLACK_DAYS,  /* when clocks change, by an hour or two */
	CRM_SLACK_MONTHS /* at midnight, by some days at most */
} CrmSlack;

typedef struct CrmExpressionInputs
{
	const CrmScope *scope;
	int n;
	CrmInput list[CRM_MAX_INPUTS];
} CrmExpressionInputs;

struct CrmExpression
{
	bool never;
	bool may_fail;
	bool reads_settings;
	Node *tree; /* while it is compiled */
	ExprState *state;
	ExprContext *evaluation;
	ParamListInfo parameters;
	CrmGuard *guard;
	int ninputs;
	CrmInput inputs[CRM_MAX_INPUTS];

	/* conditions that time alone changes once, and whether there are others */
	CrmRuleTime time;
	int nmoments;
	ExprState *moments[CRM_MAX_MOMENTS];
	CrmSlack slack[CRM_MAX_MOMENTS];
};

extern void crm_expression_fill(CrmExpression *expression, const Datum *values, const bool *nulls);
extern bool crm_expression_evaluate(CrmExpression *expression, ExprState *state, TimestampTz as_of,
									bool *isnull);

/* May it raise an error, whatever it is given? */
extern bool crm_expression_may_fail(Node *tree);

/* moment.c: at what moments does time change the conditions of the tree? */
extern void crm_expression_find_moments(CrmExpression *expression, Node *tree);

#endif /* CRM_INPUTS_H */
