from datetime import date

import pytest

from overnight.keyshape import doubt, expired, flaw, reminder
from overnight.lockfile import KeyShape, load

BODY = "0123abcd.Zx9SECRET"


@pytest.mark.parametrize(
    "key", [BODY, "sk-ant-api03-a_b-c", "sk-or-v1-0a", "eyJhbGciOi.eyJ9.a-b_c=", "Bearer", "x+/=="]
)
def test_keys_that_can_work_pass(key: str) -> None:
    assert flaw(key) is None


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "empty"),
        (" \t\n", "empty"),
        (f"Bearer {BODY}", "starts with 'Bearer '"),
        (f"bearer  {BODY}", "starts with 'Bearer '"),
        (f'"Bearer {BODY}"', "starts with 'Bearer '"),
        (f'"{BODY}"', "quote character"),
        (f"'{BODY}", "quote character"),
        (f"`{BODY}`", "quote character"),
        (f"{BODY}\n", "before or after"),
        (f" {BODY}", "before or after"),
        (f"{BODY}\r\n", "before or after"),
        (f"{BODY}\u00a0", "before or after"),
        (f"{BODY} {BODY}", "inside"),
        (f"{BODY}\n{BODY}", "inside"),
        (f"\u201d{BODY}", "not ASCII"),
        (f"{BODY}\u200b", "not ASCII"),
        (f"{BODY}\0", "control character"),
        (f"\x1b{BODY}", "control character"),
    ],
)
def test_keys_that_cannot_work_are_named_and_never_shown(key: str, problem: str) -> None:
    found = flaw(key)
    assert found is not None
    assert problem in found.problem
    assert found.mend
    for part in ("SECRET", "0123", "Zx9"):
        assert part not in "".join(found)


def test_doubt_is_for_keys_unlike_the_known_ones() -> None:
    shape = load().providers["anthropic"].key
    assert doubt("sk-ant-api03-x", shape) is None
    said = doubt("sk-ant-oat01-SECRET", shape)
    assert said is not None
    assert "sk-ant-api" in said
    assert "SECRET" not in said


def test_no_doubt_without_known_prefixes() -> None:
    shape = load().providers["zai"].key
    assert isinstance(shape, KeyShape)
    assert doubt("anything", shape) is None
    assert doubt("anything", None) is None


TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("ends", "gone", "said"),
    [
        (None, False, None),
        (date(2026, 11, 30), False, None),
        (date(2026, 11, 29), False, "the key of zai expires on 2026-11-29, in 7 days"),
        (date(2026, 11, 25), False, "the key of zai expires on 2026-11-25, in 3 days"),
        (date(2026, 11, 23), False, "the key of zai expires on 2026-11-23, tomorrow"),
        (date(2026, 11, 22), False, "the key of zai expires on 2026-11-22, today"),
        (date(2026, 11, 21), True, "the key of zai expired on 2026-11-21"),
    ],
)
def test_a_key_is_reminded_of_a_week_ahead_and_refused_after_its_last_day(
    ends: date | None, gone: bool, said: str | None
) -> None:
    assert reminder("zai", ends, TODAY) == said
    found = expired("zai", ends, TODAY)
    assert (found is not None) == gone
    if found is not None:
        assert found.problem == f"the key expired on {ends}"
        assert "overnight credentials rotate zai" in found.mend
