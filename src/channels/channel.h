/*
 * channel.h
 *		Adapters of the platforms that carry messages: a message becomes a
 *		request, a reply becomes an outcome. They know neither tables nor how
 *		requests travel.
 */
#ifndef CRM_CHANNELS_CHANNEL_H
#define CRM_CHANNELS_CHANNEL_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef struct CrmChannelMessage
{
	const char *message_type;
	const char *recipient; /* as the platform knows him; webhook: not used */
	const char *base_url;  /* NULL: the platform's own */
	const char *token;     /* NULL where the channel needs none */
	const char *body;      /* JSON text, rendered */
	const char *key;       /* under which a repetition is no second message, or NULL */
	int64 contact_id;
	int64 message_id;
	const char *template_name; /* ours, or NULL */
	const char *secret;        /* that signs a webhook, or NULL */
	int64 now;                 /* seconds since 1970 */
	const char *app_id;
} CrmChannelMessage;

/* Allocated by palloc, with all it points to. By POST. */
typedef struct CrmChannelRequest
{
	char *url; /* may hold a token: never to be logged */
	char *body;
	int nheaders;
	char **headers;
} CrmChannelRequest;

/* how a request ended; the order is that of CrmHttpResult */
typedef enum CrmChannelEnd
{
	CRM_CHANNEL_REPLY,
	CRM_CHANNEL_NOT_SENT,
	CRM_CHANNEL_UNKNOWN
} CrmChannelEnd;

/* what is to be done about it */
typedef enum CrmReaction
{
	CRM_DONE,            /* the platform took it */
	CRM_DONE_BEFORE,     /* it had taken it before */
	CRM_TOKEN,           /* get a new token, then once more */
	CRM_RETRY,           /* surely not delivered, or may be repeated: again, a little later */
	CRM_MINUTE,          /* this API of this account rests for a minute, */
	CRM_HOUR,            /* an hour, */
	CRM_DAY,             /* a day; the message stays queued */
	CRM_WINDOW_CLOSED,   /* the contact's window is closed */
	CRM_WINDOW_USED_UP,  /* its messages are used up */
	CRM_DROP,            /* this message never will go */
	CRM_DROP_TEMPLATE,   /* nor will any other of its template */
	CRM_USER,            /* this recipient can not be reached */
	CRM_USER_UNFOLLOWED, /* he does not follow the account */
	CRM_USER_OPTED_OUT,  /* he switched messages off */
	CRM_PAUSE,           /* the account is at fault, until a person looks at it */
	CRM_PAUSE_API,       /* so for this API only */
	CRM_UNKNOWN          /* it may have been delivered; again only with a key */
} CrmReaction;

typedef struct CrmChannelOutcome
{
	CrmReaction reaction;
	int errcode;  /* the platform's, 0 where it said none */
	char *reason; /* a machine's word, NULL when done */
	char *detail; /* what the platform said: valid text, one line, at most 500 bytes; or NULL */
	char *platform_id; /* under which the platform reports on it later, or NULL */
} CrmChannelOutcome;

typedef struct CrmMessageType
{
	const char *name;
	const char *api;   /* what quotas and pauses are counted by */
	bool needs_window; /* only while the contact's window is open */
	int key_seconds;   /* how long the platform knows a key; 0: it takes none */
} CrmMessageType;

typedef struct CrmChannel
{
	const char *name; /* a kind of crm.account */
	bool needs_token;
	bool needs_base_url;        /* there is no address but the account's */
	const char *recipient_kind; /* of identifier by which it knows a contact; NULL: it needs none */
	const char *secret_name;    /* of the secret that signs its requests, or NULL */
	const CrmMessageType *types;
	int ntypes;

	/*
	 * Raises 22023 for a body that can not be sent, with a hint that names the
	 * JSON path. Strings may hold {{...}}.
	 */
	void (*check)(const char *message_type, Jsonb *body);

	/* Raises 22023 where the body is no JSON object or an address is missing. */
	void (*request)(const CrmChannelMessage *message, CrmChannelRequest *request);

	/*
	 * Never raises, whatever the reply holds. Without a reply the status is 0
	 * and the outcome has no detail: the caller knows the error.
	 */
	void (*outcome)(const CrmChannelMessage *message, CrmChannelEnd end, long status,
					const char *reply, size_t length, CrmChannelOutcome *outcome);

	/* NULL where no token is needed; base_url may be NULL */
	void (*token_request)(const char *app_id, const char *secret, const char *base_url, bool force,
						  CrmChannelRequest *request);

	/*
	 * True: a token and the seconds that it lasts. False: the outcome says what
	 * to do, CRM_RETRY where there is no reply (status 0).
	 */
	bool (*token_outcome)(long status, const char *reply, size_t length, char **token,
						  int *expires_in, CrmChannelOutcome *outcome);
} CrmChannel;

/* NULL: no adapter has this name. */
extern const CrmChannel *crm_channel_find(const char *name);

/* NULL: the channel has no such type. */
extern const CrmMessageType *crm_channel_type(const CrmChannel *channel, const char *name);

/* The same as the check of the channel, but also of the names. Raises 22023. */
extern void crm_channel_check(const char *channel, const char *message_type, Jsonb *body);

/* the adapters */
extern const CrmChannel crm_official_account;
extern const CrmChannel crm_webhook;

#endif /* CRM_CHANNELS_CHANNEL_H */
