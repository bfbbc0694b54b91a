"""What the log says: state changes and a summary, bounded however long and wide the flood."""

from __future__ import annotations

from itertools import product

import pytest

from gserver.admission.sources import Sources
from gserver.admission.verdict import Reason
from gserver.report import CALM_S, MAX_HOSTS, SUMMARY_S, DryRunReport, RejectionReport


class Log:
    """Drives a report as the limiter does, on a clock of its own."""

    def __init__(self, cap: int = 100, sources: Sources | None = None) -> None:
        self.report = RejectionReport((sources or Sources()).of)
        self.cap = cap
        self.now = 1000.0
        self.totals = dict.fromkeys(Reason, 0)
        self.lines: list[str] = []
        self.degraded = 0

    def reject(self, *hosts: str, reason: Reason = Reason.CAPACITY) -> None:
        for host in hosts:
            self.totals[reason] += 1
            bare, _, scope = host.partition("%")
            self.report.saw((bare, 1, 0, int(scope)) if scope else (host, 1))
            if not self.report.rejecting:
                self.lines.append(
                    self.report.begin(self.now, reason, self.cap, self.cap, self.totals)
                )

    def tick(self, full: bool = True) -> None:
        self.now += CALM_S
        in_use = self.cap if full else self.cap - 1
        self.lines += self.report.tick(
            self.now, in_use, self.cap, full=full, totals=self.totals, degraded=self.degraded
        )

    def end(self) -> list[str]:
        return self.report.end(self.now, 0, self.cap, totals=self.totals, degraded=self.degraded)


def test_the_first_rejection_says_that_it_is_full() -> None:
    log = Log()
    log.reject("192.0.2.1", "192.0.2.1", "192.0.2.2")
    assert log.lines == ["full 100/100, rejecting"]


def test_for_another_reason_it_says_the_reason() -> None:
    log = Log()
    log.reject("192.0.2.1", reason=Reason.DESCRIPTORS)
    assert log.lines == ["rejecting (descriptors), 100/100 in use"]


def test_a_calm_with_room_says_how_long_it_took_and_how_many() -> None:
    log = Log()
    log.reject(*["192.0.2.1"] * 4321)
    for _ in range(5):
        log.tick()
    log.tick(full=False)
    assert log.lines[1:] == ["accepting again after 6.0 s, 4,321 rejected"]
    assert not log.report.rejecting


def test_who_should_have_had_a_reply_and_had_none_is_told_of() -> None:
    log = Log()
    for _ in range(2):
        log.reject(*["192.0.2.1"] * 50)
        log.degraded += 41
        for _ in range(int(SUMMARY_S / CALM_S)):
            log.tick()
    without = "(capacity 50), 41 of them without their reply: 50 from 192.0.2.1"
    assert [line.partition(" s ")[2] for line in log.lines[1:]] == [without] * 2
    log.tick(full=False)
    assert log.lines[-1].endswith(", 100 rejected, 82 of them without their reply")
    log.reject("192.0.2.1")
    log.tick()
    log.tick(full=False)
    assert log.lines[-1].endswith(", 1 rejected")


def test_full_and_quiet_is_not_accepting_again() -> None:
    log = Log()
    log.reject("192.0.2.1")
    for _ in range(100):
        log.tick(full=True)
    _first, *later = log.lines
    assert len(later) == 1  # the summary with that one, then none of nothing
    assert "1 rejected" in later[0]
    assert log.report.rejecting


def test_room_between_rejections_is_not_calm() -> None:
    log = Log()
    log.reject("192.0.2.1")
    for _ in range(5):
        log.reject("192.0.2.1")
        log.tick(full=False)
    assert len(log.lines) == 1


def test_the_summary_counts_by_reason_and_names_the_top_sources() -> None:
    log = Log()
    log.reject(*["203.0.113.9"] * 34, *["203.0.113.8"] * 20, *["203.0.113.7"] * 5)
    log.reject(*["2001:db8:1:2::1", "2001:db8:1:2::2"] * 10, "unix", "unix", "203.0.113.6")
    log.reject("203.0.113.9", reason=Reason.DESCRIPTORS)
    for _ in range(int(SUMMARY_S / CALM_S)):
        log.tick()
    assert log.lines[1:] == [
        "rejecting: 100/100 in use, 83 rejected in 10.0 s (capacity 82, descriptors 1): "
        "35 from 203.0.113.9, 20 from 203.0.113.8, 20 from 2001:db8:1:2::/64, 8 from others"
    ]


@pytest.mark.parametrize(
    ("hosts", "source"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["::ffff:192.0.2.1", "192.0.2.1"], "192.0.2.1"),  # one client, two families
        (["2001:db8::1", "2001:db8::ffff"], "2001:db8::/64"),
        (["fe80::1%2", "fe80::1%2", "fe80::2%2"], "fe80::%2/64"),
        (["unix"], "unix"),
    ],
)
def test_a_source_is_the_host_cut_to_its_prefix(hosts: list[str], source: str) -> None:
    log = Log()
    log.reject(*hosts)
    for _ in range(int(SUMMARY_S / CALM_S)):
        log.tick()
    assert log.lines[1].endswith(f": {len(hosts)} from {source}")


def test_one_address_on_two_links_is_two_sources() -> None:
    log = Log()
    log.reject(*["fe80::1%2"] * 5, *["fe80::1%3"] * 4)
    for _ in range(int(SUMMARY_S / CALM_S)):
        log.tick()
    assert log.lines[1].endswith(": 5 from fe80::%2/64, 4 from fe80::%3/64")


def test_a_source_is_cut_as_the_rules_cut_it() -> None:
    log = Log(sources=Sources(prefix_v4=24, prefix_v6=48))
    log.reject("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "2001:db8:1:2::1", "2001:db8:1:3::1")
    for _ in range(int(SUMMARY_S / CALM_S)):
        log.tick()
    assert log.lines[1].endswith(": 3 from 192.0.2.0/24, 2 from 2001:db8:1::/48")


def test_a_summary_counts_only_since_the_last() -> None:
    log = Log()
    for count in 5, 7:
        log.reject(*["192.0.2.1"] * count)
        for _ in range(int(SUMMARY_S / CALM_S)):
            log.tick()
        assert f" {count} rejected in 10.0 s (capacity {count})" in log.lines[-1]
        assert log.lines[-1].endswith(f": {count} from 192.0.2.1")
    assert len(log.lines) == 3


def test_two_bouts_are_counted_apart() -> None:
    log = Log()
    for count in 5, 7:
        log.reject(*["192.0.2.1"] * count)
        log.tick()
        log.tick(full=False)
        assert log.lines[-1] == f"accepting again after 2.0 s, {count} rejected"
    assert len(log.lines) == 4


def test_hosts_are_bounded_and_the_rest_counted_together() -> None:
    log = Log()
    hosts = [f"10.0.{a}.{b}" for a, b in product(range(16), range(256))]  # 4,096
    log.reject(*hosts, *hosts[:1])
    assert len(log.report._hosts) == MAX_HOSTS
    for _ in range(int(SUMMARY_S / CALM_S)):
        log.tick()
    assert log.lines[1].endswith(
        ": 2 from 10.0.0.0, 1 from 10.0.0.1, 1 from 10.0.0.2, 4,093 from others"
    )


def test_an_hour_of_flood_is_a_line_every_ten_seconds() -> None:
    log = Log()
    for second in range(3600):
        log.reject(*[f"10.0.{second % 256}.{n}" for n in range(50)])
        log.tick()
    assert len(log.lines) <= 1 + 3600 / SUMMARY_S


def test_flapping_every_other_second_is_at_most_two_lines_a_calm() -> None:
    log = Log()
    for _ in range(500):
        log.reject("192.0.2.1")
        log.tick()
        log.tick(full=False)
    assert len(log.lines) <= 1000


# ---- rules in dry run ----------------------------------------------------------------------


def test_a_dry_run_is_summed_up_once_an_interval_and_ends_with_the_first_quiet_one() -> None:
    report = DryRunReport()
    totals = dict.fromkeys(Reason, 0)
    report.begin(1000.0, totals)
    totals[Reason.SOURCE] += 1234
    totals[Reason.RATE] += 1
    assert report.tick(1000.0 + SUMMARY_S - 0.1, 3, 100, totals) == []
    assert report.tick(1000.0 + SUMMARY_S, 3, 100, totals) == [
        "dry run: 1,235 would have been rejected in 10.0 s (rate 1, source 1,234); 3/100 in use"
    ]
    totals[Reason.SOURCE] += 1
    assert len(report.tick(1000.0 + 2 * SUMMARY_S, 3, 100, totals)) == 1
    assert report.open
    assert report.tick(1000.0 + 3 * SUMMARY_S, 3, 100, totals) == []
    assert not report.open
    assert report.tick(1000.0 + 9 * SUMMARY_S, 3, 100, totals) == []


def test_a_dry_run_that_ends_before_its_interval_is_summed_up_and_begins_anew() -> None:
    report = DryRunReport()
    totals = dict.fromkeys(Reason, 0)
    assert report.end(1000.0, 3, 100, totals) == []
    report.begin(1000.0, totals)
    totals[Reason.SOURCE] += 3
    assert report.end(1002.5, 3, 100, totals) == [
        "dry run: 3 would have been rejected in 2.5 s (source 3); 3/100 in use"
    ]
    assert not report.open
    assert report.end(1003.0, 3, 100, totals) == []


def test_rejections_that_end_before_a_summary_are_summed_up_and_begin_anew() -> None:
    log = Log()
    assert log.end() == []
    log.reject(*["192.0.2.1"] * 3)
    log.degraded += 1
    log.tick()
    assert log.end() == [
        "rejecting: 0/100 in use, 3 rejected in 1.0 s (capacity 3), "
        "1 of them without their reply: 3 from 192.0.2.1"
    ]
    assert not log.report.rejecting
    assert log.end() == []
    log.reject("192.0.2.2")
    assert log.end() == [
        "rejecting: 0/100 in use, 1 rejected in 0.0 s (capacity 1): 1 from 192.0.2.2"
    ]


def test_turned_away_for_the_reserves_sake_it_does_not_say_full() -> None:
    report = RejectionReport(Sources().of)
    totals = {**dict.fromkeys(Reason, 0), Reason.CAPACITY: 1}
    assert report.begin(0.0, Reason.CAPACITY, 98, 100, totals) == (
        "rejecting (capacity), 98/100 in use"
    )
