/*
 * map.h
 *		A map of the customers' journey as its document draws it.
 */
#ifndef CRM_MAP_H
#define CRM_MAP_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "rules/fact_rule.h"

#define CRM_MAP_CURRENT PG_INT32_MIN /* the newest version */

typedef enum CrmMeasure
{
	CRM_MEASURE_CONTACTS,
	CRM_MEASURE_FACTS,
	CRM_MEASURE_AMOUNT,
	CRM_MEASURES
} CrmMeasure;

/* Contacts for whom a rule holds, or facts of a period: of a kind, or of a touchpoint. */
typedef struct CrmMapGoal
{
	const char *name;
	const char *label; /* NULL: none */
	const char *rule;
	const char *touchpoint;
	const char *on;
	CrmFactRule *when; /* NULL: all */
	bool broken;       /* the rule no longer compiles: nothing is measured */
	CrmMeasure measure;
	const char *persona;    /* NULL: everybody */
	const Interval *period; /* NULL where it is a rule */
	Datum target;           /* numeric */
	bool at_most;
} CrmMapGoal;

typedef struct CrmMap
{
	const char *name;
	int version; /* of a stored one */
	const Interval *within;
	int npersonas;
	const char **personas;
	int ngoals;
	CrmMapGoal *goals;
	int ntouchpoints; /* in the order of the map */
	const char **touchpoints;
} CrmMap;

/* what a map is called in a document */
extern const char *const crm_measure_names[CRM_MEASURES];

/*
 * A document as a map, with its faults (CrmFault *), all in this context; names of
 * touchpoints and personas are looked up if that is asked for. Between crm_connect()s.
 */
extern CrmMap *crm_map_load(Jsonb *document, bool names_too, MemoryContext context, List **faults);

/* A version as it is stored, faults of what has changed since left aside. Raises 23503. */
extern CrmMap *crm_map_find(const char *name, int version, MemoryContext context);

/* Its document, in this context. Raises 23503. */
extern Jsonb *crm_map_document(const char *name, int *version, MemoryContext context);

#endif /* CRM_MAP_H */
