from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.events import Act
from overnight.harnesses import HARNESSES
from overnight.harnesses.lines import Lines, field, objects, parse
from tests.overnight.harnesses.golden import cases, read_all

CASES = [case for case in cases() if case.out]


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(CASES), chunk=st.integers(1, 4096))
def test_how_a_transcript_was_cut_changes_no_event(case: object, chunk: int) -> None:
    assert isinstance(case, type(CASES[0]))
    assert read_all(case.harness, case.out, chunk=chunk) == read_all(case.harness, case.out)


def test_a_character_cut_in_the_middle_is_whole_again() -> None:
    line = '{"type":"assistant","message":{"content":[{"type":"text","text":"身份"}]}}\n'.encode()
    for cut in range(len(line)):
        reader = HARNESSES["claude-code"].reader()
        events = reader.feed("out", line[:cut]) + reader.feed("out", line[cut:])
        assert [e.text for e in events] == ["身份"]


def test_bytes_that_are_no_utf8_do_not_hide_the_line() -> None:
    line = b'{"type":"assistant","message":{"content":[{"type":"text","text":"a\xff\xfeb"}]}}\n'
    (event,) = HARNESSES["claude-code"].reader().feed("out", line)
    assert event.act is Act.SPOKE
    assert event.text == "a\ufffd\ufffdb"


def test_a_line_beyond_the_limit_is_dropped_and_the_next_one_read() -> None:
    for chunk in (1, 3, 100):
        lines, data = Lines(limit=10), b"x" * 11 + b"\n" + b"y" * 10 + b"\nz"
        found = [line for i in range(0, len(data), chunk) for line in lines.feed(data[i : i + chunk])]
        assert found == [None, b"y" * 10]


def test_a_line_beyond_the_limit_takes_no_memory() -> None:
    lines = Lines(limit=1000)
    for _ in range(1000):
        assert lines.feed(b"x" * 1000) == []
    assert len(lines._pending) <= 1001


def test_json_that_is_no_object_is_no_line_of_an_agent() -> None:
    for line in (b"", b"[1]", b"1", b'"x"', b"{", b"[" * 100_000, b"9" * 5000):
        assert parse(line) is None


def test_half_a_character_does_not_travel_on() -> None:
    assert parse(rb'{"text": "a\ud83d b\uD83D\uDE00"}') == {"text": "a? b\N{GRINNING FACE}"}


def test_a_bool_is_not_a_number() -> None:
    assert field({"status": True}, "status", int) is None
    assert field({"ok": True}, "ok", bool) is True
    assert field([], "x", str) is None
    assert objects({"content": [1, {"a": 1}, None]}, "content") == [{"a": 1}]
    assert objects({"content": "text"}, "content") == []
