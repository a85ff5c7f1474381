"""Long work reports its progress in the log now and then, unless a terminal shows a bar."""

import logging

import pytest

from oligo_ad import progress as module
from oligo_ad.progress import progress


class Clock:
    """A clock that a test moves by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_terminal", lambda: False)
    caplog.set_level(logging.INFO)
    return clock


def test_a_line_reports_what_is_done_its_rate_and_the_time_left(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with progress("reading X", 10_000, "nuclei") as advance:
        clock.now += 20
        advance(4_000, 60_000_000)
    assert caplog.messages == ["reading X: 4,000 of 10,000 nuclei, 200 a second, 3 MB/s, 30 s left"]


def test_the_rate_of_slow_work_is_not_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("permuting", 200, "permutations") as advance:
        clock.now += 30
        advance(1)
    assert caplog.messages == ["permuting: 1 of 200 permutations, 2 a minute, 5970 s left"]


def test_no_bytes_are_reported_where_none_are_known(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("simulating", 100, "nuclei") as advance:
        clock.now += 25
        advance(50)
    assert caplog.messages == ["simulating: 50 of 100 nuclei, 2 a second, 25 s left"]


def test_lines_are_as_far_apart_as_they_should_be(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("reading X", 100, "nuclei") as advance:
        for _ in range(100):
            clock.now += 1
            advance(1)
    # More than EVERY = 10 seconds, in steps of one.
    assert [int(line.split()[2]) for line in caplog.messages] == list(range(11, 100, 11))


def test_short_work_logs_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("reading X", 100, "nuclei") as advance:
        clock.now += 9.9
        advance(100)
    assert caplog.messages == []


def test_a_terminal_gets_a_bar_and_no_lines(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_terminal", lambda: True)
    with progress("reading X", 100, "nuclei") as advance:
        clock.now += 20
        advance(60)
    assert caplog.messages == []
    assert "reading X" in capsys.readouterr().err
