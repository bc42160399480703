-- facts: definitions of QR codes and of limits

CREATE FUNCTION crm.define_qr_code(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_qr_code';
COMMENT ON FUNCTION crm.define_qr_code(jsonb) IS 'Saves a QR code; keys are the columns of crm.qr_code, and account, the account''s name. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_qr_code(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.define_scan_limit(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_scan_limit';
COMMENT ON FUNCTION crm.define_scan_limit(jsonb) IS 'Saves a limit of scans; keys are the columns of crm.scan_limit. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_scan_limit(jsonb) FROM PUBLIC;
