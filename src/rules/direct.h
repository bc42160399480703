/*
 * direct.h
 *		A rule asked of one contact without a plan: its rows are found by their
 *		keys, and the rule is evaluated on them.
 */
#ifndef CRM_DIRECT_H
#define CRM_DIRECT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"
#include "utils/elog.h"

typedef struct CrmDirectRule CrmDirectRule;

/*
 * Of the statement of a rule for one contact (CRM_RULE_ONE), in this context. NULL where a
 * plan is needed: for rule functions that read facts, or a profile that is not as pg_crm makes it.
 */
extern CrmDirectRule *crm_direct_compile(Query *query, MemoryContext context);

/*
 * Does the rule hold? False is returned, and nothing said, where a plan must be
 * asked: row security or the like on the tables, or *stale once they are locked.
 * Where the rule fails *error says why, and it does not hold.
 */
extern bool crm_direct_ask(CrmDirectRule *rule, const bool *stale, int64 contact_id,
						   TimestampTz as_of, bool *holds, ErrorData **error);

#endif /* CRM_DIRECT_H */
