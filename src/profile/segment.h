/*
 * segment.h
 *		Segments: kept rules, and who is in them. Callers act as the owner and
 *		hold the locks of what they changed; the row of crm.segment_state, which
 *		is taken here, is the last lock of a contact.
 */
#ifndef CRM_SEGMENT_H
#define CRM_SEGMENT_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "profile/loyalty.h"
#include "profile/profile.h"

/* Is any segment defined, and the profile there to be asked? Costs a test of what is cached. */
extern bool crm_segments_defined(void);

/* What changed for some contacts. Segments that read nothing of it are left alone. */
typedef struct CrmSegmentNews
{
	int ncontacts;
	const int64 *contacts; /* ascending, distinct */

	/* what dates and names the changes; of all contacts, or of each one */
	const char *cause;
	const char *const *causes;
	TimestampTz at;
	const TimestampTz *times;

	bool exact; /* due moments are found anew, else they only come nearer */

	/* of each contact the first fact that is dated ahead, DT_NOEND if none; or NULL */
	const TimestampTz *ahead;

	uint32 topics; /* CRM_READS_… */
	List *kinds;   /* of facts, char * */
	List *columns; /* of crm.contact, char * */
} CrmSegmentNews;

extern void crm_segments_settle(const CrmSegmentNews *news);

/* The same after a sorted batch of facts. */
extern void crm_segments_settle_facts(const CrmFact *facts, int64 nfacts);

/* The same where anything may have changed; journeys take notice too. */
extern void crm_segments_refresh(const int64 *contacts, int ncontacts, const char *cause,
								 TimestampTz at);

/* Moves contacts whose moment has come, each as of its moment; at most limit of them, 0 for all. */
extern int crm_segments_due(TimestampTz as_of, int limit);

/* Tells who is in a segment and should not be, or the other way round. */
extern void crm_segments_verify(const int64 *contacts, int ncontacts, CrmDifference differs,
								void *arg);
extern void crm_segments_verify_all(CrmDifference differs, void *arg);

/* segment_define.c: refuses a row of crm.segment that cannot work */
extern void crm_check_segment(TupleDesc descriptor, HeapTuple tuple);

/* segment_definition.c: registers the callback of the cache */
extern void crm_segment_init(void);

#endif /* CRM_SEGMENT_H */
