/*
 * engine.h
 *		A batch of enrolments on their way through steps, in memory: runs are
 *		loaded or begun, go from step to step together with all that enter the
 *		same one, and are written when nobody moves. The contacts are locked.
 */
#ifndef CRM_JOURNEY_ENGINE_H
#define CRM_JOURNEY_ENGINE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"

#include "base/db.h"
#include "journey/definition.h"
#include "journey/journey.h"

typedef enum CrmRunState
{
	CRM_RUN_ACTIVE,
	CRM_RUN_FINISHED,
	CRM_RUN_EXITED
} CrmRunState;

typedef struct CrmRun CrmRun;
typedef struct CrmMoves CrmMoves;
typedef struct CrmEngine CrmEngine;
typedef struct CrmPastFact CrmPastFact;
struct CrmEntering;

/* A step that was entered. */
typedef struct CrmVisit
{
	CrmRun *run;
	int visit;
	const CrmStep *step;
	TimestampTz entered_at;
	TimestampTz left_at; /* DT_NOBEGIN: still there */
	const char *outcome;
	const char *next_step;
	const char *arm;
	int64 message_id;
} CrmVisit;

/* An enrolment. Times not known are DT_NOBEGIN, those never to come DT_NOEND. */
struct CrmRun
{
	CrmJourney *journey;
	CrmRun *next_of_contact;
	int64 contact_id;
	int64 enrolment_id;
	int64 source_id;
	int64 parent_id;
	TimestampTz source_at;
	TimestampTz entered_at;
	TimestampTz recorded_at;
	TimestampTz due_at;
	TimestampTz step_at;
	TimestampTz step_due_at;
	TimestampTz visit_recorded_at;
	TimestampTz ended_at;
	int64 message_id;
	int visit;
	int depth;
	int failures;
	const char *key;
	const char *entered_by;
	const char *end_reason;
	const char *stuck;
	const char *reply; /* a mobile number that waits to be bound */
	CrmRunState state;
	int step; /* CRM_NO_STEP: none yet */
	Jsonb *context;

	bool begun;      /* not stored yet */
	bool changed;    /* otherwise than stored */
	TimestampTz at;  /* its clock */
	TimestampTz now; /* when it is looked at: the engine's, unless its contact has a clock too */
	bool looked;     /* at by a function that goes through them step by step */
	bool moving;     /* enters a step, the same one again after a failure */
	bool again;      /* the step is not entered anew */
	int entering;
	TimestampTz previous_at;   /* when the step before was entered, if that was just now */
	const CrmSignal *moved_by; /* the fact that led on just now; NULL: something else */
	int steps_at_once;         /* without a wait between them */
	CrmVisit *open;            /* of the step at which it is */
	CrmVisit *stored_visit;    /* that of them which stands in crm.step_visit */
	TimestampTz message_ended_at;
	const char *message_state; /* of the message it waited for */
	TimestampTz ends_at;       /* a fact of the past ends it then, DT_NOEND: none */
	const char *ends_by;       /* goal or rule */
	int64 batch_place;         /* of the caller's */
};

/* Where effects go that the tables do not see. */
typedef struct CrmSink
{
	int64 (*next_id)(CrmEngine *engine); /* of an enrolment */
	/* those with a reason */
	void (*refused)(CrmEngine *engine, const struct CrmEntering *entering, int n);
	void (*act)(CrmMoves *moves); /* a step that writes beyond the enrolment */
	void (*write)(CrmEngine *engine);
	/* of what is known before its turn */
	bool (*is_to_come)(const CrmEngine *engine, const CrmPastFact *fact, TimestampTz now);
} CrmSink;

struct CrmEngine
{
	MemoryContext context;
	TimestampTz now;
	TimestampTz as_of; /* until when time is moved; now, where it is not */
	HTAB *by_contact;
	int nruns;
	int size;
	CrmRun **runs;
	int64 nvisits;
	int64 visits_size;
	CrmVisit **visits; /* to be written */
	int64 steps;       /* entered */
	CrmSink *sink;     /* NULL: the tables */
	bool unnamed; /* the search path is not named yet, which nobody needs who only asks rules */
	bool named;
	CrmActing acting;
};

/* What a step's function is given: all that enter it. */
struct CrmMoves
{
	CrmEngine *engine;
	const CrmJourney *journey;
	const CrmStep *step;
	int n;
	CrmRun **runs;
};

/* engine.c */
extern CrmEngine *crm_engine_create(void);
/* Before statements are run; without effect but between these of whoever begins unnamed. */
extern void crm_engine_name_path(CrmEngine *engine);
extern void crm_engine_end_path(CrmEngine *engine);
extern CrmRun *crm_engine_add(CrmEngine *engine);
extern void crm_engine_put(CrmEngine *engine, CrmRun *run); /* one that there is */
/* Once its contact is known: it is found by it. */
extern void crm_engine_index(CrmEngine *engine, CrmRun *run);
extern CrmRun *crm_engine_first(CrmEngine *engine, int64 contact_id);
/* Goes on until nobody moves, and writes what changed. */
extern void crm_engine_run(CrmEngine *engine);

/*
 * hand.c: goals, rules and waits of all, after a time in which nobody looked. True
 * where it is to be done again, once they have moved.
 */
extern bool crm_engine_look_again(CrmEngine *engine, bool replies_too);
/* looks again at what crm_engine_look_again() was not done with, as long as there is any */
extern void crm_look_again(const int64 *contacts, int ncontacts, bool replies_too);

/* what a step's function says of a run */
extern void crm_run_leave(CrmRun *run, const char *outcome, int next);
extern void crm_run_stay(CrmRun *run, TimestampTz until);
extern void crm_run_end(CrmRun *run, CrmRunState state, const char *reason, TimestampTz at);

/* Does work for all; where it fails, for halves, so that only who cannot is left behind, stuck. */
extern void crm_moves_attempt(CrmMoves *moves, void (*work)(CrmMoves *moves));

/* From when on facts count for it. */
extern TimestampTz crm_run_since(const CrmRun *run);

/* How deep the journeys are nested in each other that a run's effects start. */
extern int crm_run_next_depth(const CrmRun *run);
extern int crm_effects_depth; /* of the step at work; 0 outside */
extern void crm_effects_begin(CrmRun *const *runs, int n);

/* Is an error the contact's, and not what another moment or transaction may bring? */
extern bool crm_error_is_contained(int code);

/* store.c: active enrolments of these contacts, in journeys that move; adds them */
extern void crm_engine_load(CrmEngine *engine, const int64 *contacts, int ncontacts);
/* Raises 40001 where an older snapshot does not show them as they are. */
extern void crm_enrolments_check_current(Datum contacts);
/* the same of frozen journeys too */
extern void crm_engine_load_all(CrmEngine *engine, const int64 *contacts, int ncontacts);
/* those whose reply waits to be bound */
extern void crm_engine_load_replied(CrmEngine *engine, const int64 *contacts, int ncontacts);
/* of each contact the one that is due first, but for those */
extern void crm_engine_load_due(CrmEngine *engine, const int64 *contacts, int ncontacts,
								TimestampTz as_of);
/* write.c */
extern void crm_engine_write(CrmEngine *engine);
extern void crm_journeys_work(void (*work)(void *arg), void *arg); /* signal.c */
extern Datum crm_moving_journeys(void); /* signal.c: names of those not frozen, text[] */
/* signal.c: is this fact yet to be noticed, after what is at work now? */
extern bool crm_signal_is_waiting(const CrmSignal *signal);
extern bool crm_signal_is_same(const CrmSignal *signal, const CrmSignal *other);

/* ending.c: goals and rules to leave by */
extern void crm_endings_by_signals(CrmEngine *engine, CrmSignal *const *signals);
extern void crm_endings_by_rules(CrmEngine *engine);
extern void crm_endings_look_back(CrmEngine *engine);
extern void crm_endings_of_begun(CrmEngine *engine, int first);

/* act.c */
extern int64 *crm_moves_send(const CrmMoves *moves, bool awaited); /* ids of the messages */
extern const CrmArm *crm_split_draw(const CrmJourney *journey, const CrmStep *step,
									int64 contact_id);
extern bool crm_step_awaits_message(const CrmStep *step);
extern void crm_leave_by_message(CrmRun *run); /* its message has ended */

/* sets columns of the contacts: the members of documents that all have the same names */
extern void crm_contacts_set(const Jsonb *names, CrmColumn *contacts, CrmColumn *documents);

/* ask.c */
extern void crm_asks_by_signals(CrmEngine *engine, CrmSignal *const *signals);
extern void crm_asks_look_back(CrmEngine *engine);
/* the reply was stored, or could not be */
extern void crm_leave_by_reply(CrmRun *run, bool stored);

/* binding.c: binds mobile numbers to contacts, for as long as nobody else has to be waited for */
extern void crm_mobiles_bind(CrmColumn *contacts, CrmColumn *mobiles, CrmColumn *times);
/* Replies that wait for that, of contacts that are locked and none of whose runs are in memory. */
typedef struct CrmBindings CrmBindings;
extern CrmBindings *crm_replies_bind(const int64 *contacts, int ncontacts, TimestampTz as_of);
/* The contacts and those who have become theirs by that, ascending. */
extern const int64 *crm_bindings_contacts(const CrmBindings *bindings, int *ncontacts);
/* Leads their runs on; how many. */
extern int crm_bindings_follow(CrmEngine *engine, const CrmBindings *bindings);

/* wait.c */
extern void crm_waits_by_signals(CrmEngine *engine, CrmSignal *const *signals);
/* noticed: whenever something changed for them, so what was not so until now was not before */
extern void crm_waits_by_rules(CrmEngine *engine, bool noticed);
extern void crm_waits_look_back(CrmEngine *engine);
extern TimestampTz crm_wait_since(const CrmRun *run,
								  const CrmStep *step); /* facts count for wait_for */
extern void crm_leave_by_time(CrmRun *run);             /* its wait is over */
extern void crm_runs_plan(CrmEngine *engine);           /* when each is looked at next */
/* Does it wait at a step of this kind? */
extern bool crm_run_is_at(const CrmRun *run, void (*enter)(CrmMoves *moves));
/* Those that wait at the step of this one, of all from it on that were not looked at yet. */
extern void crm_moves_take(CrmEngine *engine, int first, CrmMoves *moves);
extern void crm_looks_forget(CrmEngine *engine);

/* entry.c: who enters by these signals, one of a contact at most */
extern void crm_entries_by_signals(CrmEngine *engine, CrmSignal *const *signals, int nsignals);
extern void crm_entries_into(CrmEngine *engine, CrmJourney *journey, CrmSignal *const *signals,
							 int nsignals);
/* one by one: NULL, and *reason, where it is refused, which is recorded */
typedef struct CrmEntering
{
	CrmJourney *journey;
	int64 contact_id;
	TimestampTz at;
	const char *entered_by;
	int64 source_id;
	TimestampTz source_at; /* DT_NOBEGIN: no fact */
	int64 parent_id;
	int depth;
	const char *key;    /* NULL: none */
	Jsonb *entry;       /* NULL: none */
	bool late;          /* its time was long ago */
	CrmRun *run;        /* out: NULL where it is refused */
	const char *reason; /* out */
} CrmEntering;
extern void crm_enter_all(CrmEngine *engine, CrmEntering *entering, int n, bool record);
extern Jsonb *crm_signal_entry(const CrmSignal *signal);
/* Why one would be refused, NULL: not; and the enrolment that stands in the way of another. */
typedef struct CrmEntryObstacle
{
	const char *reason; /* NULL: none does */
	int64 enrolment_id;
	bool active;
	TimestampTz entered_at;
} CrmEntryObstacle;
extern const char *crm_entry_refusal(CrmEngine *engine, const CrmEntering *entering,
									 CrmEntryObstacle *obstacle);

/* schedule.c: those of these contacts who were set aside; how many */
extern int64 crm_timed_entries_resume(CrmEngine *engine, const int64 *contacts, int ncontacts,
									  TimestampTz as_of);
/* when the next entry by date or schedule is due; DT_NOEND: none */
extern TimestampTz crm_timed_entries_next(void);
/* of a journey that has changed: what is planned anew */
extern void crm_timed_entries_replan(const char *journey);
extern void crm_timed_entries_forget(void);
/* Those of some contacts, ascending, after one time and until another: by entry, contact and time. */
extern struct CrmEntering *crm_timed_entries_within(CrmJourney *journey, const int64 *contacts,
													int ncontacts, TimestampTz from,
													TimestampTz until, int *n);

/* moment.c: the moments of an entry by date within a time */
typedef struct CrmMoments
{
	TimestampTz from; /* after which */
	TimestampTz until;
	int first_day; /* Julian days between which the date must lie, in any zone */
	int last_day;
} CrmMoments;
extern CrmMoments crm_moments_within(const CrmTimedEntry *timed, TimestampTz from,
									 TimestampTz until);
/* Of a date of this type; how many, the array is theirs. */
extern int crm_moments_of(const CrmMoments *moments, const CrmTimedEntry *timed, Datum date,
						  const pg_tz *zone, TimestampTz **found);
/* The latest moment of a schedule in a time, DT_NOBEGIN: none; the first after a time. */
extern TimestampTz crm_schedule_last(const CrmTimedEntry *timed, const pg_tz *zone,
									 TimestampTz after, TimestampTz until);
extern TimestampTz crm_schedule_next(const CrmTimedEntry *timed, const pg_tz *zone,
									 TimestampTz after);

/* due.c: what is due of one whose clock is set */
extern void crm_run_go_on(CrmRun *run, TimestampTz as_of);

/* draw.c: a number from 0 to below 1, the same on every platform */
extern double crm_draw(const char *journey, const char *step, int64 contact_id);

/* history.c: facts of a kind, of which each asks for those in its time */
typedef struct CrmLookBack
{
	int64 contact_id;
	TimestampTz from;
	TimestampTz until;
} CrmLookBack;
struct CrmPastFact
{
	int place; /* of who asked */
	TimestampTz recorded_at;
	CrmSignal signal;
};
extern CrmPastFact *crm_history_find(const char *kind, const CrmLookBack *asking, int n,
									 int *nfound);

/* local.c */
/* The instant at which the clock of a zone shows this; DT_NOEND beyond the range of times. */
extern TimestampTz crm_local_instant(Timestamp local, const pg_tz *zone);
extern TimestampTz crm_add_interval(TimestampTz at, const Interval *interval, const pg_tz *zone);
extern TimestampTz crm_next_local(TimestampTz from, int minute_of_day, const CrmWeeklyHours *hours,
								  const pg_tz *zone);
/* zones of contacts, where they have one, else the journey's */
extern const pg_tz **crm_zones_of(const CrmMoves *moves);

/*
 * tally.c: steps counted by day, as their rows come to be (1) and are no more (-1);
 * enrolments by journey
 */
typedef struct CrmCounted
{
	TimestampTz entered_at;
	int version;
	const char *journey;
	const char *step;
	const char *outcome;   /* NULL: somebody is there */
	const char *arm;       /* NULL: none */
	const char *next_step; /* NULL: none */
} CrmCounted;

typedef struct CrmJourneyTally
{
	bool kept; /* else nothing is counted */
	int nvisits;
	int visits_size;
	struct CrmVisitCount *visits; /* a key may stand there more than once */
	TimestampTz last_at;          /* of what was added last, and its day */
	DateADT last_day;
	int nenrolments;
	int enrolments_size;
	struct CrmEnrolmentCount *enrolments;
} CrmJourneyTally;
extern void crm_journey_tally_init(CrmJourneyTally *tally);
/* Their texts must live until it is written. */
extern void crm_journey_tally_visit(CrmJourneyTally *tally, const CrmCounted *visit, int sign);
/* one that begins; one that ends, in this state */
extern void crm_journey_tally_entered(CrmJourneyTally *tally, const CrmRun *run);
extern void crm_journey_tally_ended(CrmJourneyTally *tally, const CrmRun *run, const char *state);
extern void crm_journey_tally_write(CrmJourneyTally *tally);

#endif /* CRM_JOURNEY_ENGINE_H */
