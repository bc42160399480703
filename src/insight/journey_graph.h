/*
 * journey_graph.h
 *		A version of a journey as a graph: its steps, its edges, and how many
 *		people took them, as crm.journey_step and crm.journey_edge count.
 */
#ifndef CRM_JOURNEY_GRAPH_H
#define CRM_JOURNEY_GRAPH_H

#include "postgres.h"

#include "fmgr.h"

#define CRM_GRAPH_END     (-1)         /* the journey finishes there */
#define CRM_GRAPH_CURRENT PG_INT32_MIN /* the version that people enter now */

typedef struct CrmGraphStep
{
	const char *name;
	const char *kind;  /* NULL: the definition does not name it */
	const char *label; /* what people call it; NULL: nothing else */
	int position;      /* order of first reach from the start, from 1; 0: not reached */
	int first_edge;
	int nedges;
	int64 entered;
	int64 here;
	int64 left_on;
	int64 ended;
} CrmGraphStep;

typedef struct CrmGraphEdge
{
	int from;
	int to;
	const char *outcome;
	const char *rule; /* of a branch */
	int64 moves;
} CrmGraphEdge;

typedef struct CrmGraph
{
	const char *journey;
	int version;
	bool is_current;
	const char *state; /* of the journey; NULL where it was deleted */
	const char *entry; /* kinds of facts that let in */
	int64 started;     /* enrolments of this version */
	int64 active;
	int64 finished;
	int64 exited;
	int start; /* CRM_GRAPH_END: none */
	int nsteps;
	CrmGraphStep *steps; /* by name */
	int nedges;
	CrmGraphEdge *edges; /* by step, in the order of the definition */
} CrmGraph;

/*
 * Without counts they stay 0. Raises 23503 where
 * there is none. Between crm_connect() and crm_disconnect(); into this context.
 */
extern CrmGraph *crm_graph_read(const char *journey, int version, bool counts,
								MemoryContext context);

/* The same for the arguments of a function: the journey, and its version or NULL. */
extern CrmGraph *crm_graph_argument(FunctionCallInfo fcinfo, const char *function);

/* The step's number in the graph; CRM_GRAPH_END where there is none. */
extern int crm_graph_find(const CrmGraph *graph, const char *name);

/* What people call a step. */
extern const char *crm_graph_step_title(const CrmGraphStep *step);

/* What is said of an edge: its outcome or the rule of the branch; empty for next. */
extern const char *crm_graph_edge_title(const CrmGraphEdge *edge);

/* version 3 (current), open: 12 started, … */
extern char *crm_graph_subtitle(const CrmGraph *graph);

#endif /* CRM_JOURNEY_GRAPH_H */
