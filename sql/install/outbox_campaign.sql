-- outbox: campaigns

CREATE TABLE IF NOT EXISTS crm.campaign (
	name text PRIMARY KEY,
	template text,
	audience text,
	stage text,
	params jsonb NOT NULL DEFAULT '{}',
	scheduled_at timestamptz CHECK (pg_catalog.isfinite(scheduled_at)),
	state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'scheduled', 'sent')),
	sent_at timestamptz,
	contacts bigint NOT NULL DEFAULT 0,
	label text
);
COMMENT ON TABLE crm.campaign IS 'A push to an audience; send_campaign() queues it.';
COMMENT ON COLUMN crm.campaign.name IS 'Name of the campaign; its messages have the send_key campaign:NAME.';
COMMENT ON COLUMN crm.campaign.template IS 'The template that is sent; needed by then.';
COMMENT ON COLUMN crm.campaign.audience IS 'Rule over the profile: who is meant; NULL for everybody.';
COMMENT ON COLUMN crm.campaign.stage IS 'Only contacts at this stage; NULL for all.';
COMMENT ON COLUMN crm.campaign.params IS 'Values for the template, the same for all.';
COMMENT ON COLUMN crm.campaign.scheduled_at IS 'When its messages are due; NULL or past: at once.';
COMMENT ON COLUMN crm.campaign.state IS 'draft; scheduled: queued, and due later; sent: queued, and due.';
COMMENT ON COLUMN crm.campaign.sent_at IS 'When it was first queued.';
COMMENT ON COLUMN crm.campaign.contacts IS 'For how many contacts it was queued.';
COMMENT ON COLUMN crm.campaign.label IS 'Name shown to people.';

CREATE OR REPLACE TRIGGER crm_check_campaign BEFORE INSERT OR UPDATE ON crm.campaign
	FOR EACH ROW EXECUTE FUNCTION crm.check_campaign();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.campaign
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();

CREATE OR REPLACE VIEW crm.campaign_report AS
SELECT c.name AS campaign, c.template, CASE WHEN c.state = 'scheduled' AND c.scheduled_at <= crm.now() THEN 'sent' ELSE c.state END AS state,
       c.scheduled_at, c.sent_at,
       COALESCE(m.messages, 0) AS messages, COALESCE(m.queued, 0) AS queued, COALESCE(m.sent, 0) AS sent, COALESCE(m.failed, 0) AS failed,
       COALESCE(m.refused, 0) AS refused, COALESCE(m.expired, 0) AS expired, COALESCE(m.cancelled, 0) AS cancelled, COALESCE(m.unknown, 0) AS unknown,
       COALESCE(m.reasons, '{}') AS reasons
  FROM crm.campaign AS c
  LEFT JOIN (SELECT s.send_key, pg_catalog.sum(s.messages)::bigint AS messages,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state IN ('queued', 'sending')))::bigint AS queued,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state IN ('sent', 'waiting')))::bigint AS sent,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state = 'failed'))::bigint AS failed,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state = 'refused'))::bigint AS refused,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state = 'expired'))::bigint AS expired,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state = 'cancelled'))::bigint AS cancelled,
                    (pg_catalog.sum(s.messages) FILTER (WHERE s.state = 'unknown'))::bigint AS unknown,
                    pg_catalog.jsonb_object_agg(s.state || ' ' || s.reason, s.messages) FILTER (WHERE s.reason IS NOT NULL) AS reasons
               FROM (SELECT o.send_key, o.state, o.reason, pg_catalog.count(*) AS messages
                       FROM crm.message AS o
                      WHERE o.send_key LIKE 'campaign:%'
                      GROUP BY o.send_key, o.state, o.reason) AS s
              GROUP BY s.send_key) AS m ON m.send_key = 'campaign:' || c.name;
COMMENT ON VIEW crm.campaign_report IS 'What became of the messages of each campaign.';
COMMENT ON COLUMN crm.campaign_report.campaign IS 'Name of the campaign.';
COMMENT ON COLUMN crm.campaign_report.template IS 'Its template.';
COMMENT ON COLUMN crm.campaign_report.state IS 'draft, scheduled or sent, as of now.';
COMMENT ON COLUMN crm.campaign_report.scheduled_at IS 'When its messages are due.';
COMMENT ON COLUMN crm.campaign_report.sent_at IS 'When it was first queued.';
COMMENT ON COLUMN crm.campaign_report.messages IS 'Its messages, the sum of the seven numbers that follow.';
COMMENT ON COLUMN crm.campaign_report.queued IS 'To be sent, or on their way.';
COMMENT ON COLUMN crm.campaign_report.sent IS 'Taken by the platform.';
COMMENT ON COLUMN crm.campaign_report.failed IS 'That the platform, or their own content, was against.';
COMMENT ON COLUMN crm.campaign_report.refused IS 'Not allowed when they were due.';
COMMENT ON COLUMN crm.campaign_report.expired IS 'Whose time was over.';
COMMENT ON COLUMN crm.campaign_report.cancelled IS 'Taken back.';
COMMENT ON COLUMN crm.campaign_report.unknown IS 'Of which nobody knows whether they arrived.';
COMMENT ON COLUMN crm.campaign_report.reasons IS 'How many by state and reason, for example {"refused suppressed": 12}.';
