/*
 * segment_work.h
 *		What the files about segments share.
 */
#ifndef CRM_SEGMENT_WORK_H
#define CRM_SEGMENT_WORK_H

#include "postgres.h"

#include "profile/segment.h"
#include "profile/segment_definition.h"

/* contacts that are decided together: so few that each is found by its key */
#define CRM_SEGMENT_CHUNK 1000

/* Affects those that need an affected one. */
extern void crm_segments_spread(const CrmSegments *segments, bool *affected);

/*
 * Decides the affected segments for the contacts of the news, as of a time or of
 * that at which a contact was decided last, if that is later.
 */
#define CRM_SEGMENTS_LOCKED (1 << 0) /* nobody else changes contacts: their rows are not locked */
#define CRM_SEGMENTS_EXACT  (1 << 1) /* due moments are found anew, else they only come nearer */
extern void crm_segments_work(const CrmSegments *segments, const CrmSegmentNews *news,
							  const bool *affected, TimestampTz as_of, int flags);

extern void crm_segment_ask(const CrmSegment *segment, const CrmRuleUser *user,
							const int64 *contacts, const TimestampTz *as_of, const bool *excluded,
							int ncontacts, bool *holds);
extern void crm_segment_ask_due(const CrmSegment *segment, const int64 *contacts,
								const TimestampTz *as_of, int ncontacts, TimestampTz *due);
extern bool crm_segments_share_partition(const CrmSegment *a, const CrmSegment *b);
extern bool **crm_segments_members(const CrmSegments *segments, const bool *wanted,
								   const int64 *contacts, int ncontacts, bool read_only);

#endif /* CRM_SEGMENT_WORK_H */
