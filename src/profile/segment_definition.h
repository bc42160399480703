/*
 * segment_definition.h
 *		Segments as a backend keeps them.
 */
#ifndef CRM_SEGMENT_DEFINITION_H
#define CRM_SEGMENT_DEFINITION_H

#include "postgres.h"

#include "rules/rules.h"

typedef struct CrmSegment
{
	char *name;
	char *rule;
	char *partition; /* NULL: of its own */
	char *broken;    /* why its rule counts as false, NULL if it compiles */
	CrmRuleTime time;
	bool timely; /* time alone may change who is in it, by its rule, by facts dated ahead, or by
				  * those it needs */
	CrmRuleReads reads;

	/* places of those that are decided before it: named by its rule, or first in its partition */
	int nneeds;
	int *needs;
} CrmSegment;

typedef struct CrmSegments
{
	int n;
	CrmSegment *list;     /* each after those it needs */
	bool profile_missing; /* nothing can be asked, and everybody stays where he is */
	char *digest;         /* of the definitions, to be compared with what a snapshot shows */
} CrmSegments;

/* As committed now, with what this transaction changed. Broken rules count as false. */
extern const CrmSegments *crm_segments(void);

/* The same anew; an error where segments need each other in a circle or one that is not there. */
extern const CrmSegments *crm_segments_reload(void);

/* The place of a segment, -1 if there is none. */
extern int crm_segment_place(const CrmSegments *segments, const char *name);

/* Raises 40001 where the snapshot of the transaction shows other definitions. */
extern void crm_segments_check_snapshot(const CrmSegments *segments);

#endif /* CRM_SEGMENT_DEFINITION_H */
