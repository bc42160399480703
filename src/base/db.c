/*
 * db.c
 *		Kept plans by name, and arrays for them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "optimizer/cost.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/db.h"

void
crm_connect(CrmActing *acting)
{
	crm_act_as_owner(acting);
	SPI_connect();
}

void
crm_disconnect(CrmActing *acting)
{
	SPI_finish();
	crm_act_end(acting);
}

/* rows from which on a batch is worth a plan of its own */
#define LARGE_BATCH 64

static SPIPlanPtr
keep_plan(CrmPlan *plan, int options)
{
	SPIPlanPtr prepared = SPI_prepare_cursor(plan->sql, plan->nargs, plan->argtypes, options);

	if (prepared == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(prepared);
	return prepared;
}

/* A batch comes as arrays; the first argument tells its size. */
static bool
is_large(const CrmPlan *plan, const Datum *values, const char *nulls)
{
	ArrayType *array;

	if (plan->nargs == 0 || (nulls != NULL && nulls[0] == 'n') ||
		(plan->argtypes[0] != INT8ARRAYOID && plan->argtypes[0] != TEXTARRAYOID))
		return false;
	array = DatumGetArrayTypeP(values[0]);
	return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) > LARGE_BATCH;
}

/* A kept plan is made anew inside, whenever what it depends on has changed. */
static int
execute_by_index(SPIPlanPtr plan, const Datum *values, const char *nulls, bool read_only)
{
	bool before = enable_seqscan;
	int code;

	enable_seqscan = false;
	PG_TRY();
	{
		code = SPI_execute_plan(plan, unconstify(Datum *, values), nulls, read_only, 0);
	}
	PG_FINALLY();
	{
		enable_seqscan = before;
	}
	PG_END_TRY();
	return code;
}

static uint64
execute(CrmPlan *plan, const Datum *values, const char *nulls, bool read_only)
{
	SPIPlanPtr chosen;
	int code;

	if (!plan->always_generic && is_large(plan, values, nulls))
	{
		if (plan->large_plan == NULL)
			plan->large_plan = keep_plan(plan, CURSOR_OPT_CUSTOM_PLAN);
		chosen = plan->large_plan;
	}
	else
	{
		if (plan->plan == NULL)
			plan->plan = keep_plan(plan, CURSOR_OPT_GENERIC_PLAN);
		chosen = plan->plan;
	}
	code = plan->by_index
		? execute_by_index(chosen, values, nulls, read_only)
		: SPI_execute_plan(chosen, unconstify(Datum *, values), nulls, read_only, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
	return SPI_processed;
}

bool crm_only_reads = false;

uint64
crm_run(CrmPlan *plan, const Datum *values, const char *nulls)
{
	return execute(plan, values, nulls, crm_only_reads);
}

bool crm_facts_may_change = false;

uint64
crm_run_protected(CrmPlan *plan, const Datum *values, const char *nulls)
{
	bool before = crm_facts_may_change;
	uint64 n;

	crm_facts_may_change = true;
	PG_TRY();
	{
		n = execute(plan, values, nulls, crm_only_reads);
	}
	PG_FINALLY();
	{
		crm_facts_may_change = before;
	}
	PG_END_TRY();
	return n;
}

uint64
crm_read(CrmPlan *plan, const Datum *values, const char *nulls)
{
	return execute(plan, values, nulls, true);
}

bool
crm_attempt(bool (*work)(void *arg), void *arg, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	volatile bool kept = false;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		kept = work(arg);
		if (kept)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		kept = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return kept;
}

Datum
crm_result(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

int64
crm_result_int64(uint64 row, int column)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

char *
crm_result_text(uint64 row, int column)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

TimestampTz
crm_result_time(uint64 row, int column, TimestampTz if_null)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? if_null : DatumGetTimestampTz(value);
}

bool
crm_result_true(uint64 row, int column)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

double
crm_result_double(uint64 row, int column)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? get_float8_nan() : DatumGetFloat8(value);
}

char *
crm_text_copy(MemoryContext context, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	char *copy = TextDatumGetCString(value);

	MemoryContextSwitchTo(old);
	return copy;
}

void
crm_column_init(CrmColumn *column, Oid type)
{
	column->type = type;
	column->n = 0;
	column->size = 0;
	column->values = NULL;
	column->nulls = NULL;
}

void
crm_column_add(CrmColumn *column, Datum value, bool isnull)
{
	if (column->n == column->size)
	{
		int size = column->size == 0 ? 16 : column->size * 2;

		if (column->values == NULL)
		{
			column->values = palloc_array(Datum, size);
			column->nulls = palloc_array(bool, size);
		}
		else
		{
			column->values = repalloc_huge(column->values, sizeof(Datum) * size);
			column->nulls = repalloc_huge(column->nulls, sizeof(bool) * size);
		}
		column->size = size;
	}
	column->values[column->n] = value;
	column->nulls[column->n] = isnull;
	column->n++;
}

Datum
crm_column_array(CrmColumn *column)
{
	int16 typlen;
	bool typbyval;
	char typalign;
	int dims[1] = { column->n };
	int lower_bounds[1] = { 1 };

	if (column->n == 0)
		return PointerGetDatum(construct_empty_array(column->type));
	get_typlenbyvalalign(column->type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_md_array(column->values, column->nulls, 1, dims, lower_bounds,
											  column->type, typlen, typbyval, typalign));
}

Datum
crm_int64_array(const int64 *values, int n)
{
	CrmColumn column;

	crm_column_init(&column, INT8OID);
	for (int i = 0; i < n; i++)
		crm_column_add(&column, Int64GetDatum(values[i]), false);
	return crm_column_array(&column);
}

int
crm_compare_int64(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = *(const int64 *) b;

	return (left > right) - (left < right);
}
