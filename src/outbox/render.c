/*
 * render.c
 *		Filling the places {{name}} and {{name|fallback}} of a template; points in
 *		a name lead into objects, as in {{entry.amount}}. Places stand inside strings of a JSON document, and values stay inside: they are
 *		put into the strings before these are written out, so no value can add a
 *		member or end a string.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "outbox/template.h"

#define MAX_PLACE_BYTES 255

typedef struct Place
{
	const char *name; /* members of an object, joined by points */
	int name_length;
	const char *fallback; /* NULL: there must be a value */
	int fallback_length;
	const char *end; /* behind it */
} Place;

static const char *
find_bytes(const char *text, const char *end, const char *wanted)
{
	int length = strlen(wanted);

	for (; text + length <= end; text++)
		if (memcmp(text, wanted, length) == 0)
			return text;
	return NULL;
}

static void
trim(const char **text, int *length)
{
	while (*length > 0 && **text == ' ')
	{
		(*text)++;
		(*length)--;
	}
	while (*length > 0 && (*text)[*length - 1] == ' ')
		(*length)--;
}

/* The place that begins here; what is wrong with it, or NULL. */
static const char *
read_place(const char *begin, const char *end, Place *place)
{
	const char *closing = find_bytes(begin + 2, end, "}}");
	const char *bar;

	if (closing == NULL)
		return "is not closed by }}";
	place->end = closing + 2;
	place->name = begin + 2;
	bar = memchr(place->name, '|', closing - place->name);
	place->name_length = (bar == NULL ? closing : bar) - place->name;
	place->fallback = bar == NULL ? NULL : bar + 1;
	place->fallback_length = bar == NULL ? 0 : closing - place->fallback;
	trim(&place->name, &place->name_length);
	if (place->name_length == 0)
		return "has no name";
	if (place->name_length > MAX_PLACE_BYTES)
		return "has too long a name";
	if (memchr(place->name, '{', place->name_length) != NULL ||
		(place->fallback != NULL && memchr(place->fallback, '{', place->fallback_length) != NULL))
		return "holds another {";
	if (place->name[0] == '.' || place->name[place->name_length - 1] == '.' ||
		find_bytes(place->name, place->name + place->name_length, "..") != NULL)
		return "has an empty part in its name";
	return NULL;
}

bool
crm_template_has_places(const Jsonb *body)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &body->root));
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
		if ((token == WJB_VALUE || token == WJB_ELEM) && value.type == jbvString &&
			find_bytes(value.val.string.val, value.val.string.val + value.val.string.len, "{{") !=
				NULL)
			return true;
	return false;
}

void
crm_template_check_places(Jsonb *body)
{
	JsonbIterator *iterator = JsonbIteratorInit(&body->root);
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		const char *text;
		const char *end;

		if ((token != WJB_VALUE && token != WJB_ELEM) || value.type != jbvString)
			continue;
		text = value.val.string.val;
		end = text + value.val.string.len;
		while ((text = find_bytes(text, end, "{{")) != NULL)
		{
			Place place;
			const char *fault = read_place(text, end, &place);

			if (fault != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("place \"%s\" of the body %s",
								pnstrdup(text, pg_mbcliplen(text, end - text, 60)), fault),
						 errhint("A place is {{name}} or {{name|fallback}}; its name is that of a"
								 " member of params, or of a column of crm.contact, and points lead"
								 " into objects: {{entry.amount}}.")));
			text = place.end;
		}
	}
}

/* The scalar at this path, as text; NULL where there is none. */
static char *
value_at(JsonbContainer *container, const char *name, int length)
{
	JsonbValue value;

	for (;;)
	{
		const char *point = memchr(name, '.', length);
		int part = point == NULL ? length : point - name;

		if (!JsonContainerIsObject(container) ||
			getKeyJsonValueFromContainer(container, name, part, &value) == NULL)
			return NULL;
		if (point == NULL)
			break;
		if (value.type != jbvBinary)
			return NULL;
		container = value.val.binary.data;
		name = point + 1;
		length -= part + 1;
	}
	switch (value.type)
	{
		case jbvString:
			return pnstrdup(value.val.string.val, value.val.string.len);
		case jbvNumeric:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
		case jbvBool:
			return pstrdup(value.val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

bool
crm_template_asks_contact(const Jsonb *body, Jsonb *params)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &body->root));
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		const char *text;
		const char *end;
		Place place;

		if ((token != WJB_VALUE && token != WJB_ELEM) || value.type != jbvString)
			continue;
		text = value.val.string.val;
		end = text + value.val.string.len;
		while ((text = find_bytes(text, end, "{{")) != NULL &&
			   read_place(text, end, &place) == NULL)
		{
			if (params == NULL || value_at(&params->root, place.name, place.name_length) == NULL)
				return true;
			text = place.end;
		}
	}
	return false;
}

/* Writes a string with its places filled; false where a value is missing. */
static bool
write_filled(StringInfo filled, const char *text, const char *end, Jsonb *params, Jsonb *contact,
			 char **missing)
{
	const char *begin;

	while ((begin = find_bytes(text, end, "{{")) != NULL)
	{
		Place place;
		char *value = NULL;

		appendBinaryStringInfo(filled, text, begin - text);
		if (read_place(begin, end, &place) != NULL)
		{
			/* checked when the template was saved; a body changed past that stays as it is */
			text = begin;
			break;
		}
		if (params != NULL)
			value = value_at(&params->root, place.name, place.name_length);
		if (value == NULL && contact != NULL)
			value = value_at(&contact->root, place.name, place.name_length);
		if (value != NULL)
			appendStringInfoString(filled, value);
		else if (place.fallback != NULL)
			appendBinaryStringInfo(filled, place.fallback, place.fallback_length);
		else
		{
			*missing = pnstrdup(place.name, place.name_length);
			return false;
		}
		text = place.end;
	}
	appendBinaryStringInfo(filled, text, end - text);
	return true;
}

static bool
fill(JsonbValue *string, Jsonb *params, Jsonb *contact, char **missing)
{
	const char *text = string->val.string.val;
	const char *end = text + string->val.string.len;
	StringInfoData filled;

	if (find_bytes(text, end, "{{") == NULL)
		return true;
	initStringInfo(&filled);
	if (!write_filled(&filled, text, end, params, contact, missing))
		return false;
	string->val.string.val = filled.data;
	string->val.string.len = filled.len;
	return true;
}

char *
crm_template_render(Jsonb *body, Jsonb *params, Jsonb *contact, char **missing)
{
	JsonbIterator *iterator = JsonbIteratorInit(&body->root);
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	JsonbIteratorToken token;
	JsonbValue value;
	Jsonb *rendered;

	*missing = NULL;
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if ((token == WJB_VALUE || token == WJB_ELEM) && value.type == jbvString &&
			!fill(&value, params, contact, missing))
			return NULL;
		result = pushJsonbValue(&state, token, token < WJB_BEGIN_ARRAY ? &value : NULL);
	}
	rendered = JsonbValueToJsonb(result);
	return JsonbToCString(NULL, &rendered->root, VARSIZE(rendered));
}

char *
crm_template_fill(const char *text, Jsonb *params)
{
	StringInfoData filled;
	char *missing;

	initStringInfo(&filled);
	return write_filled(&filled, text, text + strlen(text), params, NULL, &missing) ? filled.data
																					: NULL;
}
