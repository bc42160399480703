/*
 * simulation.h
 *		Recorded facts sent through a definition in memory, with counters where the
 *		executor writes tables.
 */
#ifndef CRM_JOURNEY_SIMULATION_H
#define CRM_JOURNEY_SIMULATION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "journey/engine.h"

/* assume.c: how steps are left whose effects nobody can know; one of each step of the journey */
typedef struct CrmAssumed
{
	int n;
	const char **outcomes;
	double *shares; /* of contacts; of the rest nothing is assumed */
} CrmAssumed;

/* Raises 22023. */
extern CrmAssumed *crm_assume_read(const CrmJourney *journey, Jsonb *document);
/* Of this contact; NULL: nothing. */
extern const char *crm_assumed_outcome(const CrmAssumed *assumed, const CrmJourney *journey,
									   const CrmStep *step, int64 contact_id);

/* Those who left a step in one way; from CRM_NO_STEP those who came to enter. */
typedef struct CrmCount
{
	int step;
	const char *outcome;   /* NULL: still there */
	const char *next_step; /* NULL: none */
	int64 moves;
} CrmCount;

typedef struct CrmCounts
{
	int n;
	int size;
	CrmCount *list;
} CrmCounts;

/*
 * simulation.c: facts recorded from one time to before another, of everybody.
 * Nothing is written: crm_only_reads is set.
 */
extern void crm_simulate(CrmJourney *journey, const CrmAssumed *assumed, TimestampTz from,
						 TimestampTz until, CrmCounts *counts);

#endif /* CRM_JOURNEY_SIMULATION_H */
