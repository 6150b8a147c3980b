"""Each rung from a look at a host. That the looks are true is tested on real processes, in the sampler's own tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overnight.events import Act, AgentEvent
from overnight.failures import FailureKind
from overnight.ladder import Standing, climb
from overnight.rungs import RULES, Rung
from overnight.sample import LockWait, Process, Sample, Socket
from overnight.silence import Progress
from overnight.transcript import Transcript

K = FailureKind
URL = "http://127.0.0.1:8099/site"
AGENT = Process(
    1, 0, main=True, command="/opt/claude -p x", state="S", age_s=101, cpu_s=2, cpu_delta_s=0, waits_in="ep"
)
PEER = Socket(1, "ESTABLISHED", "127.0.0.1:8099", sent_bytes=50_000, received_bytes=900, last_sent_s=60)
QUIET = Progress(age_s=100, quiet_s=60, unchanged_s=None, answer_s=60)
MUTE = Progress(age_s=61, quiet_s=None, unchanged_s=None)


def child(command: str = "sleep 600", **fields: Any) -> Process:
    return Process(**{"pid": 9, "parent": 1, "command": command, "state": "S", "age_s": 58, "cpu_delta_s": 0, **fields})


def seen(*processes: Process, sockets: tuple[Socket, ...] = (), **fields: Any) -> Sample:
    return Sample(at_s=101, seconds=1.0, processes=(AGENT, *processes), sockets=sockets, came=0, went=0, **fields)


def said(*acts: tuple[float, Act]) -> Transcript:
    transcript = Transcript()
    for at_s, act in acts:
        transcript.add_events(at_s, [AgentEvent(act, tool="Bash")])
    return transcript


WORKING = said((1.0, Act.INIT), (40.0, Act.TOOL_STARTED))
ASKING = said((1.0, Act.INIT), (40.0, Act.WAITING))


def stands(sample: Sample, progress: Progress = QUIET, transcript: Transcript = ASKING, url: str = URL) -> Standing:
    return climb(sample, progress, transcript, url)


@pytest.mark.parametrize(
    ("came", "rung"),
    [
        (replace(PEER, state="SYN_SENT", sent_bytes=0, last_sent_s=None), Rung.CONNECTING),
        (replace(PEER, state="CLOSE_WAIT"), Rung.PEER_CLOSED),
        (replace(PEER, retransmits=3), Rung.LINK_CUT),
        (replace(PEER, last_received_s=None, received_bytes=0), Rung.NO_ANSWER),
        (replace(PEER, last_received_s=90.0), Rung.NO_ANSWER),
        (replace(PEER, last_sent_s=59.99, last_received_s=59.98), Rung.ANSWER_STOPPED),
        (replace(PEER, last_received_s=14.0), Rung.DRIPPING),
        (replace(PEER, last_received_s=0.3, received_delta_bytes=30), Rung.DRIPPING),
        (replace(PEER, last_sent_s=12.1, last_received_s=12.0), Rung.ASKS_AGAIN),
        (replace(PEER, last_sent_s=None), Rung.IDLE),
        (replace(PEER, state="FIN_WAIT2"), Rung.IDLE),
        (replace(PEER, remote="10.0.0.1:443"), Rung.IDLE),
    ],
)
def test_a_wait_for_the_provider(came: Socket, rung: Rung) -> None:
    assert stands(seen(sockets=(came,))).rung is rung


def test_a_peer_that_does_not_greet_over_tls() -> None:
    hello = replace(PEER, remote="127.0.0.1:443", sent_bytes=517, received_bytes=0, last_received_s=None)
    assert stands(seen(sockets=(hello,)), url="https://api.example.com/x").rung is Rung.TLS
    asked = replace(hello, sent_bytes=20_000)
    assert stands(seen(sockets=(asked,)), url="https://api.example.com/x").rung is Rung.NO_ANSWER


def test_of_several_connections_the_one_with_the_request_is_read() -> None:
    title = replace(PEER, sent_bytes=900, last_sent_s=50, last_received_s=49.9)
    assert stands(seen(sockets=(title, PEER, replace(PEER, state="SYN_SENT")))).rung is Rung.NO_ANSWER


def test_a_wait_for_a_name() -> None:
    assert stands(seen(asks_names_of=("127.0.0.53:53",)), MUTE, Transcript()).rung is Rung.NAME_LOOKUP


@pytest.mark.parametrize(
    ("tool", "rung"),
    [
        (child("pytest", cpu_delta_s=0.4, state="R"), Rung.TOOL_BUSY),
        (child("cp a b", write_delta_bytes=900_000), Rung.TOOL_BUSY),
        (child("flock x", locks=(LockWait("/w/.lock", holder=3, holder_command="apt"),)), Rung.TOOL_LOCK),
        (child("cat", syscall="read(0)", stdin="pipe"), Rung.TOOL_STDIN),
        (child("cat", syscall="read(0)", stdin="/dev/null", waits_in="x"), Rung.TOOL_IDLE),
        (child(waits_in="hrtimer_nanosleep"), Rung.TOOL_SLEEP),
        (child("curl", syscall="poll"), Rung.TOOL_IDLE),
        (child(state="Z"), Rung.IDLE),
        (child("/opt/claude --worker"), Rung.IDLE),
        (child("mcp-server", age_s=100.8), Rung.IDLE),
    ],
)
@pytest.mark.parametrize("transcript", [WORKING, ASKING], ids=["reported", "not reported"])
def test_a_command_of_the_agent(tool: Process, rung: Rung, transcript: Transcript) -> None:
    assert stands(seen(tool), transcript=transcript).rung is rung


def test_commands_that_come_and_go_are_work() -> None:
    sample = replace(seen(child("sh -c loop", waits_in="do_wait")), came=7, went=7)
    assert stands(sample).rung is Rung.TOOL_BUSY


def test_a_server_that_an_earlier_command_left_behind_is_not_what_it_waits_for() -> None:
    server = child("npm run dev", age_s=80)
    sample = seen(server, sockets=(replace(PEER, last_received_s=None),))
    assert stands(sample).rung is Rung.NO_ANSWER


@pytest.mark.parametrize(
    ("before", "now", "rung"),
    [
        (child(cpu_s=1.0, age_s=28), child("pytest", cpu_s=1.4), Rung.TOOL_BUSY),
        (child(cpu_s=1.0, age_s=28), child("pytest", cpu_s=1.05), Rung.TOOL_IDLE),
        (child(cpu_s=1.0, age_s=28), child("curl", pid=77, cpu_s=0.0, age_s=4), Rung.TOOL_BUSY),
    ],
)
def test_a_command_that_rests_for_a_moment_is_known_by_what_it_did_since_a_look_before(
    before: Process, now: Process, rung: Rung
) -> None:
    earlier = replace(seen(before), at_s=71)
    assert climb(seen(now), QUIET, WORKING, URL, earlier).rung is rung


def test_an_agent_that_waits_for_nothing_else_waits_for_what_it_sent_to_the_background() -> None:
    older = child("sleep 86400", age_s=95, waits_in="hrtimer_nanosleep")
    assert stands(seen(older)).rung is Rung.TOOL_SLEEP


def test_a_command_older_than_the_silence_that_is_still_reported_open() -> None:
    heartbeats = replace(QUIET, quiet_s=3, answer_s=None)
    blocked = child("flock x", age_s=60.5, locks=(LockWait("/w/.lock"),))
    waiting = (replace(PEER, last_received_s=None),)
    assert stands(seen(blocked, sockets=waiting), heartbeats, WORKING).rung is Rung.TOOL_LOCK
    assert stands(seen(blocked, sockets=waiting), heartbeats, ASKING).rung is Rung.NO_ANSWER


def test_a_command_that_began_before_its_first_event_was_heard_here() -> None:
    late = said((1.3, Act.TOOL_STARTED))
    host = Progress(age_s=11.0, quiet_s=10.6, unchanged_s=None)  # by the host's clock it spoke at 0.4 s
    asleep = replace(seen(child(waits_in="hrtimer_nanosleep", age_s=11.5)), at_s=11.8)
    assert stands(asleep, host, late).rung is Rung.TOOL_SLEEP
    server = replace(seen(child("node server", waits_in="hrtimer_nanosleep", age_s=12.0)), at_s=11.8)
    assert stands(server, host, late).rung is Rung.IDLE


@pytest.mark.parametrize(
    ("sample", "rung"),
    [
        (seen(child("node hook.js", waits_in="ep_poll", age_s=60)), Rung.START_CHILD),
        (
            seen(child("node hook.js", waits_in="ep_poll", age_s=100_000)),
            Rung.START_CHILD,
        ),  # older than the run, by its clock
        (seen(child("node hook.js", age_s=60, cpu_delta_s=0.8)), Rung.IDLE),
        (seen(child("bash hook", age_s=60), sockets=(PEER,)), Rung.NO_ANSWER),
        (seen(), Rung.START_IDLE),
        (replace(seen(), processes=(replace(AGENT, cpu_delta_s=0.9, state="R"),)), Rung.START_BUSY),
        (replace(seen(), processes=()), Rung.NOT_SEEN),
    ],
)
def test_before_the_first_event(sample: Sample, rung: Rung) -> None:
    found = stands(sample, MUTE, Transcript()).rung
    assert found is (Rung.START_BUSY if rung is Rung.IDLE else rung)


@pytest.mark.parametrize(
    ("sample", "rung"),
    [
        (replace(seen(), processes=(replace(AGENT, state="T"),)), Rung.FROZEN),
        (seen(work_disk_free_bytes=4096), Rung.DISK_FULL),
        (seen(run_disk_free_bytes=0), Rung.DISK_FULL),
        (seen(child(wait_delta_s=0.9, cpu_delta_s=0.1), load=14.0), Rung.STARVED),
        (replace(seen(), processes=(replace(AGENT, state="D", waits_in="nfs_wait"),)), Rung.DISK_WAIT),
        (replace(seen(), processes=(replace(AGENT, cpu_delta_s=0.9),)), Rung.BUSY),
        (seen(), Rung.IDLE),
    ],
)
def test_the_host_and_the_agent_itself(sample: Sample, rung: Rung) -> None:
    assert stands(sample).rung is rung


def test_what_is_seen_is_said_with_its_place_in_time() -> None:
    found = stands(seen(sockets=(replace(PEER, last_received_s=None, received_bytes=0),)))
    assert str(found.shown) == (
        "host: no-answer: the provider took its request and has not answered; connection to 127.0.0.1:8099 is "
        "ESTABLISHED: sent 50000 bytes, the last 60 s ago; received 0 bytes at 101.0 s"
    )
    assert found.running == ("/opt/claude -p x (pid 1)",)


def test_only_what_is_at_work_is_left_alone() -> None:
    assert {rung for rung, rule in RULES.items() if rule.holds} == {Rung.STARVED, Rung.START_BUSY, Rung.TOOL_BUSY}
    assert set(RULES) == set(Rung)
    assert not [rung for rung, rule in RULES.items() if rule.holds and rule.kind]
