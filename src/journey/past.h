/*
 * past.h
 *		Facts that were recorded before, as rules read them: the columns by
 *		CrmFactColumn from the amount on, of a row under the alias named here.
 */
#ifndef CRM_PAST_H
#define CRM_PAST_H

/* e: crm.event */
#define CRM_PAST_EVENT                                                                \
	"NULL::numeric, NULL::text, NULL::text, NULL::jsonb, NULL::bigint, e.account_id," \
	" e.properties, NULL::bigint, NULL::text,"                                        \
	" CASE WHEN e.kind = 'field_change' THEN e.properties ->> 'field' END,"           \
	" CASE WHEN e.kind = 'field_change' THEN e.properties ->> 'old' END,"             \
	" CASE WHEN e.kind = 'field_change' THEN e.properties ->> 'new' END"
/* t: crm.transaction */
#define CRM_PAST_ORDER(amount)                                                             \
	amount ", t.currency, t.external_ref, t.items, t.store_id, NULL::bigint, NULL::jsonb," \
		   " NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text"
/* s: crm.scan, q: its code */
#define CRM_PAST_SCAN                                                                            \
	"NULL::numeric, NULL::text, NULL::text, NULL::jsonb, q.store_id, q.account_id, NULL::jsonb," \
	" s.qr_code_id, q.campaign, NULL::text, NULL::text, NULL::text"
#define CRM_PAST_SIGNAL(properties)                                                               \
	"NULL::numeric, NULL::text, NULL::text, NULL::jsonb, NULL::bigint, NULL::bigint, " properties \
	", NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text"
/* m: crm.stage_move, a: crm.award, c: crm.segment_change */
#define CRM_PAST_STAGE                                                          \
	CRM_PAST_SIGNAL("jsonb_build_object('stage', m.stage, 'reason', m.reason,"  \
					" 'from', (SELECT b.stage FROM crm.stage_move b"            \
					"  WHERE b.contact_id = m.contact_id AND b.since < m.since" \
					"  ORDER BY b.since DESC LIMIT 1))")
#define CRM_PAST_AWARD                                                 \
	CRM_PAST_SIGNAL("jsonb_build_object('achievement', a.achievement," \
					" 'threshold', a.threshold)")
#define CRM_PAST_SEGMENT CRM_PAST_SIGNAL("jsonb_build_object('segment', c.segment)")

#endif /* CRM_PAST_H */
