-- rules: what failed while a rule was evaluated

CREATE TABLE IF NOT EXISTS crm.rule_error (
	contact_id bigint NOT NULL,
	object_kind text NOT NULL,
	object text NOT NULL,
	day date NOT NULL,
	times bigint NOT NULL DEFAULT 1,
	first_at timestamptz NOT NULL,
	last_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	PRIMARY KEY (contact_id, object_kind, object, day)
);
COMMENT ON TABLE crm.rule_error IS 'A rule that failed for a contact, where it counted as false: one row a contact, object and day.';
COMMENT ON COLUMN crm.rule_error.contact_id IS 'The contact.';
COMMENT ON COLUMN crm.rule_error.object_kind IS 'What the rule belongs to: segment, audience, ...';
COMMENT ON COLUMN crm.rule_error.object IS 'Its name; empty for an audience.';
COMMENT ON COLUMN crm.rule_error.day IS 'Day of the failures, in pg_crm.time_zone.';
COMMENT ON COLUMN crm.rule_error.times IS 'How often it failed on that day.';
COMMENT ON COLUMN crm.rule_error.first_at IS 'When for the first time.';
COMMENT ON COLUMN crm.rule_error.last_at IS 'When for the last time.';
COMMENT ON COLUMN crm.rule_error.sqlstate IS 'SQLSTATE of the last failure.';
COMMENT ON COLUMN crm.rule_error.message IS 'Message of the last failure; it may hold values of the contact.';
