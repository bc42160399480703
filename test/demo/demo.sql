-- What make demo shows.  Run in an empty database; :out is a folder for files.
CREATE EXTENSION pg_crm;
SELECT crm.install();
SELECT extname, extversion FROM pg_extension WHERE extname = 'pg_crm';
