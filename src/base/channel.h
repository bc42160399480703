/*
 * channel.h
 *		The channels on which contacts are written to.
 */
#ifndef CRM_CHANNEL_H
#define CRM_CHANNEL_H

#include "postgres.h"

/* Raises 23514 for a name that is no channel. */
extern void crm_check_channel(const char *channel);

#endif /* CRM_CHANNEL_H */
