/*
 * facts.h
 *		What the facts room shares inside: checks of what comes from outside,
 *		look-ups by name, idempotency keys, and the switch that lets its own
 *		functions change rows that are otherwise only added.
 */
#ifndef CRM_FACTS_H
#define CRM_FACTS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/jsonb.h"

#include "base/db.h"
#include "pg_crm.h"

/* check.c: each raises an error with SQLSTATE, value and hint */
extern void crm_check_key(const char *what, const char *value);
extern void crm_check_kind(const char *value);
extern void crm_check_amount(Datum amount, bool above_zero);
extern void crm_check_document(const char *what, Datum value);
extern void crm_check_object(const char *what, Datum value);
/* a text in an object, NULL where there is none */
extern char *crm_text_member(Datum object, const char *key);
extern void crm_require_argument(const char *function, const char *argument, bool is_null);
extern TimestampTz crm_time_argument(FunctionCallInfo fcinfo, int argument, bool *given);
extern char *crm_text_argument(FunctionCallInfo fcinfo, int argument);
extern char *crm_mask(const char *value);

/* check.c: a row that others refer to is not there; only an owner's own changes lead to it */
CRM_NORETURN extern void crm_row_missing(const char *what, int64 id);

/* contact.c: follows merges; raises 23503; the contact is locked */
extern int64 crm_contact_lock(int64 contact_id);

/* account.c */
typedef struct CrmAccount
{
	int64 account_id; /* 0 for the global kinds */
	char *kind;       /* of identifier: openid, external_userid, mobile, … */
} CrmAccount;
extern CrmAccount crm_account_find(const char *name, bool identifiers);

/* key.c: a replay returns true with the first result */
typedef struct CrmReplay
{
	int64 id;
	bool is_first;
} CrmReplay;
extern bool crm_key_replayed(int64 contact_id, const char *source, const char *key,
							 const char *digest, TimestampTz at, bool at_given, CrmReplay *replay);
extern void crm_key_record(int64 contact_id, const char *source, const char *key,
						   const char *digest, TimestampTz at, int64 id, const bool *is_first);

/* field_change.c: the kind of fact that a changed field is; rows of it are the trigger's own */
#define CRM_FIELD_CHANGE "field_change"
extern bool crm_recording_changes;

/* event.c */
extern int64 crm_event_record(int64 contact_id, const char *kind, TimestampTz at, int64 account_id,
							  Datum properties);

/* scan.c */
extern int64 crm_scan_record(int64 contact_id, int64 qr_code_id, TimestampTz at, bool *is_first);
extern int64 crm_scan_find_code(const char *scene, int64 account_id, TimestampTz at);

/* count.c: what follows from the contacts' scans alone, found anew; they are locked */
extern void crm_scan_count(const int64 *contacts, int ncontacts);

/* identity.c */
extern int64 crm_identify(const CrmAccount *account, const char *external_id, const char *unionid);

/* merge.c */
extern int64 crm_merge(int64 contact_id, int64 other, const char *reason,
					   const char *shared_mobile);

#endif /* CRM_FACTS_H */
