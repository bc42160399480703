# CrmSandbox::Admin - what a test asks and tells the sandbox, under /sandbox/. JSON both ways.
#
# What is wrong with a call comes as {"error":"..."} with status 400.
package CrmSandbox::Admin;

use strict;
use warnings;
use CrmSandbox::Json;
use CrmSandbox::OfficialAccount;

my %call = (
    reset => \&reset_all, accounts => \&accounts, contacts => \&contacts, windows => \&windows, templates => \&templates,
    webhooks => \&webhooks, tokens => \&tokens, faults => \&faults, settings => \&settings, counts => \&counts,
    ledger => \&ledger, outage => \&outage, sync => sub { {} },
);

# handle(SANDBOX, REQUEST): status and body
sub handle
{
    my ($sandbox, $r) = @_;
    my ($name) = $r->{path} =~ /\A\/sandbox\/([a-z]+)\z/;
    my $code = $call{ $name // '' } // return (404, '{"error":"no such call"}');
    $sandbox->{ledger}->flush;
    my ($asked, $ok) = $r->{body} eq '' ? ({}, 1) : json_read($r->{body});
    my $answer = eval {
        die "the body is no JSON object\n" if !$ok || (ref $asked ne 'HASH' && ref $asked ne 'ARRAY');
        my %query = map { /\A(.*?)=(.*)\z/s ? ($1 => CrmSandbox::OfficialAccount::parameter($r, $1)) : () } split /&/, $r->{query};
        if (ref $asked eq 'ARRAY')
        {
            my $last = {};
            for (@$asked)
            {
                die "the body is no list of JSON objects\n" if ref ne 'HASH';
                $last = $code->($sandbox, $r->{method}, { %query, %$_ });
            }
            $last;
        }
        else { $code->($sandbox, $r->{method}, { %query, %$asked }) }
    };
    if (!defined $answer)
    {
        chomp(my $error = $@);
        return (400, json_write({ error => $error }));
    }
    return (200, ref $answer ? json_write($answer) : $answer);
}

sub reset_all
{
    my ($sandbox, undef, $asked) = @_;
    $sandbox->start_over(exists $asked->{ledger} ? $asked->{ledger} : 1);
    return {};
}

sub accounts
{
    my ($sandbox, $method, $asked) = @_;
    my $oa = $sandbox->{oa};
    $oa->account(%$asked) if $method eq 'POST';
    return {
        accounts => [ map { { %$_{qw(appid kind blocks types daily_quota templates)}, contacts => scalar keys %{ $_->{contacts} } } }
              map { $oa->{accounts}{$_} } sort keys %{ $oa->{accounts} } ]
    };
}

# openids_of(ASKED): "openid", "openids" or "prefix" with "from" and "to"
sub openids_of
{
    my ($asked) = @_;
    my ($one, $list, $prefix, $from, $to) = delete @$asked{qw(openid openids prefix from to)};
    return ($one) if defined $one;
    return @$list if ref $list eq 'ARRAY';
    return map { "$prefix$_" } $from // 1 .. $to // die "to is missing\n" if defined $prefix;
    die "openid, openids or prefix is missing\n";
}

my @contact_fields = qw(follow blocked optout gone unionid language remark since accepts);

sub seen
{
    my ($openid, $contact, $now) = @_;
    return {
        openid => $openid,
        (map { defined $contact->{$_} ? ($_ => $contact->{$_}) : () } @contact_fields),
        windows => [ grep { $_->{expires} > $now } @{ $contact->{windows} } ],
    };
}

sub contacts
{
    my ($sandbox, $method, $asked) = @_;
    my $oa = $sandbox->{oa};
    my $account = $oa->account_of(delete $asked->{appid});
    my $all = $account->{contacts};
    if ($method ne 'POST')
    {
        return { count => scalar keys %$all } if !%$asked;
        return { contacts => [ map { $all->{$_} ? seen($_, $all->{$_}, $oa->now) : () } openids_of($asked) ] };
    }
    my @openids = openids_of($asked);
    for my $field (keys %$asked)
    {
        die "a contact has no $field: " . join(', ', @contact_fields) . "\n" if !grep { $_ eq $field } @contact_fields;
    }
    for my $openid (@openids)
    {
        my $contact = $all->{$openid} ||= { follow => 1, windows => [], since => int $oa->now };
        for my $field (keys %$asked)
        {
            if ($field eq 'accepts') { $contact->{accepts}{$_} = $asked->{accepts}{$_} for keys %{ $asked->{accepts} } }
            else { $contact->{$field} = $asked->{$field} }
        }
        $contact->{windows} = [] if !$contact->{follow};
    }
    return { count => scalar @openids };
}

sub windows
{
    my ($sandbox, $method, $asked) = @_;
    my $oa = $sandbox->{oa};
    my $account = $oa->account_of(delete $asked->{appid});
    my @openids = openids_of($asked);
    if ($method eq 'POST')
    {
        for my $openid (@openids)
        {
            if ($asked->{close}) { $account->{contacts}{$openid}{windows} = [] if $account->{contacts}{$openid} }
            else { $oa->opened($account, $openid, $asked->{event} // die "event is missing\n") }
        }
    }
    return { count => scalar @openids } if @openids > 1;
    my $contact = $account->{contacts}{ $openids[0] } // { windows => [] };
    return { windows => seen($openids[0], $contact, $oa->now)->{windows} };
}

sub templates
{
    my ($sandbox, $method, $asked) = @_;
    my $account = $sandbox->{oa}->account_of($asked->{appid});
    if ($method eq 'POST')
    {
        my $id = $asked->{template_id} // die "template_id is missing\n";
        if ($asked->{deleted}) { delete $account->{templates}{$id} }
        else { $account->{templates}{$id} = { keys => $asked->{keys} || [] } }
    }
    return { templates => $account->{templates} };
}

sub webhooks
{
    my ($sandbox, $method, $asked) = @_;
    my $webhook = $sandbox->{webhook};
    $webhook->hook(%$asked) if $method eq 'POST';
    return {
        webhooks => [ map { { %$_{qw(name status body tolerance_s)}, keys => scalar keys %{ $_->{keys} } } }
              map { $webhook->{hooks}{$_} } sort keys %{ $webhook->{hooks} } ]
    };
}

# tokens that are out: "expire" (42001) or "revoke" (40001) makes them unusable
sub tokens
{
    my ($sandbox, $method, $asked) = @_;
    my $oa = $sandbox->{oa};
    my $now = $oa->now;
    my $appid = $asked->{appid};
    my @of = grep { !defined $appid || $oa->{tokens}{$_}{appid} eq $appid } sort keys %{ $oa->{tokens} };
    if ($method eq 'POST')
    {
        for my $is (map { $oa->{tokens}{$_} } @of)
        {
            $is->{expires}     = $now if $asked->{expire} && $is->{expires} > $now;
            $is->{valid_until} = $now if ($asked->{expire} || $asked->{revoke}) && $is->{valid_until} > $now;
        }
    }
    return { tokens => [ map { { token => $_, %{ $oa->{tokens}{$_} } } } grep { $oa->{tokens}{$_}{valid_until} > $now } @of ] };
}

sub faults
{
    my ($sandbox, $method, $asked) = @_;
    my $faults = $sandbox->{faults};
    if ($method eq 'DELETE') { $faults->clear }
    elsif ($method eq 'POST')
    {
        if (defined $asked->{probability}) { $faults->at_random($asked) }
        else { $faults->next_times($asked) }
    }
    return { next => $faults->{next}, random => $faults->{random}, seed => $sandbox->{seed} };
}

sub settings
{
    my ($sandbox, $method, $asked) = @_;
    my $set = $sandbox->{set};
    if ($method eq 'POST')
    {
        for my $name (keys %$asked)
        {
            die "no setting is called $name: " . join(', ', sort keys %$set) . "\n" if !exists $set->{$name};
            die "$name is " . (ref $set->{$name} ? 'an object' : 'no object') . "\n"
              if (ref $set->{$name} eq 'HASH') != (ref $asked->{$name} eq 'HASH');
            # of an object, what is named changes
            if (ref $set->{$name}) { $set->{$name}{$_} = $asked->{$name}{$_} for keys %{ $asked->{$name} } }
            else { $set->{$name} = $asked->{$name} }
        }
        $sandbox->settings_changed;
    }
    return { %$set, now => $sandbox->now };
}

# nobody can connect for some seconds, beginning when this has been replied
sub outage
{
    my ($sandbox, $method, $asked) = @_;
    die "POST only\n" if $method ne 'POST';
    my $seconds = $asked->{seconds} // 1;
    $sandbox->{http}->after(0.02, sub { $sandbox->{http}->outage($seconds) });
    return {};
}

sub counts
{
    my ($sandbox) = @_;
    my $http = $sandbox->{http};
    return {
        apis => $sandbox->{ledger}{counts},
        connections => { open => $http->{open}, most => $http->{most}, accepted => $http->{accepted} },
    };
}

sub ledger
{
    my ($sandbox, undef, $asked) = @_;
    return '{"rows":[' . join(',', $sandbox->{ledger}->rows($asked)) . ']}';
}

1;
