/*
 * rights.c
 *		In whose name the extension acts. Functions and triggers switch to the
 *		owner of crm.contact, as referential integrity does: the caller needs
 *		no rights on the tables, and code that the owner planted (triggers,
 *		operators, expression indexes) never runs with the caller's rights.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "base/rights.h"
#include "base/table.h"

/* temporary objects last, so that nobody's hide the catalog's */
#define CRM_SEARCH_PATH "pg_catalog, pg_temp"

/* caller of the outermost switch; valid while the session acts as the owner */
static Oid outer_caller = InvalidOid;

Oid
crm_owner(void)
{
	return crm_table_owner("contact");
}

void
crm_act_as_owner_unnamed(CrmActing *acting)
{
	Oid owner = crm_owner();

	GetUserIdAndSecContext(&acting->userid, &acting->security_context);
	acting->guc_nest_level = 0;

	/* a call from inside the extension is already the owner's */
	if (acting->userid != owner || (acting->security_context & SECURITY_LOCAL_USERID_CHANGE) == 0)
		outer_caller = acting->userid;

	/*
	 * Restricted, so that what the owner planted cannot be put off until the
	 * caller is himself again: deferred triggers run at commit.
	 */
	SetUserIdAndSecContext(owner,
						   acting->security_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_NOFORCE_RLS |
							   (acting->userid == owner ? 0 : SECURITY_RESTRICTED_OPERATION));
}

void
crm_act_as_owner(CrmActing *acting)
{
	crm_act_as_owner_unnamed(acting);
	if (strcmp(namespace_search_path, CRM_SEARCH_PATH) == 0)
		return;
	acting->guc_nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", CRM_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
crm_act_end(CrmActing *acting)
{
	if (acting->guc_nest_level > 0)
		AtEOXact_GUC(true, acting->guc_nest_level);
	SetUserIdAndSecContext(acting->userid, acting->security_context);
}

Oid
crm_caller(void)
{
	Oid userid;
	int security_context;

	GetUserIdAndSecContext(&userid, &security_context);
	if ((security_context & SECURITY_LOCAL_USERID_CHANGE) != 0 && OidIsValid(outer_caller))
		return outer_caller;
	return userid;
}
