\set c random(1, 5)
\set s random(0, 2)
SELECT attempt(format('SELECT crm.set_stage(hot(%s), (ARRAY[''intent'', ''other''])[%s], ''crowd'')', :c, :s));
