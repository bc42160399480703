\set a random(1, 5)
\set b random(1, 5)
SELECT attempt(format('SELECT crm.merge(%s, %s)', :a, :b));
