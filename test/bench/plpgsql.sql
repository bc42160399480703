-- What both rivals in PL/pgSQL begin with: the tables of pg_crm, without its triggers on orders
-- and with defaults that cost nothing.
DROP TRIGGER crm_ingest ON crm.transaction;
DROP TRIGGER crm_refuse_update ON crm.contact;
ALTER TABLE crm.transaction ALTER currency SET DEFAULT 'CNY', ALTER occurred_at SET DEFAULT now(),
	ALTER recorded_at SET DEFAULT now();
