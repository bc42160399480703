-- facts: suppression lists; fields that change

CREATE FUNCTION crm.suppress(contact_id bigint, channel text DEFAULT NULL, reason text DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_suppress';
COMMENT ON FUNCTION crm.suppress(bigint, text, text) IS 'The contact is not to be written to, on this channel or on all of them (NULL).';
REVOKE ALL ON FUNCTION crm.suppress(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION crm.unsuppress(contact_id bigint, channel text DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_unsuppress';
COMMENT ON FUNCTION crm.unsuppress(bigint, text) IS 'Ends a suppression of this channel, or the one of all channels (NULL).';
REVOKE ALL ON FUNCTION crm.unsuppress(bigint, text) FROM PUBLIC;

CREATE FUNCTION crm.contact_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_contact_changed';
COMMENT ON FUNCTION crm.contact_changed() IS 'Trigger of crm.contact: records changed fields, and moves the contacts between segments.';
REVOKE ALL ON FUNCTION crm.contact_changed() FROM PUBLIC;
