/*
 * mermaid.h
 *		Texts in Mermaid charts.
 */
#ifndef CRM_MERMAID_H
#define CRM_MERMAID_H

#include "postgres.h"

#include "lib/stringinfo.h"

/*
 * Inside quotes Mermaid reads Markdown, HTML and #35; as a character, so all but
 * letters, digits and what is harmless is written as such a number.
 */
extern void crm_mermaid_quote(StringInfo chart, const char *string);

#endif /* CRM_MERMAID_H */
