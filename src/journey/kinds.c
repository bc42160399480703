/*
 * kinds.c
 *		The kinds of steps and the keys of each.
 */
#include "postgres.h"

#include "journey/kinds.h"

#define AT(field) offsetof(CrmStep, field)

/* clang-format off */
#define NEXT \
	{ "next", CRM_FIELD_STEP, false, AT(next), 0, "The step after it; null or left out: the journey is finished there." }
#define ON_TIMEOUT(description) \
	{ "on_timeout", CRM_FIELD_STEP, false, AT(on_timeout), AT(has_timeout), description }
#define ON_REFUSED \
	{ "on_refused", CRM_FIELD_STEP, false, AT(on_refused), AT(has_refused), "Where to go if the message may not be sent; left out: as next." }
#define ON_FAILED(description) \
	{ "on_failed", CRM_FIELD_STEP, false, AT(on_failed), AT(has_failed), description }
#define PARAMS \
	{ "params", CRM_FIELD_PARAMS, false, AT(params), 0, "Values for the places of the template; strings may hold {{entry.x}} and {{context.x}}." }
#define EXPIRES_IN \
	{ "expires_in", CRM_FIELD_INTERVAL, false, AT(expires_in), 0, "How long the message may still be sent; left out: as the template says." }
#define REASON(description) \
	{ "reason", CRM_FIELD_TEXT, false, AT(reason), 0, description }
#define SAVE_AS(description) \
	{ "save_as", CRM_FIELD_MEMBER, false, AT(save_as), 0, description }

const CrmStepField crm_step_common_fields[] = {
	{ "kind", CRM_FIELD_TEXT, true, 0, 0, "What the step does." },
	{ "label", CRM_FIELD_TEXT, false, 0, 0, "What people call it." },
};
const int crm_nstep_common_fields = lengthof(crm_step_common_fields);

static const CrmStepField send_fields[] = {
	{ "template", CRM_FIELD_TEMPLATE, true, AT(template), 0, "The template of the message." },
	PARAMS,
	EXPIRES_IN,
	NEXT,
	ON_REFUSED,
	ON_FAILED("Where to go if it could not be sent; left out: as next."),
};
static const CrmStepField wait_fields[] = {
	{ "for", CRM_FIELD_DELAY, false, AT(within), 0, "How long." },
	{ "until", CRM_FIELD_INSTANT, false, AT(until), 0, "Until when; without a zone in that of the account." },
	{ "date", CRM_FIELD_DATE, false, AT(date), 0, "Until this date: a column of the profile, entry.x or context.x." },
	{ "offset", CRM_FIELD_OFFSET, false, AT(offset), 0, "How long after the date; negative: before it." },
	{ "at", CRM_FIELD_TIME_OF_DAY, false, AT(minute_of_day), 0, "HH:MM, local time of the contact: the next one after the rest of the wait." },
	{ "hours", CRM_FIELD_HOURS, false, AT(hours), 0, "Weekly hours, local time of the contact: not before these are open." },
	NEXT,
};
static const CrmStepField wait_for_fields[] = {
	{ "on", CRM_FIELD_TRIGGER, true, AT(trigger), 0, "The kind of fact." },
	{ "within", CRM_FIELD_INTERVAL, true, AT(within), 0, "How long at most." },
	{ "since", CRM_FIELD_SINCE, false, AT(since_step), 0, "entry: a fact since the contact entered the journey counts; step: since the step before." },
	NEXT,
	ON_TIMEOUT("Where to go if none came; left out: the journey is finished there."),
};
static const CrmStepField wait_until_fields[] = {
	{ "when", CRM_FIELD_RULE, true, AT(rule), 0, "A rule over the profile; nobody waits for whom it holds." },
	{ "within", CRM_FIELD_INTERVAL, true, AT(within), 0, "How long at most." },
	NEXT,
	ON_TIMEOUT("Where to go if it never held; left out: the journey is finished there."),
};
static const CrmStepField ask_fields[] = {
	{ "field", CRM_FIELD_ASKED, true, AT(field), 0, "What the reply is stored in: mobile, a column of crm.contact, or context.x." },
	{ "reply", CRM_FIELD_REPLY, false, AT(reply), 0, "What is read: mobile, date, choice or text; left out: what the field is of." },
	{ "choices", CRM_FIELD_CHOICES, false, AT(choices), 0, "What each reply stands for." },
	{ "within", CRM_FIELD_INTERVAL, true, AT(within), 0, "How long at most." },
	{ "template", CRM_FIELD_TEMPLATE, false, AT(template), 0, "The template of the question." },
	PARAMS,
	EXPIRES_IN,
	NEXT,
	ON_TIMEOUT("Where to go if no reply came; left out: the journey is finished there."),
	ON_FAILED("Where to go after a reply that cannot be read; left out: it goes on waiting."),
};
static const CrmStepField branch_fields[] = {
	{ "branches", CRM_FIELD_BRANCHES, true, 0, 0, "Objects of when, a rule over the profile and the fact that let the contact in, and next; the first that holds." },
	{ "default", CRM_FIELD_DEFAULT, true, AT(next), 0, "Where to go if none holds; null: the journey is finished there." },
};
static const CrmStepField split_fields[] = {
	{ "arms", CRM_FIELD_ARMS, true, 0, 0, "By name: weight, a number above 0, and next." },
};
static const CrmStepField set_fields[] = {
	{ "fields", CRM_FIELD_COLUMNS, true, AT(fields), 0, "Columns of crm.contact and their values; strings may hold {{entry.x}} and {{context.x}}." },
	NEXT,
};
static const CrmStepField tag_fields[] = {
	{ "add", CRM_FIELD_ADD, false, 0, 0, "Tags that are added." },
	{ "remove", CRM_FIELD_REMOVE, false, 0, 0, "Tags that are removed." },
	NEXT,
};
static const CrmStepField award_fields[] = {
	{ "achievement", CRM_FIELD_ACHIEVEMENT, true, AT(object), 0, "What is awarded." },
	{ "threshold", CRM_FIELD_NUMBER, false, AT(threshold), 0, "One of its thresholds." },
	NEXT,
};
static const CrmStepField stage_fields[] = {
	{ "stage", CRM_FIELD_STAGE, true, AT(object), 0, "Where the contact is moved." },
	REASON("Why, for the history."),
	NEXT,
};
static const CrmStepField coupon_fields[] = {
	{ "coupon", CRM_FIELD_COUPON, true, AT(object), 0, "What is issued." },
	SAVE_AS("The member of the context that holds the code."),
	NEXT,
	ON_FAILED("Where to go if none could be issued; left out: the contact is stuck."),
};
static const CrmStepField points_fields[] = {
	{ "program", CRM_FIELD_PROGRAM, true, AT(object), 0, "The loyalty programme." },
	{ "points", CRM_FIELD_NUMBER, true, AT(points), 0, "How many; negative: they are spent." },
	REASON("Why, for the statement of points."),
	NEXT,
	ON_FAILED("Where to go if they could not be booked; left out: the contact is stuck."),
};
static const CrmStepField webhook_fields[] = {
	{ "template", CRM_FIELD_WEBHOOK, true, AT(template), 0, "A template of the channel webhook." },
	PARAMS,
	SAVE_AS("The member of the context that holds the reply."),
	NEXT,
	ON_FAILED("Where to go if it could not be sent; left out: as next."),
};
static const CrmStepField journey_fields[] = {
	{ "journey", CRM_FIELD_JOURNEY, true, AT(object), 0, "The journey that the contact enters." },
	NEXT,
};
static const CrmStepField exit_fields[] = {
	REASON("Why, for the end of the enrolment."),
};

#define FIELDS(array) lengthof(array), array

const CrmStepKind crm_step_kinds[] = {
	{ "send", "Sends a message.", true, true, FIELDS(send_fields), NULL, crm_step_send },
	{ "wait", "Waits for time: one of for, until and date, or at and hours alone.", true, false, FIELDS(wait_fields), crm_check_wait, crm_step_wait },
	{ "wait_for", "Waits for a fact.", true, false, FIELDS(wait_for_fields), NULL, crm_step_wait_for },
	{ "wait_until", "Waits until a rule holds.", true, false, FIELDS(wait_until_fields), NULL, crm_step_wait_until },
	{ "ask", "Waits for a reply, and stores it.", true, true, FIELDS(ask_fields), crm_check_ask, crm_step_ask },
	{ "branch", "Goes where the first rule that holds says.", false, false, FIELDS(branch_fields), crm_check_branch, crm_step_branch },
	{ "split", "Draws an arm.", false, false, FIELDS(split_fields), NULL, crm_step_split },
	{ "set", "Sets fields of the contact.", false, true, FIELDS(set_fields), NULL, crm_step_set },
	{ "tag", "Adds and removes tags.", false, true, FIELDS(tag_fields), crm_check_tag, crm_step_tag },
	{ "award", "Awards an achievement.", false, true, FIELDS(award_fields), crm_check_award, crm_step_award },
	{ "stage", "Moves the contact to a stage.", false, true, FIELDS(stage_fields), NULL, crm_step_stage },
	{ "coupon", "Issues a coupon.", false, true, FIELDS(coupon_fields), NULL, crm_step_coupon },
	{ "points", "Books points.", false, true, FIELDS(points_fields), crm_check_points, crm_step_points },
	{ "webhook", "Calls a webhook.", true, true, FIELDS(webhook_fields), NULL, crm_step_send },
	{ "journey", "Lets the contact into another journey.", false, true, FIELDS(journey_fields), NULL, crm_step_journey },
	{ "exit", "Finishes the journey.", false, false, FIELDS(exit_fields), NULL, crm_step_exit },
};
const int crm_nstep_kinds = lengthof(crm_step_kinds);
/* clang-format on */

const CrmStepKind *
crm_step_kind_find(const char *name)
{
	for (int i = 0; i < crm_nstep_kinds; i++)
		if (strcmp(crm_step_kinds[i].name, name) == 0)
			return &crm_step_kinds[i];
	return NULL;
}

const char *
crm_field_type_name(CrmFieldType type)
{
	static const char *const names[] = {
		[CRM_FIELD_STEP] = "step or null",
		[CRM_FIELD_DEFAULT] = "step or null",
		[CRM_FIELD_TEXT] = "text",
		[CRM_FIELD_MEMBER] = "name",
		[CRM_FIELD_TEMPLATE] = "template",
		[CRM_FIELD_WEBHOOK] = "template",
		[CRM_FIELD_ACHIEVEMENT] = "achievement",
		[CRM_FIELD_STAGE] = "stage",
		[CRM_FIELD_COUPON] = "coupon",
		[CRM_FIELD_PROGRAM] = "loyalty program",
		[CRM_FIELD_JOURNEY] = "journey",
		[CRM_FIELD_INTERVAL] = "interval",
		[CRM_FIELD_DELAY] = "interval",
		[CRM_FIELD_OFFSET] = "interval",
		[CRM_FIELD_INSTANT] = "timestamp",
		[CRM_FIELD_DATE] = "date",
		[CRM_FIELD_TIME_OF_DAY] = "time of day",
		[CRM_FIELD_HOURS] = "weekly hours",
		[CRM_FIELD_TRIGGER] = "kind of fact",
		[CRM_FIELD_SINCE] = "entry or step",
		[CRM_FIELD_RULE] = "rule",
		[CRM_FIELD_ASKED] = "field",
		[CRM_FIELD_REPLY] = "mobile, date, choice or text",
		[CRM_FIELD_CHOICES] = "object",
		[CRM_FIELD_PARAMS] = "object",
		[CRM_FIELD_NUMBER] = "number",
		[CRM_FIELD_COLUMNS] = "object",
		[CRM_FIELD_ADD] = "array of texts",
		[CRM_FIELD_REMOVE] = "array of texts",
		[CRM_FIELD_BRANCHES] = "array of objects",
		[CRM_FIELD_ARMS] = "object of objects",
	};

	return names[type];
}
