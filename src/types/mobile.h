/*
 * mobile.h
 *		The type crm.mobile: a mobile number in E.164 form, in eight bytes.
 *
 * The value is the number itself without the plus: +86 138 0013 8000 is the
 * integer 8613800138000.  Calling codes never begin with 0 and none is the
 * beginning of another, so the integer keeps every digit and can be taken
 * apart again.
 */
#ifndef CRM_MOBILE_H
#define CRM_MOBILE_H

#include "pg_crm.h"

#define DatumGetMobile(X)   DatumGetInt64(X)
#define MobileGetDatum(X)   Int64GetDatum(X)
#define PG_GETARG_MOBILE(n) DatumGetMobile(PG_GETARG_DATUM(n))
#define PG_RETURN_MOBILE(x) return MobileGetDatum(x)

/* pg_crm.default_country_code */
extern int crm_default_country_code;

extern void crm_mobile_init(void);

extern bool crm_mobile_parse(const char *text, int default_country_code, int64 *number);
extern bool crm_mobile_valid(int64 number);
extern int crm_mobile_code(int64 number);
extern char *crm_mobile_text(int64 number);

/* for messages and logs: 138****8000, whatever the text is */
extern char *crm_mobile_mask(const char *text);

#endif /* CRM_MOBILE_H */
