/*
 * json.c
 *		The outermost fields of a JSON object that a stranger wrote.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "channels/json.h"

#define MAX_DEPTH 64

static const char *skip_value(const char *p, const char *end, int depth, CrmJsonKind *kind);

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* From the quote on; past the closing one, or NULL. */
static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end; p++)
	{
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

static const char *
skip_digits(const char *p, const char *end)
{
	const char *begin = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p > begin ? p : NULL;
}

static const char *
skip_number(const char *p, const char *end)
{
	if (*p == '-')
		p++;
	p = skip_digits(p, end);
	if (p && p < end && *p == '.')
		p = skip_digits(p + 1, end);
	if (p && p < end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = skip_digits(p, end);
	}
	return p;
}

static const char *
skip_word(const char *p, const char *end)
{
	static const char *const words[] = { "true", "false", "null" };

	for (int i = 0; i < lengthof(words); i++)
	{
		size_t length = strlen(words[i]);

		if (end - p >= length && memcmp(p, words[i], length) == 0)
			return p + length;
	}
	return NULL;
}

/* `"name" :`, up to the value; the field gets the name. */
static const char *
skip_name(const char *p, const char *end, CrmJsonField *field)
{
	const char *begin = p;

	if (p >= end || *p != '"' || (p = skip_string(p, end)) == NULL)
		return NULL;
	field->name = begin + 1;
	field->name_length = p - begin - 2;
	p = skip_space(p, end);
	if (p >= end || *p != ':')
		return NULL;
	return skip_space(p + 1, end);
}

/* An object or an array, from its bracket on; *n counts its members. */
static const char *
skip_members(const char *p, const char *end, int depth, CrmJsonField *fields, int room, int *n)
{
	bool object = *p == '{';
	char closing = object ? '}' : ']';

	*n = 0;
	if (depth >= MAX_DEPTH)
		return NULL;
	p = skip_space(p + 1, end);
	if (p < end && *p == closing)
		return p + 1;
	for (;;)
	{
		CrmJsonField field = { 0 };

		if (object && (p = skip_name(p, end, &field)) == NULL)
			return NULL;
		field.value = p;
		p = skip_value(p, end, depth + 1, &field.kind);
		if (p == NULL)
			return NULL;
		field.length = p - field.value;
		if (field.kind == CRM_JSON_STRING)
		{
			field.value++;
			field.length -= 2;
		}
		if (*n < room)
			fields[*n] = field;
		++*n;
		p = skip_space(p, end);
		if (p >= end)
			return NULL;
		if (*p == closing)
			return p + 1;
		if (*p != ',')
			return NULL;
		p = skip_space(p + 1, end);
	}
}

static const char *
skip_value(const char *p, const char *end, int depth, CrmJsonKind *kind)
{
	int n;

	if (p >= end)
		return NULL;
	switch (*p)
	{
		case '"':
			*kind = CRM_JSON_STRING;
			return skip_string(p, end);
		case '{':
		case '[':
			*kind = *p == '{' ? CRM_JSON_OBJECT : CRM_JSON_ARRAY;
			return skip_members(p, end, depth, NULL, 0, &n);
		case 't':
		case 'f':
		case 'n':
			*kind = CRM_JSON_WORD;
			return skip_word(p, end);
		default:
			*kind = CRM_JSON_NUMBER;
			return skip_number(p, end);
	}
}

int
crm_json_fields(const char *text, size_t length, CrmJsonField *fields, int room)
{
	const char *end = text + length;
	const char *p = text;
	int n;

	/* a byte order mark is no part of it */
	if (length >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3;
	p = skip_space(p, end);
	if (p >= end || *p != '{')
		return -1;
	p = skip_members(p, end, 0, fields, room, &n);
	if (p == NULL || skip_space(p, end) != end)
		return -1;
	return n;
}

/* The last one counts, as in jsonb. */
const CrmJsonField *
crm_json_find(const CrmJsonField *fields, int n, const char *name)
{
	size_t length = strlen(name);

	for (int i = n - 1; i >= 0; i--)
		if (fields[i].name_length == length && memcmp(fields[i].name, name, length) == 0)
			return &fields[i];
	return NULL;
}

/* Four hexadecimal digits; -1 where they are not there. */
static int
hex4(const char *p, const char *end)
{
	int value = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char c = p[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			value = value * 16 + (c | 0x20) - 'a' + 10;
		else
			return -1;
	}
	return value;
}

/* After `\u`; appends the character, a question mark for what is none. */
static const char *
append_unicode(StringInfo to, const char *p, const char *end)
{
	unsigned char utf8[8] = { 0 };
	int code = hex4(p, end);

	if (code < 0)
	{
		appendStringInfoChar(to, '?');
		return p;
	}
	p += 4;
	if (code >= 0xD800 && code < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u')
	{
		int low = hex4(p + 2, end);

		if (low >= 0xDC00 && low < 0xE000)
		{
			code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
			p += 6;
		}
	}
	if (code == 0 || (code >= 0xD800 && code < 0xE000))
		code = '?';
	unicode_to_utf8(code, utf8);
	appendBinaryStringInfo(to, (char *) utf8, pg_encoding_mblen(PG_UTF8, (char *) utf8));
	return p;
}

/* Not cleaned: may hold anything but what an escape stands for. */
static void
unescape(StringInfo to, const char *p, const char *end)
{
	while (p < end)
	{
		char c = *p++;

		if (c != '\\' || p >= end)
		{
			appendStringInfoChar(to, c);
			continue;
		}
		c = *p++;
		switch (c)
		{
			case 'u':
				p = append_unicode(to, p, end);
				break;
			case 'b':
			case 'f':
			case 'n':
			case 'r':
			case 't':
				appendStringInfoChar(to, ' ');
				break;
			default:
				appendStringInfoChar(to, c);
		}
	}
}

char *
crm_json_text(const CrmJsonField *field)
{
	StringInfoData text;
	char *clean;

	if (field == NULL || (field->kind != CRM_JSON_STRING && field->kind != CRM_JSON_NUMBER))
		return NULL;
	initStringInfo(&text);
	unescape(&text, field->value, field->value + field->length);
	clean = crm_clean_text(text.data, text.len, text.len);
	pfree(text.data);
	return clean;
}

bool
crm_json_int(const CrmJsonField *field, int *value)
{
	char *text = crm_json_text(field);
	char *end;
	long number;

	if (text == NULL)
		return false;
	errno = 0;
	number = strtol(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || number < PG_INT32_MIN || number > PG_INT32_MAX)
		return false;
	*value = (int) number;
	return true;
}

char *
crm_clean_text(const char *bytes, size_t length, size_t most)
{
	char *text = palloc(Min(length, most) + 1);
	bool utf8 = GetDatabaseEncoding() == PG_UTF8;
	size_t n = 0;

	for (size_t at = 0; at < length && n < most;)
	{
		const unsigned char *p = (const unsigned char *) bytes + at;
		int size = 1;

		if (*p < 0x80)
			text[n++] = *p < ' ' || *p == 0x7F ? ' ' : *p;
		else
		{
			size = pg_encoding_mblen(PG_UTF8, (const char *) p);
			if (size > length - at || !pg_utf8_islegal(p, size))
			{
				text[n++] = '?';
				size = 1;
			}
			else if (!utf8)
				text[n++] = '?';
			else if (n + size > most)
				break;
			else
			{
				memcpy(text + n, p, size);
				n += size;
			}
		}
		at += size;
	}
	text[n] = '\0';
	return text;
}
