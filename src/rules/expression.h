/*
 * expression.h
 *		A rule over values at hand: a tuple, a fact, the state of a walk.
 *		Compiled once, evaluated without SQL.
 */
#ifndef CRM_EXPRESSION_H
#define CRM_EXPRESSION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/elog.h"

/* A name that a rule may use; its value is found by position. */
typedef struct CrmVariable
{
	const char *name; /* "orders", "fact.amount" */
	Oid type;
	int position;
	bool presence; /* only IS [NOT] NULL makes sense */
	Oid collation; /* of the column; InvalidOid: the type's */
} CrmVariable;

/* How a rule's answer depends on time alone. */
typedef enum CrmRuleTime
{
	CRM_TIME_NONE,
	CRM_TIME_EXACT, /* the moments are known beforehand */
	CRM_TIME_DAILY  /* looked at at each local midnight */
} CrmRuleTime;

/* What a rule may name. Everything in it must outlive its expressions' compilation only. */
typedef struct CrmScope
{
	const char *what; /* "a stage rule", for messages */
	int nvariables;
	const CrmVariable *variables;

	/*
	 * A rule function that looks at facts, as "times", {"cart", "7 days"}: position
	 * of its value, which the caller finds; -1 where it is not available.
	 */
	int (*function)(void *arg, const char *name, const char *const *arguments, const char *label);
	void *arg;
} CrmScope;

typedef struct CrmExpression CrmExpression;
typedef struct CrmGuard CrmGuard;

/*
 * Compiles a rule into the current memory context, which must live as long as
 * the expression. Between crm_connect() and crm_disconnect(). Errors as of the
 * rule language: 42601, 42703, 42883, 42804, 0A000, with position and hint.
 */
extern CrmExpression *crm_expression_compile(const char *text, const CrmScope *scope);

/* The same of those conditions, of what AND joins at the top, that are wanted; NULL: none is. */
extern CrmExpression *crm_expression_compile_part(const char *text, const CrmScope *scope,
												  bool (*wants)(struct Node *condition));

/* An expression that never holds, in place of a rule that no longer compiles. */
extern CrmExpression *crm_expression_never(void);

/*
 * Does it hold? NULL is no. Where it fails (class 22) the answer is no and
 * *error says why, if error is not NULL.
 */
extern bool crm_expression_holds(CrmExpression *expression, const Datum *values, const bool *nulls,
								 TimestampTz as_of, ErrorData **error);

/* May it fail? And the same where a failure is an error. */
extern bool crm_expression_is_safe(const CrmExpression *expression);
extern bool crm_expression_holds_or_fails(CrmExpression *expression, const Datum *values,
										  const bool *nulls, TimestampTz as_of);

extern bool crm_expression_names(const CrmExpression *expression, int position);

/* guard.h: over the positions of its values; NULL: it has none, or may fail. */
extern const CrmGuard *crm_expression_guard(const CrmExpression *expression);

/* Must it run under the settings of rules, crm_expressions_enter()? */
extern bool crm_expression_reads_settings(const CrmExpression *expression);
extern int crm_expressions_enter(void);
extern void crm_expressions_leave(int nest_level);

/*
 * moment.c: the first moment after this one at which time alone may change the
 * answer, other values staying as they are; DT_NOEND if none. What rule
 * functions count is the caller's to know.
 */
extern CrmRuleTime crm_expression_time(const CrmExpression *expression);
extern TimestampTz crm_expression_due(CrmExpression *expression, const Datum *values,
									  const bool *nulls, TimestampTz after);

/*
 * Of an interval before now: its beginning, and the next moment after this one at which
 * what happened at a time leaves it, or comes into it again: as months differ in length,
 * a month before goes back at some midnights.
 */
extern TimestampTz crm_lookback_start(TimestampTz as_of, Datum within);
extern TimestampTz crm_lookback_due(TimestampTz occurred_at, Datum within, TimestampTz after);
extern bool crm_lookback_has_months(Datum within);

/* The first local midnight after a time, in pg_crm.time_zone. */
extern TimestampTz crm_next_midnight(TimestampTz after);

#endif /* CRM_EXPRESSION_H */
