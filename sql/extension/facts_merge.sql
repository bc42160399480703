-- facts: two contacts become one, and two again

CREATE FUNCTION crm.merge(contact_id bigint, other bigint, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_merge';
COMMENT ON FUNCTION crm.merge(bigint, bigint, text) IS 'Joins two contacts and returns the survivor: the one with a verified mobile, else the older.';
REVOKE ALL ON FUNCTION crm.merge(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION crm.unmerge(other bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_unmerge';
COMMENT ON FUNCTION crm.unmerge(bigint) IS 'Undoes the last merge of a contact that ended in it and returns the contact; facts recorded since stay with the survivor.';
REVOKE ALL ON FUNCTION crm.unmerge(bigint) FROM PUBLIC;
