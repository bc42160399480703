# CrmSandbox - a sandbox (sandbox.pl) for a TAP test. What it knows: CrmSandbox/README.md.
#
#   my $sandbox = CrmSandbox->start(accounts => { wx01 => 'secret' }, webhooks => { crm => 'secret' });
#   $sandbox->url('/cgi-bin/token');
#   $sandbox->admin(windows => { openid => 'o1', event => 'message' });    # POST /sandbox/windows
#   my @rows = $sandbox->ledger(touser => 'o1');                             # a hash for each request
#   wait_for(sub { $sandbox->ledger == 3 }, 10);                            # dies after 10 s
#   $sandbox->stop;                                                         # or at the end
package CrmSandbox;

use strict;
use warnings;
use Exporter 'import';
use File::Basename;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP ();
use Time::HiRes qw(sleep time);

our @EXPORT = qw(wait_for);

my $lib = dirname(__FILE__);
my @running;

# start(accounts => {}, webhooks => {}, seed => N, dir => FOLDER, args => [])
sub start
{
    my ($class, %opt) = @_;
    my $dir = $opt{dir} // tempdir('sandbox.XXXXXX', $ENV{TESTDIR} ? (DIR => $ENV{TESTDIR}) : (TMPDIR => 1), CLEANUP => !$ENV{TESTDIR});
    my $self = bless { dir => $dir, ledger_file => "$dir/ledger.jsonl", log => "$dir/sandbox.log", owner => $$ }, $class;
    my @command = ($^X, "$lib/sandbox.pl", '--port-file', "$dir/port", '--ledger', $self->{ledger_file}, '--until-eof');
    push @command, '--seed', $opt{seed} if defined $opt{seed};
    push @command, '--account', "$_:$opt{accounts}{$_}" for sort keys %{ $opt{accounts} || {} };
    push @command, '--webhook', "$_:$opt{webhooks}{$_}" for sort keys %{ $opt{webhooks} || {} };
    push @command, @{ $opt{args} || [] };
    unlink "$dir/port";

    # it ends when the pipe does, so also where this process is killed
    pipe my $from, $self->{pipe} or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid)
    {
        open STDIN, '<&', $from or die "stdin: $!\n";
        open STDOUT, '>>', $self->{log} or die "$self->{log}: $!\n";
        open STDERR, '>&', \*STDOUT or die "stderr: $!\n";
        { exec @command }
        require POSIX;
        POSIX::_exit(127);
    }
    close $from;
    $self->{pid} = $pid;
    push @running, $self;
    # it writes header and body apart, which on a connection in use waits for an acknowledgement
    $self->{http} = HTTP::Tiny->new(timeout => 60, keep_alive => 0);
    my $ended;
    wait_for(sub { -s "$dir/port" || ($ended = waitpid $pid, 1) }, 30, 'the sandbox listens');
    if ($ended)
    {
        delete $self->{pid};
        die "the sandbox did not start: " . $self->log_text;
    }
    open my $file, '<', "$dir/port" or die "cannot read $dir/port: $!\n";
    chomp($self->{port} = <$file>);
    return $self;
}

sub stop
{
    my ($self) = @_;
    return if !$self->{pid} || $self->{owner} != $$;
    local ($?, $!);
    kill TERM => $self->{pid};
    waitpid delete $self->{pid}, 0;
}

END { $_->stop for @running }

sub port { return $_[0]{port} }
sub pid  { return $_[0]{pid} }
sub url  { return "http://127.0.0.1:$_[0]{port}" . ($_[1] // '') }

sub log_text
{
    my ($self) = @_;
    open my $file, '<', $self->{log} or return '';
    local $/;
    return <$file> // '';
}

# call(METHOD, PATH, BODY, HEADERS): status, what the JSON of the reply says or its text
sub call
{
    my ($self, $method, $path, $body, $headers) = @_;
    my %options = (headers => { 'Content-Type' => 'application/json', %{ $headers || {} } });
    $options{content} = ref $body ? JSON::PP->new->utf8->canonical->encode($body) : $body if defined $body;
    my $reply = $self->{http}->request($method, $self->url($path), \%options);
    my $json = eval { JSON::PP::decode_json($reply->{content}) };
    return ($reply->{status}, $json // $reply->{content});
}

# admin(NAME, HASH or ARRAY): POST /sandbox/NAME; get(NAME, PARAMETERS): GET. Dies where it is refused.
sub admin
{
    my ($self, $name, $asked) = @_;
    return $self->checked($name, $self->call(POST => "/sandbox/$name", $asked // {}));
}

sub get
{
    my ($self, $name, %parameter) = @_;
    my $query = $self->{http}->www_form_urlencode(\%parameter);
    return $self->checked($name, $self->call(GET => "/sandbox/$name?$query"));
}

sub clear_faults
{
    my ($self) = @_;
    return $self->checked('faults', $self->call(DELETE => '/sandbox/faults'));
}

sub checked
{
    my ($self, $name, $status, $json) = @_;
    return $json if $status == 200 && ref $json;
    die "/sandbox/$name says $status: " . (ref $json ? $json->{error} : $json) . "\n";
}

# ledger(FILTER): the rows; filters are touser, api, account, key, path, since (a seq) and limit
sub ledger
{
    my ($self, %filter) = @_;
    return @{ $self->get('ledger', %filter)->{rows} };
}

# ledger_file_rows(): the same, read from the file alone; also after the sandbox has ended
sub ledger_file_rows
{
    my ($self) = @_;
    $self->get('sync') if $self->{pid};
    open my $file, '<:raw', $self->{ledger_file} or die "cannot read $self->{ledger_file}: $!\n";
    my (@rows, %row);
    while (my $line = <$file>)
    {
        my $json = JSON::PP::decode_json($line);
        if (exists $json->{path})
        {
            push @rows, $row{ $json->{seq} } = $json;
            $json->{replied} = 'pending';
        }
        elsif (my $row = $row{ $json->{seq} }) { @$row{ keys %$json } = values %$json }
    }
    return @rows;
}

# wait_for(CONDITION, SECONDS, NAME): what it returns as soon as that is true; dies when the time is over
sub wait_for
{
    my ($condition, $seconds, $name) = @_;
    my $until = time + ($seconds // 60);
    while (1)
    {
        my $value = $condition->();
        return $value if $value;
        die 'waited ' . ($seconds // 60) . ' s in vain' . (defined $name ? " until $name" : '') . "\n" if time > $until;
        sleep 0.01;
    }
}

1;
