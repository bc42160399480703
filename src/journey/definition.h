/*
 * definition.h
 *		A journey as a backend keeps it: the document, checked, as a graph of
 *		steps. Versions are immutable, so what is compiled stays until a table
 *		changes that its rules read.
 */
#ifndef CRM_JOURNEY_DEFINITION_H
#define CRM_JOURNEY_DEFINITION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "utils/jsonb.h"

#include "rules/fact_rule.h"
#include "rules/rules.h"
#include "types/weekly_hours.h"

typedef enum CrmJourneyState
{
	CRM_JOURNEY_OPEN,
	CRM_JOURNEY_CLOSED, /* nobody enters */
	CRM_JOURNEY_FROZEN, /* nobody enters or moves */
	CRM_JOURNEY_CANCELLED
} CrmJourneyState;

typedef struct CrmJourney CrmJourney;

typedef enum CrmReentry
{
	CRM_REENTRY_ONCE,
	CRM_REENTRY_AFTER_EXIT,
	CRM_REENTRY_COOLDOWN,
	CRM_REENTRY_PER_KEY,
	CRM_REENTRY_ALWAYS
} CrmReentry;

/*
 * A fact that lets in, satisfies a wait or ends: its kind, and a rule over it
 * and the profile. Of keys beside "when", as "stage" or "campaign", conditions of
 * the rule are made when the document is read.
 */
typedef struct CrmTrigger
{
	const char *on;
	CrmFactRule *when; /* NULL: every fact of the kind; of a broken rule, one that never holds */
} CrmTrigger;

/* "on": "date" and "on": "schedule" */
typedef struct CrmTimedEntry
{
	bool by_date; /* else by schedule */

	/* by date: a column of the profile of type date or timestamptz */
	const char *property;
	Oid property_type;
	const Interval *offset; /* NULL: none */
	bool yearly;            /* each year on its day */
	int leap_day;           /* 29 February in other years: 28 = 28 February, 1 = 1 March, 0 = not */
	int minute_of_day;      /* local, at which they enter; -1: that of the timestamptz */

	/* by schedule: start, start + every, start + 2 * every …, in the journey's zone */
	TimestampTz start;
	const Interval *every;
	const CrmWeeklyHours *hours; /* NULL, or only those moments at which these are open */

	const char *audience; /* rule over the profile; NULL: everybody */
} CrmTimedEntry;

typedef struct CrmEntry
{
	CrmTrigger trigger;
	CrmTimedEntry *timed; /* NULL: by facts */
} CrmEntry;

/* A goal, or a rule to leave by: a rule over the profile, or facts after the entry. */
typedef struct CrmEnding
{
	const char *rule; /* NULL: by facts */
	CrmRuleTime time; /* of the rule */
	const CrmRuleReads *reads;
	int ntriggers;
	CrmTrigger *triggers;
} CrmEnding;

#define CRM_NO_STEP (-1) /* the journey ends there */

typedef struct CrmBranch
{
	const char *when;    /* rule over the profile */
	CrmFactRule *fact;   /* of one that reads the fact that let the contact in, else NULL */
	const char *outcome; /* its place, from 1, as text */
	int next;
} CrmBranch;

typedef struct CrmArm
{
	const char *name;
	double weight; /* of all together 1 */
	int next;
} CrmArm;

typedef struct CrmStepKind CrmStepKind;

/* One step. What its kind does not know is NULL, 0 or CRM_NO_STEP. */
typedef struct CrmStep
{
	const char *name;
	const CrmStepKind *kind;
	int next;
	int on_timeout;
	int on_refused;
	int on_failed;
	bool has_timeout; /* named in the document, even as null */
	bool has_refused;
	bool has_failed;

	/* send, webhook, ask */
	const char *template;
	Jsonb *params;
	const Interval *expires_in; /* NULL: as the template says */
	const char *save_as;

	/* wait: one of the first three; the others: within */
	const Interval *within;      /* "for"; how long at most */
	const char *date;            /* a column of the profile, or entry.x or context.x */
	Oid date_type;               /* of the column; InvalidOid for the others */
	const Interval *offset;      /* of the date */
	TimestampTz until;           /* an instant; DT_NOBEGIN: none */
	int minute_of_day;           /* local time of the day waited for; -1: any */
	const CrmWeeklyHours *hours; /* only while these are open, local; NULL: always */

	/* wait_for, wait_until, ask */
	CrmTrigger trigger;
	bool since_step;  /* looks back to the step before, not to the entry */
	const char *rule; /* wait_until */
	CrmRuleTime time; /* of the rule */
	const CrmRuleReads *reads;
	const char *field; /* ask: what the reply is stored in */
	const char *reply; /* ask: mobile, date, choice or text */
	Jsonb *choices;    /* ask: reply → value */

	/* branch: the first that holds, else next; split */
	int nbranches;
	CrmBranch *branches;
	int narms;
	CrmArm *arms;

	/* set: column → value; tag */
	Jsonb *fields;
	int nadd;
	const char **add;
	int nremove;
	const char **remove;

	/* award, stage, coupon, points, journey: the object's name; exit: the reason */
	const char *object;
	Datum threshold; /* award: numeric, 0 for none */
	Datum points;    /* points: numeric, below 0 they are taken */
	const char *reason;
} CrmStep;

struct CrmJourney
{
	const char *name;
	int version;
	CrmJourneyState state;
	bool is_current; /* the version that people enter */
	MemoryContext context;

	const char *account; /* NULL: none */
	const pg_tz *zone;   /* of the account, else pg_crm.time_zone */
	CrmReentry reentry;
	const Interval *cooldown;
	const char *key;    /* member of the entry, without "entry." */
	int64 max_lateness; /* microseconds; -1: pg_crm.max_lateness */
	double hold_out;    /* share of contacts that never enter, 0 … 1 */
	int nentries;
	CrmEntry *entries;
	CrmEnding *goal; /* NULL: none */
	CrmEnding *exit;
	int start;
	int nsteps;
	CrmStep *steps;
};

/*
 * The versions that take people in or have some in them, as committed now with
 * what this transaction changed; between crm_connect() and crm_disconnect(). What
 * was returned stays in memory until the end of the transaction at least, however
 * definitions change meanwhile. Rules that no longer compile are false.
 */
typedef struct CrmJourneys
{
	int n;
	CrmJourney **list;   /* by name, then version */
	List *kinds;         /* of facts that any entry, step, goal or exit is on, char * */
	List *moving_kinds;  /* those of them that concern people who are in one */
	bool any;            /* is anything published? */
	int64 max_lateness;  /* the longest that any of them has of its own; -1: none */
	bool watches;        /* do rules decide who leaves, or until when somebody waits? */
	bool reads_contacts; /* is any on what users change in crm.contact, or does any change it? */
	MemoryContext context;
	List **doors; /* entry.c: of each kind that it was asked for */
} CrmJourneys;

extern PGDLLEXPORT const CrmJourneys *crm_journeys(void);

/* NULL where there is none. Version 0 is the current one. */
extern PGDLLEXPORT CrmJourney *crm_journey_find(const char *name, int version);
extern PGDLLEXPORT int crm_step_find(const CrmJourney *journey, const char *name);
/* microseconds after which a fact that is recorded comes too late to move anybody */
extern int64 crm_journey_lateness(const CrmJourney *journey);

/* Is any journey on facts of this kind? Costs a look at what is cached. */
extern PGDLLEXPORT bool crm_journey_listens(const char *kind);

/* May a fact of this kind move people who are in a journey? */
extern bool crm_journeys_move_by(const char *kind);

/* Reads a document into this context; raises 22023 that lists every fault. */
extern CrmJourney *crm_journey_read(Jsonb *document, MemoryContext context);

/*
 * Everything in stored definitions that is no longer as it was when they were
 * published: a rule that no longer compiles, a column that is gone.
 */
typedef void (*CrmBrokenDefinition)(void *arg, const char *table, const char *name,
									const char *why);
extern void crm_journeys_broken(CrmBrokenDefinition broken, void *arg);

/* Registers the callbacks of the cache. */
extern void crm_journey_definition_init(void);

#endif /* CRM_JOURNEY_DEFINITION_H */
