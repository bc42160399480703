-- facts: asking for messages, and what people say about being written to

CREATE FUNCTION crm.send(contact_id bigint, template text, params jsonb DEFAULT '{}', send_key text DEFAULT NULL,
	due_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_send';
COMMENT ON FUNCTION crm.send(bigint, text, jsonb, text, timestamptz, timestamptz) IS 'Queues a message in this transaction; returns its message_id. With a send_key a contact gets it once.';
REVOKE ALL ON FUNCTION crm.send(bigint, text, jsonb, text, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.send_many(contact_ids bigint[], template text, params jsonb DEFAULT '{}', send_key text DEFAULT NULL,
	due_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_send_many';
COMMENT ON FUNCTION crm.send_many(bigint[], text, jsonb, text, timestamptz, timestamptz) IS 'send() for many contacts at once; returns how many messages were queued, those of an earlier call with this key not counted.';
REVOKE ALL ON FUNCTION crm.send_many(bigint[], text, jsonb, text, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.grant_consent(contact_id bigint, channel text, class text, at timestamptz DEFAULT NULL,
	proof jsonb DEFAULT '{}') RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_grant_consent';
COMMENT ON FUNCTION crm.grant_consent(bigint, text, text, timestamptz, jsonb) IS 'The contact agrees to messages of this class on this channel.';
REVOKE ALL ON FUNCTION crm.grant_consent(bigint, text, text, timestamptz, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.withdraw_consent(contact_id bigint, channel text, class text, at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_withdraw_consent';
COMMENT ON FUNCTION crm.withdraw_consent(bigint, text, text, timestamptz) IS 'The contact wants no messages of this class on this channel.';
REVOKE ALL ON FUNCTION crm.withdraw_consent(bigint, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.cancel_message(contact_id bigint, message_id bigint) RETURNS boolean
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_cancel_message';
COMMENT ON FUNCTION crm.cancel_message(bigint, bigint) IS 'Takes a queued message back; true if it is cancelled, false if it was too late.';
REVOKE ALL ON FUNCTION crm.cancel_message(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION crm.resolve_message(contact_id bigint, message_id bigint, state text, note text DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_resolve_message';
COMMENT ON FUNCTION crm.resolve_message(bigint, bigint, text, text) IS 'What a person found out about an unknown or waiting message: sent or failed.';
REVOKE ALL ON FUNCTION crm.resolve_message(bigint, bigint, text, text) FROM PUBLIC;

CREATE FUNCTION crm.reachable(contact_id bigint, as_of timestamptz DEFAULT NULL, class text DEFAULT 'service',
	OUT channel text, OUT valid_until timestamptz, OUT remaining integer, OUT reason text, OUT account text, OUT api text)
RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_reachable';
COMMENT ON FUNCTION crm.reachable(bigint, timestamptz, text) IS 'By which accounts the contact can be written to, until when and how often; reason says why not.';
REVOKE ALL ON FUNCTION crm.reachable(bigint, timestamptz, text) FROM PUBLIC;
