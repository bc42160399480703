/*
 * json.h
 *		The outermost fields of a JSON object that a stranger wrote.
 *
 * PostgreSQL's parser is not used for that, because it raises: on deep nesting
 * in every version, on escapes that the server's encoding lacks before 16. And
 * it refuses control characters and broken UTF-8 inside strings, which platforms
 * do send, in names for example; an error code beside them must still be seen.
 */
#ifndef CRM_CHANNELS_JSON_H
#define CRM_CHANNELS_JSON_H

#include "postgres.h"

typedef enum CrmJsonKind
{
	CRM_JSON_STRING,
	CRM_JSON_NUMBER,
	CRM_JSON_OBJECT,
	CRM_JSON_ARRAY,
	CRM_JSON_WORD /* true, false, null */
} CrmJsonKind;

/* as written, inside the text; strings without their quotes */
typedef struct CrmJsonField
{
	const char *name;
	size_t name_length;
	CrmJsonKind kind;
	const char *value;
	size_t length;
} CrmJsonField;

/*
 * How many fields the object has, of which the first `room` are put into
 * `fields`; -1 where the text is not one whole object.
 */
extern int crm_json_fields(const char *text, size_t length, CrmJsonField *fields, int room);

/* NULL: not there. */
extern const CrmJsonField *crm_json_find(const CrmJsonField *fields, int n, const char *name);

/* Of a string or a number, by palloc; NULL of anything else, and of NULL. */
extern char *crm_json_text(const CrmJsonField *field);

/* A whole number, written as such or as a string. */
extern bool crm_json_int(const CrmJsonField *field, int *value);

/*
 * At most `most` bytes of it as one line that is valid in the server's encoding,
 * by palloc.
 */
extern char *crm_clean_text(const char *bytes, size_t length, size_t most);

#endif /* CRM_CHANNELS_JSON_H */
