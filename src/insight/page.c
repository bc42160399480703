/*
 * page.c
 *		Writes a self-contained HTML page: headings, tables and pictures.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "insight/page.h"
#include "insight/picture.h"

/* The colours are those of the pictures, for light and dark screens; paper is light. */
static const char style_sheet[] =
	"<style>\n"
	":root{color-scheme:light dark}\n"
	"body{margin:0 auto;max-width:1008px;padding:32px 24px 64px;background:#ffffff;color:#1b1f24;"
	"font:15px/1.5 system-ui,-apple-system,'Segoe UI','Noto Sans','DejaVu Sans','PingFang SC',"
	"'Microsoft YaHei','Noto Sans CJK SC',sans-serif;font-variant-numeric:tabular-nums}\n"
	"h1{font-size:28px;line-height:1.2;margin:0 0 4px}\n"
	"h2{font-size:21px;margin:48px 0 12px;padding-top:14px;border-top:2px solid #0b7a75}\n"
	"h3{font-size:15px;margin:28px 0 8px}\n"
	"p{margin:8px 0}\n"
	".subtitle,.note,.remark,.figure-name{color:#656d76}\n"
	".note{font-size:14px}\n"
	"nav{margin:24px 0;padding:12px 18px;background:#f6f7f8;border-radius:8px}\n"
	"nav ol{margin:0;padding-left:22px;columns:3}\n"
	"a{color:#0b7a75}\n"
	".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(216px,1fr));gap:12px;margin:16px 0}\n"
	".figure{border:1px solid #dfe3e7;border-radius:8px;padding:12px 14px;min-width:0;overflow-wrap:anywhere}\n"
	".figure-name{font-size:13px}\n"
	".figure-value{font-size:24px;font-weight:600;line-height:1.3}\n"
	".remark{font-size:13px}\n"
	".scroll{overflow-x:auto}\n"
	"table{border-collapse:collapse;width:100%;font-size:14px}\n"
	"caption{text-align:left;font-weight:600;padding:14px 0 6px}\n"
	"th,td{text-align:left;vertical-align:top;padding:6px 10px;border-bottom:1px solid #e4e7eb;"
	"overflow-wrap:break-word;max-width:20em}\n"
	"th{font-weight:600;color:#656d76;border-bottom-color:#9aa2ab;max-width:none}\n"
	"th.number,td.number{text-align:right;white-space:nowrap;max-width:none}\n"
	/* the margin of a picture is that of the page */
	".picture{margin:16px -24px}\n"
	".picture svg{display:block;max-width:100%;height:auto}\n"
	"@media (prefers-color-scheme:dark){\n"
	"body{background:#15181c;color:#e8eaed}\n"
	"h2{border-top-color:#35c9bd}\n"
	".subtitle,.note,.remark,.figure-name,th{color:#9aa4af}\n"
	"nav{background:#1e2329}\n"
	"a{color:#35c9bd}\n"
	".figure{border-color:#3a424b}\n"
	"th,td{border-bottom-color:#2a2f36}\n"
	"th{border-bottom-color:#6b747e}\n"
	"}\n"
	"@media (max-width:640px){nav ol{columns:1}}\n"
	"@media print{\n"
	"body{max-width:none;padding:0;font-size:12px}\n"
	"h2,h3,caption{break-after:avoid}\n"
	"tr,.figure,.picture{break-inside:avoid}\n"
	"thead{display:table-header-group}\n"
	".scroll{overflow:visible}\n"
	".picture{margin:16px 0}\n"
	"table{font-size:11px}\n"
	"}\n"
	"</style>\n";

static void
add(CrmPage *page, const char *html)
{
	appendStringInfoString(&page->html, html);
}

static void
add_text(CrmPage *page, const char *before, const char *string, const char *after)
{
	add(page, before);
	crm_picture_escape(&page->html, string);
	add(page, after);
}

void
crm_page_open(CrmPage *page, const char *title, const char *subtitle)
{
	initStringInfo(&page->html);
	/* what is in it runs nothing and fetches nothing, whatever it is */
	add(page,
		"<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
		"<meta charset=\"utf-8\"/>\n"
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
		"<meta name=\"color-scheme\" content=\"light dark\"/>\n");
	add_text(page, "<title>", title, "</title>\n");
	add(page, style_sheet);
	add(page, crm_picture_style);
	add(page, "</head>\n<body>\n<header>\n");
	add_text(page, "<h1>", title, "</h1>\n");
	add_text(page, "<p class=\"subtitle\">", subtitle, "</p>\n");
	add(page, "</header>\n");
}

text *
crm_page_close(CrmPage *page)
{
	add(page, "</body>\n</html>\n");
	return cstring_to_text_with_len(page->html.data, page->html.len);
}

void
crm_page_contents(CrmPage *page, const char *const *ids, const char *const *titles, int n)
{
	add(page, "<nav aria-label=\"Contents\">\n<ol>\n");
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(&page->html, "<li><a href=\"#%s\">", ids[i]);
		add_text(page, "", titles[i], "</a></li>\n");
	}
	add(page, "</ol>\n</nav>\n");
}

void
crm_page_section(CrmPage *page, const char *id, const char *title)
{
	appendStringInfo(&page->html, "<section id=\"%s\">\n", id);
	add_text(page, "<h2>", title, "</h2>\n");
}

void
crm_page_section_end(CrmPage *page)
{
	add(page, "</section>\n");
}

void
crm_page_note(CrmPage *page, const char *note)
{
	add_text(page, "<p class=\"note\">", note, "</p>\n");
}

void
crm_page_figures(CrmPage *page)
{
	add(page, "<div class=\"figures\">\n");
}

void
crm_page_figure(CrmPage *page, const char *name, const char *value, const char *remark)
{
	add(page, "<div class=\"figure\">");
	add_text(page, "<div class=\"figure-name\" dir=\"auto\">", name, "</div>");
	add_text(page, "<div class=\"figure-value\">", value, "</div>");
	add_text(page, "<div class=\"remark\">", remark, "</div></div>\n");
}

void
crm_page_figures_end(CrmPage *page)
{
	add(page, "</div>\n");
}

void
crm_page_table(CrmPage *page, const char *caption)
{
	add(page, "<div class=\"scroll\">\n<table>\n");
	add_text(page, "<caption>", caption, "</caption>\n");
	add(page, "<thead>\n");
}

void
crm_page_row(CrmPage *page)
{
	add(page, "<tr>");
}

void
crm_page_head(CrmPage *page, const char *name, bool is_number)
{
	add_text(page, is_number ? "<th scope=\"col\" class=\"number\">" : "<th scope=\"col\">", name,
			 "</th>");
}

void
crm_page_cell(CrmPage *page, const char *value, bool is_number)
{
	add(page, is_number ? "<td class=\"number\">" : "<td dir=\"auto\">");
	if (value == NULL)
		add(page, "&#8211;");
	else
		crm_picture_escape(&page->html, value);
	add(page, "</td>");
}

void
crm_page_row_end(CrmPage *page)
{
	add(page, "</tr>\n");
}

void
crm_page_table_body(CrmPage *page)
{
	add(page, "</thead>\n<tbody>\n");
}

void
crm_page_table_end(CrmPage *page)
{
	add(page, "</tbody>\n</table>\n</div>\n");
}

void
crm_page_picture(CrmPage *page, const text *svg)
{
	char *whole = text_to_cstring(svg);
	char *style = strstr(whole, crm_picture_style);

	Assert(style != NULL);
	add(page, "<div class=\"picture\">\n");
	appendBinaryStringInfo(&page->html, whole, style - whole);
	add(page, style + strlen(crm_picture_style));
	add(page, "</div>\n");
	pfree(whole);
}
