/*
 * kinds.h
 *		The kinds of steps: a new one is a row of the table in kinds.c and a
 *		function that moves those who enter it.
 */
#ifndef CRM_JOURNEY_KINDS_H
#define CRM_JOURNEY_KINDS_H

#include "postgres.h"

#include "journey/definition.h"

/* What a key of a step holds, and so how it is read and where it goes. */
typedef enum CrmFieldType
{
	CRM_FIELD_STEP,    /* a step's name or null, int */
	CRM_FIELD_DEFAULT, /* the same of a branch, which must have it */
	CRM_FIELD_TEXT,
	CRM_FIELD_MEMBER, /* name of a member of the context */
	/* names of what is defined, const char * */
	CRM_FIELD_TEMPLATE,
	CRM_FIELD_WEBHOOK, /* a template of that channel */
	CRM_FIELD_ACHIEVEMENT,
	CRM_FIELD_STAGE,
	CRM_FIELD_COUPON,
	CRM_FIELD_PROGRAM,
	CRM_FIELD_JOURNEY,
	/* times */
	CRM_FIELD_INTERVAL, /* above 0, const Interval * */
	CRM_FIELD_DELAY,    /* the same, or 0 */
	CRM_FIELD_OFFSET,   /* any */
	CRM_FIELD_INSTANT,
	CRM_FIELD_DATE,        /* a column of the profile, or entry.x or context.x */
	CRM_FIELD_TIME_OF_DAY, /* int, minutes */
	CRM_FIELD_HOURS,
	/* what happens */
	CRM_FIELD_TRIGGER, /* "on" and the keys beside it */
	CRM_FIELD_SINCE,   /* bool */
	CRM_FIELD_RULE,    /* over the profile: CrmStep.rule, time, reads */
	/* the rest */
	CRM_FIELD_ASKED, /* what a reply is stored in */
	CRM_FIELD_REPLY,
	CRM_FIELD_CHOICES,
	CRM_FIELD_PARAMS,
	CRM_FIELD_NUMBER, /* Datum, 0 for none */
	CRM_FIELD_COLUMNS,
	CRM_FIELD_ADD,
	CRM_FIELD_REMOVE,
	CRM_FIELD_BRANCHES,
	CRM_FIELD_ARMS
} CrmFieldType;

typedef struct CrmStepField
{
	const char *key;
	CrmFieldType type;
	bool required;
	size_t offset;     /* in CrmStep */
	size_t has_offset; /* of the flag that it was named; 0: none */
	const char *description;
} CrmStepField;

struct CrmMoves; /* those who enter a step: the engine's */
struct CrmReading;
struct CrmObject;

struct CrmStepKind
{
	const char *name;
	const char *description;
	bool waits;  /* somebody may stay at it */
	bool writes; /* beyond the enrolment, so that it may fail for some */
	int nfields;
	const CrmStepField *fields;
	/* what no field can say of itself; NULL: nothing */
	void (*check)(struct CrmReading *reading, struct CrmObject *object, const CrmStep *step);
	void (*enter)(struct CrmMoves *moves);
};

extern const CrmStepKind crm_step_kinds[];
extern const int crm_nstep_kinds;
extern const CrmStepKind *crm_step_kind_find(const char *name);

/* what the engine calls: wait.c, ask.c, act.c */
extern void crm_step_send(struct CrmMoves *moves); /* webhooks too */
extern void crm_step_wait(struct CrmMoves *moves);
extern void crm_step_wait_for(struct CrmMoves *moves);
extern void crm_step_wait_until(struct CrmMoves *moves);
extern void crm_step_ask(struct CrmMoves *moves);
extern void crm_step_branch(struct CrmMoves *moves);
extern void crm_step_split(struct CrmMoves *moves);
extern void crm_step_set(struct CrmMoves *moves);
extern void crm_step_tag(struct CrmMoves *moves);
extern void crm_step_award(struct CrmMoves *moves);
extern void crm_step_stage(struct CrmMoves *moves);
extern void crm_step_coupon(struct CrmMoves *moves);
extern void crm_step_points(struct CrmMoves *moves);
extern void crm_step_journey(struct CrmMoves *moves);
extern void crm_step_exit(struct CrmMoves *moves);

/* keys that every step may have */
extern const CrmStepField crm_step_common_fields[];
extern const int crm_nstep_common_fields;

/* of a type, for people */
extern const char *crm_field_type_name(CrmFieldType type);

/* checks.c: the check functions of the kinds */
extern void crm_check_wait(struct CrmReading *reading, struct CrmObject *object,
						   const CrmStep *step);
extern void crm_check_ask(struct CrmReading *reading, struct CrmObject *object,
						  const CrmStep *step);
extern void crm_check_branch(struct CrmReading *reading, struct CrmObject *object,
							 const CrmStep *step);
extern void crm_check_tag(struct CrmReading *reading, struct CrmObject *object,
						  const CrmStep *step);
extern void crm_check_award(struct CrmReading *reading, struct CrmObject *object,
							const CrmStep *step);
extern void crm_check_points(struct CrmReading *reading, struct CrmObject *object,
							 const CrmStep *step);

#endif /* CRM_JOURNEY_KINDS_H */
