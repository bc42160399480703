-- facts: campaigns

CREATE FUNCTION crm.send_campaign(campaign text) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_send_campaign';
COMMENT ON FUNCTION crm.send_campaign(text) IS 'Queues a campaign for everyone in its audience who has not got it yet; returns for how many.';
REVOKE ALL ON FUNCTION crm.send_campaign(text) FROM PUBLIC;

CREATE FUNCTION crm.check_campaign() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_check_campaign';
COMMENT ON FUNCTION crm.check_campaign() IS 'Trigger of crm.campaign: refuses a rule that does not compile, and what else could not be sent.';
REVOKE ALL ON FUNCTION crm.check_campaign() FROM PUBLIC;
