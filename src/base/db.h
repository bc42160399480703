/*
 * db.h
 *		Kept plans by name, and arrays for them.
 *
 * A plan is a static variable at its point of use, prepared once a session. A
 * small batch runs a generic plan (a custom one for an array parameter would be
 * made anew at each call); a large one is planned for its size, as the generic
 * plan may be from a time when the tables were empty. Plans run between crm_connect() and crm_disconnect().
 */
#ifndef CRM_DB_H
#define CRM_DB_H

#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "utils/array.h"

#include "base/rights.h"

#define CRM_MAX_PLAN_ARGS 32

typedef struct CrmPlan
{
	const char *sql;
	int nargs;
	Oid argtypes[CRM_MAX_PLAN_ARGS];
	bool always_generic;   /* planned once whatever the size */
	bool by_index;         /* reads no table as a whole, though it was empty when it was planned */
	SPIPlanPtr plan;       /* generic */
	SPIPlanPtr large_plan; /* planned for its size */
} CrmPlan;

/* Acts as the owner and opens SPI; both until crm_disconnect() or an error. */
extern void crm_connect(CrmActing *acting);
extern void crm_disconnect(CrmActing *acting);

/* Runs the plan to its end; returns SPI_processed. nulls may be NULL. */
extern uint64 crm_run(CrmPlan *plan, const Datum *values, const char *nulls);

/*
 * The same for a plan that changes rows which triggers otherwise protect: facts,
 * identities, and what the extension keeps in crm.contact.
 */
extern uint64 crm_run_protected(CrmPlan *plan, const Datum *values, const char *nulls);
extern bool crm_facts_may_change;

/*
 * While it is set, crm_run() is crm_read(), and what is to be recorded aside is
 * not. Whoever sets it takes it back, after an error too.
 */
extern bool crm_only_reads;

/* The same by the snapshot of the calling statement, writing nothing. */
extern uint64 crm_read(CrmPlan *plan, const Datum *values, const char *nulls);

/* Value of a column of the current result; NULL where it is null. */
extern Datum crm_result(uint64 row, int column, bool *isnull);
extern int64 crm_result_int64(uint64 row, int column);
extern char *crm_result_text(uint64 row, int column);
extern TimestampTz crm_result_time(uint64 row, int column, TimestampTz if_null);
extern bool crm_result_true(uint64 row, int column);     /* false where it is null */
extern double crm_result_double(uint64 row, int column); /* NaN where it is null */

/* Copies of by-reference values into a context that outlives SPI_finish(). */
extern char *crm_text_copy(MemoryContext context, Datum value);

/*
 * Does work in a subtransaction and keeps it only if work returns true. Where
 * it raised an error, *error is that, to be looked at and freed or thrown again.
 */
extern bool crm_attempt(bool (*work)(void *arg), void *arg, ErrorData **error);

/*
 * A list of values of one column that grows; becomes an array for unnest().
 */
typedef struct CrmColumn
{
	Oid type;
	int n;
	int size;
	Datum *values;
	bool *nulls;
} CrmColumn;

extern void crm_column_init(CrmColumn *column, Oid type);
extern void crm_column_add(CrmColumn *column, Datum value, bool isnull);
extern Datum crm_column_array(CrmColumn *column);
extern Datum crm_int64_array(const int64 *values, int n);
extern int crm_compare_int64(const void *a, const void *b); /* for qsort() */

#endif /* CRM_DB_H */
