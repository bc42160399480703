/*
 * rights.h
 *		In whose name the extension acts: the owner of crm.contact.
 */
#ifndef CRM_RIGHTS_H
#define CRM_RIGHTS_H

#include "postgres.h"

typedef struct CrmActing
{
	Oid userid;
	int security_context;
	int guc_nest_level;
} CrmActing;

/*
 * From here to crm_act_end() the session acts as the owner of crm.contact with
 * the search_path pg_catalog, pg_temp. An error in between undoes both.
 */
extern void crm_act_as_owner(CrmActing *acting);

/* The same without the search_path, for code that resolves no names. */
extern void crm_act_as_owner_unnamed(CrmActing *acting);

extern void crm_act_end(CrmActing *acting);

/* The role that called before any switch; for the log of definitions. */
extern Oid crm_caller(void);

/* Owner of crm.contact; an error with a hint where nothing is installed. */
extern Oid crm_owner(void);

#endif /* CRM_RIGHTS_H */
