\set c random(1, 5)
\set d random(0, 300)
SELECT * FROM crm.scan('banner', 'oa', 'h' || :c, '2024-01-01Z'::timestamptz + :d * interval '1 day');
