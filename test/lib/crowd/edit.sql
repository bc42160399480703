\set c random(1, 5)
UPDATE crm.contact SET name = 'edited', tags = tags || 'crowd'::text WHERE contact_id = hot(:c) AND cardinality(tags) < 5;
