"""From what a harness said of itself to a named failure; one order of proof for all of them.

Strongest first: the provider's own code inside the harness's error event, the
event's error word, the line the harness itself put there (it narrows a status:
a 400 is also a prompt that is too long), the HTTP status, and when nothing was
reported, how the process ended. What the model wrote is never read: only events
that a reader made from structure are looked at here.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from overnight.events import Act, AgentEvent, Exited
from overnight.failures import Evidence, Failure, FailureKind, Source, fail
from overnight.lockfile import ErrorRule
from overnight.outcome import ended_by, head_and_tail, starved
from overnight.transcript import Said, Transcript
from overnight.wire import classify, read_message

_K = FailureKind
_LINE_CHARS = 400
_NO_SPACE = re.compile(r"ENOSPC: no space left|No space left on device \(os error 28\)|database or disk is full")
"""As node, rust and SQLite word it in the agents' own errors; a command's words for it have none of the three parts."""
_PROGRESS = (Act.SPOKE, Act.TOOL_STARTED, Act.TOOL_ENDED, Act.COMMITTED)

MUTE_AFTER_S = 8.0
"""A failed try with no status that took longer than this was a wait for an answer, shorter a refusal.

Refused and reset connections fail within 1 s, request timeouts are set to 10 s
and more (2.1.330, 2026-11-22)."""


@dataclass(frozen=True)
class Dialect:
    """What one harness's words mean.

    `own_words` prove a cause by themselves; `broad_words` only when neither the
    status nor a line says more. `own_lines` are how the harness begins its error
    texts, after `preamble`; what follows may be the provider's or a proxy's words.
    `usage` finds a refused command line in plain output, `denial` the error line
    of a process that gave up because a tool was not allowed. `said_by` is how strong
    its events are: a line of plain text is less than an event with fields.
    """

    retry_event: str
    preamble: str
    own_words: Mapping[str, FailureKind]
    broad_words: Mapping[str, FailureKind]
    own_lines: Sequence[tuple[str, FailureKind]]
    usage: re.Pattern[str]
    said_by: Source = "event"
    denial: re.Pattern[str] | None = None


@dataclass(frozen=True)
class _Proof:
    kind: FailureKind
    evidence: tuple[Evidence, ...]
    remedy: str = ""


def judge(
    transcript: Transcript, rules: Sequence[ErrorRule], names: Mapping[str, str], dialect: Dialect
) -> Failure | None:
    """Name what went wrong, from a finished or a running transcript.

    A run that is still going is judged by its newest try: retries that led to an
    answer are forgiven. Tools refused on the way are no fault here, since a run
    may commit all the same.
    """
    proof = _prove(transcript, rules, dialect)
    if proof is None:
        return None
    return fail(proof.kind, *proof.evidence, names=names, remedy=proof.remedy)


def _prove(transcript: Transcript, rules: Sequence[ErrorRule], dialect: Dialect) -> _Proof | None:
    ending = transcript.ending
    if isinstance(ending, Exited) and ending.exec_error is not None:
        return _not_started(ending.exec_error)
    result = transcript.last(Act.RESULT)
    if result is not None and result.event.ok:
        return _death(transcript, dialect)
    complaint = _complaint(transcript, result)
    if complaint is not None and not (result is None and _struck(ending)):
        return _explain(complaint, transcript, rules, dialect)
    return _death(transcript, dialect)


def _not_started(exec_error: str) -> _Proof:
    seen = (Evidence(source="exit", seen=exec_error),)
    if not exec_error.startswith("exec:"):
        return _Proof(_K.HOST_UNFIT, seen)
    if "Argument list too long" in exec_error:
        return _Proof(_K.HARNESS_USAGE, seen, "shorten the instruction: one argument may hold 128 KiB on Linux")
    return _Proof(_K.HARNESS_MISSING, seen)


def _complaint(transcript: Transcript, result: Said | None) -> Said | None:
    """The newest thing the harness holds against the provider, unless an answer came after it.

    Of an error and the verdict that repeats it the error is read: its text holds
    nothing of what the model had said before.
    """
    newest = transcript.last(Act.ERROR, Act.RETRYING, *_PROGRESS)
    standing = newest if newest and newest.event.act not in _PROGRESS else None
    if result is None:
        return standing
    repeated = standing and standing.event.act is Act.ERROR and result.event.error in (None, standing.event.error)
    return standing if repeated else result


def _explain(said: Said, transcript: Transcript, rules: Sequence[ErrorRule], dialect: Dialect) -> _Proof:
    event = said.event
    shown = _shown(said, transcript, dialect)
    answer = read_message(event.status, event.text)
    found = classify(answer, rules)
    if found and found[1].source == "body":
        return _Proof(found[0], (found[1].model_copy(update={"at_s": said.at_s}), shown))
    kind = dialect.own_words.get(event.error or "") or _by_line(event, dialect)
    if event.status is None and _NO_SPACE.search(event.text):
        return _Proof(_K.DISK_FULL, (shown,))
    if kind is None and event.act is Act.RETRYING and event.status is None:
        return _by_gap(said, shown, transcript)
    kind = kind or (found[0] if found else None) or dialect.broad_words.get(event.error or "")
    if kind is None:
        return _Proof(_K.UNKNOWN, (shown, *head_and_tail(transcript)))
    return _refined(kind, said, shown, transcript)


def _refined(kind: FailureKind, said: Said, shown: Evidence, transcript: Transcript) -> _Proof:
    """Three kinds whose words are wider than their meaning."""
    if kind is _K.NOT_THE_API and any(
        s.event.act in _PROGRESS for s in takewhile(lambda s: s is not said, transcript.said)
    ):
        earlier = Evidence(source="event", seen="the model had answered earlier in this run, so the URL is right")
        return _Proof(_K.PROVIDER_ERROR, (shown, earlier))
    if kind is _K.MODEL_UNKNOWN and said.event.status == 404:
        also = Evidence(source="http", seen="a 404 is also what a wrong path in the base URL gives")
        return _Proof(kind, (shown, also))
    if kind is _K.HARNESS_USAGE and "URL" in said.event.text:
        return _Proof(kind, (shown,), "check the base URL in the lock")
    return _Proof(kind, (shown,))


def _by_line(event: AgentEvent, dialect: Dialect) -> FailureKind | None:
    line = event.text.removeprefix(dialect.preamble)
    return next((kind for words, kind in dialect.own_lines if line.startswith(words)), None)


def _by_gap(said: Said, shown: Evidence, transcript: Transcript) -> _Proof:
    """A try that failed without a status: how long it took tells a refusal from a wait without answer."""
    waited = said.at_s - _try_began(said, transcript)
    kind = _K.PROVIDER_MUTE if waited >= MUTE_AFTER_S else _K.NETWORK
    clock = Evidence(source="clock", seen=f"the try failed {waited:.1f} s after it began, without an HTTP status")
    return _Proof(kind, (shown, clock.model_copy(update={"at_s": said.at_s})))


def _try_began(said: Said, transcript: Transcript) -> float:
    """When the request that failed was sent, as near as the events tell."""
    began = transcript.init.at_s if transcript.init else 0.0
    for earlier in transcript.said:
        if earlier is said:
            break
        began = earlier.at_s + (earlier.event.delay_s or 0.0)
    return began


def _struck(ending: object) -> bool:
    """Whether it was ended in the middle of a complaint for want of memory: the complaint is not why it ended."""
    return isinstance(ending, Exited) and ending.oom_kills_own > 0 and ended_by(ending) == signal.SIGKILL


def _death(transcript: Transcript, dialect: Dialect) -> _Proof | None:
    """What the way the process ended proves by itself; None for an ending of our own making."""
    ending = transcript.ending
    if not isinstance(ending, Exited):
        return None
    result = transcript.last(Act.RESULT)
    how = Evidence(source="exit", seen=_exit(ending, verdict_given=result is not None), at_s=ending.seconds)
    if result is not None and ending.signal is None and ending.code in (0, 1):
        return None
    if full := _full(transcript) if ending.code else None:
        return _Proof(_K.DISK_FULL, (full, how, *head_and_tail(transcript)))
    if denial := _line(transcript.err_tail, dialect.denial, "stderr") if dialect.denial else None:
        return _Proof(_K.PERMISSION_DENIED, (denial, how))
    if refusal := _refusal(transcript, dialect) if ending.code else None:
        return _Proof(_K.HARNESS_USAGE, (how, refusal))
    if (want := starved(ending)) is not None:
        return _Proof(want[0], (want[1], how, *head_and_tail(transcript)))
    return _Proof(_K.HARNESS_CRASHED, (how, *head_and_tail(transcript)))


def _full(transcript: Transcript) -> Evidence | None:
    """The line in which a harness that died told of a full disk; on standard output only before any event."""
    out = b"" if transcript.said else transcript.out_head
    return _line(transcript.err_tail, _NO_SPACE, "stderr") or _line(out, _NO_SPACE, "stdout")


def _line(text: bytes | bytearray, pattern: re.Pattern[str], where: str) -> Evidence | None:
    """The first line of plain output in which a pattern is found."""
    for line in text.decode(errors="replace").splitlines():
        if pattern.search(line.strip()):
            return Evidence(source="stderr", seen=_one_line(line), where=where)
    return None


def _refusal(transcript: Transcript, dialect: Dialect) -> Evidence | None:
    """The line with which the harness refused its command line, if it never got as far as an event."""
    if transcript.said:
        return None
    err, out = transcript.err_tail, transcript.out_head
    return _line(err, dialect.usage, "stderr") or _line(out, dialect.usage, "stdout")


def _exit(ending: Exited, *, verdict_given: bool) -> str:
    number = ended_by(ending)
    by = f"signal {_signal_name(number)}" if number else ""
    how = f"exit code {ending.code}" if ending.code is not None else ""
    ended = " by ".join(part for part in (how or "ended", by) if part)
    return f"{ended}{'' if verdict_given else ' before a result was given'}"


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _shown(said: Said, transcript: Transcript, dialect: Dialect) -> Evidence:
    event = said.event
    if event.act is Act.RETRYING:
        first = transcript.first(Act.RETRYING) or said
        why = f"{event.status} {event.error}" if event.status else f"{event.error}, no HTTP status"
        since = f", tries since {first.at_s:.1f} s" if first is not said else ""
        attempt = event.attempt or "?"
        seen = f"{dialect.retry_event} attempt {attempt}: {why}{since}"
        return Evidence(source=dialect.said_by, seen=seen, at_s=said.at_s)
    parts = [str(part) for part in (event.status, event.error) if part]
    head = " ".join(parts) or ("error" if event.act is Act.ERROR else "result: failed")
    text = f": {_one_line(event.text)}" if event.text else ""
    return Evidence(source=dialect.said_by, seen=f"{head}{text}", at_s=said.at_s)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LINE_CHARS]
