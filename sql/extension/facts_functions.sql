-- facts: the functions that record them

CREATE FUNCTION crm.identify(account text, external_id text, unionid text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_identify';
COMMENT ON FUNCTION crm.identify(text, text, text) IS 'The contact of an identifier, made if nobody has it yet; a unionid joins the identifiers of one person. account is the name of an account, or unionid, mobile, email, customer.';
REVOKE ALL ON FUNCTION crm.identify(text, text, text) FROM PUBLIC;

CREATE FUNCTION crm.identify_many(account text, external_ids text[]) RETURNS TABLE (external_id text, contact_id bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_identify_many';
COMMENT ON FUNCTION crm.identify_many(text, text[]) IS 'The contacts of many identifiers, made where nobody has them yet; one row for each element, in their order.';
REVOKE ALL ON FUNCTION crm.identify_many(text, text[]) FROM PUBLIC;

CREATE FUNCTION crm.follow(account text, external_id text, at timestamptz DEFAULT NULL,
    scene text DEFAULT NULL, key text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_follow';
COMMENT ON FUNCTION crm.follow(text, text, timestamptz, text, text) IS 'Records that somebody followed an account, and the scan of the code that led there; returns the contact. An unknown or ended scene stays in the properties of the event.';
REVOKE ALL ON FUNCTION crm.follow(text, text, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.unfollow(account text, external_id text, at timestamptz DEFAULT NULL, key text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_unfollow';
COMMENT ON FUNCTION crm.unfollow(text, text, timestamptz, text) IS 'Records that somebody left an account; returns the contact.';
REVOKE ALL ON FUNCTION crm.unfollow(text, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.scan(scene text, account text, external_id text, at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, OUT contact_id bigint, OUT scan_id bigint, OUT is_first boolean)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_scan';
COMMENT ON FUNCTION crm.scan(text, text, text, timestamptz, text) IS 'Records the scan of a QR code; is_first says whether it was the one that counts when it was recorded.';
REVOKE ALL ON FUNCTION crm.scan(text, text, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.bind_mobile(contact_id bigint, mobile crm.mobile, at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_bind_mobile';
COMMENT ON FUNCTION crm.bind_mobile(bigint, crm.mobile, timestamptz) IS 'Records that a contact proved a mobile number; the contact who had it is merged. Returns the contact that remains.';
REVOKE ALL ON FUNCTION crm.bind_mobile(bigint, crm.mobile, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.track(contact_id bigint, kind text, properties jsonb DEFAULT '{}',
    at timestamptz DEFAULT NULL, key text DEFAULT NULL, account text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_track';
COMMENT ON FUNCTION crm.track(bigint, text, jsonb, timestamptz, text, text) IS 'Records an event; returns its event_id.';
REVOKE ALL ON FUNCTION crm.track(bigint, text, jsonb, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.purchase(contact_id bigint, amount numeric, at timestamptz DEFAULT NULL,
    external_ref text DEFAULT NULL, store_id bigint DEFAULT NULL, items jsonb DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_purchase';
COMMENT ON FUNCTION crm.purchase(bigint, numeric, timestamptz, text, bigint, jsonb) IS 'Records an order; returns its transaction_id. The same external_ref again returns the first one.';
REVOKE ALL ON FUNCTION crm.purchase(bigint, numeric, timestamptz, text, bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.refund(contact_id bigint, external_ref text, amount numeric, at timestamptz DEFAULT NULL,
    key text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_refund';
COMMENT ON FUNCTION crm.refund(bigint, text, numeric, timestamptz, text) IS 'Records that money of an order was given back; returns the refund''s transaction_id. The same key again returns the first one.';
REVOKE ALL ON FUNCTION crm.refund(bigint, text, numeric, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.join_loyalty(contact_id bigint, program text, at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_join_loyalty';
COMMENT ON FUNCTION crm.join_loyalty(bigint, text, timestamptz) IS 'Records that a contact joined a loyalty programme; repeated, it does nothing.';
REVOKE ALL ON FUNCTION crm.join_loyalty(bigint, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.set_stage(contact_id bigint, stage text, reason text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_set_stage';
COMMENT ON FUNCTION crm.set_stage(bigint, text, text) IS 'Sets the lifecycle stage by hand, until a rule says higher; with stage NULL the rules decide again.';
REVOKE ALL ON FUNCTION crm.set_stage(bigint, text, text) FROM PUBLIC;
