\set c random(1, 5)
\set k random(1, 300)
SELECT crm.track(hot(:c), 'cart', key => 'k' || :k);
SELECT crm.track(hot(:c), 'page');
