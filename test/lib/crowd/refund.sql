\set c random(1, 5)
\set o random(1, 400)
\set a random(1, 6)
SELECT attempt(format('SELECT crm.refund(hot(%s), ''o%s'', %s, key => ''r%s-%s'')', :c, :o, :a, :o, :a));
