/*
 * funnel_state.c
 *		The type crm.funnel_state, and the aggregates that gather rows in it.
 *
 * A state is one flat value with room to grow: a row is written into it in
 * place, which an aggregate allows, and only where the room is used up a state
 * of twice the size takes over. So half a million states are half a million
 * pieces of memory, and no more contexts than one.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "insight/funnel.h"

PG_FUNCTION_INFO_V1(crm_funnel_state_in);
PG_FUNCTION_INFO_V1(crm_funnel_state_out);
PG_FUNCTION_INFO_V1(crm_funnel_state_recv);
PG_FUNCTION_INFO_V1(crm_funnel_state_send);
PG_FUNCTION_INFO_V1(crm_sql_funnel_add);
PG_FUNCTION_INFO_V1(crm_sql_funnel_merge);
PG_FUNCTION_INFO_V1(crm_sql_funnel_level);
PG_FUNCTION_INFO_V1(crm_sql_funnel_times);

#define STATE_SIZE(nrows) (offsetof(CrmFunnelState, rows) + sizeof(CrmFunnelRow) * (nrows))
#define ROOM_OF(size)     (((size) -offsetof(CrmFunnelState, rows)) / sizeof(CrmFunnelRow))
/* as memory comes in powers of two */
#define FIRST_SIZE 128
#define MAX_ROWS   ROOM_OF(MaxAllocSize)
/* from so many rows on equal ones are looked for before there is room for more */
#define THIN_ROWS 1024

static CrmFunnelState *
make_state(int nsteps, const Interval *within, size_t size)
{
	CrmFunnelState *state = palloc(size);

	/* what is never read of it is copied all the same */
	memset(state, 0, size);
	SET_VARSIZE(state, size);
	state->nsteps = nsteps;
	state->sorted = true;
	state->within = *within;
	return state;
}

/* The length of a state with room for so many rows. */
static size_t
size_for(size_t nrows)
{
	size_t size = FIRST_SIZE;

	if (nrows > MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %zu rows of one funnel match its steps", MAX_ROWS),
				 errhint("Group by contact, or count the rows of a shorter period.")));
	while (ROOM_OF(size) < nrows)
		size = Min(size * 2, MaxAllocSize);
	return size;
}

/*
 * Of rows that are equal in time and steps no more are of use than they have
 * steps. Returns whether that gave room back.
 */
static bool
thin_out(CrmFunnelState *state)
{
	int kept = 0;
	int alike = 0;

	crm_funnel_sort(state->rows, state->nrows);
	state->sorted = true;
	for (int i = 0; i < state->nrows; i++)
	{
		CrmFunnelRow row = state->rows[i];

		if (kept > 0 && state->rows[kept - 1].at == row.at &&
			state->rows[kept - 1].steps == row.steps)
			alike++;
		else
			alike = 1;
		if (alike <= pg_popcount64(row.steps))
			state->rows[kept++] = row;
	}
	state->nrows = kept;
	return kept <= ROOM_OF(VARSIZE(state)) / 4 * 3;
}

/* The state, or one with its rows and room for more. */
static CrmFunnelState *
make_room(CrmFunnelState *state, int more)
{
	CrmFunnelState *larger;

	if ((size_t) state->nrows + more <= ROOM_OF(VARSIZE(state)))
		return state;
	if (state->nrows >= THIN_ROWS && thin_out(state) &&
		(size_t) state->nrows + more <= ROOM_OF(VARSIZE(state)))
		return state;
	larger = make_state(state->nsteps, &state->within, size_for((size_t) state->nrows + more));
	larger->sorted = state->sorted;
	larger->nrows = state->nrows;
	memcpy(larger->rows, state->rows, sizeof(CrmFunnelRow) * state->nrows);
	return larger;
}

static inline void
add_row(CrmFunnelState *state, TimestampTz at, uint64 steps)
{
	CrmFunnelRow *row = &state->rows[state->nrows];

	if (state->nrows > 0 && row[-1].at > at)
		state->sorted = false;
	row->at = at;
	row->steps = steps;
	state->nrows++;
}

/* ---------- what is refused ---------- */

static const char *
interval_text(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

static bool
is_negative(const Interval *interval)
{
	Interval nothing = { 0 };

	if (interval->time >= 0 && interval->day >= 0 && interval->month >= 0)
		return false;
	return DatumGetBool(
		DirectFunctionCall2(interval_lt, IntervalPGetDatum(interval), IntervalPGetDatum(&nothing)));
}

static void
check_within(const Interval *within)
{
	if (is_negative(within))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the window of a funnel must not be negative: %s", interval_text(within)),
				 errhint("Give the time from the first step to the last one.")));
}

static void
check_nsteps(int nsteps)
{
	if (nsteps < 1 || nsteps > CRM_FUNNEL_MAX_STEPS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a funnel has 1 to %d steps, not %d", CRM_FUNNEL_MAX_STEPS, nsteps),
				 errhint("Give a condition for each step.")));
}

static void
check_same(const CrmFunnelState *state, int nsteps, const Interval *within)
{
	if (state->nsteps != nsteps)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a funnel of %d steps has a row with %d", state->nsteps, nsteps),
				 errhint("Give the same conditions for all rows of a group.")));
	if (memcmp(&state->within, within, sizeof(Interval)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a funnel has windows of %s and of %s", interval_text(&state->within),
						interval_text(within)),
				 errhint(
					 "Give the same window for all rows of a group; group by it if it differs.")));
}

/* Bits of the conditions that are true, and how many conditions there are. */
static uint64
read_steps(ArrayType *array, int *nsteps)
{
	const char *values = ARR_DATA_PTR(array);
	const bits8 *bitmap = ARR_NULLBITMAP(array);
	uint64 steps = 0;
	int n;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("the steps of a funnel are an array of %d dimensions", ARR_NDIM(array)),
				 errhint("Give a list of conditions, one for each step.")));
	n = ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0];
	check_nsteps(n);
	*nsteps = n;
	for (int i = 0; i < n; i++)
	{
		if (bitmap != NULL && (bitmap[i / 8] & (1 << (i % 8))) == 0)
			continue; /* NULL is no */
		if (*values++)
			steps |= UINT64CONST(1) << i;
	}
	return steps;
}

/* ---------- aggregates ---------- */

/*
 * An argument as a state that may be changed, where in_place says that it is the aggregate's own; else
 * a copy. It may come out of a row, shortened, compressed and where it is not aligned.
 */
static CrmFunnelState *
state_argument(FunctionCallInfo fcinfo, int argument, bool in_place)
{
	struct varlena *value = (struct varlena *) PG_GETARG_POINTER(argument);
	CrmFunnelState *state;

	if (in_place && AggCheckCallContext(fcinfo, NULL) && !VARATT_IS_EXTENDED(value))
		return (CrmFunnelState *) value;
	state = (CrmFunnelState *) (in_place ? PG_DETOAST_DATUM_COPY(value) : PG_DETOAST_DATUM(value));
	if (VARSIZE(state) < offsetof(CrmFunnelState, rows) || state->nsteps < 1 ||
		state->nsteps > CRM_FUNNEL_MAX_STEPS || state->nrows < 0 ||
		state->nrows > ROOM_OF(VARSIZE(state)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED), errmsg("a state of crm.funnel() is damaged"),
				 errhint("Aggregate the rows again.")));
	return state;
}

Datum
crm_sql_funnel_add(PG_FUNCTION_ARGS)
{
	CrmFunnelState *state = NULL;
	const Interval *within;
	uint64 steps;
	int nsteps;

	for (int i = 1; i <= 3; i += 2)
		if (PG_ARGISNULL(i))
			ereport(
				ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the %s of a funnel must not be NULL", i == 1 ? "window" : "list of steps"),
				 errhint(
					 "A condition that is NULL counts as false, a row whose time is NULL as none.")));
	within = PG_GETARG_INTERVAL_P(1);
	steps = read_steps(PG_GETARG_ARRAYTYPE_P(3), &nsteps);
	if (PG_ARGISNULL(0))
		check_within(within);
	else
	{
		state = state_argument(fcinfo, 0, true);
		check_same(state, nsteps, within);
	}
	if (steps != 0 && !PG_ARGISNULL(2))
	{
		state = state != NULL ? make_room(state, 1) : make_state(nsteps, within, FIRST_SIZE);
		add_row(state, PG_GETARG_TIMESTAMPTZ(2), steps);
	}
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(state);
}

Datum
crm_sql_funnel_merge(PG_FUNCTION_ARGS)
{
	CrmFunnelState *state;
	CrmFunnelState *other;

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(1))
		PG_RETURN_POINTER(state_argument(fcinfo, 0, true));
	other = state_argument(fcinfo, 1, false);
	if (PG_ARGISNULL(0))
		PG_RETURN_POINTER(other);
	state = state_argument(fcinfo, 0, true);
	check_same(state, other->nsteps, &other->within);
	state = make_room(state, other->nrows);
	for (int i = 0; i < other->nrows; i++)
		add_row(state, other->rows[i].at, other->rows[i].steps);
	PG_RETURN_POINTER(state);
}

/* The state stays as it is: an aggregate over a window asks again later. */
static int
walk_state(FunctionCallInfo fcinfo, TimestampTz *times)
{
	CrmFunnelState *state = state_argument(fcinfo, 0, false);
	const CrmFunnelRow *rows = state->rows;

	if (!state->sorted)
	{
		size_t size = sizeof(CrmFunnelRow) * state->nrows;
		CrmFunnelRow *sorted = palloc(size);

		memcpy(sorted, state->rows, size);
		crm_funnel_sort(sorted, state->nrows);
		rows = sorted;
	}
	return crm_funnel_walk(rows, state->nrows, state->nsteps, &state->within, times);
}

Datum
crm_sql_funnel_level(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(PG_ARGISNULL(0) ? 0 : walk_state(fcinfo, NULL));
}

Datum
crm_sql_funnel_times(PG_FUNCTION_ARGS)
{
	TimestampTz times[CRM_FUNNEL_MAX_STEPS];
	Datum values[CRM_FUNNEL_MAX_STEPS];
	int level = PG_ARGISNULL(0) ? 0 : walk_state(fcinfo, times);

	for (int i = 0; i < level; i++)
		values[i] = TimestampTzGetDatum(times[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(values, level, TIMESTAMPTZOID, sizeof(TimestampTz),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---------- the type ---------- */

/* Why a state cannot be; NULL: it can. Its rows may have any order. */
static const char *
fault_of(const CrmFunnelState *state)
{
	uint64 unknown;

	if (state->nsteps < 1 || state->nsteps > CRM_FUNNEL_MAX_STEPS)
		return psprintf("A funnel has 1 to %d steps, not %d.", CRM_FUNNEL_MAX_STEPS, state->nsteps);
	if (is_negative(&state->within))
		return "Its window is negative.";
	unknown = state->nsteps < 64 ? ~UINT64CONST(0) << state->nsteps : 0;
	for (int i = 0; i < state->nrows; i++)
	{
		const CrmFunnelRow *row = &state->rows[i];

		if (row->steps == 0 || (row->steps & unknown) != 0)
			return psprintf("Row %d matches steps " UINT64_FORMAT " of a funnel of %d.", i + 1,
							row->steps, state->nsteps);
		if (!TIMESTAMP_NOT_FINITE(row->at) && !IS_VALID_TIMESTAMP(row->at))
			return psprintf("The time of row %d is out of range.", i + 1);
	}
	return NULL;
}

static bool
read_signed(const char **text, int64 *value)
{
	char *end;

	if (**text != '-' && (**text < '0' || **text > '9'))
		return false;
	errno = 0;
	*value = strtoll(*text, &end, 10);
	if (errno != 0 || end == *text)
		return false;
	*text = end;
	return true;
}

static bool
read_unsigned(const char **text, uint64 *value)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*value = strtoull(*text, &end, 10);
	if (errno != 0)
		return false;
	*text = end;
	return true;
}

static bool
read_char(const char **text, char expected)
{
	if (**text != expected)
		return false;
	(*text)++;
	return true;
}

#define TEXT_FORM \
	"Its form is: steps months days microseconds time:steps ..., all of them integers."

/*
 * Steps, then months, days and microseconds of the window, then the rows, each its
 * time in microseconds since 2000 and the bits of its steps.
 */
static CrmFunnelState *
read_state(const char *text)
{
	int64 head[4];
	Interval within;
	CrmFunnelState *state;

	for (int i = 0; i < lengthof(head); i++)
	{
		if ((i > 0 && !read_char(&text, ' ')) || !read_signed(&text, &head[i]))
			return NULL;
		if (i < 3 && (head[i] < PG_INT32_MIN || head[i] > PG_INT32_MAX))
			return NULL;
	}
	if (head[0] < PG_INT16_MIN || head[0] > PG_INT16_MAX)
		return NULL;
	within.month = head[1];
	within.day = head[2];
	within.time = head[3];
	state = make_state(head[0], &within, FIRST_SIZE);
	while (*text != '\0')
	{
		int64 at;
		uint64 steps;

		if (!read_char(&text, ' ') || !read_signed(&text, &at) || !read_char(&text, ':') ||
			!read_unsigned(&text, &steps) || steps == 0)
			return NULL;
		state = make_room(state, 1);
		add_row(state, at, steps);
	}
	return state;
}

Datum
crm_funnel_state_in(PG_FUNCTION_ARGS)
{
	CrmFunnelState *state = read_state(PG_GETARG_CSTRING(0));
	const char *fault = state == NULL ? TEXT_FORM : fault_of(state);

	if (fault != NULL)
		crm_ereturn(fcinfo->context, (Datum) 0,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input syntax for type %s", "crm.funnel_state"),
					 errdetail("%s", fault), errhint("Take states as crm.funnel() made them.")));
	PG_RETURN_POINTER(state);
}

Datum
crm_funnel_state_out(PG_FUNCTION_ARGS)
{
	CrmFunnelState *state = state_argument(fcinfo, 0, false);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%d %d %d " INT64_FORMAT, state->nsteps, state->within.month,
					 state->within.day, state->within.time);
	for (int i = 0; i < state->nrows; i++)
		appendStringInfo(&text, " " INT64_FORMAT ":" UINT64_FORMAT, state->rows[i].at,
						 state->rows[i].steps);
	PG_RETURN_CSTRING(text.data);
}

/* Binary form: the same numbers, of 2, 4, 4 and 8 bytes, the number of rows of 4, and 8 and 8 a row. */
Datum
crm_funnel_state_recv(PG_FUNCTION_ARGS)
{
	StringInfo buf = (StringInfo) PG_GETARG_POINTER(0);
	int nsteps = (int16) pq_getmsgint(buf, 2);
	Interval within;
	int32 nrows;
	const char *fault = NULL;
	CrmFunnelState *state = NULL;

	within.month = (int32) pq_getmsgint(buf, 4);
	within.day = (int32) pq_getmsgint(buf, 4);
	within.time = pq_getmsgint64(buf);
	nrows = (int32) pq_getmsgint(buf, 4);
	if (nrows < 0 || nrows > (buf->len - buf->cursor) / (int) sizeof(CrmFunnelRow))
		fault = psprintf("It has no %d rows.", nrows);
	else
	{
		state = make_state(nsteps, &within, size_for(nrows));
		for (int i = 0; i < nrows; i++)
		{
			TimestampTz at = pq_getmsgint64(buf);

			add_row(state, at, pq_getmsgint64(buf));
		}
		fault = fault_of(state);
	}
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid external value of type %s", "crm.funnel_state"),
				 errdetail("%s", fault), errhint("Take states as crm.funnel() made them.")));
	PG_RETURN_POINTER(state);
}

Datum
crm_funnel_state_send(PG_FUNCTION_ARGS)
{
	CrmFunnelState *state = state_argument(fcinfo, 0, false);
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendint16(&buf, state->nsteps);
	pq_sendint32(&buf, state->within.month);
	pq_sendint32(&buf, state->within.day);
	pq_sendint64(&buf, state->within.time);
	pq_sendint32(&buf, state->nrows);
	for (int i = 0; i < state->nrows; i++)
	{
		pq_sendint64(&buf, state->rows[i].at);
		pq_sendint64(&buf, state->rows[i].steps);
	}
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
