/*
 * guard.h
 *		What a rule wants of one value at least. Of many rules, those whose
 *		guards stand in the way are found by a search and not asked one by one.
 */
#ifndef CRM_GUARD_H
#define CRM_GUARD_H

#include "postgres.h"

#include "nodes/nodes.h"

#include "rules/expression.h"

typedef enum CrmGuardKind
{
	CRM_GUARD_AT_MOST,
	CRM_GUARD_EQUAL,
	CRM_GUARD_AT_LEAST
} CrmGuardKind;

/* The rule is false where the value is NULL or on the wrong side of the bound. */
struct CrmGuard
{
	int column; /* the caller's number of it */
	CrmGuardKind kind;
	Oid compare; /* function: the value with the bound */
	Oid order;   /* function: two bounds */
	Oid collation;
	Datum bound;
};

/* Is this node a value that guards may be on? Its number. */
typedef bool (*CrmGuardColumn)(const Node *node, const void *arg, int *column);

/* The guard of a planned condition, in this context; NULL: it has none. */
extern CrmGuard *crm_guard_find(const Node *condition, CrmGuardColumn column_of, const void *arg);

/* Guards of many rules by value and bound. */
typedef struct CrmScreen CrmScreen;

/* Of these, of which some may be NULL; in this context. NULL where a search saves nothing. */
extern CrmScreen *crm_screen_create(const CrmGuard *const *guards, int nguards);

/* Sets holds[rule][place] to false where the rule's guard does. */
typedef Datum (*CrmScreenValue)(const void *arg, int column, bool *isnull);
extern void crm_screen_apply(CrmScreen *screen, CrmScreenValue value_of, const void *arg,
							 bool *const *holds, int place);

#endif /* CRM_GUARD_H */
