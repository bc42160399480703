-- insight: what conversions are credited to

CREATE TABLE IF NOT EXISTS crm.attribution (
	name text PRIMARY KEY,
	on_kind text NOT NULL,
	rule text,
	touches text[] NOT NULL DEFAULT '{associate,campaign,journey,code}'
		CHECK (touches <@ '{associate,campaign,code,journey,store}' AND pg_catalog.cardinality(touches) > 0),
	model text NOT NULL DEFAULT 'last' CHECK (model IN ('first', 'last', 'linear', 'every')),
	look_back interval NOT NULL DEFAULT '30 days',
	label text,
	version integer NOT NULL DEFAULT 1
);
COMMENT ON TABLE crm.attribution IS 'A rule of attribution: what a conversion is, and which touches before it are credited with it.';
COMMENT ON COLUMN crm.attribution.name IS 'Name of the rule, by which attribution_report() takes it.';
COMMENT ON COLUMN crm.attribution.on_kind IS 'Kind of the fact that is a conversion: purchase, scan, or that of an event.';
COMMENT ON COLUMN crm.attribution.rule IS 'Rule over that fact and its contact; NULL for every fact of the kind.';
COMMENT ON COLUMN crm.attribution.touches IS 'What counts as a touch, of associate, campaign, code, journey and store. A scan or message is one touch: that of the first of these that it has.';
COMMENT ON COLUMN crm.attribution.model IS 'first or last: that touch alone; linear: all of them in equal parts; every: each of them in full, so that credits add up to more than the conversions.';
COMMENT ON COLUMN crm.attribution.look_back IS 'How long before a conversion a touch may be.';
COMMENT ON COLUMN crm.attribution.label IS 'Name shown to people.';
COMMENT ON COLUMN crm.attribution.version IS 'Counts the saves of the definition.';

CREATE OR REPLACE TRIGGER crm_check_attribution BEFORE INSERT OR UPDATE ON crm.attribution
	FOR EACH ROW EXECUTE FUNCTION crm.check_attribution();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.attribution
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();
