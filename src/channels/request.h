/*
 * request.h
 *		What the adapters put their requests and outcomes together with.
 */
#ifndef CRM_CHANNELS_REQUEST_H
#define CRM_CHANNELS_REQUEST_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "channels/channel.h"

#define CRM_MAX_DETAIL_BYTES 500

/* A value of the query part of an address. */
extern void crm_append_url_encoded(StringInfo to, const char *value);

/* base_url, else own, without a slash at its end. */
extern void crm_append_base_url(StringInfo to, const char *base_url, const char *own);

/* Takes url and body over; its only header says that the body is JSON. */
extern void crm_json_request(CrmChannelRequest *request, char *url, char *body);
extern void crm_add_header(CrmChannelRequest *request, char *header);

/* reason is a constant or allocated */
extern void crm_set_outcome(CrmChannelOutcome *outcome, CrmReaction reaction, const char *reason);

/* A reply as detail: its first bytes as clean text; NULL where it is empty. */
extern char *crm_reply_detail(const char *reply, size_t length);

#endif /* CRM_CHANNELS_REQUEST_H */
