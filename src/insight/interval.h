/*
 * interval.h
 *		Confidence intervals.
 */
#ifndef CRM_INTERVAL_H
#define CRM_INTERVAL_H

/* Raises 22023 unless it lies between 0 and 1. */
extern void crm_check_confidence(double confidence);

#endif /* CRM_INTERVAL_H */
