-- facts: definitions of QR codes

CREATE FUNCTION crm.define_qr_code(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_qr_code';
COMMENT ON FUNCTION crm.define_qr_code(jsonb) IS 'Saves a QR code; keys are the columns of crm.qr_code, and account, the account''s name. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_qr_code(jsonb) FROM PUBLIC;
