-- journey: what the outcome of a step says

CREATE FUNCTION crm.visit_state(outcome text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN outcome IS NULL THEN 'here'
	            WHEN outcome IN ('goal', 'rule', 'unenrolled', 'cancelled', 'merged', 'erased', 'stranded') THEN 'ended'
	            ELSE 'left' END
$$;
COMMENT ON FUNCTION crm.visit_state(text) IS 'State of a step by its outcome in crm.step_visit: here while it has none; ended with the enrolment; else left.';
