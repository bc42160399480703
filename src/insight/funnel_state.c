/*
 * funnel_state.c
 *		The type crm.funnel_state, and the aggregates that gather rows in it.
 *
 * A state is one flat value with room to grow: a row is written into it in
 * place, which an aggregate allows, and only where the room is used up a state
 * of twice the size takes over. So half a million states are half a million
 * pieces of memory, and no more contexts than one. What a row costs is to fetch
 * its state from memory, so they are small: a time, and a bit for each step.
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

/* A value of crm.funnel_state: the times of its rows, and after the room for all of them their steps. */
typedef struct CrmFunnelState
{
	int32 vl_len_;
	uint8 nsteps;
	bool sorted; /* rows are by time */
	int32 nrows;
	int32 room; /* for so many */
	Interval within;
	TimestampTz times[FLEXIBLE_ARRAY_MEMBER];
} CrmFunnelState;

#define HEAD offsetof(CrmFunnelState, times)
/* as memory comes in powers of two */
#define FIRST_SIZE 128
/* from so many rows on equal ones are looked for before there is room for more */
#define THIN_ROWS 1024
/* rows that a walk needs no memory for */
#define FEW_ROWS 64

/* Bytes of the steps of a row. */
static inline int
width_of(int nsteps)
{
	return nsteps <= 8 ? 1 : nsteps <= 16 ? 2 : nsteps <= 32 ? 4 : 8;
}

/* How many rows a state of this length has room for. */
static inline size_t
room_of(size_t size, int nsteps)
{
	return (size - HEAD) / (sizeof(TimestampTz) + width_of(nsteps));
}

static inline void *
steps_of(const CrmFunnelState *state)
{
	return (TimestampTz *) state->times + state->room;
}

static CrmFunnelRow
get_row(const CrmFunnelState *state, int i)
{
	const void *steps = steps_of(state);
	CrmFunnelRow row = { .at = state->times[i] };

	switch (width_of(state->nsteps))
	{
		case 1:
			row.steps = ((const uint8 *) steps)[i];
			break;
		case 2:
			row.steps = ((const uint16 *) steps)[i];
			break;
		case 4:
			row.steps = ((const uint32 *) steps)[i];
			break;
		default:
			row.steps = ((const uint64 *) steps)[i];
			break;
	}
	return row;
}

static void
set_row(CrmFunnelState *state, int i, TimestampTz at, uint64 bits)
{
	void *steps = steps_of(state);

	state->times[i] = at;
	switch (width_of(state->nsteps))
	{
		case 1:
			((uint8 *) steps)[i] = (uint8) bits;
			break;
		case 2:
			((uint16 *) steps)[i] = (uint16) bits;
			break;
		case 4:
			((uint32 *) steps)[i] = (uint32) bits;
			break;
		default:
			((uint64 *) steps)[i] = bits;
			break;
	}
}

static void
get_rows(const CrmFunnelState *state, CrmFunnelRow *rows)
{
	for (int i = 0; i < state->nrows; i++)
		rows[i] = get_row(state, i);
}

static CrmFunnelState *
make_state(int nsteps, const Interval *within, size_t size)
{
	CrmFunnelState *state = palloc0(size); /* as the room goes wherever a state is kept */

	SET_VARSIZE(state, size);
	state->nsteps = nsteps;
	state->sorted = true;
	state->room = room_of(size, nsteps);
	state->within = *within;
	return state;
}

/* The length of a state with room for so many rows. */
static size_t
size_for(size_t nrows, int nsteps)
{
	size_t size = FIRST_SIZE;

	if (nrows > room_of(MaxAllocSize, nsteps))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %zu rows of one funnel match its steps",
						room_of(MaxAllocSize, nsteps)),
				 errhint("Group by contact, or count the rows of a shorter period.")));
	while (room_of(size, nsteps) < nrows)
		size = Min(size * 2, MaxAllocSize);
	return size;
}

/* Rows, as many as nrows says, for as long as the caller needs them. */
static CrmFunnelRow *
alloc_rows(size_t nrows)
{
	return palloc_extended(sizeof(CrmFunnelRow) * nrows, MCXT_ALLOC_HUGE);
}

/*
 * Of rows that are equal in time and steps no more are of use than they have
 * steps. Returns whether that gave room back.
 */
static bool
thin_out(CrmFunnelState *state)
{
	CrmFunnelRow *rows = alloc_rows(state->nrows);
	int kept = 0;
	int alike = 0;

	get_rows(state, rows);
	crm_funnel_sort(rows, state->nrows);
	for (int i = 0; i < state->nrows; i++)
	{
		if (i > 0 && rows[i - 1].at == rows[i].at && rows[i - 1].steps == rows[i].steps)
			alike++;
		else
			alike = 1;
		if (alike <= pg_popcount64(rows[i].steps))
			set_row(state, kept++, rows[i].at, rows[i].steps);
	}
	pfree(rows);
	state->sorted = true;
	state->nrows = kept;
	return kept <= state->room / 4 * 3;
}

/* The state, or one with its rows and room for more. */
static CrmFunnelState *
make_room(CrmFunnelState *state, int more)
{
	CrmFunnelState *larger;

	if (more <= state->room - state->nrows)
		return state;
	if (state->nrows >= THIN_ROWS && thin_out(state) && more <= state->room - state->nrows)
		return state;
	larger = make_state(state->nsteps, &state->within,
						size_for((size_t) state->nrows + more, state->nsteps));
	larger->sorted = state->sorted;
	larger->nrows = state->nrows;
	memcpy(larger->times, state->times, sizeof(TimestampTz) * state->nrows);
	memcpy(steps_of(larger), steps_of(state), (size_t) width_of(state->nsteps) * state->nrows);
	return larger;
}

static inline void
add_row(CrmFunnelState *state, TimestampTz at, uint64 steps)
{
	int i = state->nrows++;

	if (i > 0 && state->times[i - 1] > at)
		state->sorted = false;
	set_row(state, i, at, steps);
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

void
crm_funnel_check_window(const Interval *within)
{
	if (is_negative(within))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the window of a funnel must not be negative: %s", interval_text(within)),
				 errhint("Give the time from the first step to the last one.")));
}

void
crm_funnel_check_steps(int nsteps)
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
	crm_funnel_check_steps(n);
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
	state = (CrmFunnelState *) (in_place ? pg_detoast_datum_copy(value) : pg_detoast_datum(value));
	if (VARSIZE(state) < HEAD || state->nsteps < 1 || state->nsteps > CRM_FUNNEL_MAX_STEPS ||
		state->room != room_of(VARSIZE(state), state->nsteps) || state->nrows < 0 ||
		state->nrows > state->room)
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
		crm_funnel_check_window(within);
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
	{
		CrmFunnelRow row = get_row(other, i);

		add_row(state, row.at, row.steps);
	}
	PG_RETURN_POINTER(state);
}

/* The state stays as it is: an aggregate over a window asks again later. */
static int
walk_state(FunctionCallInfo fcinfo, TimestampTz *times)
{
	const CrmFunnelState *state = state_argument(fcinfo, 0, false);
	CrmFunnelRow few[FEW_ROWS];
	CrmFunnelRow *rows = state->nrows <= FEW_ROWS ? few : alloc_rows(state->nrows);
	int level;

	get_rows(state, rows);
	if (!state->sorted)
		crm_funnel_sort(rows, state->nrows);
	level = crm_funnel_walk(rows, state->nrows, state->nsteps, &state->within, times);
	if (rows != few)
		pfree(rows);
	return level;
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

/* Why there is no such funnel, NULL: there is. */
static const char *
fault_of_head(int64 nsteps, const Interval *within)
{
	if (nsteps < 1 || nsteps > CRM_FUNNEL_MAX_STEPS)
		return psprintf("A funnel has 1 to %d steps, not %lld.", CRM_FUNNEL_MAX_STEPS,
						(long long) nsteps);
	return is_negative(within) ? "Its window is negative." : NULL;
}

/* Why a state cannot have this row, its next one; NULL: it can. Its rows may have any order. */
static const char *
fault_of_row(const CrmFunnelState *state, TimestampTz at, uint64 steps)
{
	uint64 unknown = state->nsteps < 64 ? ~UINT64CONST(0) << state->nsteps : 0;

	if (steps == 0 || (steps & unknown) != 0)
		return psprintf("Row %d matches steps " UINT64_FORMAT " of a funnel of %d.",
						state->nrows + 1, steps, state->nsteps);
	if (!TIMESTAMP_NOT_FINITE(at) && !IS_VALID_TIMESTAMP(at))
		return psprintf("The time of row %d is out of range.", state->nrows + 1);
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

/* as they are sent */
#define BYTES_OF_ROW 16

#define TEXT_FORM \
	"Its form is: steps months days microseconds time:steps ..., all of them integers."

/*
 * Steps, then months, days and microseconds of the window, then the rows, each its
 * time in microseconds since 2000 and the bits of its steps.
 */
static CrmFunnelState *
read_state(const char *text, const char **fault)
{
	int64 head[4];
	Interval within;
	CrmFunnelState *state;

	*fault = TEXT_FORM;
	for (int i = 0; i < lengthof(head); i++)
	{
		if ((i > 0 && !read_char(&text, ' ')) || !read_signed(&text, &head[i]))
			return NULL;
		if (i < 3 && (head[i] < PG_INT32_MIN || head[i] > PG_INT32_MAX))
			return NULL;
	}
	within.month = head[1];
	within.day = head[2];
	within.time = head[3];
	*fault = fault_of_head(head[0], &within);
	if (*fault != NULL)
		return NULL;
	state = make_state(head[0], &within, FIRST_SIZE);
	while (*text != '\0')
	{
		int64 at;
		uint64 steps;

		*fault = TEXT_FORM;
		if (!read_char(&text, ' ') || !read_signed(&text, &at) || !read_char(&text, ':') ||
			!read_unsigned(&text, &steps))
			return NULL;
		*fault = fault_of_row(state, at, steps);
		if (*fault != NULL)
			return NULL;
		state = make_room(state, 1);
		add_row(state, at, steps);
	}
	return state;
}

Datum
crm_funnel_state_in(PG_FUNCTION_ARGS)
{
	const char *fault;
	CrmFunnelState *state = read_state(PG_GETARG_CSTRING(0), &fault);

	if (state == NULL)
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
	{
		CrmFunnelRow row = get_row(state, i);

		appendStringInfo(&text, " " INT64_FORMAT ":" UINT64_FORMAT, row.at, row.steps);
	}
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
	const char *fault;
	CrmFunnelState *state = NULL;

	within.month = (int32) pq_getmsgint(buf, 4);
	within.day = (int32) pq_getmsgint(buf, 4);
	within.time = pq_getmsgint64(buf);
	nrows = (int32) pq_getmsgint(buf, 4);
	fault = fault_of_head(nsteps, &within);
	if (fault == NULL && (nrows < 0 || nrows > (buf->len - buf->cursor) / BYTES_OF_ROW))
		fault = psprintf("It has no %d rows.", nrows);
	if (fault == NULL)
		state = make_state(nsteps, &within, size_for(nrows, nsteps));
	for (int i = 0; i < nrows && fault == NULL; i++)
	{
		TimestampTz at = pq_getmsgint64(buf);
		uint64 steps = pq_getmsgint64(buf);

		fault = fault_of_row(state, at, steps);
		if (fault == NULL)
			add_row(state, at, steps);
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
		CrmFunnelRow row = get_row(state, i);

		pq_sendint64(&buf, row.at);
		pq_sendint64(&buf, row.steps);
	}
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
