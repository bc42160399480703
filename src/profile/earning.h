/*
 * earning.h
 *		What a fact is worth by an earning rule.
 */
#ifndef CRM_EARNING_H
#define CRM_EARNING_H

#include "postgres.h"

#include "profile/definition.h"

/* Is the rule on facts of this source, for members of this programme, at this time? */
extern bool crm_earning_applies(const CrmEarningRule *earning, CrmEarningSource source,
								int64 program, TimestampTz at);

/*
 * Points of a fact. Of an order its amount is net of refunds, and gross what it
 * was: a refund takes its part of the points, all of it takes all. A rule that
 * fails for a fact gives nothing.
 */
extern int64 crm_points_of_fact(const CrmDefinitions *definitions, const CrmEarningRule *earning,
								const CrmFact *fact, Datum gross);

#endif /* CRM_EARNING_H */
