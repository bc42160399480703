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

/* Points of an order: a refund takes its part of them, all of it takes all. */
extern int64 crm_points_of_order(const CrmEarningRule *earning, Datum amount, Datum net,
								 bool own_currency);

/* Points of an event or a scan, which have no amount. */
extern int64 crm_points_of_fact(const CrmEarningRule *earning);

#endif /* CRM_EARNING_H */
