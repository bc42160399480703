-- insight: recency, frequency, monetary value

CREATE FUNCTION crm.rfm(as_of timestamptz DEFAULT NULL, recency numeric[] DEFAULT '{30,90,180}',
	frequency numeric[] DEFAULT '{2,5,10}', monetary numeric[] DEFAULT '{50,200,1000}', time_zone text DEFAULT NULL)
RETURNS TABLE (contact_id bigint, cell text, recency integer, frequency integer, monetary integer, recency_days integer,
	orders bigint, spend numeric, last_order_at timestamptz)
LANGUAGE c STABLE ROWS 10000 AS 'MODULE_PATHNAME', 'crm_sql_rfm';
COMMENT ON FUNCTION crm.rfm(timestamptz, numeric[], numeric[], numeric[], text) IS 'Scores of everybody who has ordered: recency by days since the last order (at most), frequency by orders and monetary by spend (at least), each from 1 to the number of its thresholds and one more, as of any time.';
REVOKE ALL ON FUNCTION crm.rfm(timestamptz, numeric[], numeric[], numeric[], text) FROM PUBLIC;

CREATE FUNCTION crm.rfm_cells(as_of timestamptz DEFAULT NULL, recency numeric[] DEFAULT '{30,90,180}',
	frequency numeric[] DEFAULT '{2,5,10}', monetary numeric[] DEFAULT '{50,200,1000}', time_zone text DEFAULT NULL)
RETURNS TABLE (cell text, recency integer, frequency integer, monetary integer, contacts bigint, share numeric,
	orders bigint, spend numeric)
LANGUAGE c STABLE ROWS 64 AS 'MODULE_PATHNAME', 'crm_sql_rfm_cells';
COMMENT ON FUNCTION crm.rfm_cells(timestamptz, numeric[], numeric[], numeric[], text) IS 'How many contacts are in each cell of crm.rfm(), whose rows they are, and what they ordered.';
REVOKE ALL ON FUNCTION crm.rfm_cells(timestamptz, numeric[], numeric[], numeric[], text) FROM PUBLIC;
