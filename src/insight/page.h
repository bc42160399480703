/*
 * page.h
 *		Writes a self-contained HTML page: headings, tables and pictures.
 *
 * It is well-formed XML too. What callers hand over as text is escaped here; own
 * text is ASCII, so that pages can be made in a database of any encoding.
 */
#ifndef CRM_PAGE_H
#define CRM_PAGE_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef struct CrmPage
{
	StringInfoData html;
} CrmPage;

extern void crm_page_open(CrmPage *page, const char *title, const char *subtitle);
extern text *crm_page_close(CrmPage *page);

/* A list of links to the sections, in their order. */
extern void crm_page_contents(CrmPage *page, const char *const *ids, const char *const *titles,
							  int n);

extern void crm_page_section(CrmPage *page, const char *id, const char *title);
extern void crm_page_section_end(CrmPage *page);
extern void crm_page_note(CrmPage *page, const char *note);

/* Figures side by side: what it is, how much, and a remark. */
extern void crm_page_figures(CrmPage *page);
extern void crm_page_figure(CrmPage *page, const char *name, const char *value, const char *remark);
extern void crm_page_figures_end(CrmPage *page);

/* NULL is shown as a dash; numbers stand at the right. */
extern void crm_page_table(CrmPage *page, const char *caption);
extern void crm_page_row(CrmPage *page);
extern void crm_page_head(CrmPage *page, const char *name, bool is_number);
extern void crm_page_cell(CrmPage *page, const char *value, bool is_number);
extern void crm_page_row_end(CrmPage *page);
extern void crm_page_table_body(CrmPage *page); /* after the heads */
extern void crm_page_table_end(CrmPage *page);

/* A standalone SVG; its style sheet, which the page has already, is left out. */
extern void crm_page_picture(CrmPage *page, const text *svg);

#endif /* CRM_PAGE_H */
