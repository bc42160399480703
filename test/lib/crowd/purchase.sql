\set c random(1, 5)
\set o random(1, 400)
\set h random(0, 900)
SELECT attempt(format('SELECT crm.purchase(hot(%s), 10, ''2024-01-01Z''::timestamptz + %s * interval ''1 hour'', ''o%s'')', :c, :h, :o));
