/*
 * account.c
 *		Accounts by name, and the kind of identifier that each one gives.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "base/db.h"
#include "facts/record.h"

/* names that stand for identifiers valid everywhere; no account may bear them */
static const char *const global_kinds[] = { "unionid", "mobile", "email", "customer" };

static const struct
{
	const char *account;
	const char *identifier;
} account_kinds[] = {
	{ "official_account", "openid" },
	{ "mini_program", "openid" },
	{ "wechat_pay", "openid" },
	{ "wecom", "external_userid" },
};

static CrmPlan find_account = { "SELECT a.account_id, a.kind FROM crm.account a WHERE a.name = $1",
								1,
								{ TEXTOID } };

static char *
identifier_kind(const char *account_kind)
{
	for (int i = 0; i < lengthof(account_kinds); i++)
		if (strcmp(account_kinds[i].account, account_kind) == 0)
			return pstrdup(account_kinds[i].identifier);
	return NULL;
}

/*
 * With identifiers, the name may be a reserved one, and an account that gives
 * no identifiers is an error. Without, any account will do and kind may be NULL.
 */
CrmAccount
crm_account_find(const char *name, bool identifiers)
{
	MemoryContext caller = CurrentMemoryContext;
	CrmAccount account = { 0 };
	CrmActing acting;
	Datum value;
	char *kind = NULL;
	bool isnull;

	if (*name != '\0')
		crm_check_key("account", name);
	if (identifiers)
		for (int i = 0; i < lengthof(global_kinds); i++)
			if (strcmp(global_kinds[i], name) == 0)
			{
				account.kind = pstrdup(name);
				return account;
			}

	crm_connect(&acting);
	value = CStringGetTextDatum(name);
	if (crm_run(&find_account, &value, NULL) > 0)
	{
		account.account_id = crm_result_int64(0, 1);
		kind = crm_text_copy(caller, crm_result(0, 2, &isnull));
	}
	crm_disconnect(&acting);

	if (kind == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION), errmsg("account \"%s\" does not exist", name),
			 identifiers
				 ? errhint(
					   "Insert it into crm.account first, or use unionid, mobile, email or customer.")
				 : errhint("Insert it into crm.account first.")));
	account.kind = identifier_kind(kind);
	if (identifiers && account.kind == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("account \"%s\" of kind %s gives no identifiers", name, kind),
			 errhint(
				 "Use an account of kind official_account, mini_program, wechat_pay or wecom, or the names unionid, mobile, email, customer.")));
	return account;
}

CrmAccount
crm_account_of_people(const char *name)
{
	CrmAccount account = crm_account_find(name, true);

	if (account.account_id == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION), errmsg("account \"%s\" does not exist", name),
			 errhint(
				 "The name is reserved for identifiers that are valid everywhere; name an account of crm.account.")));
	return account;
}
