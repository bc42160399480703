/*
 * official_account.h
 *		Inside the adapter of official accounts.
 */
#ifndef CRM_CHANNELS_OFFICIAL_ACCOUNT_H
#define CRM_CHANNELS_OFFICIAL_ACCOUNT_H

#include "postgres.h"

#include "utils/jsonb.h"

/* The check of the channel. */
extern void crm_official_account_check(const char *message_type, Jsonb *body);

#endif /* CRM_CHANNELS_OFFICIAL_ACCOUNT_H */
