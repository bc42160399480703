/*
 * reading.h
 *		Reading a document: where we are in it, what is wrong with it.
 */
#ifndef CRM_JOURNEY_READING_H
#define CRM_JOURNEY_READING_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "base/db.h"
#include "base/document.h"
#include "journey/kinds.h"

#define CRM_MAX_JOURNEY_NAME 63

typedef struct CrmReading
{
	CrmJourney *journey;
	MemoryContext context; /* of what is kept; the current one while reading */
	MemoryContext scratch; /* emptied after each rule */
	TimestampTz published_at;
	MemoryContext outside; /* current before */
	StringInfoData path;
	List *faults; /* CrmFault *, in the order in which they were found */
	int places;   /* given to faults and references so far */

	/* names that must exist, looked up together at the end */
	CrmColumn kinds;
	CrmColumn names;
	CrmColumn others;
	List *references; /* CrmFault *, told if it does not */
} CrmReading;

typedef struct CrmFault
{
	int place;
	const char *path;
	const char *what;
} CrmFault;

/* An object of the document; its keys are taken one by one, and what is left is a fault. */
typedef struct CrmObject
{
	int n;
	char **keys;
	JsonbValue *values;
	bool *taken;
	List *known; /* char *, asked for */
} CrmObject;

/* reading.c: begins in this context, which becomes the current one until crm_reading_end() */
extern void crm_reading_begin(CrmReading *reading, MemoryContext context);
/* Its faults in the order of the document. */
extern List *crm_reading_end(CrmReading *reading);
/* A line for each fault, for the detail of a message. */
extern char *crm_faults_text(List *faults);

/* reading.c: faults at the path, or at a key of the object that it leads to */
extern void crm_fault(CrmReading *reading, const char *format, ...) pg_attribute_printf(2, 3);
extern void crm_fault_at(CrmReading *reading, const char *key, const char *format, ...)
	pg_attribute_printf(3, 4);

extern int crm_path_enter(CrmReading *reading, const char *key);
extern int crm_path_enter_place(CrmReading *reading, int place);
extern void crm_path_leave(CrmReading *reading, int before);

/* Text of the document for a message, not too long. */
extern char *crm_shown(const char *text);

/* The document as a value. */
extern JsonbValue crm_document_root(Jsonb *document);

/* Opens the object; where it is none, that is a fault, and it is taken for an empty one. */
extern bool crm_object_open(CrmReading *reading, const JsonbValue *value, CrmObject *object);
/* NULL where it is missing. */
extern JsonbValue *crm_object_take(CrmObject *object, const char *key);
/* The same where it must be there and is not null, or must not be null if it is there. */
extern JsonbValue *crm_object_require(CrmReading *reading, CrmObject *object, const char *key);
extern JsonbValue *crm_object_offer(CrmReading *reading, CrmObject *object, const char *key);
extern bool crm_object_has(const CrmObject *object, const char *key);
extern void crm_object_close(CrmReading *reading, CrmObject *object);
/* Elements of an array; NULL where it is none, which is a fault. */
extern JsonbValue *crm_array_open(CrmReading *reading, const char *key, const JsonbValue *value,
								  int *n);

/* values.c: of a key; NULL, false or -1 where it is a fault */
extern char *crm_read_text(CrmReading *reading, const char *key, const JsonbValue *value, int most);
extern bool crm_read_bool(CrmReading *reading, const char *key, const JsonbValue *value,
						  bool *result);
extern Numeric crm_read_number(CrmReading *reading, const char *key, const JsonbValue *value);
/* least: 1 above nothing, 0 not below it, -1 any */
extern Interval *crm_read_interval(CrmReading *reading, const char *key, const JsonbValue *value,
								   int least);
extern bool crm_read_instant(CrmReading *reading, const char *key, const JsonbValue *value,
							 TimestampTz *result);
extern int crm_read_time_of_day(CrmReading *reading, const char *key, const JsonbValue *value);
extern CrmWeeklyHours *crm_read_hours(CrmReading *reading, const char *key,
									  const JsonbValue *value);
/* A column of crm.profile that holds a date or a time, and its type. */
extern Oid crm_profile_date(const char *column);
/* A column of crm.contact that people may write; InvalidOid if it is none. */
extern Oid crm_contact_column(const char *column, int32 *typmod, bool *not_null);
/* Does the value go into such a column? NULL, or why not. */
extern char *crm_value_fault(const JsonbValue *value, Oid type, int32 typmod, bool not_null);

/* The name of something that must be defined by the time that the document is used. */
extern void crm_reference(CrmReading *reading, const char *kind, const char *name,
						  const char *other, const char *key, const char *what);
/* Looks them up, and adds those that are not there to the faults. */
extern void crm_references_check(CrmReading *reading);

extern char *crm_error_text(const ErrorData *error);

/* triggers.c */
extern bool crm_read_rule(CrmReading *reading, const char *key, const JsonbValue *value,
						  const char **text, CrmRuleTime *time, const CrmRuleReads **reads);
/* The same over a fact, too. */
extern bool crm_read_fact_rule(CrmReading *reading, const char *key, const JsonbValue *value,
							   CrmFactRule **rule);
/* Of a branch: the rule over the profile, or compiled the one that reads the fact of the entry. */
extern bool crm_read_branch_rule(CrmReading *reading, const char *key, const JsonbValue *value,
								 const char **text, CrmFactRule **fact);
/* Of an object in which "on" stands among other keys. */
extern void crm_read_trigger(CrmReading *reading, CrmObject *object, CrmTrigger *trigger);
extern void crm_read_entry(CrmReading *reading, const JsonbValue *value, CrmEntry *entry);
extern CrmEnding *crm_read_ending(CrmReading *reading, const char *key, const JsonbValue *value);

/* The keys beside "on" that become conditions, for the list of keys. */
typedef struct CrmTriggerKey
{
	const char *key;
	const char *type;
	const char *description;
} CrmTriggerKey;
extern const CrmTriggerKey *crm_trigger_keys(int *n);

/* steps.c: names first, as edges lead forward too */
extern void crm_read_steps(CrmReading *reading, const JsonbValue *value);
extern void crm_read_edge(CrmReading *reading, const char *key, const JsonbValue *value, int *next);

/* graph.c: unreachable steps, and circles without a wait */
extern void crm_check_graph(CrmReading *reading);

/*
 * document.c: a document as a journey, with its faults (CrmFault *), all in this
 * context. Names of what it needs are looked up only if they are asked for, too.
 */
extern CrmJourney *crm_journey_load(Jsonb *document, TimestampTz published_at,
									MemoryContext context, bool names_too, List **faults);

#endif /* CRM_JOURNEY_READING_H */
