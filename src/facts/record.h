/*
 * record.h
 *		What the functions that record facts share among themselves.
 */
#ifndef CRM_RECORD_H
#define CRM_RECORD_H

#include "postgres.h"

#include "facts/facts.h"

/* contact.c: follows merges without locking; raises 23503 */
extern int64 crm_contact_resolve(int64 contact_id);
/*
 * contact.c: locks the contacts (ids ascending), or none of them: where one has
 * ended or still() no longer holds, the lock of another must not be kept while
 * a smaller id is waited for
 */
extern bool crm_contact_try_lock(const int64 *contacts, int ncontacts, bool (*still)(void *arg),
								 void *arg);
/* send.c: locks them in id order; of those that were merged the survivors. How many are left of n. */
extern int crm_contacts_lock(int64 *contacts, int n);
/* contact.c: sets the kept copy of the mobile; only_if_none leaves one that is there */
extern void crm_contact_set_mobile(int64 contact_id, const char *mobile, bool only_if_none);

/* key.c: length and emptiness of an optional key */
extern void crm_check_optional_key(const char *key);
extern char *crm_digest(const char *content);

/* event.c: one jsonb object of text values; NULL becomes null */
extern Datum crm_text_object(int n, const char *const *keys, const char *const *values);
/* event.c: the event of this key, recorded now unless it was; replayed says which */
extern int64 crm_event_record_once(int64 contact_id, const char *kind, TimestampTz at,
								   bool at_given, int64 account_id, Datum properties,
								   const char *key, bool *replayed);

/* identity.c: the form in which an identifier is kept; raises 22001, 22P02, 23514 */
extern char *crm_identity_form(const CrmAccount *account, const char *external_id);
/* identity.c: 0 where nobody has it */
extern int64 crm_identity_owner(const char *kind, int64 account_id, const char *external_id);
/* identity.c: false where it exists already, committed */
extern bool crm_identity_claim(const char *kind, int64 account_id, const char *external_id,
							   int64 contact_id);

/* account.c: an account whose people have identifiers; no reserved name */
extern CrmAccount crm_account_of_people(const char *name);

/* scan.c: the scene without the platform's prefix */
extern const char *crm_bare_scene(const char *scene);

#endif /* CRM_RECORD_H */
