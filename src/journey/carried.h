/*
 * carried.h
 *		What an enrolment carries: the fact that let the contact in, and what its
 *		steps saved.
 */
#ifndef CRM_JOURNEY_CARRIED_H
#define CRM_JOURNEY_CARRIED_H

#include "postgres.h"

#include "journey/engine.h"

/* A value of each run as text, NULL where it has none: entry.x, context.x, or a column of the profile. */
extern char **crm_run_values(const CrmMoves *moves, const char *name);

/* The same of one document: its member by a path of names with dots between. */
extern char *crm_member_text(Jsonb *document, const char *path);

/* The fact that let the contact in, as a rule sees it; what it did not have is NULL. */
extern void crm_run_fact(const CrmRun *run, CrmFactValues *fact);

/* What a template is filled with: the step's params, entry and context. */
extern Jsonb *crm_run_params(const CrmRun *run, Jsonb *step_params);

/* A document of a step with its places filled; raises 22023 where a value is missing. */
extern Jsonb *crm_run_fill(const CrmRun *run, Jsonb *document);

/* Saves a text in the context, under this name. */
extern void crm_run_save(CrmRun *run, const char *name, const char *value);

/* The same of a reply: as JSON where it is JSON, else as text. */
extern void crm_run_save_json(CrmRun *run, const char *name, const char *value);

/* A document with this member more. */
extern Jsonb *crm_document_with(Jsonb *document, const char *name, Jsonb *value);

extern Jsonb *crm_empty_document(void);
extern Jsonb *crm_text_json(const char *text); /* a string */

#endif /* CRM_JOURNEY_CARRIED_H */
