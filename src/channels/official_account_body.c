/*
 * official_account_body.c
 *		What may stand in the body of a message of an official account: the object
 *		that the platform wants under the name of the type, beside it
 *		"customservice"; of a template message all but the recipient.
 */
#include "pg_crm.h"

#include "mb/pg_wchar.h"

#include "channels/official_account.h"

/* bytes; more is refused with 45002 */
#define MAX_TEXT_BYTES 2048

typedef enum Kind
{
	TEXT,
	OBJECT,
	LIST,  /* of objects, not empty */
	VALUES /* an object of objects */
} Kind;

typedef struct Part
{
	const char *name; /* NULL ends a list of parts */
	Kind kind;
	bool required;
	const struct Part *inner;
	int most; /* bytes of a text besides its placeholders; 0: any */
} Part;

/* clang-format off */
static const Part text_parts[] = { { "content", TEXT, true, NULL, MAX_TEXT_BYTES }, { NULL } };
static const Part media[] = { { "media_id", TEXT, true }, { NULL } };
static const Part video[] = {
	{ "media_id", TEXT, true }, { "thumb_media_id", TEXT, true },
	{ "title", TEXT }, { "description", TEXT }, { NULL } };
static const Part music[] = {
	{ "title", TEXT }, { "description", TEXT }, { "musicurl", TEXT, true },
	{ "hqmusicurl", TEXT, true }, { "thumb_media_id", TEXT, true }, { NULL } };
static const Part article[] = {
	{ "title", TEXT, true }, { "description", TEXT }, { "url", TEXT, true }, { "picurl", TEXT }, { NULL } };
static const Part news[] = { { "articles", LIST, true, article }, { NULL } };
static const Part mpnewsarticle[] = { { "article_id", TEXT, true }, { NULL } };
static const Part choice[] = { { "id", TEXT, true }, { "content", TEXT, true }, { NULL } };
static const Part msgmenu[] = {
	{ "head_content", TEXT, true }, { "list", LIST, true, choice }, { "tail_content", TEXT }, { NULL } };
static const Part wxcard[] = { { "card_id", TEXT, true }, { NULL } };
static const Part miniprogrampage[] = {
	{ "title", TEXT, true }, { "appid", TEXT, true }, { "pagepath", TEXT, true },
	{ "thumb_media_id", TEXT, true }, { NULL } };
static const Part link_card[] = {
	{ "title", TEXT, true }, { "description", TEXT, true }, { "url", TEXT, true },
	{ "thumb_url", TEXT, true }, { NULL } };
static const Part template_value[] = { { "value", TEXT, true }, { "color", TEXT }, { NULL } };
static const Part miniprogram[] = { { "appid", TEXT, true }, { "pagepath", TEXT }, { NULL } };
static const Part template[] = {
	{ "template_id", TEXT, true }, { "data", VALUES, true, template_value }, { "url", TEXT },
	{ "miniprogram", OBJECT, false, miniprogram }, { NULL } };
static const Part agent[] = { { "kf_account", TEXT, true }, { NULL } };

/* beside the parts of every type but template */
static const Part customservice = { "customservice", OBJECT, false, agent };

static const struct
{
	const char *message_type;
	const Part *parts;
} bodies[] = {
	{ "text", text_parts }, { "image", media }, { "voice", media }, { "video", video },
	{ "music", music }, { "news", news }, { "mpnews", media }, { "mpnewsarticle", mpnewsarticle },
	{ "msgmenu", msgmenu }, { "wxcard", wxcard }, { "miniprogrampage", miniprogrampage },
	{ "link", link_card }, { "template", template },
};
/* clang-format on */

static void check_object(const char *message_type, JsonbContainer *object, const Part *parts,
						 const Part *beside, const char *path);

static void refuse(const char *message_type, const char *path, const char *what,
				   const char *hint) CRM_NORETURN;

static void
refuse(const char *message_type, const char *path, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s %s in the body of a \"%s\" message", path, what, message_type),
			 errhint("%s", hint)));
}

/* Bytes outside of {{...}}. */
static int
static_length(const char *s, int length)
{
	const char *end = s + length;
	int n = 0;

	while (s < end)
	{
		if (end - s >= 2 && s[0] == '{' && s[1] == '{')
		{
			const char *p = s + 2;

			while (end - p >= 2 && !(p[0] == '}' && p[1] == '}'))
				p++;
			if (end - p >= 2)
			{
				s = p + 2;
				continue;
			}
		}
		n++;
		s++;
	}
	return n;
}

static void
check_text(const char *message_type, JsonbValue *v, const Part *part, const char *path)
{
	int length;

	if (v->type != jbvString)
		refuse(message_type, path, "is no string", psprintf("Set %s to a string.", path));
	if (part->required && v->val.string.len == 0)
		refuse(message_type, path, "is empty",
			   psprintf("Set %s to a string of some length.", path));
	length = static_length(v->val.string.val, v->val.string.len);
	if (part->most > 0 && length > part->most)
		refuse(message_type, path, "is too long",
			   psprintf("%s has %d bytes besides what {{...}} stands for; the platform takes %d.",
						path, length, part->most));
}

static JsonbContainer *
container_of(const char *message_type, JsonbValue *v, bool array, const char *path)
{
	if (v->type == jbvBinary &&
		(array ? JsonContainerIsArray(v->val.binary.data)
			   : JsonContainerIsObject(v->val.binary.data)))
		return v->val.binary.data;
	refuse(message_type, path, array ? "is no array" : "is no object",
		   psprintf("Set %s to an %s.", path, array ? "array of objects" : "object"));
}

/* A key of an object, for messages. */
static char *
path_to(const char *path, const char *name, int length)
{
	return psprintf("%s.%.*s", path, pg_mbcliplen(name, length, 60), name);
}

/* Calls check_object() for each value; keys are the user's. */
static void
check_values(const char *message_type, JsonbContainer *object, const Part *part, const char *path)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue v;
	char *inner = NULL;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			inner = path_to(path, v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
			check_object(message_type, container_of(message_type, &v, false, inner), part->inner,
						 NULL, inner);
	}
	if (inner == NULL)
		refuse(message_type, path, "is empty",
			   psprintf("Give %s a key for each of the template's values.", path));
}

static void
check_part(const char *message_type, JsonbValue *v, const Part *part, const char *path)
{
	JsonbContainer *container;

	switch (part->kind)
	{
		case TEXT:
			check_text(message_type, v, part, path);
			break;
		case OBJECT:
			container = container_of(message_type, v, false, path);
			check_object(message_type, container, part->inner, NULL, path);
			break;
		case VALUES:
			container = container_of(message_type, v, false, path);
			check_values(message_type, container, part, path);
			break;
		case LIST:
			container = container_of(message_type, v, true, path);
			if (JsonContainerSize(container) == 0)
				refuse(message_type, path, "is empty", psprintf("Put an object into %s.", path));
			for (int i = 0; i < JsonContainerSize(container); i++)
			{
				char *inner = psprintf("%s[%d]", path, i);

				check_object(message_type,
							 container_of(message_type, getIthJsonbValueFromContainer(container, i),
										  false, inner),
							 part->inner, NULL, inner);
			}
			break;
	}
}

static const Part *
find_part(const Part *parts, const Part *beside, const char *name, int length)
{
	for (const Part *part = parts; part->name; part++)
		if (strlen(part->name) == length && memcmp(part->name, name, length) == 0)
			return part;
	if (beside && strlen(beside->name) == length && memcmp(beside->name, name, length) == 0)
		return beside;
	return NULL;
}

static char *
names_of(const Part *parts, const Part *beside)
{
	StringInfoData names;

	initStringInfo(&names);
	for (const Part *part = parts; part->name; part++)
		appendStringInfo(&names, "%s%s", part > parts ? ", " : "", part->name);
	if (beside)
		appendStringInfo(&names, ", %s", beside->name);
	return names.data;
}

static void
check_object(const char *message_type, JsonbContainer *object, const Part *parts,
			 const Part *beside, const char *path)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue v;
	const Part *part = NULL;

	for (const Part *needed = parts; needed->name; needed++)
		if (needed->required &&
			getKeyJsonValueFromContainer(object, needed->name, strlen(needed->name), NULL) == NULL)
		{
			char *missing = path_to(path, needed->name, strlen(needed->name));

			refuse(message_type, missing, "is missing",
				   psprintf("Set %s; known in %s are %s.", missing, path, names_of(parts, beside)));
		}
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			part = find_part(parts, beside, v.val.string.val, v.val.string.len);
			if (part == NULL)
				refuse(message_type, path_to(path, v.val.string.val, v.val.string.len),
					   "is not known",
					   psprintf("Known in %s are %s.", path, names_of(parts, beside)));
		}
		else if (token == WJB_VALUE)
			check_part(message_type, &v, part, path_to(path, part->name, strlen(part->name)));
	}
}

void
crm_official_account_check(const char *message_type, Jsonb *body)
{
	bool is_template = strcmp(message_type, "template") == 0;

	if (!JB_ROOT_IS_OBJECT(body))
		refuse(message_type, "$", "is no object",
			   psprintf("Set $ to the object that the platform wants%s.",
						is_template ? "" : psprintf(" under \"%s\"", message_type)));
	for (int i = 0; i < lengthof(bodies); i++)
		if (strcmp(bodies[i].message_type, message_type) == 0)
			check_object(message_type, &body->root, bodies[i].parts,
						 is_template ? NULL : &customservice, "$");
}
