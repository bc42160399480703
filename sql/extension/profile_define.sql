-- profile: definitions, and the triggers that check, log and apply them

CREATE FUNCTION crm.define_achievement(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_achievement';
COMMENT ON FUNCTION crm.define_achievement(jsonb) IS 'Saves an achievement; keys are the columns of crm.achievement. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_achievement(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.define_stage_rule(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_stage_rule';
COMMENT ON FUNCTION crm.define_stage_rule(jsonb) IS 'Saves when a stage applies; keys are the columns of crm.stage_rule, and rank and label of the stage. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_stage_rule(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.check_definition() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_check_definition';
COMMENT ON FUNCTION crm.check_definition() IS 'Trigger: refuses a definition that cannot work, and counts versions.';
REVOKE ALL ON FUNCTION crm.check_definition() FROM PUBLIC;

CREATE FUNCTION crm.log_definition() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_log_definition';
COMMENT ON FUNCTION crm.log_definition() IS 'Trigger: records who changed a definition from what to what.';
REVOKE ALL ON FUNCTION crm.log_definition() FROM PUBLIC;

CREATE FUNCTION crm.definitions_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_definitions_changed';
COMMENT ON FUNCTION crm.definitions_changed() IS 'Trigger: applies changed definitions to the history of every contact.';
REVOKE ALL ON FUNCTION crm.definitions_changed() FROM PUBLIC;
