/*
 * coupon.h
 *		What issuing and redeeming coupons share.
 */
#ifndef CRM_COUPON_H
#define CRM_COUPON_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* coupon.c: raises 23503 for a shop that does not exist */
extern void crm_coupon_check_store(int64 store_id);

/* coupon.c: the event that tells of a grant */
extern void crm_coupon_record(int64 contact_id, const char *kind, TimestampTz at,
							  const char *coupon, int64 coupon_grant_id, const int64 *store_id);

#endif /* CRM_COUPON_H */
