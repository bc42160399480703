/*
 * signals.h
 *		Facts told to journeys.
 */
#ifndef CRM_SIGNALS_H
#define CRM_SIGNALS_H

#include "facts/scans.h"
#include "profile/profile.h"

/* Is any journey on facts of this type and kind? */
extern bool crm_signals_wanted(CrmFactType type, const char *kind);

/*
 * Tells journeys of a sorted batch of facts, whose contacts are locked, and lets
 * them settle, some thousand contacts at a time. Codes is NULL where there are no scans.
 */
extern void crm_facts_signal(const CrmFact *facts, int64 nfacts, const CrmScanCodes *codes);

#endif /* CRM_SIGNALS_H */
