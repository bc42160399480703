/*
 * render.c
 *		SQL functions that fill and check templates.
 */
#include "pg_crm.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "outbox/template.h"

PG_FUNCTION_INFO_V1(rooms_template_check);
PG_FUNCTION_INFO_V1(rooms_template_render);
PG_FUNCTION_INFO_V1(rooms_template_fill);

Datum
rooms_template_check(PG_FUNCTION_ARGS)
{
	crm_template_check_places(PG_GETARG_JSONB_P(0));
	PG_RETURN_BOOL(crm_template_has_places(PG_GETARG_JSONB_P(0)));
}

/* template_render(body, params, contact): = and the text, or ? and the name of what is missing */
Datum
rooms_template_render(PG_FUNCTION_ARGS)
{
	char *missing;
	char *text = crm_template_render(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1),
									 PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2), &missing);

	PG_RETURN_TEXT_P(
		cstring_to_text(text == NULL ? psprintf("?%s", missing) : psprintf("=%s", text)));
}

/* template_fill(text, params): NULL where a value is missing */
Datum
rooms_template_fill(PG_FUNCTION_ARGS)
{
	char *filled = crm_template_fill(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_JSONB_P(1));

	if (filled == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(filled));
}
