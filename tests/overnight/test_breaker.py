"""When a breaker opens, for how long, and what is left of it after a crash."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from overnight.breaker import CAP_S, FIRST_S, OPENS_AFTER, TRUSTED_S, Breaker, BreakerFile, answers_for, blamed
from overnight.failures import Evidence, FailureKind, fail
from overnight.resets import reset_s
from overnight.route import Route
from tests.overnight.samples import proven

K = FailureKind
ROUTE = Route(host="box", harness="scripted", provider="p", model="m")
NOON = 1_800_000_000.0  # 2027-01-15 08:00 UTC


def after(*kinds: FailureKind, breaker: Breaker | None = None, now: float = NOON) -> Breaker:
    found = breaker or Breaker()
    for kind in kinds:
        found = found.failed(proven(kind), now)
    return found


def test_it_opens_on_the_third_in_a_row_and_a_success_begins_the_count_anew() -> None:
    two = after(*[K.OVERLOADED] * (OPENS_AFTER - 1))
    assert two.state(NOON) == "closed"
    assert after(K.OVERLOADED, breaker=two).state(NOON) == "open"
    assert after(K.OVERLOADED, breaker=two.succeeded(NOON)).state(NOON) == "closed"


def test_each_canary_that_fails_doubles_the_wait_up_to_a_cap() -> None:
    breaker, now, waits = after(*[K.OVERLOADED] * OPENS_AFTER), NOON, []
    for _ in range(8):
        assert breaker.until is not None
        waits.append(breaker.until - now)
        now = breaker.until
        assert breaker.state(now) == "half-open"
        breaker = breaker.failed(proven(K.OVERLOADED), now)
    assert waits == [FIRST_S, 120, 240, 480, 960, CAP_S, CAP_S, CAP_S]


def test_what_ended_from_before_it_opened_does_not_lengthen_the_wait() -> None:
    opened = after(*[K.OVERLOADED] * OPENS_AFTER)
    assert after(*[K.OVERLOADED] * 5, breaker=opened).until == opened.until


def test_a_canary_closes_it_and_only_a_good_end_makes_it_forget() -> None:
    closed = after(*[K.OVERLOADED] * OPENS_AFTER).spoke(NOON + 100)
    assert (closed.state(NOON + 100), closed.opened, closed.failures) == ("closed", 1, 0)
    again = after(*[K.OVERLOADED] * OPENS_AFTER, breaker=closed, now=NOON + 200)
    assert again.until == NOON + 200 + 2 * FIRST_S
    assert closed.succeeded(NOON + 200).opened == 0


def test_a_window_opens_it_at_once_until_the_provider_s_own_time() -> None:
    window = Breaker().failed(proven(K.QUOTA_WINDOW, retry_after_s=7200), NOON)
    assert (window.state(NOON), window.until, window.reset) == ("open", NOON + 7200, True)
    unsaid = Breaker().failed(proven(K.QUOTA_WINDOW), NOON)
    assert (unsaid.state(NOON), unsaid.until, unsaid.reset) == ("open", NOON + FIRST_S, False)


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ("Your limit will reset at 2027-01-15 18:00:00", 2 * 3600),  # Beijing's time, as ZhiPu writes it
        ("Your limit will reset at 2027-01-15 09:00:00", 3600),  # already past in Beijing
        ("resets at 2027-01-15T09:30Z", 5400),
        ("resets at 2027-01-15T10:00+01:00", 3600),
        (f"usage limit reached|{int(NOON) + 90}", 90),
        ("Your limit will reset at 2027-01-14 18:00:00", None),
        ("Your limit will reset at 2027-02-31 18:00:00", None),
        ("wait for the reset", None),
    ],
)
def test_the_reset_is_read_from_the_provider_s_words(words: str, wait_s: float | None) -> None:
    assert reset_s(fail(K.QUOTA_WINDOW, Evidence(source="body", seen=words)), NOON) == wait_s
    assert reset_s(fail(K.RATE_LIMITED, Evidence(source="body", seen=words)), NOON) is None


def test_trust_lasts_a_day() -> None:
    good = Breaker().spoke(NOON)
    assert not Breaker().trusted(NOON)
    assert good.trusted(NOON + TRUSTED_S - 1)
    assert not good.trusted(NOON + TRUSTED_S)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_speaks_of_somebody_once(kind: FailureKind) -> None:
    """Whatever blames a route does not also praise it; what only a person can mend does neither, but shuts it."""
    failure = proven(kind)
    assert not (blamed(failure, ROUTE) and answers_for(failure))
    assert not (failure.shuts_for_good and blamed(failure, ROUTE))


def test_a_provider_is_blamed_for_itself_and_not_for_a_network_or_a_machine() -> None:
    assert blamed(proven(K.OVERLOADED), ROUTE) == (f"route {ROUTE}", "provider p")
    assert blamed(proven(K.NETWORK), ROUTE) == blamed(proven(K.DISK_FULL), ROUTE) == (f"route {ROUTE}",)
    assert blamed(proven(K.NO_COMMIT), ROUTE) == ()


def test_the_file_tells_another_process_everything(tmp_path: Path) -> None:
    opened = after(*[K.OVERLOADED] * OPENS_AFTER)
    BreakerFile(tmp_path).note({"provider p": opened})
    other = BreakerFile(tmp_path)
    assert other.news() == {"provider p": opened}
    assert other.news() == {}
    BreakerFile(tmp_path).note({"provider q": opened})
    assert set(other.news()) == {"provider p", "provider q"}
    assert json.loads((tmp_path / "breakers.json").read_text())["schema"] == 1


def test_of_two_who_write_the_later_one_is_right(tmp_path: Path) -> None:
    early, late = Breaker(failures=1, at=NOON), Breaker(failures=2, at=NOON + 1)
    for each in (late, early):
        BreakerFile(tmp_path).note({"provider p": each})
    assert BreakerFile(tmp_path).read() == {"provider p": late}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', '{"breakers": {"p": {"failures": "x"}}}', "\0\0", "3"]
)
def test_a_torn_file_counts_as_nothing_and_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "breakers.json").write_text(text)
    file = BreakerFile(tmp_path)
    assert file.news() == {}
    file.note({"provider p": Breaker(failures=1)})
    assert file.read() == {"provider p": Breaker(failures=1)}


def _notes(state: Path, name: str) -> None:
    for i in range(20):
        BreakerFile(state).note({f"{name} {i}": Breaker(failures=i)})


def test_two_nights_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [multiprocessing.get_context("spawn").Process(target=_notes, args=(tmp_path, name)) for name in "ab"]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(BreakerFile(tmp_path).read()) == 40
