/*
 * template.h
 *		The content of messages: JSON with places for values inside its strings.
 */
#ifndef CRM_TEMPLATE_H
#define CRM_TEMPLATE_H

#include "postgres.h"

#include "utils/jsonb.h"

/* Whether any string of the body has a place for a value. */
extern bool crm_template_has_places(const Jsonb *body);

/* Raises 22023 for a place in any string of it that is not {{name}} or {{name|fallback}}. */
extern void crm_template_check_places(Jsonb *body);

/* Whether a place asks for what params do not have, so that the contact is to be read. */
extern bool crm_template_asks_contact(const Jsonb *body, Jsonb *params);

/*
 * The body as JSON text, each place filled from params, else from contact (its
 * row as an object, or NULL), else by its fallback. NULL where a value is
 * missing; *missing is its name then.
 */
extern char *crm_template_render(Jsonb *body, Jsonb *params, Jsonb *contact, char **missing);

/* One string with places, filled from params alone; NULL where a value is missing. */
extern char *crm_template_fill(const char *text, Jsonb *params);

#endif /* CRM_TEMPLATE_H */
