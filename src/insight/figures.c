/*
 * figures.c
 *		Numbers as people read them, for pictures and reports.
 */
#include "postgres.h"

#include <math.h>

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "insight/figures.h"

char *
crm_grouped_decimal(const char *number)
{
	const char *first = *number == '-' ? number + 1 : number;
	int length = (int) strspn(first, "0123456789");
	StringInfoData buf;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, number, first - number);
	for (int i = 0; i < length; i++)
	{
		if (i > 0 && (length - i) % 3 == 0)
			appendStringInfoChar(&buf, ',');
		appendStringInfoChar(&buf, first[i]);
	}
	appendStringInfoString(&buf, first + length);
	return buf.data;
}

char *
crm_grouped_digits(int64 number)
{
	char *plain = psprintf(INT64_FORMAT, number);
	char *grouped = crm_grouped_decimal(plain);

	pfree(plain);
	return grouped;
}

char *
crm_share_text(int64 part, int64 whole)
{
	double percent;

	if (whole == 0)
		return pstrdup("");
	percent = 100.0 * part / whole;
	return fabs(percent) >= 9.95 || percent == 0 ? psprintf("%.0f%%", round(percent))
												 : psprintf("%.1f%%", percent);
}

char *
crm_duration_text(double seconds)
{
	static const struct
	{
		double seconds;
		const char *name;
	} units[] = { { SECS_PER_DAY, "d" }, { SECS_PER_HOUR, "h" }, { SECS_PER_MINUTE, "min" } };

	if (seconds < 59.5)
		return psprintf("%.0f s", seconds);
	for (int i = 0; i < lengthof(units); i++)
	{
		double smaller = i + 1 < lengthof(units) ? units[i + 1].seconds : 1;
		double whole;
		double rest;

		/* rounded in the smaller unit first, so that no 60 min are left over */
		seconds = rint(seconds / smaller) * smaller;
		if (seconds < units[i].seconds)
			continue;
		whole = floor(seconds / units[i].seconds);
		rest = rint((seconds - whole * units[i].seconds) / smaller);
		if (rest == 0 || whole >= 100)
			return psprintf("%.0f %s", whole, units[i].name);
		return psprintf("%.0f %s %.0f %s", whole, units[i].name, rest,
						i + 1 < lengthof(units) ? units[i + 1].name : "s");
	}
	return psprintf("%.0f s", seconds);
}

double
crm_round_step(double most, int marks)
{
	double power = pow(10, floor(log10(most / marks)));
	double part = most / marks / power;

	return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}
