/*
 * attribution.h
 *		Rules of attribution, for verify().
 */
#ifndef CRM_ATTRIBUTION_H
#define CRM_ATTRIBUTION_H

#include "profile/profile.h"

/* Lists those whose rule no longer compiles. */
extern void crm_attribution_verify(CrmAddDifference add, void *arg);

#endif /* CRM_ATTRIBUTION_H */
