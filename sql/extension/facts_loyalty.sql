-- facts: coupons and points

CREATE FUNCTION crm.define_coupon(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_coupon';
COMMENT ON FUNCTION crm.define_coupon(jsonb) IS 'Saves a coupon; keys are the columns of crm.coupon. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_coupon(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.define_earning_rule(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_earning_rule';
COMMENT ON FUNCTION crm.define_earning_rule(jsonb) IS 'Saves a rule by which members earn points; keys are the columns of crm.earning_rule. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_earning_rule(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.issue_coupon(contact_id bigint, coupon text, key text DEFAULT NULL, store_id bigint DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_issue_coupon';
COMMENT ON FUNCTION crm.issue_coupon(bigint, text, text, bigint) IS 'Gives a contact a coupon and returns its code. The same key again returns the first one.';
REVOKE ALL ON FUNCTION crm.issue_coupon(bigint, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION crm.redeem_coupon(contact_id bigint, code text, store_id bigint DEFAULT NULL,
    at timestamptz DEFAULT NULL, key text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_redeem_coupon';
COMMENT ON FUNCTION crm.redeem_coupon(bigint, text, bigint, timestamptz, text) IS 'Records that a contact used a coupon, at a shop. The same key again does nothing.';
REVOKE ALL ON FUNCTION crm.redeem_coupon(bigint, text, bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.earn_points(contact_id bigint, program text, points bigint, reason text DEFAULT NULL, key text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_earn_points';
COMMENT ON FUNCTION crm.earn_points(bigint, text, bigint, text, text) IS 'Gives a contact points of a loyalty programme and returns the balance. The same key again returns the first result.';
REVOKE ALL ON FUNCTION crm.earn_points(bigint, text, bigint, text, text) FROM PUBLIC;

CREATE FUNCTION crm.spend_points(contact_id bigint, program text, points bigint, reason text DEFAULT NULL, key text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_spend_points';
COMMENT ON FUNCTION crm.spend_points(bigint, text, bigint, text, text) IS 'Takes points of a contact, never below zero, and returns the balance. The same key again returns the first result.';
REVOKE ALL ON FUNCTION crm.spend_points(bigint, text, bigint, text, text) FROM PUBLIC;
