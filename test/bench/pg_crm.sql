-- pg_crm as it is installed, with everything that ships switched on.
-- :contacts is how many contacts there are, all older than their orders.
CREATE EXTENSION pg_crm;
SELECT crm.install();
INSERT INTO crm.contact (contact_id, created_at)
SELECT n, '2019-01-01' FROM generate_series(1, :contacts) AS n;
