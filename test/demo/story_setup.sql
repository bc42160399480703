-- What the brand has set up before the story begins: an account, a banner, a coupon, a club, four templates, and
-- three journeys, one of them as it ships.
\getenv sandbox SANDBOX
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'boutique', 'wx_boutique', :'sandbox');
INSERT INTO crm.account_secret (account_id, name, value)
SELECT account_id, 'app_secret', 'boutique_secret' FROM crm.account WHERE name = 'boutique';
INSERT INTO crm.loyalty_program (name) VALUES ('friends');
SELECT crm.define_qr_code('{"account": "boutique", "scene": "entrance"}'),
       crm.define_coupon('{"name": "ten_percent", "one_per": "contact", "valid_for": "7 days"}'),
       crm.define_template('{"name": "ask_mobile", "channel": "official_account", "account": "boutique", "message_type": "text",
         "body": {"content": "Welcome! Reply with your mobile number, and all you ever bought counts for you."}}'),
       crm.define_template('{"name": "thanks", "channel": "official_account", "account": "boutique", "message_type": "text",
         "body": {"content": "Thank you, {{name|dear customer}}. We have your purchases."}}'),
       crm.define_template('{"name": "coupon", "channel": "official_account", "account": "boutique", "message_type": "text",
         "body": {"content": "10 % off today. Show {{code}} at the checkout."}}'),
       crm.define_template('{"name": "invitation", "channel": "official_account", "account": "boutique", "message_type": "news",
         "body": {"articles": [{"title": "Join our friends", "description": "points for every purchase", "url": "https://shop.example/join"}]}}')
 \g /dev/null
-- who follows is asked for the mobile within the minute, and thanked for it; at the checkout there is a coupon; who
-- has bought for the first time is invited
SELECT crm.publish_journey(crm.welcome_journey('boutique', hello => NULL, later => NULL)),
       crm.publish_journey('{"journey": "checkout", "account": "boutique", "entry": [{"on": "checkout"}], "reentry": "after_exit", "start": "coupon",
         "steps": {"coupon": {"kind": "coupon", "coupon": "ten_percent", "save_as": "code", "next": "tell", "on_failed": null},
                   "tell": {"kind": "send", "template": "coupon", "params": {"code": "{{context.code}}"}}}}'),
       crm.publish_journey('{"journey": "club", "account": "boutique", "entry": [{"on": "award", "achievement": "first_purchase"}],
         "goal": {"on": "join_loyalty", "program": "friends"}, "reentry": "once", "start": "invite",
         "steps": {"invite": {"kind": "send", "template": "invitation", "next": "decide"},
                   "decide": {"kind": "wait", "for": "30 days"}}}')
 \g /dev/null
