/*
 * identity.c
 *		Who somebody is. An identifier is claimed by inserting its row, before
 *		any contact is made or locked: of a crowd one claims, the others wait
 *		for it and read what it wrote. Nobody who holds a contact's lock waits
 *		for an identifier, so the two kinds of waiting form no circle.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "profile/profile.h"
#include "profile/segment.h"
#include "types/mobile.h"

PG_FUNCTION_INFO_V1(crm_sql_identify);

extern Datum crm_mobile_in(PG_FUNCTION_ARGS);

/* owner of a claimed identifier until its contact is locked */
#define NOBODY 0

static CrmPlan find_owner = { "SELECT i.contact_id FROM crm.identity i"
							  " WHERE i.kind = $1 AND i.account_id = $2 AND i.external_id = $3",
							  3,
							  { TEXTOID, INT8OID, TEXTOID } };
static CrmPlan claim = {
	"INSERT INTO crm.identity (kind, account_id, external_id, contact_id)"
	" VALUES ($1, $2, $3, $4) ON CONFLICT (kind, account_id, external_id) DO NOTHING",
	4,
	{ TEXTOID, INT8OID, TEXTOID, INT8OID }
};
static CrmPlan assign = { "UPDATE crm.identity i SET contact_id = $4"
						  " WHERE i.kind = $1 AND i.account_id = $2 AND i.external_id = $3",
						  4,
						  { TEXTOID, INT8OID, TEXTOID, INT8OID } };
static CrmPlan next_contact = {
	"SELECT nextval(pg_get_serial_sequence('crm.contact', 'contact_id')::regclass)", 0
};
static CrmPlan insert_contact = {
	"INSERT INTO crm.contact (contact_id, mobile) VALUES ($1, $2::crm.mobile)",
	2,
	{ INT8OID, TEXTOID }
};

static uint64
run_for(CrmPlan *plan, const char *kind, int64 account_id, const char *external_id,
		int64 contact_id, bool protected)
{
	Datum values[4];

	values[0] = CStringGetTextDatum(kind);
	values[1] = Int64GetDatum(account_id);
	values[2] = CStringGetTextDatum(external_id);
	values[3] = Int64GetDatum(contact_id);
	return protected ? crm_run_protected(plan, values, NULL) : crm_run(plan, values, NULL);
}

int64
crm_identity_owner(const char *kind, int64 account_id, const char *external_id)
{
	CrmActing acting;
	int64 contact_id = 0;

	crm_connect(&acting);
	if (run_for(&find_owner, kind, account_id, external_id, 0, false) > 0)
		contact_id = crm_result_int64(0, 1);
	crm_disconnect(&acting);
	return contact_id;
}

bool
crm_identity_claim(const char *kind, int64 account_id, const char *external_id, int64 contact_id)
{
	CrmActing acting;
	bool claimed;

	crm_connect(&acting);
	claimed = run_for(&claim, kind, account_id, external_id, contact_id, false) > 0;
	crm_disconnect(&acting);
	return claimed;
}

/* Gives a claimed identifier to a contact, which is locked here. */
static int64
give(const CrmAccount *account, const char *external_id, int64 contact_id)
{
	CrmActing acting;

	crm_connect(&acting);
	contact_id = crm_contact_lock(contact_id);
	run_for(&assign, account->kind, account->account_id, external_id, contact_id, true);
	if (strcmp(account->kind, "mobile") == 0)
	{
		crm_contact_set_mobile(contact_id, external_id, true);
		crm_profile_recompute(&contact_id, 1, crm_now());
		crm_segments_refresh(&contact_id, 1, "identify", crm_now());
	}
	crm_disconnect(&acting);
	return contact_id;
}

static int64
take_contact_id(void)
{
	CrmActing acting;
	int64 contact_id;

	crm_connect(&acting);
	crm_run(&next_contact, NULL, NULL);
	contact_id = crm_result_int64(0, 1);
	crm_disconnect(&acting);
	return contact_id;
}

static void
create_contact(int64 contact_id, const CrmAccount *account, const char *external_id)
{
	CrmActing acting;
	Datum values[2];

	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(external_id);
	crm_run(&insert_contact, values, strcmp(account->kind, "mobile") == 0 ? NULL : " n");
	crm_disconnect(&acting);
}

char *
crm_identity_form(const CrmAccount *account, const char *external_id)
{
	bool mobile = strcmp(account->kind, "mobile") == 0;
	int64 number;

	if (!mobile || *external_id != '\0')
		crm_check_key("external_id", external_id);
	if (!mobile)
		return pstrdup(external_id);
	/* the type's own input, for its error */
	number = DatumGetMobile(DirectFunctionCall1(crm_mobile_in, CStringGetDatum(external_id)));
	return crm_mobile_text(number);
}

/*
 * One try with a unionid; 0 where somebody else came in between and the
 * identifiers must be looked up again.
 */
static int64
identify_both(const CrmAccount *account, const char *external_id, const char *unionid)
{
	CrmAccount global = { 0, "unionid" };
	int64 own = crm_identity_owner(account->kind, account->account_id, external_id);
	int64 united = crm_identity_owner("unionid", 0, unionid);
	int64 created;

	if (own != 0 && united != 0)
		return own == united ? own : crm_merge(own, united, "unionid", NULL);
	if (own != 0)
		return crm_identity_claim("unionid", 0, unionid, NOBODY) ? give(&global, unionid, own) : 0;
	if (united != 0)
		return crm_identity_claim(account->kind, account->account_id, external_id, NOBODY)
			? give(account, external_id, united)
			: 0;

	created = take_contact_id();
	if (!crm_identity_claim(account->kind, account->account_id, external_id, created))
		return 0;
	if (!crm_identity_claim("unionid", 0, unionid, created))
		return give(account, external_id, crm_identity_owner("unionid", 0, unionid));
	create_contact(created, account, external_id);
	return created;
}

/* external_id in the form of crm_identity_form() */
int64
crm_identify(const CrmAccount *account, const char *external_id, const char *unionid)
{
	int64 contact_id;

	if (unionid != NULL && strcmp(account->kind, "unionid") == 0)
	{
		if (strcmp(external_id, unionid) != 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unionid %s differs from external_id %s", crm_mask(unionid),
						crm_mask(external_id)),
				 errhint(
					 "For the account unionid the identifier is the unionid; leave the third argument out.")));
		unionid = NULL;
	}
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (unionid != NULL)
		{
			contact_id = identify_both(account, external_id, unionid);
			if (contact_id != 0)
				return contact_id;
			continue;
		}
		contact_id = crm_identity_owner(account->kind, account->account_id, external_id);
		if (contact_id != 0)
			return contact_id;
		contact_id = take_contact_id();
		if (crm_identity_claim(account->kind, account->account_id, external_id, contact_id))
		{
			create_contact(contact_id, account, external_id);
			return contact_id;
		}
	}
}

Datum
crm_sql_identify(PG_FUNCTION_ARGS)
{
	CrmAccount account;
	char *external_id;
	char *unionid;
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("identify", "account", PG_ARGISNULL(0));
	crm_require_argument("identify", "external_id", PG_ARGISNULL(1));
	unionid = crm_text_argument(fcinfo, 2);
	if (unionid != NULL)
		crm_check_key("unionid", unionid);

	crm_act_as_owner(&acting);
	account = crm_account_find(crm_text_argument(fcinfo, 0), true);
	external_id = crm_identity_form(&account, crm_text_argument(fcinfo, 1));
	contact_id = crm_identify(&account, external_id, unionid);
	crm_act_end(&acting);
	PG_RETURN_INT64(contact_id);
}
