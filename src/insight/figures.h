/*
 * figures.h
 *		Numbers as people read them, for pictures and reports.
 */
#ifndef CRM_FIGURES_H
#define CRM_FIGURES_H

#include "postgres.h"

/* 1,234,567 */
extern char *crm_grouped_digits(int64 number);

/* The same for a decimal number in the notation of numeric; what is no number stays as it is. */
extern char *crm_grouped_decimal(const char *number);

/* part of whole: 42%, 1.3%; empty where whole is 0 */
extern char *crm_share_text(int64 part, int64 whole);

/* 45 s, 12 min, 2 h 5 min, 3 d 4 h; at most two units */
extern char *crm_duration_text(double seconds);

/* Distance of about so many round marks between 0 and most: 1, 2 or 5 times a power of ten. */
extern double crm_round_step(double most, int marks);

#endif /* CRM_FIGURES_H */
