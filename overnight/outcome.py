"""How a run ended: the host's ending, the harness's words and git, read together in a fixed order."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Mapping

from overnight.collected import Collected
from overnight.events import Act, Ending, Exited, Killed, Lost
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.transcript import Transcript

_SHOWN_BYTES = 400
FULL_BYTES = 4 * 1024 * 1024
"""With less than this free a disk counts as full: git needs more to write one object of a work tree of any size."""
_KILLED = re.compile(r"\b(?:[Kk]illed|137|SIGKILL)\b")  # in a shell's or a tool's own line on a command
_K = FailureKind
_ELSEWHERE = (
    "look at what the evidence names and merge it if it is the work; say in the instruction to commit on the branch "
    "that is checked out, and not to rewrite history"
)


def process_failure(
    transcript: Transcript, said: Failure | None, stopped: Failure | None, names: Mapping[str, str]
) -> Failure | None:
    """Why the process did not end well, before anybody looks at commits; None when nothing speaks against it.

    Order: why we stopped it, unless it ended well by itself before we could;
    then what the harness proved (its events carry provider codes and
    statuses), then how the host saw it end. A time limit that cut a run in the
    middle of provider retries is the provider's fault, so the harness's words
    come before the limit. A request to end the run comes before them, except
    where they shut the route: that is true for every other task, too.

    Args:
        transcript: The finished run; its `ending` must be set.
        said: `diagnose` of the harness on this transcript.
        stopped: The failure for which the controller ended the run, if it did.
        names: Fill the remedy.
    """
    ending = transcript.ending
    if stopped is not None and not _ended_well(ending):
        return stopped
    if said is not None and said.shuts_route:
        return said
    if isinstance(ending, Killed) and ending.by == "request":
        seen = f"ended on request after {ending.seconds:.0f} s"
        return fail(_K.CANCELLED, Evidence(source="host", seen=seen, at_s=ending.seconds), names=names)
    if said is not None and said.kind is not _K.UNKNOWN:
        return said
    words = said.evidence if said is not None else head_and_tail(transcript)
    want = starved(ending)
    if want is not None and want[0] is _K.DISK_FULL and not (said is None and _ended_well(ending)):
        return fail(want[0], want[1], *words, names=names)
    match ending:
        case Lost(why):
            return fail(_K.LOST, Evidence(source="host", seen=why), names=names)
        case Killed(by="orphan", seconds=seconds):
            seen = "its supervisor died; the run was ended, since nobody would have enforced its limits"
            return fail(_K.LOST, Evidence(source="host", seen=seen, at_s=seconds), names=names)
        case Killed(by="total_s", seconds=seconds):
            evidence = Evidence(source="host", seen=f"ended by the host at its limit of {seconds:.0f} s", at_s=seconds)
            return fail(_K.TIME_LIMIT, evidence, _last_act(transcript), names=names)
        case Killed(by="max_log_bytes", seconds=seconds):
            written = transcript.out_bytes + transcript.err_bytes
            evidence = Evidence(source="host", seen=f"{written} bytes written", at_s=seconds)
            return fail(_K.LOG_LIMIT, evidence, *head_and_tail(transcript), names=names)
        case Exited(code=code, signal=signal, seconds=seconds) if code != 0:
            how = f"signal {signal}" if signal is not None else f"exit code {code}"
            evidence = Evidence(source="exit", seen=how, at_s=seconds)
            return fail(_K.UNKNOWN, evidence, *([want[1]] if want else []), *words, names=names)
        case _:
            return said


def starved(ending: Ending | None) -> tuple[FailureKind, Evidence] | None:
    """What the host's record of the ending shows that there was too little of: memory, or disk.

    The kills of the run's own memory group name the cause of a process that
    died without a word; beside a verdict, and those of the whole host, are no
    more than a sighting. A run can end well all the same, when only a command
    of the agent was struck.
    """
    if not isinstance(ending, Exited):
        return None
    # a launcher whose child was killed ends with a code of its own
    died = ended_by(ending) == signals.SIGKILL or (ended_by(ending) is None and ending.code not in (0, None))
    if ending.oom_kills_own and died:
        return _K.OUT_OF_MEMORY, _struck(ending, ", its own among them")
    free = ending.disk_free_bytes
    if free is not None and free < FULL_BYTES:
        seen = f"{free} bytes were free on the work tree's disk when it ended"
        return _K.DISK_FULL, Evidence(source="exit", seen=seen, at_s=ending.seconds)
    return None


def _struck(ending: Exited, more: str = "") -> Evidence:
    seen = f"the kernel ended {ending.oom_kills} process(es) for want of memory while it ran{more}"
    return Evidence(source="exit", seen=seen, at_s=ending.seconds)


def ended_by(ending: Exited) -> int | None:
    """The signal that ended it, its own or that of a child whose end a shell or a launcher passed on."""
    passed_on = ending.code - 128 if ending.code is not None and 128 < ending.code < 160 else None
    return ending.signal or passed_on


def _ended_well(ending: Ending | None) -> bool:
    return isinstance(ending, Exited) and ending.code == 0


def conclude(
    process: Failure | None, collected: Collected, transcript: Transcript, names: Mapping[str, str]
) -> Failure | None:
    """The verdict once git has been counted. None is success: the process ended well and there are commits."""
    if process is not None:
        return process
    if collected.commits:
        return None
    want = starved(transcript.ending)
    if want is not None and want[0] is _K.DISK_FULL:
        return fail(want[0], want[1], *_uncommitted(collected), *_last_words(transcript), names=names)
    ending = transcript.ending
    struck = ending if isinstance(ending, Exited) and ending.oom_kills else None
    seen = [*_uncommitted(collected), *([_struck(struck)] if struck else []), *_last_words(transcript)]
    if struck and got_nowhere(transcript) and (command := _killed_command(transcript)):
        proof = _struck(struck, f", and a command of the agent was killed: {command}")
        return fail(_K.OUT_OF_MEMORY, proof, *seen, names=names)
    denied = transcript.last(Act.DENIED)
    if denied is not None:
        times = sum(said.event.act is Act.DENIED for said in transcript.said)
        first = f"permission denied for {denied.event.tool or 'a tool'}" + (f", {times} times" if times > 1 else "")
        proof = Evidence(source="event", seen=first, at_s=denied.at_s)
        return fail(_K.PERMISSION_DENIED, proof, *seen, names=names)
    mute = _nothing_at_all(transcript)
    if mute is not None:
        return fail(_K.NOT_THE_API, mute, *seen, names=names)
    return fail(_K.NO_COMMIT, *seen, names=names, remedy=_ELSEWHERE if collected.others else "")


def _killed_command(transcript: Transcript) -> str:
    """The last words of a command that was killed, as its shell put it; empty when none was."""
    words = [said.event.text for said in transcript.said if said.event.act is Act.TOOL_ENDED]
    return next((said for said in reversed(words) if _KILLED.search(said)), "")


def got_nowhere(transcript: Transcript) -> bool:
    """Whether the agent called it done although every call of a tool had failed."""
    result = transcript.last(Act.RESULT)
    ended = [said.event for said in transcript.said if said.event.act is Act.TOOL_ENDED]
    return result is not None and result.event.ok is True and bool(ended) and all(tool.ok is False for tool in ended)


def _nothing_at_all(transcript: Transcript) -> Evidence | None:
    """An agent that tells all it does, asked its model, and reports success without a word and without a call."""
    result = transcript.last(Act.RESULT)
    told = transcript.first(Act.INIT, Act.WAITING) is not None
    if result is None or not result.event.ok or result.event.text.strip() or not told:
        return None
    for said in transcript.said:
        if said.event.act is Act.TOOL_STARTED or (said.event.act is Act.SPOKE and said.event.text.strip()):
            return None
    return Evidence(source="event", seen="the model's whole answer was empty: no word, no call", at_s=result.at_s)


def _uncommitted(collected: Collected) -> list[Evidence]:
    """What git has to say where the branch holds no commit: work beside it, work that was not committed."""
    counted = f"0 commits since {collected.base_sha[:12]}"
    if collected.others:
        beside = ", ".join(f"{ref} at {sha[:12]}" for ref, sha in sorted(collected.others.items()))
        counted = f"{counted} on the branch; what was made beside it is kept: {beside}"
    left = collected.leftovers
    uncommitted = [f"{left.count} changed files not committed, saved on {left.ref}"] if left else []
    return [Evidence(source="git", seen=seen) for seen in (counted, *uncommitted)]


def _last_words(transcript: Transcript) -> list[Evidence]:
    """What the agent claimed, and whether its tools had failed it."""
    result = transcript.last(Act.RESULT)
    if result is not None and result.event.ok:
        last = Evidence(source="event", seen="the agent reports success", at_s=result.at_s)
    else:
        last = _last_act(transcript)
    ended = [said for said in transcript.said if said.event.act is Act.TOOL_ENDED]
    failed = [said for said in ended if said.event.ok is False]
    if not failed and ended:
        said = f"the last of {len(ended)} tool calls said: {ended[-1].event.text or '(nothing)'}"
        return [Evidence(source="event", seen=said, at_s=ended[-1].at_s), last]
    if not failed:
        return [last]
    newest = failed[-1].event
    said = f": {newest.text}" if newest.text else ""
    seen = f"{len(failed)} of {len(ended)} tool calls failed, {newest.tool or 'a tool'} the last{said}"
    return [Evidence(source="event", seen=seen, at_s=failed[-1].at_s), last]


def claims(transcript: Transcript, commits: int) -> str | None:
    """What the agent reported of itself that git does not bear out, in our words."""
    result = transcript.last(Act.RESULT)
    if commits == 0 and result is not None and result.event.ok:
        return "it reported success; there is no commit"
    return None


def head_and_tail(transcript: Transcript) -> tuple[Evidence, ...]:
    """The first and last bytes of what was printed, for a cause nobody could name."""
    head = _text(transcript.out_head[:_SHOWN_BYTES])
    tail = _text(transcript.out_tail[-_SHOWN_BYTES:])
    errors = _text(transcript.err_tail[-_SHOWN_BYTES:])
    shown = [Evidence(source="host", seen=f"stdout, {transcript.out_bytes} bytes, begins: {head or '(empty)'}")]
    if transcript.out_bytes > _SHOWN_BYTES:
        shown.append(Evidence(source="host", seen=f"stdout ends: {tail}"))
    shown.append(Evidence(source="host", seen=f"stderr, {transcript.err_bytes} bytes, ends: {errors or '(empty)'}"))
    return tuple(shown)


def _last_act(transcript: Transcript) -> Evidence:
    if not transcript.said:
        return Evidence(source="event", seen="the harness reported no event")
    last = transcript.said[-1]
    detail = f" {last.event.tool}" if last.event.tool else ""
    return Evidence(source="event", seen=f"last event: {last.event.act}{detail}", at_s=last.at_s)


def _text(data: bytes | bytearray) -> str:
    return " ".join(data.decode("utf-8", "replace").split())
