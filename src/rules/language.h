/*
 * language.h
 *		What the files of the rule language share.
 */
#ifndef CRM_LANGUAGE_H
#define CRM_LANGUAGE_H

#include "postgres.h"

#include "compat.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "utils/date.h"

#include "rules/fact_columns.h"

/* the parameters of a compiled rule */
#define CRM_RULE_CONTACTS   1 /* bigint[], or bigint for one */
#define CRM_RULE_AS_OF      2 /* timestamptz */
#define CRM_RULE_TODAY      3 /* date, in the zone */
#define CRM_RULE_ZONE       4 /* text */
#define CRM_RULE_PARAMETERS 4

/* of one over a fact: then the columns of the fact, by their places */
#define CRM_RULE_FACT_PARAMETERS (CRM_RULE_PARAMETERS + CRM_FACT_COLUMNS)

/* A rule function as a join: at most one row a contact, columns contact_id and value. */
typedef struct CrmRuleJoin
{
	const char *alias;
	const char *sql; /* {x} stands for the restriction of x.contact_id to the batch */
	const char *label;
	const char *within; /* the interval it looks back, NULL if it looks at all */
} CrmRuleJoin;

/* A column or rule function that the rule reads, for explain(). */
typedef struct CrmRuleReference
{
	int location;      /* in the text */
	const char *label; /* "times('cart', '7 days')" */
	Node *node;        /* what stands for it in the tree */
} CrmRuleReference;

/* A condition that is no AND, OR or NOT of others. */
typedef struct CrmRuleLeaf
{
	int location; /* where it begins in the text, but for brackets */
	Node *node;
} CrmRuleLeaf;

typedef struct CrmRuleTree
{
	/* how it will be asked, said before it is read */
	bool each;                      /* contacts, each at a moment and with a fact of its own */
	bool over_fact;                 /* it may name columns of the fact */
	bool (*wants)(Node *condition); /* of those that AND joins at the top; NULL: all */

	const char *text;
	Node *tree;       /* raw; columns and rule functions are replaced; NULL: none is wanted */
	bool reads_time;  /* as_of, today */
	bool reads_as_of; /* or functions that depend on it */
	bool reads_rank;  /* of the contact's stage */
	bool reads_zone;  /* or another setting: found when it is compiled */
	uint32 facts;     /* columns of the fact, a bit each */
	List *joins;      /* CrmRuleJoin */
	List *strings;    /* A_Const */
	List *leaves;     /* CrmRuleLeaf, in the order of the text */
	List *references; /* CrmRuleReference, in the order of the text */

	/* a rule over values: names become parameters; NULL in SQL over crm.profile */
	struct CrmExpressionInputs *inputs;
	bool wants_oldest; /* joins over an interval bring the oldest fact too */
} CrmRuleTree;

/* parse.c: text to tree, nothing looked up but the columns of crm.profile */
extern CrmRuleTree *crm_rule_read(const char *text);
/* the same with names as of the inputs, or with the oldest facts */
extern void crm_rule_read_into(CrmRuleTree *rule, const char *text);
extern Node *crm_rule_rewrite(CrmRuleTree *rule, Node *node);
extern Node *crm_rule_fragment(const char *sql);
CRM_NORETURN extern void crm_rule_refuse(const CrmRuleTree *rule, int location, const char *what,
										 const char *hint);
CRM_NORETURN extern void crm_rule_refuse_node(const CrmRuleTree *rule, Node *node);
extern int crm_rule_position(const CrmRuleTree *rule, int location);

/* functions.c: what stands for a rule function; NULL if none has this name */
extern Node *crm_rule_function(CrmRuleTree *rule, FuncCall *call);
extern bool crm_rule_is_function(const FuncCall *call);

/* reads.c: what a tree that was read names of a contact */
extern struct CrmRuleReads *crm_rule_reads_of(const CrmRuleTree *rule);

/* check.c: refuses what must not run in a rule, once every name is resolved */
extern void crm_rule_check_tree(CrmRuleTree *rule, Node *node);

/*
 * compile.c: the statement for a tree. It returns contact_id where the rule
 * holds, or contact_id and the columns given (raw, of a rule that compiled).
 * Of contacts with a moment and a fact each, all parameters but the zone are
 * arrays of the same length, and it returns places in them, from 1.
 */
typedef enum CrmRuleScope
{
	CRM_RULE_ONE,  /* the contact of parameter 1, by a generic plan */
	CRM_RULE_FEW,  /* the contacts of parameter 1, by a generic plan */
	CRM_RULE_MANY, /* the same, planned for their number */
	CRM_RULE_ALL   /* everybody */
} CrmRuleScope;
extern char *crm_rule_compile(CrmRuleTree *rule, CrmRuleScope scope, List *columns);
/* the same in two steps: analysed and checked, and written out */
extern Query *crm_rule_query(CrmRuleTree *rule, CrmRuleScope scope, List *columns);
extern char *crm_rule_write(Query *query);

/* The types of its parameters, of contacts each or of one over a fact: CRM_RULE_FACT_PARAMETERS. */
extern void crm_rule_fact_types(bool each, Oid *types);

/* Analyses a statement that holds the rule, under the settings and names of rules. */
extern Query *crm_rule_analyze(CrmRuleTree *rule, SelectStmt *select, const Oid *types, int ntypes);

/* expression.c: names and rule functions as parameters */
extern Node *crm_input_column(CrmRuleTree *rule, const char *name, int location);
extern Node *crm_input_function(CrmRuleTree *rule, const char *name, const char *const *arguments,
								const char *label, Oid type, int location);
extern bool crm_input_knows(const CrmRuleTree *rule, const char *name);

/* Errors raised between the two point into the text of the rule. */
extern void crm_rule_point(ErrorContextCallback *callback, const char *text);
extern void crm_rule_point_end(ErrorContextCallback *callback);

/* execute.c: the settings under which rules run, and their parameters */
extern int crm_rule_enter(void);
extern void crm_rule_leave(int nest_level);

/*
 * The same behind the settings, which costs nothing: for code that runs nothing
 * but the rule, in this process. To be undone in any case, by PG_FINALLY().
 */
typedef struct CrmRuleStyle
{
	pg_tz *zone;
	int date_style;
	int date_order;
	int interval_style;
} CrmRuleStyle;
extern void crm_rule_style_begin(CrmRuleStyle *outside);
extern void crm_rule_style_end(const CrmRuleStyle *outside);

/* what the wall clock of the zone says */
extern DateADT crm_rule_today(TimestampTz as_of);
extern const Oid crm_rule_types[CRM_RULE_PARAMETERS];
extern const Oid crm_rule_one_types[CRM_RULE_PARAMETERS]; /* of CRM_RULE_ONE */
extern void crm_rule_values(TimestampTz as_of, Datum *values);

/* A plan for the statement, and running it; *holds is the answer of one for one contact. */
extern SPIPlanPtr crm_rule_prepare(Query *query, CrmRuleScope scope, const Oid *types, int ntypes);
extern void crm_rule_set_parameter(ParamListInfo parameters, int place, Oid type, Datum value,
								   bool isnull);
extern void crm_rule_run(SPIPlanPtr plan, CrmRuleScope scope, ParamListInfo parameters,
						 bool *holds);

/* Is this a failure of the rule for a contact, and not of the server or the transaction? */
extern bool crm_rule_is_contained(const ErrorData *error);

#endif /* CRM_LANGUAGE_H */
