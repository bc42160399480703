/*
 * definition.h
 *		Achievements, stages and stage rules as a backend keeps them.
 */
#ifndef CRM_DEFINITION_H
#define CRM_DEFINITION_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "profile/profile.h"
#include "rules/expression.h"

/* The columns of crm.profile_counter, by which the walk keeps its state. */
typedef enum CrmProfileColumn
{
	CRM_P_CONTACT_ID,
	CRM_P_ORDERS,
	CRM_P_SPEND,
	CRM_P_FIRST_ORDER_AT,
	CRM_P_LAST_ORDER_AT,
	CRM_P_REFUNDS,
	CRM_P_SCANS,
	CRM_P_RAW_SCANS,
	CRM_P_FOLLOWED_AT,
	CRM_P_MOBILE_AT,
	CRM_P_EVENTS,
	CRM_P_FIRST_SEEN_AT,
	CRM_P_LAST_SEEN_AT,
	CRM_P_STAGE,
	CRM_P_STAGE_SINCE,
	CRM_P_STAGE_MANUAL,
	CRM_P_RANKED_STAGE,
	CRM_P_SETTLED_AT,
	CRM_PROFILE_COLUMNS
} CrmProfileColumn;

extern const char *const crm_profile_column_names[CRM_PROFILE_COLUMNS];

/*
 * What a rule reads stands in one array: the columns of the profile, those of
 * the fact at hand, then what the definitions name beside them.
 */
#define CRM_VALUE_OF_FACT(column) (CRM_PROFILE_COLUMNS + (column))
#define CRM_FIRST_WINDOW          (CRM_PROFILE_COLUMNS + CRM_FACT_COLUMNS)

/* A rule function in a stage rule: facts of a kind, counted or summed as the walk goes. */
typedef enum CrmWindowMeasure
{
	CRM_WINDOW_TIMES,
	CRM_WINDOW_DID,
	CRM_WINDOW_SPENT
} CrmWindowMeasure;

typedef struct CrmWindow
{
	char *label; /* as it is written: the same function is one window */
	CrmWindowMeasure measure;
	CrmFactType type;
	int kind; /* of events */
	bool bounded;
	Datum within; /* interval, where bounded */
} CrmWindow;

#define CRM_MAX_WINDOWS 64

/* A column of crm.contact that its users change, and how a stage rule reads it. */
typedef struct CrmField
{
	char *name;
	Oid type;
	Oid collation;
	int16 length;
	bool by_value;
	bool wanted; /* some stage rule reads it */
} CrmField;

#define CRM_FIRST_FIELD (CRM_FIRST_WINDOW + CRM_MAX_WINDOWS)

/* kinds that every installation knows, by their place in CrmDefinitions.kinds */
#define CRM_KIND_PURCHASE  0
#define CRM_KIND_SCAN      1
#define CRM_KIND_FOLLOW    2
#define CRM_KIND_UNFOLLOW  3
#define CRM_KIND_SET_STAGE 4
#define CRM_KINDS_BUILT_IN 5

typedef struct CrmAchievement
{
	char *name;
	Datum name_text;
	int kind;
	bool by_amount;
	bool revocable;
	int nthresholds;
	Datum *thresholds;   /* numeric, ascending */
	int64 *counts;       /* the same rounded up, for counting */
	CrmExpression *rule; /* over the fact and the profile with it; NULL = all facts */
} CrmAchievement;

typedef struct CrmStage
{
	char *stage;
	Datum stage_text;
	bool ranked;
	int rank;
	int position;
	bool allow_regress;
	CrmExpression *rule; /* over the profile; NULL: no rule gives this stage */
	bool reads_time;
} CrmStage;

/* what earns: an order, an event, a scan that counts */
typedef enum CrmEarningSource
{
	CRM_EARN_TRANSACTION,
	CRM_EARN_EVENT,
	CRM_EARN_SCAN
} CrmEarningSource;

typedef enum CrmRounding
{
	CRM_ROUND_DOWN,
	CRM_ROUND_NEAREST,
	CRM_ROUND_UP
} CrmRounding;

typedef struct CrmEarningRule
{
	char *name;
	int64 loyalty_program_id;
	CrmEarningSource source;
	char *kind;       /* of events */
	Datum points;     /* numeric */
	bool by_amount;   /* points for each per_amount, else for each fact */
	Datum per_amount; /* numeric */
	CrmRounding rounding;
	CrmExpression *rule; /* over the fact; NULL = all facts */
	TimestampTz valid_from;
	TimestampTz valid_until;
} CrmEarningRule;

typedef struct CrmDefinitions
{
	int nkinds;
	char **kinds; /* built-in ones, then those of achievements */
	int nachievements;
	CrmAchievement *achievements;
	int nstages;
	CrmStage *stages;        /* unranked by position, then ranked from the highest */
	bool may_regress;        /* some rule allows a fall */
	bool every_fact_matters; /* some stage rule reads what every fact changes */
	bool contact_first;      /* some rule reads what users change in crm.contact */
	bool stages_read_time;   /* time alone may move a contact */
	bool reads_settings;     /* some rule runs under the settings of rules */
	bool reads_details;      /* some rule reads more of a fact than is always at hand */
	int nwindows;
	CrmWindow *windows; /* counting them needs the history of facts */
	int nfields;
	CrmField *fields;
	bool reads_fields;    /* some is wanted */
	int nvalues;          /* of all that rules read */
	bool orders_continue; /* no achievement on orders needs their history */
	bool scans_continue;  /* nor one on scans theirs */
	int nearning_rules;
	CrmEarningRule *earning_rules;
	bool earning_from[CRM_EARN_SCAN + 1]; /* some rule is on facts of this source */
	bool has_tiers;
	bool has_spend_tiers; /* some tier is reached by what orders cost */
} CrmDefinitions;

extern const CrmDefinitions *crm_definitions(void);

/* Place of a kind, -1 where nothing depends on it. */
extern int crm_definition_kind(const CrmDefinitions *definitions, const char *kind, int len);

/* The same for a row of crm.event: one that is named like an order or a scan is neither. */
extern int crm_definition_event_kind(const CrmDefinitions *definitions, const char *kind);

/* Does some earning rule give points for events of this kind? */
extern bool crm_definition_earns(const CrmDefinitions *definitions, const char *kind);

/*
 * Checks rules as the definition tables take them; errors as of
 * crm_expression_compile(). Says how the answer depends on time alone.
 */
extern CrmRuleTime crm_stage_rule_check(const char *text);
extern void crm_achievement_rule_check(const char *text, const char *on_kind);
extern void crm_earning_rule_check(const char *text, const char *on_kind);

/*
 * Rules run under settings of their own where they read any: between the two,
 * for a whole batch. An error undoes both.
 */
extern int crm_definitions_enter(const CrmDefinitions *definitions);
extern void crm_definitions_leave(int nest_level);

/* Lists the rules that no longer compile: their table, name, and why. */
typedef void (*CrmBrokenRule)(void *arg, const char *table, const char *name, const char *why);
extern void crm_definitions_broken(CrmBrokenRule broken, void *arg);

#endif /* CRM_DEFINITION_H */
