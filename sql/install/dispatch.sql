-- dispatch: what the worker keeps for itself

CREATE TABLE IF NOT EXISTS crm.account_token (
	account_id bigint PRIMARY KEY REFERENCES crm.account,
	token text,
	fetched_at timestamptz,
	refresh_at timestamptz,
	expires_at timestamptz,
	refreshing_until timestamptz,
	failed_at timestamptz,
	failure text
) WITH (fillfactor = 50);
COMMENT ON TABLE crm.account_token IS 'Access tokens of accounts; nobody but the owner and dispatchers read them.';
COMMENT ON COLUMN crm.account_token.account_id IS 'The account.';
COMMENT ON COLUMN crm.account_token.token IS 'The access token.';
COMMENT ON COLUMN crm.account_token.fetched_at IS 'When the platform gave it.';
COMMENT ON COLUMN crm.account_token.refresh_at IS 'When the next one is fetched; this one stays in use until it is there.';
COMMENT ON COLUMN crm.account_token.expires_at IS 'When it ends.';
COMMENT ON COLUMN crm.account_token.refreshing_until IS 'Until then nobody else fetches a new one: it is being fetched, or fetching has just failed.';
COMMENT ON COLUMN crm.account_token.failed_at IS 'When fetching last failed.';
COMMENT ON COLUMN crm.account_token.failure IS 'How it failed.';
