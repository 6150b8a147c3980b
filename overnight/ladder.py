"""What a silent run is doing: one rung of a ladder, read from a look at its host.

The rungs follow the life of a run: it starts, asks the provider, runs a tool,
pauses by itself. A rung is a fact of the moment with what was seen; whether it
is a failure, and of which kind, is data in `rungs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from urllib.parse import urlsplit

from overnight.events import Act
from overnight.failures import Evidence
from overnight.outcome import FULL_BYTES
from overnight.rungs import RULES, Rung, RungRule
from overnight.sample import LockWait, Process, Sample, Socket
from overnight.silence import Progress
from overnight.transcript import Transcript

_BUSY_SHARE = 0.05  # of one processor, between the two looks; an idle Node or Bun event loop takes 0.5 to 2 %
_RESTING_SHARE = 0.005
_BUSY_BYTES = 64 * 1024
_STARVED_SHARE = 0.5
_HELLO_BYTES = 2048  # a TLS greeting is 200 to 1800 bytes; a request of an agent is 10 kB and more
_SLACK_S = 3.0
_LATE_S = 1.0
_HEARD_S = 0.5  # an event is heard here so much later than it was said
_SLEEPS = ("nanosleep", "hrtimer")
_SEEN_CHARS = 160
_RUNNING = 12


@dataclass(frozen=True)
class Standing:
    """The rung a run stands on, and what shows it."""

    rung: Rung
    evidence: tuple[Evidence, ...]
    running: tuple[str, ...] = ()

    @property
    def rule(self) -> RungRule:
        return RULES[self.rung]

    @property
    def shown(self) -> Evidence:
        """The rung in one line."""
        return self.evidence[0]


def unseen(why: str, at_s: float) -> Standing:
    """For a host that could not be asked."""
    return _standing(Rung.NOT_SEEN, why, at_s)


def climb(
    sample: Sample, progress: Progress, transcript: Transcript, base_url: str, earlier: Sample | None = None
) -> Standing:
    """The rung of a silent run. Never a guess: what nothing shows is IDLE, BUSY or START_IDLE.

    Args:
        sample: The look at its host.
        progress: The clocks at which the silence was found.
        transcript: What the agent said before it.
        base_url: The provider's, to tell its connections from others.
        earlier: A look in the same silence, long before: a command may rest for a moment.
    """
    at_s = sample.at_s if sample.at_s is not None else progress.age_s
    wire = _wire(sample, progress, base_url, at_s)
    began = progress.quiet_s is not None
    children = _children(sample, at_s, _first_word_s(progress, transcript))
    below = _tool(children, sample, progress, transcript, at_s, earlier) if began else wire or _starting(sample, at_s)
    # an agent that waits for nothing else waits for the command it sent to the background
    older = _command(children, sample, at_s, earlier) if began else None
    found = _host(sample, at_s) or below or wire or older or _itself(sample, progress, at_s)
    living = [each for each in sample.processes if each.state != "Z"]
    more = (f"and {len(living) - _RUNNING} more",) if len(living) > _RUNNING else ()
    return Standing(found.rung, found.evidence, (*(_named(each) for each in living[:_RUNNING]), *more))


def _host(sample: Sample, at_s: float) -> Standing | None:
    living = [each for each in sample.processes if each.state != "Z"]
    main = next((each for each in living if each.main), None)
    if main is not None and main.state in ("T", "t"):
        return _standing(Rung.FROZEN, f"{_named(main)} is in state {main.state}", at_s)
    for place, free in (("the run's", sample.run_disk_free_bytes), ("the work tree's", sample.work_disk_free_bytes)):
        if free is not None and free < FULL_BYTES:
            return _standing(Rung.DISK_FULL, f"{free} bytes free on {place} disk", at_s)
    waited = sum(each.wait_delta_s or 0 for each in living)
    if sample.seconds and waited > sample.seconds * _STARVED_SHARE and waited > _cpu(living):
        seen = f"in {sample.seconds:.1f} s its processes computed {_cpu(living):.2f} s and queued {waited:.1f} s"
        return _standing(Rung.STARVED, f"{seen}; load {sample.load}", at_s)
    return None


def _tool(
    children: list[Process],
    sample: Sample,
    progress: Progress,
    transcript: Transcript,
    at_s: float,
    earlier: Sample | None,
) -> Standing | None:
    """Commands that began with the silence, or with the tool that is open. Servers the agent keeps are older."""
    since_s = max(progress.quiet_s or 0.0, open_tool_s(transcript, progress.age_s)) + sample.seconds + _SLACK_S
    young = [each for each in children if each.age_s is None or each.age_s <= since_s]
    return _command(young, sample, at_s, earlier)


def _command(young: list[Process], sample: Sample, at_s: float, earlier: Sample | None) -> Standing | None:
    """What commands of the agent do; None when there are none."""
    if not young:
        return None
    done = _done_since(earlier, young, at_s)
    if done:
        return _standing(Rung.TOOL_BUSY, f"{done}: {_all(young)}", at_s)
    if _busy(young, sample.seconds) or sample.came or sample.went:
        return _standing(Rung.TOOL_BUSY, f"{_work(young, sample)}: {_all(young)}", at_s)
    blocked = next((each for each in young if each.locks), None)
    if blocked is not None:
        return _standing(Rung.TOOL_LOCK, f"{_named(blocked)} waits for {_lock(blocked.locks[0])}", at_s)
    sleeper = next((each for each in young if any(word in each.waits_in for word in _SLEEPS)), None)
    if sleeper is not None:
        return _standing(Rung.TOOL_SLEEP, f"{_named(sleeper)} sleeps since {sleeper.age_s or 0:.0f} s", at_s)
    reader = next((each for each in young if each.reads_stdin), None)
    if reader is not None:
        return _standing(Rung.TOOL_STDIN, f"{_named(reader)} reads its standard input, a {reader.stdin}", at_s)
    leaf = _leaf(young)
    return _standing(Rung.TOOL_IDLE, f"{_named(leaf)} waits in {_waits(leaf)}", at_s)


def _starting(sample: Sample, at_s: float) -> Standing | None:
    """Before the first event a child is a hook, an MCP server, or a part of the agent."""
    others = _children(sample, at_s, -inf)
    if not others or _busy(list(sample.processes), sample.seconds):
        return None
    leaf = _leaf(others)
    return _standing(Rung.START_CHILD, f"{_named(leaf)}, {leaf.age_s or 0:.0f} s old, waits in {_waits(leaf)}", at_s)


def _wire(sample: Sample, progress: Progress, base_url: str, at_s: float) -> Standing | None:
    if sample.asks_names_of:
        return _standing(Rung.NAME_LOOKUP, f"no answer from name server {' '.join(sample.asks_names_of)}", at_s)
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    ours = [each for each in sample.sockets if each.remote.endswith(f":{port}")]
    if not ours:
        return None
    # the request is the largest thing an agent sends
    peer = max(ours, key=lambda each: (each.state == "ESTABLISHED", each.sent_bytes or 0))
    silent_s = progress.age_s if progress.quiet_s is None else max(progress.quiet_s, progress.answer_s or 0.0)
    rung = _socket(peer, silent_s, secure=url.scheme == "https")
    return _standing(rung, _connection(peer), at_s) if rung else None


def _socket(peer: Socket, silent_s: float, *, secure: bool) -> Rung | None:
    if peer.state == "SYN_SENT":
        return Rung.CONNECTING
    if peer.state == "CLOSE_WAIT":
        return Rung.PEER_CLOSED
    if peer.state != "ESTABLISHED":
        return None
    if peer.retransmits:
        return Rung.LINK_CUT
    sent, came = peer.last_sent_s, peer.last_received_s
    if sent is None:
        return None
    if came is None:
        return Rung.TLS if secure and (peer.sent_bytes or 0) <= _HELLO_BYTES else Rung.NO_ANSWER
    if sent < came:
        return Rung.NO_ANSWER
    if peer.received_delta_bytes or came < silent_s - _SLACK_S:
        # an answer that drips leaves its request behind; a request that is tried again is answered at once
        return Rung.DRIPPING if sent - came > _LATE_S else Rung.ASKS_AGAIN
    return Rung.ANSWER_STOPPED


def _itself(sample: Sample, progress: Progress, at_s: float) -> Standing:
    living = [each for each in sample.processes if each.state != "Z"]
    starting = progress.quiet_s is None
    if _busy(living, sample.seconds):
        return _standing(Rung.START_BUSY if starting else Rung.BUSY, _work(living, sample), at_s)
    stuck = next((each for each in living if each.state == "D"), None)
    if stuck is not None:
        return _standing(Rung.DISK_WAIT, f"{_named(stuck)} waits in {_waits(stuck)}", at_s)
    if not living:
        return unseen("no process of the run was found", at_s)
    main = next((each for each in living if each.main), living[0])
    seen = f"{_named(main)} waits in {_waits(main)}, {len(sample.sockets)} connections"
    return _standing(Rung.START_IDLE if starting else Rung.IDLE, seen, at_s)


def _standing(rung: Rung, seen: str, at_s: float) -> Standing:
    words = f"{rung}: {RULES[rung].meaning}; {seen}"
    return Standing(rung, (Evidence(source="host", seen=words, at_s=round(at_s, 1)),))


def open_tool_s(transcript: Transcript, age_s: float) -> float:
    """How long the tool that runs has been running, by the harness's events; 0 when it reports none."""
    last = transcript.last(Act.TOOL_STARTED, Act.TOOL_ENDED)
    return age_s - last.at_s if last is not None and last.event.act is Act.TOOL_STARTED else 0.0


def _first_word_s(progress: Progress, transcript: Transcript) -> float:
    """When the agent said its first word, at the latest; before all time when it said none.

    An event's moment is that of its hearing, which a busy machine delays. What the host saw said it had heard by then.
    """
    if not transcript.said:
        return -inf
    seen_s = progress.age_s - (progress.quiet_s or 0.0)
    # by two clocks a child that was started at once may be a moment older than its run
    return min(transcript.said[0].at_s, seen_s) - _HEARD_S


def _children(sample: Sample, at_s: float, since_s: float) -> list[Process]:
    """What the agent started since then, its first word: not its own process, not others of its program or connection.

    Servers and helpers that an agent needs it starts before it says a word.
    """
    program = next((_program(each) for each in sample.processes if each.main), "")
    own = {each.pid for each in sample.sockets}
    return [
        each
        for each in sample.processes
        if not each.main and each.state != "Z" and each.pid not in own and _program(each) != program
        if each.age_s is None or at_s - each.age_s >= since_s
    ]


def _program(process: Process) -> str:
    return process.command.split(" ", 1)[0]


def _waits(process: Process) -> str:
    return process.syscall or process.waits_in or "nothing that can be seen"


def _leaf(processes: list[Process]) -> Process:
    parents = {each.parent for each in processes}
    return next((each for each in reversed(processes) if each.pid not in parents), processes[-1])


def _busy(processes: list[Process], seconds: float) -> bool:
    moved = sum((each.read_delta_bytes or 0) + (each.write_delta_bytes or 0) for each in processes)
    return _cpu(processes) > max(seconds, 0.1) * _BUSY_SHARE or moved > _BUSY_BYTES


def _done_since(earlier: Sample | None, young: list[Process], at_s: float) -> str:
    """What commands did between two looks far apart; empty when nothing."""
    if earlier is None or earlier.at_s is None:
        return ""
    before = {each.pid: each.cpu_s or 0.0 for each in earlier.processes}
    lasted = at_s - earlier.at_s
    new = sum(1 for each in young if each.pid not in before and (each.age_s or 0.0) < lasted)
    cpu = sum(max(0.0, (each.cpu_s or 0.0) - before.get(each.pid, 0.0)) for each in young)
    if not new and cpu <= lasted * _RESTING_SHARE:
        return ""
    return f"{cpu:.1f} s of CPU and {new} new processes in the last {lasted:.0f} s"


def _cpu(processes: Iterable[Process]) -> float:
    return sum(each.cpu_delta_s or 0 for each in processes)


def _work(processes: list[Process], sample: Sample) -> str:
    moved = sum((each.read_delta_bytes or 0) + (each.write_delta_bytes or 0) for each in processes)
    changes = f", {sample.came} began and {sample.went} ended" if sample.came or sample.went else ""
    return f"{_cpu(processes):.2f} s of CPU and {moved} bytes moved in {sample.seconds:.1f} s{changes}"


def _connection(peer: Socket) -> str:
    ages = [
        f"{word} {size} bytes{f', the last {age:.0f} s ago' if age is not None else ''}"
        for word, size, age in (
            ("sent", peer.sent_bytes, peer.last_sent_s),
            ("received", peer.received_bytes, peer.last_received_s),
        )
        if size is not None
    ]
    again = f"; {peer.retransmits} retransmissions" if peer.retransmits else ""
    return f"connection to {peer.remote} is {peer.state}: {'; '.join(ages) or 'nothing more is known'}{again}"


def _lock(wait: LockWait) -> str:
    holder = f", held by {wait.holder} {wait.holder_command}".rstrip() if wait.holder else ""
    return f"a lock on {wait.file}{holder}"[:_SEEN_CHARS]


def _named(process: Process) -> str:
    return f"{process.command[:_SEEN_CHARS]} (pid {process.pid})"


def _all(processes: list[Process]) -> str:
    return "; ".join(_named(each) for each in processes[:3])[: 2 * _SEEN_CHARS]
