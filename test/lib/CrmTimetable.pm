# CrmTimetable - random timetables in the syntax of crm.weekly_hours, and what they mean.
#
#   my $timetable = crm_timetable();          # {text, rules, times}
#   my $minutes   = crm_minutes($timetable);  # 10080 of 0 and 1, from Monday 00:00
package CrmTimetable;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(crm_timetable crm_minutes);

my @names = qw(Mo Tu We Th Fr Sa Su);

sub pick { return $_[ int(rand(@_)) ] }

# days as text and as a set; every way to write them
sub days
{
    my (@parts, %days);
    for (1 .. pick(1, 1, 1, 2, 2, 3))
    {
        my ($first, $last) = (pick(0 .. 6), pick(0 .. 6));
        $last = $first if rand() < 0.4;
        push @parts, $last == $first && rand() < 0.9 ? $names[$first] : "$names[$first]-$names[$last]";
        for (my $day = $first;; $day = ($day + 1) % 7)
        {
            $days{$day} = 1;
            last if $day == $last;
        }
    }
    return (join(pick(',', ',', ', '), @parts), \%days);
}

# a time of day in minutes; on few of them, so that spans touch and days are alike, or on any
sub time_of_day
{
    my ($from, $until) = @_;
    my $step = pick(1, 15, 30, 60, 60);
    return $step * int(rand(($until - $from) / $step)) + $from;
}

sub written
{
    my ($minute) = @_;
    return sprintf($minute >= 600 || rand() < 0.9 ? '%02d:%02d' : '%d:%02d', int($minute / 60), $minute % 60);
}

# spans from minute to minute, the end after midnight if beyond 1440
sub spans
{
    my (@parts, @spans);
    for (1 .. pick(1, 1, 1, 2, 2, 3))
    {
        my $from  = rand() < 0.1 ? 0 : time_of_day(0, 1440);
        my $until = rand() < 0.6 ? time_of_day($from + 1, 1441) : rand() < 0.5 ? pick(1440, $from + 1440) : time_of_day($from + 1, 2881);
        $until = 2880 if $until > 2880;
        # up to a whole day may be written by the clock
        my $by_clock = $until >= 1440 && $until - $from <= 1440 && rand() < 0.6;
        push @spans, [ $from, $until ];
        push @parts, written($from) . '-' . written($by_clock ? $until - 1440 : $until);
    }
    return (join(pick(',', ',', ', '), @parts), \@spans);
}

# a rule that opens may leave its days out only where none were named just before
sub crm_timetable
{
    my (@texts, @rules);
    for (1 .. pick(1, 1, 2, 2, 3, 4, 5))
    {
        my %rule = (opens => 1, days => {});
        my @words;
        my $closes = rand() < 0.25;
        if (rand() < 0.03)
        {
            %rule = (opens => 1, days => {}, spans => [ [ 0, 1440 ] ]);
            push @words, '24/7';
        }
        else
        {
            if (rand() < 0.85 || @rules && %{ $rules[-1]{days} } && !$closes)
            {
                (my $text, $rule{days}) = days();
                push @words, $text;
            }
            if (!$closes || rand() < 0.5)
            {
                (my $text, $rule{spans}) = spans();
                push @words, $text;
            }
            if ($closes)
            {
                $rule{opens} = 0;
                push @words, pick('off', 'closed');
            }
        }
        push @texts, join ' ', @words;
        push @rules, \%rule;
    }
    return { text => join(pick('; ', '; ', ';'), @texts), rules => \@rules };
}

# is the minute of the day, maybe one after its end, among what the rule speaks of?
sub speaks_of
{
    my ($rule, $day, $minute) = @_;
    return 0 if %{ $rule->{days} } && !$rule->{days}{$day};
    return $minute < 1440 if !$rule->{spans};
    return scalar grep { $_->[0] <= $minute && $minute < $_->[1] } @{ $rule->{spans} };
}

sub crm_minutes
{
    my ($timetable) = @_;
    my $minutes = '';
    for my $day (0 .. 6)
    {
        for my $minute (0 .. 1439)
        {
            my $open = 0;
            for my $rule (@{ $timetable->{rules} })
            {
                # a rule that opens a day says all of the day
                $open = 0 if $rule->{opens} && (!%{ $rule->{days} } || $rule->{days}{$day});
                $open = $rule->{opens}
                  if speaks_of($rule, $day, $minute) || speaks_of($rule, ($day + 6) % 7, $minute + 1440);
            }
            $minutes .= $open;
        }
    }
    return $minutes;
}

1;
