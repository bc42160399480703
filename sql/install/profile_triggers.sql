-- profile: the view, and the triggers of definitions, made after the seeds

SELECT crm.build_profile_view();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.achievement
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.achievement
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();
CREATE OR REPLACE TRIGGER crm_definitions_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON crm.achievement
	FOR EACH STATEMENT EXECUTE FUNCTION crm.definitions_changed();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.stage
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.stage
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();
CREATE OR REPLACE TRIGGER crm_definitions_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON crm.stage
	FOR EACH STATEMENT EXECUTE FUNCTION crm.definitions_changed();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.stage_rule
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.stage_rule
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();
CREATE OR REPLACE TRIGGER crm_definitions_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON crm.stage_rule
	FOR EACH STATEMENT EXECUTE FUNCTION crm.definitions_changed();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.qr_code
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.qr_code
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.scan_limit
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();
CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.scan_limit
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();

CREATE OR REPLACE TRIGGER crm_check_definition BEFORE INSERT OR UPDATE ON crm.account
	FOR EACH ROW EXECUTE FUNCTION crm.check_definition();

CREATE OR REPLACE TRIGGER crm_log_definition AFTER INSERT OR UPDATE OR DELETE ON crm.loyalty_program
	FOR EACH ROW EXECUTE FUNCTION crm.log_definition();
