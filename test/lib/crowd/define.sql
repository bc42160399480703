\set n random(2, 5)
SELECT crm.define_achievement(jsonb_build_object('name', 'carts', 'on_kind', 'cart', 'thresholds', jsonb_build_array(1, :n)));
