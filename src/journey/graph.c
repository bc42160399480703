/*
 * graph.c
 *		The steps as a graph: every one is reached, and no circle of them can be
 *		gone through at one moment.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "journey/reading.h"

typedef enum Mark
{
	UNSEEN,
	OPEN, /* on the path from where the search began */
	DONE
} Mark;

typedef struct Search
{
	const CrmJourney *journey;
	CrmReading *reading;
	bool at_once; /* follow only edges that take no time */
	Mark *marks;
	int *path;
	int depth;
} Search;

static bool
waits_for_time(const CrmStep *step)
{
	const Interval *length = step->within;

	if (length != NULL)
		return length->month > 0 || length->day > 0 || length->time > 0;
	/* a fixed time may be over, and the hours open; a time of the day is the next one */
	return step->until == DT_NOBEGIN && step->date == NULL && step->minute_of_day >= 0;
}

/* Does it take time to leave the step this way? */
static bool
takes_time(const CrmStep *step, const int *edge)
{
	if (step->kind == NULL)
		return true; /* a fault already */
	if (strcmp(step->kind->name, "wait") == 0)
		return waits_for_time(step);
	/* what has happened, or holds, need not be waited for */
	if (strcmp(step->kind->name, "wait_for") == 0)
		return step->since_step || edge == &step->on_timeout;
	if (strcmp(step->kind->name, "wait_until") == 0)
		return edge == &step->on_timeout;
	return strcmp(step->kind->name, "ask") == 0;
}

static void
add_circle(Search *search, int back)
{
	const CrmJourney *journey = search->journey;
	StringInfoData names;
	int first = 0;
	int before;

	while (search->path[first] != back)
		first++;
	initStringInfo(&names);
	for (int i = first; i < search->depth; i++)
		appendStringInfo(&names, "\"%s\" to ", crm_shown(journey->steps[search->path[i]].name));
	before = crm_path_enter(search->reading, "steps");
	crm_fault_at(search->reading, journey->steps[back].name, "goes round without waiting: %s\"%s\"",
				 names.data, crm_shown(journey->steps[back].name));
	crm_path_leave(search->reading, before);
}

static void visit(Search *search, int place);

static void
follow(Search *search, const CrmStep *step, const int *edge)
{
	if (*edge == CRM_NO_STEP || (search->at_once && takes_time(step, edge)))
		return;
	if (search->marks[*edge] == UNSEEN)
		visit(search, *edge);
	else if (search->marks[*edge] == OPEN && search->at_once)
		add_circle(search, *edge);
}

static void
visit(Search *search, int place)
{
	const CrmStep *step = &search->journey->steps[place];

	search->marks[place] = OPEN;
	search->path[search->depth++] = place;
	follow(search, step, &step->next);
	follow(search, step, &step->on_timeout);
	follow(search, step, &step->on_refused);
	follow(search, step, &step->on_failed);
	for (int i = 0; i < step->nbranches; i++)
		follow(search, step, &step->branches[i].next);
	for (int i = 0; i < step->narms; i++)
		follow(search, step, &step->arms[i].next);
	search->depth--;
	search->marks[place] = DONE;
}

void
crm_check_graph(CrmReading *reading)
{
	const CrmJourney *journey = reading->journey;
	int size = Max(journey->nsteps, 1);
	Search search = { .journey = journey,
					  .reading = reading,
					  .marks = palloc0_array(Mark, size),
					  .path = palloc_array(int, size) };
	int before;

	/* where it is not known where they begin, nothing is known of what is reached */
	if (journey->start != CRM_NO_STEP)
	{
		visit(&search, journey->start);
		before = crm_path_enter(reading, "steps");
		for (int i = 0; i < journey->nsteps; i++)
			if (search.marks[i] == UNSEEN)
				crm_fault_at(reading, journey->steps[i].name, "is never reached");
		crm_path_leave(reading, before);
	}
	memset(search.marks, 0, sizeof(Mark) * size);
	search.at_once = true;
	for (int i = 0; i < journey->nsteps; i++)
		if (search.marks[i] == UNSEEN)
			visit(&search, i);
}
