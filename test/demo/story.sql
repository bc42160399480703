-- Mr Wu's two days with the brand, live: every fact is recorded when it happens, what the journeys of the brand make of
-- it is queued in the same transaction, and the worker sends it. SANDBOX (environment) is the address of what plays
-- WeChat; phone.pl is Mr Wu's phone.
\echo 'In the shop, last week: somebody leaves a mobile.'
SELECT crm.identify('mobile', '138 0013 8001') AS shop_contact \gset

\echo 'Mr Wu scans the banner at the entrance and follows the account. In the same transaction the brand asks:'
\! perl test/demo/phone.pl o_wu does follow
BEGIN;
SELECT crm.follow('boutique', 'o_wu', scene => 'entrance') AS wu \gset
SELECT extract(epoch FROM clock_timestamp()) AS since \gset
COMMIT;
\setenv SINCE :since
\! perl test/demo/phone.pl o_wu gets 1 $SINCE

\echo 'He replies with his number: the shop''s customer and the follower are one person from now on.'
\! perl test/demo/phone.pl o_wu does message
BEGIN;
SELECT crm.track(:wu, 'message', '{"content": "138 0013 8001"}', account => 'boutique') \g /dev/null
SELECT extract(epoch FROM clock_timestamp()) AS since \gset
COMMIT;
\setenv SINCE :since
\! perl test/demo/phone.pl o_wu gets 2 $SINCE
SELECT crm.identify('boutique', 'o_wu') AS wu \gset

\echo 'At the checkout he shows his code: a coupon of 10 % arrives while he queues.'
BEGIN;
SELECT crm.track(:wu, 'checkout', account => 'boutique') \g /dev/null
SELECT extract(epoch FROM clock_timestamp()) AS since \gset
COMMIT;
\setenv SINCE :since
\! perl test/demo/phone.pl o_wu gets 3 $SINCE

\echo 'He pays with it. The first purchase invites him into the club:'
BEGIN;
SELECT crm.redeem_coupon(:wu, (SELECT code FROM crm.coupon_grant WHERE contact_id = :wu)) \g /dev/null
SELECT crm.purchase(:wu, 30, external_ref => 'T-1') \g /dev/null
SELECT extract(epoch FROM clock_timestamp()) AS since \gset
COMMIT;
\setenv SINCE :since
\! perl test/demo/phone.pl o_wu gets 4 $SINCE

SELECT crm.join_loyalty(:wu, 'friends') \g /dev/null
SELECT crm.purchase(:wu, 40, external_ref => 'T-2') \g /dev/null
