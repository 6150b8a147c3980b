from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from overnight.events import Act, AgentEvent
from overnight.transcript import HEAD_BYTES, TAIL_BYTES, Transcript


@given(st.lists(st.binary(max_size=6000), max_size=8))
def test_keeps_head_and_tail_of_the_output(chunks: list[bytes]) -> None:
    transcript, whole = Transcript(), b"".join(chunks)
    for chunk in chunks:
        transcript.add_bytes("out", chunk)
        transcript.add_bytes("err", chunk)
    assert transcript.out_head == whole[:HEAD_BYTES]
    assert transcript.out_tail == whole[-TAIL_BYTES:]
    assert transcript.err_tail == whole[-TAIL_BYTES:]
    assert (transcript.out_bytes, transcript.err_bytes) == (len(whole), len(whole))


def test_a_long_run_keeps_its_first_init_and_its_newest_events() -> None:
    transcript = Transcript(limit=3)
    transcript.add_events(0.5, [AgentEvent(Act.INIT, model="m")])
    for second in range(10):
        transcript.add_events(float(second), [AgentEvent(Act.SPOKE, text=str(second))])
    assert transcript.init is not None
    assert (transcript.init.at_s, transcript.init.event.model) == (0.5, "m")
    assert [s.event.text for s in transcript.said] == ["7", "8", "9"]


def test_a_second_init_does_not_replace_the_first() -> None:
    transcript = Transcript()
    transcript.add_events(1.0, [AgentEvent(Act.INIT, model="a"), AgentEvent(Act.INIT, model="b")])
    assert transcript.init is not None
    assert transcript.init.event.model == "a"


def test_signs_of_life_are_not_kept() -> None:
    transcript = Transcript()
    transcript.add_events(1.0, [AgentEvent(Act.OTHER)] * 5)
    assert not transcript.said


def test_first_and_last_look_for_any_of_the_acts() -> None:
    transcript = Transcript()
    for at_s, act in enumerate((Act.INIT, Act.WAITING, Act.SPOKE, Act.WAITING)):
        transcript.add_events(float(at_s), [AgentEvent(act)])
    first, last = transcript.first(Act.WAITING), transcript.last(Act.SPOKE, Act.WAITING)
    assert first is not None
    assert last is not None
    assert (first.at_s, last.at_s) == (1.0, 3.0)
    assert transcript.last(Act.RESULT) is None


@given(st.lists(st.sampled_from((Act.SPOKE, Act.ERROR, Act.RESULT, Act.OTHER)), max_size=12))
def test_the_last_of_any_acts_is_the_one_that_looking_at_all_of_them_finds(acts: list[Act]) -> None:
    transcript = Transcript(limit=4)
    transcript.add_events(1.0, [AgentEvent(act, text=str(number)) for number, act in enumerate(acts)])
    for asked in ((Act.ERROR,), (Act.SPOKE, Act.RESULT), (Act.SPOKE, Act.ERROR, Act.RESULT), (Act.DENIED,)):
        wanted = next((said for said in reversed(transcript.said) if said.event.act in asked), None)
        assert transcript.last(*asked) is wanted
        assert replace(transcript).last(*asked) is wanted
    assert replace(transcript, said=deque()).last(Act.SPOKE, Act.ERROR) is None
