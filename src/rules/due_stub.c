/* due_stub.c - until rules/due.c is there: every rule that reads the time is looked at each hour */
#include "postgres.h"

#include "rules/due_stub.h"
#include "rules/language.h"

CrmRuleTime
crm_rule_time(const char *text)
{
	CrmRuleTree *rule = crm_rule_read(text);
	ListCell *cell;

	if (rule->reads_time)
		return CRM_TIME_DAILY;
	foreach(cell, rule->references)
	{
		const char *label = ((CrmRuleReference *) lfirst(cell))->label;

		if (strncmp(label, "local_", 6) == 0 || strncmp(label, "spent('", 7) == 0 ||
			((strncmp(label, "times(", 6) == 0 || strncmp(label, "did(", 4) == 0) &&
			 strchr(label, ',') != NULL))
			return CRM_TIME_DAILY;
	}
	return CRM_TIME_NONE;
}

void
crm_rule_due(const char *text, const int64 *contacts, int ncontacts, TimestampTz as_of,
			 TimestampTz *due)
{
	for (int i = 0; i < ncontacts; i++)
		due[i] = (as_of / USECS_PER_HOUR + 1) * USECS_PER_HOUR;
}
