-- outbox: templates, messages, who may be written to

CREATE FUNCTION crm.define_template(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_template';
COMMENT ON FUNCTION crm.define_template(jsonb) IS 'Saves a template; keys are the columns of crm.template. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_template(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.check_template() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_check_template';
COMMENT ON FUNCTION crm.check_template() IS 'Trigger of crm.template: refuses a template that cannot be sent, and counts versions.';
REVOKE ALL ON FUNCTION crm.check_template() FROM PUBLIC;

CREATE FUNCTION crm.keep_template() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_keep_template';
COMMENT ON FUNCTION crm.keep_template() IS 'Trigger of crm.template: keeps every version.';
REVOKE ALL ON FUNCTION crm.keep_template() FROM PUBLIC;

CREATE FUNCTION crm.templates_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_templates_changed';
COMMENT ON FUNCTION crm.templates_changed() IS 'Trigger of crm.template and crm.account: tells every session what messages are made of.';
REVOKE ALL ON FUNCTION crm.templates_changed() FROM PUBLIC;

CREATE FUNCTION crm.window_rules_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_window_rules_changed';
COMMENT ON FUNCTION crm.window_rules_changed() IS 'Trigger of crm.window_rule: tells every session which facts open windows.';
REVOKE ALL ON FUNCTION crm.window_rules_changed() FROM PUBLIC;
