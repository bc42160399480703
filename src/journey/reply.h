/*
 * reply.h
 *		What people write, read as what was asked for.
 */
#ifndef CRM_JOURNEY_REPLY_H
#define CRM_JOURNEY_REPLY_H

#include "postgres.h"

#include "journey/engine.h"

/* The text of a message; NULL where it has none. */
extern char *crm_reply_text(const CrmSignal *message);

/*
 * The value that it stands for at a step ask, as a document; NULL where it cannot
 * be read. Days are those of the zone at that time.
 */
extern Jsonb *crm_reply_read(const CrmStep *step, const char *text, TimestampTz at,
							 const pg_tz *zone);

#endif /* CRM_JOURNEY_REPLY_H */
