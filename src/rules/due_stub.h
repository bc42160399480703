/* due_stub.h - until rules/due.c is there */
#ifndef CRM_DUE_STUB_H
#define CRM_DUE_STUB_H
#include "postgres.h"
#include "datatype/timestamp.h"
typedef enum
{
	CRM_TIME_NONE,
	CRM_TIME_EXACT,
	CRM_TIME_DAILY
} CrmRuleTime;
extern CrmRuleTime crm_rule_time(const char *text);
extern void crm_rule_due(const char *text, const int64 *contacts, int ncontacts, TimestampTz as_of,
						 TimestampTz *due);
#endif
