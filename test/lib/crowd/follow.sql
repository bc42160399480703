\set c random(1, 5)
\set on random(0, 1)
SELECT CASE :on WHEN 1 THEN crm.follow('oa', 'h' || :c, scene => 'banner') ELSE crm.unfollow('oa', 'h' || :c) END;
