\set c random(1, 5)
\set m random(1, 4)
SELECT attempt(format('SELECT crm.bind_mobile(hot(%s), ''1370013700%s'')', :c, :m));
