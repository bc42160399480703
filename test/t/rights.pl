# What needs sessions of its own: commit, connections, the preload
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;


# one NOTICE without the preload, none with it
my $bare = crm_node('bare', preload => 0);
$bare->safe_psql('postgres', 'CREATE EXTENSION pg_crm');
my ($rc, $out, $err) = $bare->psql('postgres', 'SELECT crm.install()');
is($rc, 0, 'installed without the preload');
is(() = $err =~ /NOTICE/g, 1, 'with one NOTICE');
like($err, qr/HINT:.*Sending will need shared_preload_libraries = 'pg_crm'/, 'whose hint says what it is for');
is($bare->safe_psql('postgres', q{INSERT INTO crm.contact (contact_id) VALUES (1);
    SELECT crm.purchase(1, 10); SELECT count(*) FROM crm.award}), "1\n1", 'all else works');
$bare->stop;

my $node = crm_node('rights');
$node->safe_psql('postgres', q{CREATE ROLE brand LOGIN; CREATE ROLE member LOGIN IN ROLE brand; CREATE ROLE backend LOGIN;
    CREATE DATABASE shop});
$node->safe_psql('shop', q{CREATE EXTENSION pg_crm; SELECT crm.grant_access('brand', 'owner'); GRANT ALL ON SCHEMA public TO brand});
($rc, $out, $err) = $node->psql('shop', 'SELECT crm.install()', extra_params => [ '-U', 'brand' ]);
is("$rc$err", '0', 'a plain role installs, and nothing is said');
$node->safe_psql('shop', q{SELECT crm.grant_access('backend', 'app')}, extra_params => [ '-U', 'brand' ]);
$node->safe_psql('shop', 'SELECT crm.install()', extra_params => [ '-U', 'member' ]);
is($node->safe_psql('shop', q{SELECT DISTINCT relowner::regrole FROM pg_class WHERE relnamespace = 'crm'::regnamespace}), 'brand', 'a member installs for him');
is($node->safe_psql('shop', q{SELECT crm.purchase(crm.identify('customer', 'c1'), 10)}, extra_params => [ '-U', 'backend' ]), '1', 'the app works');

# triggers that the owner defers run at commit, when the caller is himself again
$node->safe_psql('shop', q{
    CREATE TABLE public.spied (what text, as_role text); GRANT ALL ON public.spied TO PUBLIC;
    CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.spied VALUES (tg_name, current_user); RETURN NULL; END$$;
    CREATE CONSTRAINT TRIGGER late_order AFTER INSERT ON crm.transaction DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.spy();
    CREATE CONSTRAINT TRIGGER late_profile AFTER UPDATE ON crm.profile_counter DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.spy();
    CREATE CONSTRAINT TRIGGER late_installation AFTER INSERT OR UPDATE OR DELETE ON crm.installation DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.spy();
}, extra_params => [ '-U', 'brand' ]);
for my $call (q{crm.purchase(1, 10)}, q{crm.track(1, 'cart')}, q{crm.resume_dispatch()},
    q{crm.define_achievement('{"name": "x", "on_kind": "purchase"}')}, q{crm.bind_mobile(1, '13800138000')})
{
    $node->psql('shop', "SELECT $call");
    is($node->safe_psql('shop', q{SELECT DISTINCT what, as_role FROM public.spied WHERE as_role <> 'brand'}), '', "a superuser calls $call: no deferred trigger runs as him");
    $node->safe_psql('shop', 'DELETE FROM public.spied');
}
is($node->safe_psql('shop', q{SELECT crm.purchase(1, 10) > 0; }, extra_params => [ '-U', 'brand' ]), 't', 'the owner may defer his own');
is($node->safe_psql('shop', q{SELECT what, as_role FROM public.spied ORDER BY 1}), "late_order|brand\nlate_profile|brand", 'they run');

$node->stop;
done_testing();
