/*
 * funnel.h
 *		How far somebody came through the steps of a funnel: the rows of the one,
 *		and the walk through them.
 */
#ifndef CRM_FUNNEL_H
#define CRM_FUNNEL_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define CRM_FUNNEL_MAX_STEPS 64

/* A row that matches at least one step. */
typedef struct CrmFunnelRow
{
	TimestampTz at;
	uint64 steps; /* bit i: it matches step i + 1 */
} CrmFunnelRow;

/* Raise 22023 for a negative window, and for a number of steps that no funnel has. */
extern void crm_funnel_check_window(const Interval *within);
extern void crm_funnel_check_steps(int nsteps);

/* By time, then by steps. */
extern void crm_funnel_sort(CrmFunnelRow *rows, size_t nrows);

/*
 * The level of sorted rows: the largest k such that distinct rows match steps 1
 * to k, each not before the one of the step before, the last no later than
 * within after the first. Where times is given, it gets those of the k rows: of
 * all such choices one that is complete first, and of these one whose window
 * ends last; its rows between are the earliest.
 */
extern int crm_funnel_walk(const CrmFunnelRow *rows, int nrows, int nsteps, const Interval *within,
						   TimestampTz *times);

#endif /* CRM_FUNNEL_H */
