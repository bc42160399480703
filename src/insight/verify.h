/*
 * verify.h
 *		What crm.verify() says of this room.
 */
#ifndef CRM_INSIGHT_VERIFY_H
#define CRM_INSIGHT_VERIFY_H

#include "profile/profile.h"

/* Rules that no longer compile, and maps that no longer fit what they name. */
extern void crm_insight_verify(CrmAddDifference add, void *arg);

#endif /* CRM_INSIGHT_VERIFY_H */
