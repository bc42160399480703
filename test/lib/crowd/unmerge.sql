\set a random(1, 5)
SELECT attempt(format('SELECT crm.unmerge(%s)', :a));
